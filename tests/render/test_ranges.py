"""What is said of a host number's range holds for every value that it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import CORE, OPS
from ruleforge.core.rule import Hyper
from ruleforge.core.text import RuleText
from ruleforge.render.ranges import ANY, Range, host_ranges

HYPERS = (Hyper(0, 1, 0.9), Hyper(-2, 3, 0.5))
HOST_OPS = [name for name in CORE if OPS[name].kind == "elementwise"]
LEAVES: list[Expr] = [
    ex.hyper(0),
    ex.hyper(1),
    *(ex.leaf(name) for name in ("t", "first", "lr", "progress")),
    *(ex.const(v) for v in (0.0, 1.0, -1.0, 2.0, 0.5, 1e300)),
]


@st.composite
def host_expressions(draw: st.DrawFn, depth: int = 3) -> Expr:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(LEAVES))
    op = draw(st.sampled_from(HOST_OPS))
    return ex.node(op, *(draw(host_expressions(depth - 1)) for _ in range(OPS[op].arity)))


@st.composite
def environments(draw: st.DrawFn) -> dict[Expr, float]:
    inside = st.floats(math.nextafter(0, 1), math.nextafter(1, 0))
    t = draw(st.sampled_from([1, 2, 3, 100, 10**6]))
    return {
        ex.hyper(0): draw(inside),
        ex.hyper(1): draw(st.floats(math.nextafter(-2, 0), math.nextafter(3, 0))),
        ex.leaf("t"): float(t),
        ex.leaf("first"): float(t == 1),
        ex.leaf("lr"): draw(st.floats(0, 100)),
        ex.leaf("progress"): draw(st.floats(2.0**-53, 1)),
    }


@given(host_expressions(), environments())
def test_values_lie_in_their_range(item: Expr, values: dict[Expr, float]) -> None:
    found: dict[Expr, float] = {}
    ranges = host_ranges([item], HYPERS)
    with np.errstate(all="ignore"):
        for part in ex.walk([item]):
            if part.op == "const":
                found[part] = part.number
            elif not part.args:
                found[part] = values[part]
            else:
                meaning = OPS[part.op].meaning
                assert meaning is not None
                found[part] = float(meaning(*(np.float64(found[arg]) for arg in part.args)))
            if math.isnan(found[part]):
                assert ranges[part].may_be_nan, part
            else:
                assert found[part] in ranges[part], (part, found[part], ranges[part])


def of(text: str) -> Range:
    rule = RuleText.parse(f"beta: hyper(0, 1) = 0.9\nx = {text}\nupdate = x * g").rule
    return host_ranges([rule.update], rule.hypers)[rule.update.args[0]]


@pytest.mark.parametrize(
    "text", ["1 - beta", "1 - beta ** t", "1 - beta ** (t + 1)", "sqrt(1 - beta ** t)", "t + 1"]
)
def test_denominators_that_are_never_zero(text: str) -> None:
    assert 0.0 not in of(text)
    assert of(text).is_finite


@pytest.mark.parametrize(
    "text",
    ["1 - beta ** (t - 1)", "t - 1", "1 / (t - 1)", "log(beta - 0.5)", "exp(t)", "beta ** -t", "first"],
)
def test_what_may_be_zero_or_worse(text: str) -> None:
    found = of(text)
    assert 0.0 in found or not found.is_finite


def test_states_are_unknown() -> None:
    assert host_ranges([ex.state(0), ex.node("add", ex.state(0), ex.const(1))], ())[ex.state(0)] == ANY
