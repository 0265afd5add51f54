"""sympy expressions mean what the rule means, wherever real numbers and floats agree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import CORE, OPS
from ruleforge.core.program import compile_rule
from ruleforge.core.text import RuleText
from ruleforge.render.sympy import to_sympy

VALUES = (0.25, 0.75, 1.5, -0.5)


@pytest.mark.parametrize("op", [name for name in CORE if OPS[name].kind == "elementwise"])
def test_every_op(op: str) -> None:
    row = OPS[op]
    names = ("g", "w", "lr")[: row.arity]
    form = to_sympy(RuleText.parse(f"update = {op}({', '.join(names)})"))
    for point in itertools.product(VALUES, repeat=row.arity):
        if row.arity == 3 and point[2] <= 0:
            continue
        assert row.meaning is not None
        with np.errstate(all="ignore"):
            expected = float(row.meaning(*map(np.float64, point)))
        if math.isfinite(expected):
            values = {form.symbols[n]: v for n, v in zip(names, point, strict=True) if n in form.symbols}
            assert abs(complex(form.update.subs(values)) - expected) < 1e-12, point


@pytest.mark.parametrize("op", [name for name in CORE if OPS[name].kind != "elementwise"])
def test_reductions_stay_functions(op: str) -> None:
    args = ", ".join(("g", "w")[: OPS[op].arity])
    assert str(to_sympy(RuleText.parse(f"update = {op}({args})")).update) == f"{op}({args})"


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adagrad", "rmsprop", "lion", "adadelta", "signum", "yogi"]
)
def test_known_rules(name: str) -> None:
    text = KNOWN[name].rule
    form = to_sympy(text)
    program = compile_rule(text.rule)
    state = reference.init_state(
        program, [np.array([0.5])], StepContext(t=0, hypers=text.rule.canonical.defaults)
    )
    ctx = StepContext(t=1, lr=0.01, lr0=0.01, hypers=text.rule.canonical.defaults)
    (update,), after = reference.update(program, state, [np.array([0.7])], [np.array([0.5])], ctx)
    values = {
        form.symbols[n]: v for n, v in zip(text.hypers, text.rule.defaults, strict=True) if n in form.symbols
    }
    values |= {form.symbols[n]: float(v) for n, v in form.inits.items() if n in form.symbols}
    values |= {
        form.symbols[n]: v for n, v in {"g": 0.7, "w": 0.5, "t": 1, "lr": 0.01}.items() if n in form.symbols
    }
    assert math.isclose(float(form.update.subs(values)), float(update[0]), rel_tol=1e-12)
    found = sorted(float(value.subs(values)) for value in form.states.values())
    expected = sorted(float(v[0]) for v in after.tensor[0])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_known_rule_has_a_form(name: str) -> None:
    form = to_sympy(KNOWN[name].rule)
    assert {s.name for s in form.update.free_symbols} <= set(form.symbols)
    assert "g" in form.symbols


def test_numbers_are_exact() -> None:
    import sympy as sp

    form = to_sympy(RuleText.parse("update = g * 0.1 + 1e-8 * w"))
    assert form.update.coeff(form.symbols["g"]) == sp.Rational(1, 10)
    assert float(form.update.coeff(form.symbols["w"])) == 1e-8


def test_symbols_say_what_is_known() -> None:
    form = to_sympy(KNOWN["adam"].rule)
    assert form.symbols["beta1"].is_positive
    assert form.symbols["t"].is_positive
    assert form.symbols["g"].is_real
    assert form.symbols["g"].is_positive is None


def test_states_are_named_as_in_formulas() -> None:
    adam = to_sympy(KNOWN["adam"].rule)
    assert {name: str(value) for name, value in adam.states.items()} == {
        "m": "beta1*m + g*(1 - beta1)",
        "v": "beta2*v + g**2*(1 - beta2)",
    }
    assert list(to_sympy(RuleText.parse("m: hyper(0, 1) = 0.5\nupdate = ema(g, m)")).states) != ["m"]


def test_states_do_not_take_a_name_that_is_used() -> None:
    form = to_sympy(
        RuleText.parse("s0: hyper(0, 1) = 0.5\ns1: state = 1\ns1 = s1 * s0\nupdate = s1 * trace(g, s0)")
    )
    assert len(form.states) == 2
    assert len({s.name for s in form.update.free_symbols}) == len(form.update.free_symbols)


def test_nameless_rules() -> None:
    assert to_sympy(KNOWN["lion"].rule.rule).update.func.__name__ == "sign"
