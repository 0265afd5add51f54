"""Every promise of docs/reliability.md has a test, and every test that the page names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
# `tests/file.py`, `tests/file.py::test_name`, `::test_name` of the file before, `test_name` of the table's.
_NAMED = re.compile(r"`(tests/[\w/]+\.py)?(?:(::)?(test_\w+))?`")


def rows(text: str) -> Iterator[tuple[int, str, list[tuple[str, str]]]]:
    """Line number, first cell, and (file, test) of each row of a table; a row "the same" has those before it.

    Outside tables, each line that names a test counts as one.
    """
    of_table = last = ""
    before: list[tuple[str, str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if set(line) <= set("|- "):
            continue
        is_row = line.startswith("|")
        is_header = is_row and number < len(lines) and set(lines[number]) == set("|-")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found: list[tuple[str, str]] = []
        for file, colons, name in _NAMED.findall(cells[-1] if is_row else line):
            if not file and not name:
                continue
            last = file or last
            found.append((last if file or colons else of_table, name))
        if is_header:
            of_table = found[0][0] if found else ""
        elif is_row:
            before = before if cells[-1] == "the same" else found
            yield number, cells[0], before
        elif found:
            yield number, line, found


@cache
def names_in(file: str) -> frozenset[str]:
    """The tests that pytest collects of a file."""
    path = ROOT / file
    if not path.is_file() or not path.name.startswith("test_"):
        return frozenset()
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test") else [node]
        found |= {each.name for each in inside if isinstance(each, ast.FunctionDef)}
    return frozenset(name for name in found if name.startswith("test_"))


def faults(text: str) -> list[str]:
    """Promises without a test, and tests that are not there."""
    wrong: list[str] = []
    for number, promise, named in rows(text):
        if not named:
            wrong.append(f"line {number}: no test for {promise!r}")
        for file, name in named:
            if not names_in(file):
                wrong.append(f"line {number}: no tests in {file!r}")
            elif name and name not in names_in(file):
                wrong.append(f"line {number}: no test {name!r} in {file!r}")
    return wrong


def test_every_promise_names_tests_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert faults(text) == []
    assert len(list(rows(text))) >= 45
    assert len({each for _, _, named in rows(text) for each in named}) >= 35


HERE = "tests/test_promises.py"
NAME = "test_every_promise_names_tests_that_exist"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f"| a | `{HERE}::{NAME}` |", None),
        (f"| a | `{HERE}::{NAME}`, `::{NAME}` |", None),
        (f"| a | `{NAME}` |", None),
        ("| a | `make chaos` |", "no test for"),
        (f"| a | `{HERE}::test_gone` |", "no test 'test_gone'"),
        (f"| a | `{HERE}`, `::test_gone` |", "no test 'test_gone'"),
        ("| a | `test_gone` |", "no test 'test_gone'"),
        ("| a | `tests/test_gone.py` |", "no tests in"),
        ("| a | `tests/conftest.py` |", "no tests in"),
    ],
)
def test_what_is_missing_is_seen(row: str, said: str | None) -> None:
    found = faults(f"| what | test in `{HERE}` |\n|---|---|\n{row}\n| b | the same |\n")
    if said is None:
        assert found == []
    else:
        assert len(found) == 2 and all(said in each for each in found)
