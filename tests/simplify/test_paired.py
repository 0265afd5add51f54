"""A variant against its rule: the same seeds, the rule's own targets, an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ruleforge.core.known import known
from ruleforge.core.text import RuleText, parse
from ruleforge.evaluate import packing
from ruleforge.evaluate.evaluator import TUNE_SEED, Outcome, Protocol
from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, LaneSpec, Plan, sample_steps
from ruleforge.evaluate.statistics import summarize
from ruleforge.evaluate.targets import Speedup
from ruleforge.simplify.paired import (
    PAIRED_SEED,
    Bench,
    Paired,
    decide,
    own_targets,
    paired_differences,
    paired_protocol,
)
from ruleforge.tasks import WORKLOADS

PLACES = [WORKLOADS[name].resized(steps=30) for name in ("breast_cancer", "teacher_student", "digits_mlp")]
PROTOCOL = paired_protocol(seeds=3)
PLAN = Plan(chunk_lanes=18)


def test_variants_are_told_apart_and_a_respelling_is_no_difference() -> None:
    adam = known("adam").rule
    respelled = parse(str(adam).replace("Adam", "The same"))
    diverging = parse("update = exp(exp(g * 1000)) * g\n")
    weak = parse("update = g / (rms(g) + 1e-8) * (t < 3)\n")  # stops after two steps
    same, lost, slow = paired_differences(
        adam, [respelled, diverging, weak], PLACES, protocol=PROTOCOL, plan=PLAN
    )
    assert same.speedup == 1.0 and same.ci == (1.0, 1.0) and same.verdict == "not distinguishable"
    assert same.is_no_worse() and same.n_workloads == 3 and same.n_seeds == 3
    assert lost.diverged == tuple(place.name for place in PLACES) and not lost.is_no_worse()
    assert lost.ci is not None and lost.ci[1] < 1 and lost.n_missed > 0
    assert slow.verdict == "worse" and slow.speedup is not None and slow.speedup < 1
    assert set(slow.by_workload) == {place.name for place in PLACES}


def test_faster_and_slower_mirror_each_other() -> None:
    bench = Bench(PLACES[:1], PROTOCOL, plan=PLAN)
    adam, damped = known("adam").rule, parse("update = g * (t < 4)\n")
    assert (bench.compare(adam, [damped])[0].speedup or 1) < 1
    assert (bench.compare(damped, [adam])[0].speedup or 1) > 1


def test_a_rule_that_diverges_everywhere_compares_with_nothing() -> None:
    diverging = parse("update = exp(exp(g * 1000)) * g\n")
    found = paired_differences(diverging, [known("adam").rule], PLACES[:1], protocol=PROTOCOL, plan=PLAN)[0]
    assert found.speedup is None and found.ci is None and not found.is_no_worse()
    assert found.verdict == "nothing could be compared"


def test_scoring_seeds_are_nobody_elses() -> None:
    from ruleforge.evaluate.evaluator import COMPARE_SEED, FINAL_SEED, SCORE_SEED

    assert len({TUNE_SEED, SCORE_SEED, FINAL_SEED, COMPARE_SEED, PAIRED_SEED}) == 5
    assert min(PROTOCOL.score_seeds) == PAIRED_SEED


# settings: what a variant is trained at. The trainer is replaced by a table of last losses.

GRID = Protocol((0.01, 0.1, 1.0, 10.0), score_seeds=(4000, 4001), tune_seeds=(0, 1, 2))
RULE, VARIANT = parse("update = g\n"), parse("update = sign(g)\n")
Losses = Callable[[str, float, int], float]


def trained_by(monkeypatch: pytest.MonkeyPatch, losses: Losses) -> list[tuple[str, float, int]]:
    """Benches that look a lane's last loss up, by rule, learning rate and seed; returns what they train."""
    lanes: list[tuple[str, float, int]] = []

    def train(job: ChunkJob) -> ChunkResult:
        mine = [(str(rule.text), spec.lr, job.seed) for rule in job.rules for spec in rule.lanes]
        lanes.extend(mine)
        n = len(sample_steps(job.n_steps))
        rows = [np.linspace(10.0, losses(*lane), n) for lane in mine]
        none = np.zeros(len(mine))
        never = none.astype(np.int64)
        return ChunkResult(np.array(rows), none, none, none, never, never)

    monkeypatch.setattr(packing, "train_chunk", train)
    return lanes


def scored_at(lanes: list[tuple[str, float, int]], text: RuleText) -> set[float]:
    return {lr for which, lr, seed in lanes if which == str(text) and seed >= PAIRED_SEED}


def test_a_variant_takes_the_rules_setting_where_none_is_clearly_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On one tuning seed of three it does much better elsewhere, which is better on average too."""
    luck = {0: 1.0, 1: 3.0, 2: 3.1}

    def losses(text: str, lr: float, seed: int) -> float:
        if text == str(VARIANT) and lr == 1.0:
            return luck.get(seed, 3.0)
        return 3.0 if lr == 0.1 else 5.0

    lanes = trained_by(monkeypatch, losses)
    found = Bench(PLACES[:1], GRID, PLAN).compare(RULE, [VARIANT])[0]
    assert scored_at(lanes, RULE) == scored_at(lanes, VARIANT) == {0.1}
    assert found.speedup == 1.0


def test_a_variant_takes_its_own_setting_where_that_is_clearly_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two learning rates further on: looked for as long as the best lies at the end of what was tried."""
    best = {str(RULE): 0.01, str(VARIANT): 10.0}

    def losses(text: str, lr: float, seed: int) -> float:
        return 3.0 + abs(np.log10(lr / best[text])) + 0.01 * (seed % 3)

    lanes = trained_by(monkeypatch, losses)
    Bench(PLACES[:1], GRID, PLAN).compare(RULE, [VARIANT])
    assert scored_at(lanes, RULE) == {0.01} and scored_at(lanes, VARIANT) == {10.0}


def test_a_bench_trains_a_lane_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = trained_by(monkeypatch, lambda text, lr, seed: 3.0 + lr)
    bench = Bench(PLACES[:1], GRID, PLAN)
    bench.compare(RULE, [VARIANT, VARIANT])
    bench.compare(RULE, [VARIANT], seeds=4)
    bench.glance(RULE, [VARIANT], seeds=(4900,))
    bench.outcome(RULE)
    assert len(lanes) == len(set(lanes))
    assert {seed for _, _, seed in lanes} == {0, 1, 2, 4000, 4001, 4002, 4003, 4900}


def test_a_rule_where_a_lane_diverges_is_tuned_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = trained_by(monkeypatch, lambda text, lr, seed: np.nan if lr == 0.1 and seed == 2 else 1 + lr)
    bench = Bench(PLACES[:1], replace(GRID, lrs=(0.1, 1.0)), PLAN)
    assert bench.outcome(RULE)["breast_cancer"].setting == LaneSpec(1.0, "constant")
    assert scored_at(lanes, RULE) == {1.0}


# looks


def looked_at(monkeypatch: pytest.MonkeyPatch, by_seeds: dict[int, tuple[float, float]]) -> list[Any]:
    asked: list[Any] = []

    def compare(self: Bench, rule: Any, variants: Any, *, seeds: int, confidence: float) -> list[Paired]:
        asked.append((seeds, confidence, len(variants)))
        low, high = by_seeds[seeds]
        return [Paired((low * high) ** 0.5, (low, high), None, {}, 3, seeds) for _ in variants]

    monkeypatch.setattr(Bench, "compare", compare)
    return asked


def test_seeds_are_added_while_the_margin_lies_inside_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = looked_at(monkeypatch, {2: (0.8, 1.1), 4: (0.85, 1.05), 8: (0.91, 1.02)})
    found = decide(Bench(PLACES, GRID), RULE, [VARIANT])[0]
    assert [seeds for seeds, _, _ in asked] == [2, 4, 8]
    assert found.is_no_worse() and found.n_seeds == 8
    assert sum(1 - confidence for _, confidence, _ in asked) == pytest.approx(0.05)


@pytest.mark.parametrize("interval", [(0.91, 1.3), (0.5, 0.8)])
def test_what_is_decided_is_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, interval: tuple[float, float]
) -> None:
    asked = looked_at(monkeypatch, {2: interval})
    found = decide(Bench(PLACES, GRID), RULE, [VARIANT])[0]
    assert len(asked) == 1 and not found.is_open()


def test_looks_end_early_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = looked_at(monkeypatch, {2: (0.8, 1.1), 4: (0.85, 1.05)})
    decide(Bench(PLACES, GRID), RULE, [VARIANT], enough=lambda found: found[0].n_seeds == 4)
    assert [seeds for seeds, _, _ in asked] == [2, 4]


def test_an_interval_is_as_wide_as_its_confidence_asks() -> None:
    rows = Speedup((0.1, 0.2, 0.0), (0, 1, 2))
    narrow, wide = (summarize({"a": rows, "b": rows, "c": rows}, level).ci_here for level in (0.95, 0.99))
    assert narrow is not None and wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert summarize({"a": rows}).ci == summarize({"a": rows}, 0.95).ci


def test_targets_are_what_the_rule_reaches_on_its_way() -> None:
    n = len(sample_steps(100))
    curve = tuple(float(n - k) for k in range(n))
    outcome = Outcome("x", 100, LaneSpec(0.1, "constant"), 0.1, (curve, curve))
    steps = sample_steps(100)
    assert own_targets(outcome).levels == tuple(curve[steps.index(s)] for s in (40, 60, 80))
    flat = Outcome("x", 100, LaneSpec(0.1, "constant"), 0.1, ((1.0,) * n,))
    assert own_targets(flat).levels == ()
