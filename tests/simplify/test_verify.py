"""The equivalence checker: what it calls equal, what it does not, and how it says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Rule
from ruleforge.errors import InputError
from ruleforge.simplify import verify
from ruleforge.simplify.streams import make_streams
from ruleforge.simplify.trajectories import elements_meet, hyper_settings, run_rule
from ruleforge.simplify.verify import Checker
from tests.simplify.material import disagreement

EQUAL = [
    ("sign(ema_hat(g, 0.9))", "sign(ema(g, 0.9))"),
    ("ema(g, 0.9) / sqrt(square(ema(g, 0.9)))", "sign(ema(g, 0.9))"),
    ("0.1 * g + 0.9 * ema(g, 0.99)", "lerp(g, ema(g, 0.99), 0.9)"),
    ("sign(0.5 * g + 0.5 * prev(g))", "sign(lerp(g, prev(g), 0.5))"),
    ("sqrt(g * g)", "abs(g)"),
    ("g - g + w", "w"),
    ("ema(ema(g, 0.9), 0.5)", "ema(ema(g, 0.5), 0.9)"),
    ("g / norm(g)", "2 * g / norm(2 * g)"),
    ("where(g > 0, g, -g)", "abs(g)"),
    ("orthogonalize(g)", "orthogonalize(g * 1)"),
]
DIFFERENT = [
    ("g", "g * (1 + 1e-8)"),
    ("g", "-g"),
    ("g", "g + 1e-9"),
    ("sign(g)", "tanh(1e12 * g)"),
    ("ema(g, 0.9)", "ema(g, 0.9000001)"),
    ("ema(g, 0.9)", "ema_hat(g, 0.9)"),
    ("trace(g, 0.9)", "ema(g, 0.9)"),
    ("g / (sqrt(ema(g * g, 0.99)) + 1e-8)", "g / sqrt(ema(g * g, 0.99))"),
    ("g / norm(g)", "g / rms(g)"),
    ("mean(g) * g", "rms(g) * g"),
    ("where(is_matrix, g, w)", "g"),
    ("minimum(g, 10)", "g"),
    ("g * lr", "g * lr0"),
    ("g * progress", "g"),
    ("max_abs(g) + 0 * g", "norm(g) + 0 * g"),
]


def rule(expression: str) -> Rule:
    return Rule.parse(f"update = {expression}")


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal_rules_are_found_equal(a: str, b: str) -> None:
    verdict = verify(rule(a), rule(b))
    assert verdict.holds, verdict
    assert verdict and verdict.counter_example is None and verdict.reason == ""
    assert verdict.max_error < 1e-9


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_rules_give_a_counter_example(a: str, b: str) -> None:
    verdict = verify(rule(a), rule(b))
    assert not verdict
    example = verdict.counter_example
    assert example is not None and example.first != example.second
    assert example.stream in str(example) and f"step {example.step}" in str(example)
    assert "differ" in verdict.reason


def test_the_counter_example_is_a_point_of_the_streams() -> None:
    a, b = rule("ema(g, 0.9)"), rule("trace(g, 0.9)")
    example = verify(a, b, seed=5).counter_example
    assert example is not None
    streams = make_streams(5, shaped=False)
    flat = [name for names in streams.names for name in names]
    at = flat.index(example.stream) + example.element
    assert run_rule(a, (), streams)[example.step - 1, at] == example.first
    assert run_rule(b, (), streams)[example.step - 1, at] == example.second


def test_scale_is_one_positive_factor() -> None:
    verdict = verify(rule("trace(g, 0.9)"), rule("ema(g, 0.9)"), relation="scale")
    assert verdict.holds
    assert verdict.scale == pytest.approx(0.1)
    assert verify(rule("norm(g) * g"), rule("3 * norm(g) * g"), relation="scale").scale == pytest.approx(3)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ("g", "-g", "no positive factor"),
        ("g", "g / (1 - 0.9 ** t)", "differ"),
        ("g", "g * abs(g)", "differ"),
        ("g", "0 * g", "no positive factor"),
        ("g * lr", "2 * g * lr", "reads lr"),
        ("g", "g * lr0", "reads lr"),
    ],
)
def test_scale_is_refused(a: str, b: str, reason: str) -> None:
    verdict = verify(rule(a), rule(b), relation="scale")
    assert not verdict.holds
    assert reason in verdict.reason


def test_scale_of_a_rule_that_never_moves_is_one() -> None:
    verdict = verify(rule("0 * g"), rule("g - g"), relation="scale")
    assert verdict.holds and verdict.scale == 1.0


def test_points_at_a_discontinuity_are_excused_but_only_a_few() -> None:
    few = verify(rule("sign((0.1 * g + 0.9 * prev(g)) / 3)"), rule("sign(0.1 * g + 0.9 * prev(g))"))
    assert few.holds and few.excused < 0.01 * few.compared
    # (g + w) - w holds no digit of a tiny g: what comes out is rounding, and much of it
    many = verify(rule("sign(g + w - w)"), rule("sign(g)"))
    assert not many.holds


def test_a_rule_that_is_all_rounding_is_not_equal_to_everything() -> None:
    noise = rule("(g + 1e30) - 1e30")
    assert not verify(noise, rule("g * 3"))
    assert not verify(rule("g"), noise)
    assert not verify(rule("g + ((g + 1e25) - 1e25)"), rule("7 * g"))


def test_a_rule_that_diverges_cannot_be_compared() -> None:
    nowhere = rule("log(-1 - abs(g))")
    for other in (nowhere, rule("g")):
        verdict = verify(nowhere, other)
        assert not verdict.holds
        assert "finite at only 0 %" in verdict.reason
    assert not verify(rule("g"), nowhere).holds


def test_where_the_first_rule_is_not_finite_the_second_is_free() -> None:
    assert verify(rule("g / abs(g)"), rule("sign(g)"))
    assert not verify(rule("sign(g)"), rule("g / abs(g)"))


def test_hypers_vary_too() -> None:
    a = Rule.parse("c: hyper(0, 1) = 0.5\nupdate = c * g + (1 - c) * g * 2 * c")
    b = Rule.parse("c: hyper(0, 1) = 0.5\nupdate = g * c * 2")  # the same at the default alone
    assert disagreement(a, b, scaled=False, seed=0) == 0.0
    assert not verify(a, b)
    assert verify(a, a)


def test_hypers_are_matched_by_their_number_whatever_the_canonical_order() -> None:
    text = "{0}\n{1}\nupdate = ema(g, a) - 2 * ema(g * g, b)"
    one = Rule.parse(text.format("a: hyper(0, 1) = 0.9", "b: hyper(0, 1) = 0.5"))
    assert verify(one, Rule(one.update, one.states, one.hypers))
    swapped = Rule.parse("a: hyper(0, 1) = 0.9\nb: hyper(0, 1) = 0.5\nupdate = ema(g, b) - 2 * ema(g * g, a)")
    assert not verify(one, swapped)


def test_hyper_settings_stay_in_the_open_range() -> None:
    for known in KNOWN.values():
        for seed in range(3):
            for values in hyper_settings(known.rule.rule.hypers, seed):
                for h, value in zip(known.rule.rule.hypers, values, strict=True):
                    assert h.low < value < h.high


def test_equal_seeds_equal_verdicts_other_seeds_other_streams() -> None:
    a, b = rule("g"), rule("g + 1e-7")
    assert verify(a, b, seed=3) == verify(a, b, seed=3)
    assert verify(a, b, seed=3).counter_example != verify(a, b, seed=4).counter_example


@pytest.mark.parametrize("shaped", [False, True])
def test_streams_hold_what_is_hard(shaped: bool) -> None:
    streams = make_streams(0, shaped=shaped)
    names = np.array([name for row in streams.names for name in row])
    grads = np.array([np.concatenate([g.ravel() for g in row]) for row in streams.grads])
    sizes = np.abs(grads[grads != 0])
    assert sizes.min() < 1e-300 and sizes.max() > 1e7
    assert (grads[:, names == "sparse"] == 0).mean() > 0.5
    assert np.ptp(grads[:, names == "constant"], axis=0).max() == 0
    regular = grads[:, names == "sign flips"][:, 1]
    assert (regular[1:] == -regular[:-1]).all()
    assert grads.shape[0] >= 40
    edges = np.isin(names, ("constant", "near the smallest float64")).mean()
    assert 0 < edges < 0.01
    if shaped:
        assert {g.ndim for g in streams.grads[0]} == {1, 2}


def test_elements_meet() -> None:
    assert elements_meet(rule("g / norm(g)"))
    assert elements_meet(rule("g * is_matrix"))
    assert not elements_meet(rule("g / abs(g)"))


def test_an_unknown_relation_is_refused() -> None:
    with pytest.raises(InputError, match="unknown relation 'similar'"):
        verify(rule("g"), rule("g"), relation="similar")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sgd", "adam", "lion", "nadam", "lamb", "adabelief", "powersign", "muon"])
def test_every_rule_equals_itself_and_not_its_double(name: str) -> None:
    known = KNOWN[name].rule.rule
    checker = Checker(known, seed=2)
    assert checker.check(known).max_error == 0.0
    doubled = Rule(Rule.parse("update = g + g").update, (), ())
    assert not checker.check(doubled)


@given(st.floats(1e-9, 1e-3), st.sampled_from(["g", "ema(g, 0.9)", "sign(g) * abs(w)", "g / (abs(g) + 1)"]))
def test_a_relative_change_is_seen_down_to_a_billionth(change: float, term: str) -> None:
    assert not verify(rule(term), rule(f"({term}) * (1 + {change!r})"))
