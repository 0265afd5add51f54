"""The sympy file builds what `to_sympy` builds, with names of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from sympy.core.function import AppliedUndef

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText, parse
from ruleforge.errors import ExportError
from ruleforge.export import export
from ruleforge.render.sympy import to_sympy
from ruleforge.testing import rule_texts


def built(text: RuleText) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(export(text, "sympy"), "exported.py", "exec"), names)  # our printer's own file
    return names


def value_at(expression: Any, values: dict[str, int]) -> complex:
    """An expression at a point, with a stand-in for functions that sympy does not define."""
    point = expression.xreplace({s: sp.Rational(values[s.name], 16) for s in expression.free_symbols})
    point = point.replace(lambda e: isinstance(e, AppliedUndef), lambda e: sum(abs(x) for x in e.args) + 1)
    return complex(point.evalf(20))


def same(a: Any, b: Any) -> bool:
    """Equal as they stand, or at points; sympy may order what it builds again another way."""
    if a == b:
        return True
    names = sorted({s.name for s in a.free_symbols | b.free_symbols})
    for first in (3, 7, 11):
        values = {name: first + 2 * k for k, name in enumerate(names)}
        try:
            pair = value_at(a, values), value_at(b, values)
        except (TypeError, ValueError, OverflowError):  # no number there, in either
            continue
        if not np.allclose(*pair, rtol=1e-9, equal_nan=True):
            return False
    return True


def holds(text: RuleText) -> None:
    form, names = to_sympy(text), built(text)
    assert same(form.update, names["update"])
    for mine, theirs in ((form.states, names["next_states"]), (form.inits, names["initial_states"])):
        assert list(mine) == list(theirs)
        assert all(same(sp.sympify(mine[name]), sp.sympify(theirs[name])) for name in mine)
    assert {symbol.name for symbol in names["defaults"]} <= set(text.hypers)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_known_rule_comes_back_as_the_same_expressions(name: str) -> None:
    holds(KNOWN[name].rule)


@settings(max_examples=60, deadline=None)
@given(rule_texts())
def test_a_random_rule_comes_back_as_the_same_expressions(text: RuleText) -> None:
    try:
        holds(text)
    except ExportError as error:
        assert "shared parts" in error.message or "sympy cannot hold it" in error.message


def test_names_of_sympy_and_python_can_be_names_of_a_rule() -> None:
    text = parse(
        "S: hyper(0, 1) = 0.3\nMax: state = 0\nMax = maximum(Max, g * S / 7)\nupdate = Max + 1 / 3\n"
    )
    names = built(text)
    assert str(names["update"]) == "Max(Max, S*g/7) + 1/3"
    assert [str(key) for key in names["defaults"]] == ["S"]


def test_a_rule_that_doubles_itself_is_refused_and_not_written_out() -> None:
    lines = "\n".join(f"x{k + 1} = x{k} * x{k} + sin(x{k})" for k in range(12))
    with pytest.raises(ExportError, match="shared parts are spelled out"):
        export(parse(f"x0 = g + 1\n{lines}\nupdate = x12\n"), "sympy")
