"""A variant against its rule: the same seeds, the rule's own targets, an interval."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ruleforge.core.known import known
from ruleforge.core.text import parse
from ruleforge.evaluate.evaluator import TUNE_SEED, Outcome
from ruleforge.evaluate.lanes import LaneSpec, Plan, sample_steps
from ruleforge.simplify.paired import PAIRED_SEED, Bench, own_targets, paired_differences, paired_protocol
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


def test_a_setting_is_chosen_by_several_tuning_seeds() -> None:
    one, two = (
        Bench(PLACES[:1], replace(PROTOCOL, tune_seeds=seeds), PLAN).outcomes([known("adam").rule])[0]
        for seeds in ((0,), (0, 1))
    )
    one, two = one["breast_cancer"], two["breast_cancer"]
    assert one.setting is not None and two.setting is not None
    assert one.final_losses != two.final_losses and len(one.final_losses) == len(two.final_losses)
    assert (one.n_lanes, two.n_lanes) == (18 + 3, 36 + 3)
    best = min(v for v in two.final_losses if v is not None)
    assert PROTOCOL.grid()[two.final_losses.index(best)] == two.setting


def test_a_bench_trains_a_rule_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ruleforge.simplify import paired

    asked: list[int] = []

    def counting(texts: list[str], *args: Any) -> list[list[Outcome]]:
        asked.append(len(texts))
        return [[Outcome("breast_cancer", 30, None, None, ())] for _ in texts]

    monkeypatch.setattr(paired, "evaluate", counting)
    bench = Bench(PLACES[:1], PROTOCOL, plan=PLAN)
    bench.compare(known("adam").rule, [known("lion").rule, known("lion").rule])
    bench.compare(known("lion").rule, [known("adam").rule, known("sgd").rule])
    assert asked == [2, 1]


def test_targets_are_what_the_rule_reaches_on_its_way() -> None:
    n = len(sample_steps(100))
    curve = tuple(float(n - k) for k in range(n))
    outcome = Outcome("x", 100, LaneSpec(0.1, "constant"), 0.1, (curve, curve))
    steps = sample_steps(100)
    assert own_targets(outcome).levels == tuple(curve[steps.index(s)] for s in (40, 60, 80))
    flat = Outcome("x", 100, LaneSpec(0.1, "constant"), 0.1, ((1.0,) * n,))
    assert own_targets(flat).levels == ()
