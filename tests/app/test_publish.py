"""A finalist as people get it: named by what it does, with the learning rate to start from."""

from __future__ import annotations

from ruleforge.app.finals import Finalist
from ruleforge.app.identity import identify
from ruleforge.app.publish import publish
from ruleforge.core.text import parse
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.lanes import LaneSpec
from ruleforge.evaluate.statistics import Summary

NOTHING = Summary(None, None, None, None, 0)
STANDING = {name: NOTHING for name in ("vs_best_single", "vs_oracle", "vs_adam")}


def finalist(text: str, lrs: dict[str, float]) -> Finalist:
    rule = parse(text)
    outcomes = {w: Outcome(w, 10, LaneSpec(lr, "constant"), lr, ()) for w, lr in lrs.items()}
    return Finalist(7, rule, identify(rule.rule), outcomes, STANDING, STANDING, {}, {})


def test_a_rule_of_another_form_that_is_a_known_one_is_not_called_new() -> None:
    found = finalist("update = (g + ema(g, 0.811)) / (sqrt(ema_hat(g * g, 0.794)) + 1e-8)\n", {})
    assert found.is_new
    published = publish(found, {}, seed=3)
    assert not published.is_new
    assert published.record["known_as"].startswith("simplified_ademamix with beta1 = 0.811")
    assert "simplified_ademamix" in published.text and " new." not in published.text


def test_what_is_new_is_told_its_nearest_and_where_its_learning_rate_lies() -> None:
    text = "update = sign(g) * abs((g + ema(g, 0.9) * 9.3) / (sqrt(ema(g * g, 0.9)) + 1e-8))\n"
    lrs = {"a": 0.01, "b": 0.002, "c": 0.1}
    adam = {w: Outcome(w, 10, None, 0.01, ()) for w in lrs}
    published = publish(finalist(text, lrs), adam, seed=3)
    assert published.is_new and published.record["known_as"] == "new"
    assert published.record["nearest"]["name"] == "grams"
    assert "Nearest known rule: grams, 28 % apart." in published.text
    assert published.record["lr_vs_adam"] == 1.0
    assert "Start from 1 times the learning rate that Adam likes." in published.text
    assert "On 3 workloads the best was 0.2 to 10 times Adam's best." in published.text
