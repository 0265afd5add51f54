"""The command line: `ruleforge COMMAND …`.

Knows which commands there are, and is the one place where an error becomes a message and an exit code:
0 done, 1 it ran and failed, 2 the input is at fault, 130 interrupted. What a command does is in
`commands/`; torch and the other heavy libraries are imported there, inside the functions.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ruleforge import __version__
from ruleforge.app.commands import (
    catalogue,
    checking,
    comparing,
    doctoring,
    explaining,
    files,
    identifying,
    runs,
    searching,
    showing,
    transforming,
    verifying,
)
from ruleforge.app.display import print_error, remark
from ruleforge.errors import InputError, RuleforgeError, RunError

INTERRUPTED = 130


class Commands(click.Group):
    """A group whose errors all end here, however deep they arose."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "ruleforge",
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command and leave the process with its exit code; never returns."""
        given = list(sys.argv[1:] if args is None else args)
        as_json, debug = "--json" in given, "--debug" in given
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except Exception as error:
            if debug:
                remark(traceback.format_exc())
            fault = as_fault(error)
            print_error(fault, as_json=as_json)
            code = INTERRUPTED if isinstance(error, click.Abort) else fault.exit_code
        sys.exit(code if isinstance(code, int) else 0)


def as_fault(error: Exception) -> RuleforgeError:
    """Any exception as an error with a message for people; the exit code goes with its class."""
    if isinstance(error, RuleforgeError):
        return error
    if isinstance(error, click.Abort):  # what click makes of Ctrl-C
        return RunError("interrupted")
    if isinstance(error, click.UsageError):
        context = error.ctx
        hint = f"try: {context.command_path} --help" if context is not None else ""
        return InputError(error.format_message(), hint=hint)
    if isinstance(error, click.ClickException):
        return InputError(error.format_message())
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return InputError("no file can have so long a name", file=str(error.filename), hint="shorten it")
    if isinstance(error, OSError):
        return RunError(
            error.strerror or str(error),
            file=str(error.filename) if error.filename else None,
            hint="check the file, its folder and the free space",
        )
    first = str(error).strip().split("\n")[0][:300]
    return RunError(
        f"internal error: {type(error).__name__}{f': {first}' if first else ''}",
        hint="please report it, with what `ruleforge --debug …` prints for the same command",
    )


@click.group(
    "ruleforge",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ruleforge")
@click.option("--debug", is_flag=True, help="Show where an error arose.")
def cli(debug: bool) -> None:
    """Search for update rules of neural networks, and use what was found.

    A TARGET is a known rule's name (lion), a .rule file, a run folder (its champion), or RUN:ID.
    """


for _module in (
    searching, runs, checking, showing, explaining, identifying, transforming, verifying, comparing, files,
    catalogue, doctoring,
):  # fmt: skip
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main() -> NoReturn:
    """What the installed `ruleforge` script calls."""
    cli.main()


if __name__ == "__main__":
    main()
