"""Names: known rules under other hyperparameters and factors are named, new ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from ruleforge.core.known import known
from ruleforge.core.rule import Rule
from ruleforge.explain.fit import Fit
from ruleforge.explain.nearest import (
    FRESH_SEED,
    _named,
    aligned,
    contains,
    forms_like,
    nearest,
    nearest_to,
    unsigned,
)
from ruleforge.explain.traces import Traces, make_inputs, run_settings, trace_rule


def test_lion_is_named_with_its_betas_and_factor() -> None:
    best = nearest(Rule.parse("m: state = 0\nupdate = 0.3 * sign(lerp(g, m, 0.87))\nm = lerp(g, m, 0.98)"))[0]
    assert str(best) == "lion with beta1 = 0.87, beta2 = 0.98, times 0.3"
    assert best.relation == "hypers and scale"
    assert best.edits == 2  # the factor: a product and a number


def test_a_beta_that_is_written_nowhere_is_found_under_the_sign() -> None:
    """Averaging before mixing makes the mixing weight a product of two numbers."""
    best = nearest(Rule.parse("update = sign(lerp(g, ema(g, 0.98), 0.87))"))[0]
    assert best.name == "lion"
    assert best.is_exact
    assert best.hypers["beta1"] == pytest.approx(0.87 * 0.98, rel=1e-6)


def test_numbers_of_the_same_form_are_taken_over_from_where_they_stand() -> None:
    rule = Rule.parse("update = 0.797 * ema_hat(g, 0.22) / (sqrt(ema_hat(g * g, 0.997)) + 8.5e-8)")
    assert forms_like(rule) == ["adam"]
    assert aligned(rule, known("adam").rule.rule) == (0.22, 0.997, 8.5e-8)
    best = nearest(rule)[0]
    assert (best.name, best.relation, best.hypers["beta1"]) == ("adam", "hypers and scale", 0.22)


def test_a_number_outside_the_known_range_aligns_with_nothing() -> None:
    assert aligned(Rule.parse("update = trace(g, 1.5)"), known("momentum").rule.rule) is None


def test_adam_is_named_from_answers_alone_where_the_survey_lies_far_off() -> None:
    """At a small beta1 none of the surveyed settings of Adam comes near, and larger rules imitate it."""
    rule = known("adam").rule.rule.with_defaults((0.223168, 0.997375, 8.49e-8))
    fresh = make_inputs(FRESH_SEED)
    answers = Traces(fresh, run_settings(rule, np.array([rule.defaults]), fresh)[0])
    best = nearest_to(trace_rule(rule), answers)[0]
    assert (best.name, best.relation) == ("adam", "hypers")
    assert list(best.hypers.values()) == pytest.approx(rule.defaults, rel=1e-5)


def test_the_smaller_of_two_names_comes_first() -> None:
    """Lion with equal betas is Signum."""
    best = nearest(Rule.parse("m: state = 0\nupdate = sign(lerp(g, m, 0.9))\nm = lerp(g, m, 0.9)"))[0]
    assert best.name == "signum"


def test_a_new_rule_is_new_and_says_what_it_is_built_on() -> None:
    rule = Rule.parse(
        "a = ema_hat(g, 0.8) / (sqrt(ema_hat(g * g, 0.95)) + 1e-6)\nupdate = a * agree(ema_hat(g, 0.8), g)"
    )
    assert not any(match.is_exact for match in nearest(rule))
    assert contains(rule) == ["adam"]


def test_what_stands_under_a_sign() -> None:
    inside = unsigned(Rule.parse("update = 2 * sign(g + 1)"))
    assert inside is not None
    assert inside.key == Rule.parse("update = g + 1").key
    assert unsigned(known("adam").rule.rule) is None


@pytest.mark.slow
def test_close_is_close_on_streams_that_the_fit_never_saw() -> None:
    """What agrees on the fitted streams alone is no match, however well it does there."""
    inputs, fresh = make_inputs(), make_inputs(FRESH_SEED)
    here, there = Rule.parse("update = clip(g, -8, 8)"), Rule.parse("update = g * g * g")
    told = Traces(inputs, run_settings(here, np.zeros((1, 0)), inputs)[0])
    otherwise = Traces(fresh, run_settings(there, np.zeros((1, 0)), fresh)[0])
    assert nearest_to(told, otherwise)[0].relation == "apart"


def test_another_first_step_is_said_with_the_smallest_name() -> None:
    """AdaBelief with beta1 near 0 imitates it as well, and is no answer to a reader."""
    best = nearest(Rule.parse("update = where(first, 0.712, g)"))[0]
    assert (best.name, best.relation, best.hypers) == ("sgd", "after warm-up", {})
    assert best.distance > 0.01  # the first steps count there


@pytest.mark.slow
def test_a_rule_that_is_not_finite_somewhere_gets_no_name() -> None:
    best = nearest(Rule.parse("update = sqrt(g * 62.4)"))[0]
    assert best.relation == "where finite" and not best.is_exact
    assert str(best).endswith("where it is finite")


def test_a_beta_at_the_end_of_its_range_is_named_by_the_end() -> None:
    laprop = known("laprop").rule
    at = {"beta1": 0.75, "beta2": 9.99978e-13, "eps": 2e-17}
    fit = Fit(laprop.rule, tuple(at[name] for name in laprop.hypers), 1.0, 0.0)
    assert _named(laprop, fit) == {"beta1": 0.75, "beta2": 0.0, "eps": 2e-17}
