"""How results reach a reader: tables and JSON on stdout, errors and remarks on stderr.

Knows rich and the width of terminals. Does not know what the numbers mean. A cell is never cut: it
wraps on a terminal, and stays on one line in a pipe. Nothing that comes from a file is read as markup
or reaches the terminal as an escape sequence.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import click

from ruleforge.app.plain import clean
from ruleforge.errors import RuleforgeError

_PIPE_WIDTH = 100_000


def print_json(value: Any) -> None:
    """One JSON document on stdout; characters beyond ASCII are escaped, so terminals are safe."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def say(text: str = "") -> None:
    """Text on stdout, made safe."""
    click.echo(clean(text))


def remark(text: str) -> None:
    """Text on stderr, made safe: what a reader should know and no result is."""
    click.echo(clean(text), err=True)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    right: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """A table; cells become text as they are.

    Args:
        columns: headings.
        rows: cells, one per column.
        title: a line above.
        right: columns that hold numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = stream if stream is not None else sys.stdout
    is_terminal = stream.isatty()
    console = Console(file=stream, highlight=False, width=None if is_terminal else _PIPE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(Text(name), overflow="fold", justify="right" if name in right else "left")
    for row in rows:
        table.add_row(*(Text(clean(str(cell))) for cell in row))
    if title:
        click.echo(clean(title), file=stream)
    if not is_terminal:
        with console.capture() as capture:
            console.print(table)
        click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()), file=stream)
    else:
        console.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Name and value pairs, one a line, values aligned."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        first, *rest = clean(str(value)).split("\n")
        click.echo(f"{clean(name):<{width}}  {first}")
        for line in rest:
            click.echo(f"{'':<{width}}  {line}")


def indented(text: str, by: str = "    ") -> str:
    """The text with each line moved in."""
    return "\n".join(f"{by}{line}" if line else "" for line in text.rstrip("\n").split("\n"))


def print_error(error: RuleforgeError, *, as_json: bool) -> None:
    """The one message of a failed command: on stderr, and under --json as a record on stdout."""
    if as_json:
        record = error.as_json()
        record["error"] = clean(record["error"])
        print_json(record)
    remark(f"error: {error}")
