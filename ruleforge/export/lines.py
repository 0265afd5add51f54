"""Lines of Python as ruff and black lay them out.

Knows layout alone: what a line says is written elsewhere. Where a line is too long, the layout is
one that no formatter changes, whatever its line length.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

WIDTH = 88


def wrapped(line: str, width: int) -> list[str]:
    """A statement of ours on one line where it fits; a longer call takes one line an argument."""
    if len(line) <= width:
        return [line]
    statement = ast.parse(line).body[0]
    call = statement.value if isinstance(statement, ast.Assign | ast.Expr) else None
    if isinstance(call, ast.Subscript):
        call = call.value
    if not isinstance(call, ast.Call) or not (call.args or call.keywords):
        return [line]
    given: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
    head, tail = line[: given[0].col_offset], line[given[-1].end_col_offset :]
    args = [ast.get_source_segment(line, arg) or "" for arg in given]
    inner = [part for arg in args for part in _with_comma(wrapped(arg, width - 4))]
    return [head, *(f"    {part}" for part in inner), tail]


def float_literal(value: float) -> str:
    """A float that reads as one: 1.0, not 1."""
    return repr(value).replace("e+", "e")


def _with_comma(lines: list[str]) -> list[str]:
    return [*lines[:-1], f"{lines[-1]},"]


def indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]
