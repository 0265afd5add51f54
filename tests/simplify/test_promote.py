"""Typed constants as hyperparameters: which, under what name, in what range; and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from ruleforge.core import expr as ex
from ruleforge.core.format import name_rule
from ruleforge.core.known import KNOWN
from ruleforge.core.rule import MAX_HYPERS, Rule
from ruleforge.core.text import RuleText, parse
from ruleforge.simplify import promote_constants
from ruleforge.simplify.streams import make_streams
from ruleforge.simplify.trajectories import run_rule
from ruleforge.simplify.view import View


def hypers(text: str) -> dict[str, tuple[float, float, float, str]]:
    made = promote_constants(parse(text))
    return {
        name: (h.low, h.high, h.default, h.scale)
        for name, h in zip(made.hypers, made.rule.hypers, strict=True)
    }


def with_typed_constants(known: RuleText) -> Rule:
    """A known rule with its hyperparameters written in."""
    view = View.of(known.rule)
    swap = {ex.hyper(i): ex.const(h.default) for i, h in enumerate(known.rule.hypers)}
    return view.swapped(swap).rule


def test_adam_gets_its_hypers_back() -> None:
    assert hypers("update = ema_hat(g, 0.9) / (sqrt(ema_hat(g * g, 0.999)) + 1e-8)") == {
        "beta1": (0, 1, 0.9, "one_minus_log"),
        "beta2": (0, 1, 0.999, "one_minus_log"),
        "eps": (0, 1, 1e-8, "log"),
    }


def test_lion_gets_its_hypers_back() -> None:
    made = promote_constants(parse("m: state = 0\nupdate = sign(lerp(g, m, 0.9))\nm = lerp(g, m, 0.99)"))
    assert made.rule.key == KNOWN["lion"].rule.rule.key
    assert made.rule.full_key == KNOWN["lion"].rule.rule.full_key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("update = clip(g, -0.3, 0.3)", {"c": (0, 10, 0.3, "log")}),
        ("update = g * 25 + w", {"c": (0, 1000, 25, "log")}),
        ("update = g * -0.3 + w", {"c": (-10, 0, -0.3, "linear")}),
        ("update = trace(g, 0.05)", {"beta": (0, 1, 0.05, "log")}),
        ("update = trace(g, 0.4)", {"beta": (0, 1, 0.4, "linear")}),
        ("update = g * (1 - 0.95 ** t)", {"beta": (0, 1, 0.95, "one_minus_log")}),
        ("update = g / maximum(abs(g), 1e-6)", {"eps": (0, 1, 1e-6, "log")}),
        ("update = 1e-5 * w + g", {"c": (0, 1e-4, 1e-5, "log")}),
    ],
)
def test_roles_names_and_ranges(text: str, expected: dict[str, tuple[float, ...]]) -> None:
    found = hypers(text)
    assert found.keys() == expected.keys()
    for name, (low, high, default, scale) in expected.items():
        assert found[name] == (pytest.approx(low), pytest.approx(high), default, scale)


@pytest.mark.parametrize(
    "text",
    ["update = g", "update = 2 * g + w", "update = abs(g) ** 1.5", "update = 0.5 * g", "update = 0 - g"],
)
def test_what_belongs_to_the_formula_stays(text: str) -> None:
    given = parse(text)
    assert promote_constants(given) is given


def test_equal_constants_in_equal_roles_are_one_and_in_other_roles_two() -> None:
    assert len(hypers("update = ema(g, 0.9) * ema(g * g, 0.9)")) == 1
    assert {key[:1] for key in hypers("update = ema(g, 0.9) + 0.9 * w")} == {"b", "c"}


def test_known_names_stay_and_no_name_is_taken_twice() -> None:
    found = hypers(
        "beta: hyper(0, 1) = 0.7\nc: state = 0.5\nc = c * 0.3\nupdate = ema(g, beta) * trace(g, 0.9) * c"
    )
    assert found["beta"] == (0, 1, 0.7, "linear")
    assert sorted(value[2] for value in found.values()) == [0.3, 0.7, 0.9]


def test_there_are_never_too_many() -> None:
    text = " + ".join(f"ema(sin({n}.25 * g), 0.9{n})" for n in range(9, 20))
    found = hypers(f"update = {text}")
    assert len(found) == MAX_HYPERS
    assert sum(name.startswith("beta") for name in found) == 11  # averages first


@pytest.mark.parametrize(
    "name", ["adam", "lion", "rmsprop", "adabelief", "radam", "nadam_simple", "qhadam", "signum"]
)
def test_the_rule_is_the_same_bit_for_bit_at_its_defaults(name: str) -> None:
    typed = with_typed_constants(KNOWN[name].rule)
    assert not typed.canonical.hypers
    made = promote_constants(name_rule(typed))
    assert made.hypers
    streams = make_streams(3, shaped=False)
    before = run_rule(typed, (), streams)
    after = run_rule(made.rule, made.rule.defaults, streams)
    np.testing.assert_array_equal(before, after)
    assert parse(str(made)) == made
