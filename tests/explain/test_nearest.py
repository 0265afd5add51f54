"""Names: known rules under other hyperparameters and factors are named, new ones are not."""

from __future__ import annotations

import pytest

from ruleforge.core.known import known
from ruleforge.core.rule import Rule
from ruleforge.explain.nearest import contains, nearest, unsigned


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
