"""The tree of errors that ruleforge raises on purpose.

    RuleforgeError
    ├── InputError            the input is at fault: exit code 2
    │   ├── RuleTextError     rule text, with line, column and caret
    │   ├── RuleError         a rule graph that breaks a law (kinds, limits, no update)
    │   ├── GrammarError      a grammar file, or one that can generate no rule
    │   ├── ConfigError       a search config
    │   ├── TaskError         a task or workload that cannot be used
    │   ├── StoreError        a run folder that is not one, or cannot be read or written
    │   └── ExportError       an export that is refused
    └── RunError              the input was fine, the work failed: exit code 1

A message says what was given, what was expected, and the next thing to try. A candidate that
diverges is a recorded result and never one of these.
"""

from __future__ import annotations

from typing import Any


class RuleforgeError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: one line that says what was given and what was expected.
        file: the file at fault, if any.
        line: 1-based line in it.
        column: 1-based column in it.
        hint: the next thing to try.
        context: source lines with a caret, shown beneath the message.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str = "",
        context: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        where = ", ".join(
            part
            for part in (
                self.file or "",
                f"line {self.line}" if self.line else "",
                f"column {self.column}" if self.line and self.column else "",
            )
            if part
        )
        head = f"{where}: {self.message}" if where else self.message
        return "\n".join(part for part in (head, self.context, self.hint) if part)

    def as_json(self) -> dict[str, Any]:
        """The error as the record that every command prints under `--json`."""
        return {
            "error": self.message,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "hint": self.hint,
        }


class InputError(RuleforgeError):
    """The input is at fault."""

    exit_code = 2


class RuleTextError(InputError):
    """Rule text that cannot be read."""


class RuleError(InputError):
    """A rule graph that breaks a law of the language."""


class GrammarError(InputError):
    """A grammar file that cannot be used."""


class ConfigError(InputError):
    """A search config that cannot be used."""


class TaskError(InputError):
    """A task or workload that cannot be used."""


class StoreError(InputError):
    """A run folder that is not one, or that cannot be read or written."""


class ExportError(InputError):
    """An export that is refused."""


class RunError(RuleforgeError):
    """The input was fine and the work failed."""
