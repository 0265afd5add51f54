"""Rules whose direction depends on the scale of gradients, and rules for which it is a factor."""

import pytest

from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Rule
from ruleforge.evaluate.limits import Limits
from ruleforge.evaluate.scale_probe import SAME, turning


@pytest.mark.parametrize(
    "name",
    [
        "sgd",
        "nesterov",
        "rmsprop",
        "adam",
        "nadam_simple",
        "lion",
        "adabelief",
        "cautious_adamw",
        "grams",
        "muon_adamw",
    ],
)
def test_known_rules_have_a_degree(name: str) -> None:
    assert turning(KNOWN[name].rule.rule) > 0.999


@pytest.mark.parametrize(
    "text",
    [
        "update = g + sign(g)\n",
        "update = tanh(g)\n",
        "update = g + w\n",
        "update = orthogonalize(g)\n",  # vectors keep their size, matrices do not
        "update = 1 / g - 1 / g\n",  # not finite, or zero
    ],
)
def test_rules_that_mix_scales_turn(text: str) -> None:
    assert turning(Rule.parse(text)) < SAME


def test_an_orthogonal_matrix_at_its_own_norm_has_a_degree_everywhere() -> None:
    assert turning(Rule.parse("update = equalize(g)\n")) > 0.9999
    assert turning(Rule.parse("update = graft(orthogonalize(g), g)\n")) > 0.9999


def test_the_limit_says_why() -> None:
    rule = Rule.parse("update = g + sign(g)\n")
    assert Limits().broken_by(rule) == ""
    assert "depends on the scale of the gradients" in Limits(scale_free=True).broken_by(rule)
    assert Limits(scale_free=True).broken_by(Rule.parse("update = sign(g)\n")) == ""
