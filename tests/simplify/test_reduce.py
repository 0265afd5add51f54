"""The third pass: what is offered, what is taken, what is confirmed, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText, parse
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.lanes import LaneSpec, Plan, sample_steps
from ruleforge.simplify import reduce as reduce_module
from ruleforge.simplify.cuts import cuts, weight
from ruleforge.simplify.paired import LOOKS, Bench, Paired, paired_protocol
from ruleforge.simplify.reduce import CONFIRM_SEED, GLANCE_SEEDS, Reduced, Version, _knee, reduce_rule
from ruleforge.tasks import WORKLOADS, load_suite

PLACES = [WORKLOADS["breast_cancer"].resized(steps=40)]
ANCESTOR = (Path(__file__).parents[2] / "benchmarks" / "ancestor_of_lion.rule").read_text()


# what is offered


def offered(text: str) -> dict[str, str]:
    return {cut.change: str(cut.text).strip().splitlines()[-1] for cut in cuts(parse(text))}


def test_every_part_may_go_and_every_constant_may_be_rounded() -> None:
    found = offered("update = sign(clip(ema(g, 0.8997), -1, 1) + 0.00123 * w)")
    assert found["sign(x) -> x"].startswith("update = ")
    assert "update = sign(clip(ema(g, 0.8997), -1, 1))" in found.values()
    assert "update = sign(clip(ema(g, 0.9), -1, 1) + w * 0.001)" in found.values()
    assert found["0.8997 -> 0.9"] == "update = sign(0.00123 * w + clip(ema(g, 0.9), -1, 1))"
    assert found["ema(g, 0.8997) -> g"] == "update = sign(0.00123 * w + clip(g, -1, 1))"


def test_a_weight_near_one_is_rounded_by_what_it_leaves_out() -> None:
    assert offered("update = ema(g, 0.99871)")["0.99871 -> 0.999"] == "update = ema(g, 0.999)"


def test_constants_may_be_shared_and_hypers_rounded() -> None:
    assert "update = ema(ema(g, 0.9), 0.9)" in offered("update = ema(ema(g, 0.9), 0.91)").values()
    text = "beta: hyper(0, 1) = 0.8997\nupdate = ema(g, beta)"
    rounded = next(cut for cut in cuts(parse(text)) if cut.change == "0.8997 -> 0.9")
    assert rounded.text.rule.hypers[0].default == 0.9 and rounded.text.hypers == ("beta",)


@pytest.mark.parametrize("name", ["adam", "lion", "lamb", "nadam", "muon", "rprop", "adopt"])
def test_cuts_of_known_rules_are_lighter_rules_that_read_the_gradient(name: str) -> None:
    rule = KNOWN[name].rule
    found = cuts(rule)
    assert found
    for cut in found:
        assert weight(cut.text.rule) < weight(rule.rule)
        assert cut.text.rule.reads("g")
        assert parse(str(cut.text)) == cut.text
    assert len({cut.text.rule.full_key for cut in found}) == len(found)


def test_nothing_is_offered_for_the_gradient_itself() -> None:
    assert cuts(parse("update = g")) == []


# what is taken


def outcome(workload: str) -> Outcome:
    n = len(sample_steps(100))
    curve = tuple(float(n - k) for k in range(n))
    return Outcome(workload, 100, LaneSpec(0.1, "constant"), 0.1, (curve, curve))


def judged(monkeypatch: pytest.MonkeyPatch, speed: Callable[[RuleText, Bench], float]) -> None:
    """Benches that train nothing: `speed` says how a variant does."""

    def compare(
        self: Bench, rule: RuleText, variants: Sequence[RuleText], *_: Any, **__: Any
    ) -> list[Paired]:
        values = [speed(variant, self) for variant in variants]
        return [Paired(v, (v * 0.98, v * 1.02), None, {"x": v}, 1, 2) for v in values]

    monkeypatch.setattr(Bench, "outcome", lambda self, rule: {"x": outcome("x")})
    monkeypatch.setattr(Bench, "compare", compare)
    monkeypatch.setattr(Bench, "glance", compare)


def reads_sign_and_slow_state(text: RuleText, bench: Bench) -> float:
    words = str(text)
    return 1.0 if "sign(" in words and "0.99)" in words and "0.9)" in words else 0.7


def test_the_ancestor_of_lion_becomes_lion(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, reads_sign_and_slow_state)
    found = reduce_rule(parse(ANCESTOR), PLACES)
    lion = parse("m: state = 0\nupdate = sign(lerp(g, m, 0.9))\nm = lerp(g, m, 0.99)")
    assert found.best.text.rule.key == lion.rule.key
    kinds = [step.kind for step in found.steps]
    assert {"exact", "algebra", "behaviour"} <= set(kinds)
    changes = [step.law for step in found.steps if step.kind == "behaviour"]
    assert any("asin" in change for change in changes)
    assert all(step.evidence for step in found.steps if step.kind == "behaviour")
    assert [v.standing for v in found.versions][:2] == ["given", "equal"]
    assert found.versions[-1].standing == "costs something"
    assert all(a.nodes >= b.nodes for a, b in zip(found.versions, found.versions[1:], strict=False))
    record = found.as_json()
    assert json.loads(json.dumps(record)) == record


def test_losses_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node costs 1.5 % of the rule's speed: some may go, never so many that 10 % would be lost."""
    full = parse("update = sign(ema(g, 0.9)) + sign(ema(g, 0.7)) + sign(ema(g, 0.5))")
    judged(monkeypatch, lambda text, bench: 1 - 0.015 * (full.rule.nodes - text.rule.nodes))
    found = reduce_rule(full, PLACES)
    taken = [v for v in found.versions if v.standing == "as good"]
    assert taken and all(v.measured is not None and v.measured.is_no_worse() for v in taken)
    assert full.rule.nodes - taken[-1].nodes <= 6


def test_what_is_faster_without_a_part_is_another_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cut of Adam makes it twice as fast: none is taken, one is listed."""
    judged(monkeypatch, lambda text, bench: 2.0)
    found = reduce_rule(KNOWN["adam"].rule, PLACES)
    assert found.best.standing == "given" and found.versions[-1].standing == "another rule, faster"
    assert not [step for step in found.steps if step.kind == "behaviour"]


def test_cuts_are_held_against_the_equal_rule_not_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """As written the rule is 0 / 0 where nothing moves, and would train nowhere."""
    asked: list[str] = []
    judged(monkeypatch, lambda text, bench: 1.0)
    compare = Bench.compare

    def recording(self: Bench, rule: RuleText, variants: Sequence[RuleText], **given: Any) -> Any:
        asked.append(str(rule))
        return compare(self, rule, variants, **given)

    monkeypatch.setattr(Bench, "compare", recording)
    reduce_rule(parse("a = ema(g, 0.9)\nupdate = a / sqrt(a * a)"), PLACES)
    assert set(asked) == {"update = sign(ema(g, 0.9))\n"}


def test_what_fresh_workloads_do_not_confirm_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    def speed(text: RuleText, bench: Bench) -> float:
        fresh = CONFIRM_SEED in bench.protocol.score_seeds
        return 0.6 if fresh else 1.0

    judged(monkeypatch, speed)
    found = reduce_rule(parse("update = sign(ema(g, 0.9) * 1)"), PLACES)
    assert found.best.standing == "equal"
    assert any("not confirmed" in note for note in found.notes)


def test_seeds_of_choice_and_of_confirmation_are_apart() -> None:
    most = 64 * LOOKS[-1][0]
    sets = [
        GLANCE_SEEDS,
        paired_protocol(most).score_seeds,
        paired_protocol(most, CONFIRM_SEED).score_seeds,
        paired_protocol().tune_seeds,
    ]
    assert len({seed for seeds in sets for seed in seeds}) == sum(len(seeds) for seeds in sets)


def test_the_knee_is_where_shortening_starts_to_cost() -> None:
    def version(nodes: int, speed: float) -> Version:
        text = parse("update = " + "exp(" * (nodes - 1) + "g" + ")" * (nodes - 1))
        return Version(text, "as good", "", Paired(speed, (speed, speed), None, {}, 1, 2))

    versions = [version(20, 1.0), version(12, 1.0), version(8, 0.99), version(7, 0.7)]
    assert _knee(versions, [0, 1, 2, 3]) == 2
    assert _knee(versions, [0, 1]) == 1
    assert _knee(versions, [0]) == 0


# bad input


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("update = log(-1 - abs(g))", "learns nothing"),
        ("update = 3", "no cut was tested"),
        ("update = w * t", "no cut was tested"),
    ],
)
def test_rules_that_cannot_be_trained_come_back_with_a_sentence(text: str, note: str) -> None:
    found = reduce_rule(parse(text), PLACES, seeds=2, plan=Plan(chunk_lanes=18), time_limit_s=5)
    assert any(note in each for each in found.notes), found.notes
    assert found.best.nodes <= found.versions[0].nodes


def test_no_time_at_all_leaves_the_equal_version(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, lambda text, bench: 1.0)
    found = reduce_rule(parse("update = sign(2 * g)"), PLACES, time_limit_s=0)
    assert found.best.standing == "equal" and any("time limit" in note for note in found.notes)


@pytest.mark.slow
def test_the_ancestor_becomes_shorter_by_training() -> None:
    found: Reduced = reduce_rule(
        parse(ANCESTOR), load_suite("search"), time_limit_s=300, plan=Plan(update_plane="torch")
    )
    words = str(found.versions[-1].text) + str(found.best.text)
    assert "sign(" in words
    changes = [step.law for step in found.steps if step.kind == "behaviour"]
    assert any("asin" in change for change in changes), changes


def test_the_module_says_where_a_round_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, lambda text, bench: 1.0)
    said: list[str] = []
    reduce_module.reduce_rule(parse("update = sign(clip(g, -1, 1))"), PLACES, say=said.append)
    assert any(line.startswith("round 1") for line in said) and any("confirming" in line for line in said)
