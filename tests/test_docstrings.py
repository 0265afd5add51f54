"""The examples in docstrings: each one runs and gives what it says, unless it would take minutes."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import ruleforge

PACKAGE = Path(ruleforge.__file__).parent


def modules_with_examples() -> list[str]:
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
        if any(">>> " in row and "+SKIP" not in row for row in path.read_text(encoding="utf-8").splitlines())
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_say(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried, "the module shows an example that doctest does not find"
    assert not failed


def test_some_modules_have_examples() -> None:
    assert "ruleforge.core.known" in modules_with_examples()
