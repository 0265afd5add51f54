"""The setting that a grid of lanes points to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core.known import known
from ruleforge.evaluate.evaluator import Protocol, evaluate
from ruleforge.evaluate.lanes import LaneSpec, Plan, RuleLanes
from ruleforge.evaluate.packing import Asked, train_each, train_lanes
from ruleforge.evaluate.tuning import best_lane, best_setting, tuning_loss
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import load_workload

STEP = math.sqrt(10)
GRID = [10 ** (-4 + 0.5 * k) for k in range(9)]


def specs(*schedules: str) -> list[LaneSpec]:
    return [LaneSpec(lr, schedule) for lr in GRID for schedule in schedules]


@given(st.floats(-3.4, -0.6), st.floats(0.1, 10))
def test_a_parabola_in_log_lr_is_found_to_a_quarter_of_the_step(bottom: float, bend: float) -> None:
    losses = [2 + bend * (math.log10(spec.lr) - bottom) ** 2 for spec in specs("constant")]
    found = best_setting(specs("constant"), losses, STEP)
    assert found is not None and found.schedule == "constant"
    assert abs(math.log10(found.lr) - bottom) <= 0.5 / 8 + 1e-9
    quarters = 8 * (math.log10(found.lr) + 4)
    assert quarters == pytest.approx(round(quarters), abs=1e-6)


@given(st.lists(st.floats(0, 1e6) | st.just(math.inf), min_size=18, max_size=18))
def test_it_lies_within_half_a_step_of_the_best_lane_and_has_its_schedule(losses: list[float]) -> None:
    lanes = specs("constant", "cosine")
    best, found = best_lane(losses), best_setting(lanes, losses, STEP)
    if best is None:
        assert found is None and all(map(math.isinf, losses))
        return
    assert found is not None and found.schedule == lanes[best].schedule
    assert losses[best] == min(losses)
    assert abs(math.log10(found.lr / lanes[best].lr)) <= 0.25 + 1e-9


def test_neighbours_are_of_the_same_schedule_and_finite() -> None:
    lanes = [LaneSpec(lr, s) for s in ("constant", "cosine") for lr in GRID[:3]]
    assert best_setting(lanes, [3, 1, 2, 9, 9, 9], STEP) == LaneSpec(GRID[1] * STEP**0.25, "constant")
    assert best_setting(lanes, [3, 1, math.inf, 9, 9, 9], STEP) == lanes[1]
    assert best_setting(lanes, [1, 2, 3, 9, 9, 9], STEP) == lanes[0]
    assert best_setting(lanes, [4, 4, 4, 9, 0, 9], STEP) == lanes[4]


def test_neighbours_may_lie_at_unequal_distances() -> None:
    lanes = [LaneSpec(GRID[k], "constant") for k in (2, 4, 5)]
    losses = [(math.log10(spec.lr) + 1.9) ** 2 for spec in lanes]
    found = best_setting(lanes, losses, STEP)
    assert found is not None and math.log10(found.lr) == pytest.approx(-1.875)


def test_a_lane_is_judged_by_the_second_half_of_its_budget() -> None:
    curve = np.array([9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0])
    assert tuning_loss(curve, 0) == pytest.approx(np.mean([4.0, 2.0, 3.0, 3.5]))
    assert tuning_loss(curve, 3) == math.inf
    assert tuning_loss(np.array([1.0, 1.0, np.nan]), 0) == math.inf


def test_what_is_scored_is_the_setting_between_the_lanes() -> None:
    small = load_workload("teacher_student", steps=40)
    protocol = Protocol((0.003, 0.012, 0.048), ("constant",), score_seeds=(5, 6))
    plan, pool = Plan(), Workers(1)
    text = str(known("adam").rule)
    ((outcome,),) = evaluate([text], [small], protocol, plan, pool)
    assert outcome.setting is not None and outcome.lr is not None
    tuned = Protocol(protocol.lrs, protocol.schedules)
    ((plain,),) = evaluate([text], [small], tuned, plan, pool)
    assert plain.setting is not None and plain.setting.lr == 0.012
    assert outcome.setting.lr not in protocol.lrs
    assert outcome.lr / outcome.setting.lr == pytest.approx(plain.lr / plain.setting.lr)  # type: ignore[operator]
    asked = [Asked(small, 40, RuleLanes(text, (outcome.setting,)))]
    (((first, second),),) = train_lanes(asked, (5, 6), plan, plan.score_lanes, pool)
    for curve, (result, row) in zip(outcome.curves, (first, second), strict=True):
        assert curve[0] == result.curves[row][0]


def test_lanes_come_back_to_those_who_asked() -> None:
    small, other = load_workload("teacher_student", steps=8), load_workload("noisy_labels", steps=8)
    texts = ["update = g\n", "update = sign(g)\n"]
    wide = tuple(LaneSpec(lr, "constant") for lr in GRID[:5])
    asked = [Asked(w, 8, RuleLanes(t, wide)) for w in (small, other) for t in texts]
    together = train_lanes(asked, (1, 2), Plan(), 4, Workers(1))
    for each, lanes in zip(asked, together, strict=True):
        alone = train_lanes([each], (1, 2), Plan(), 4, Workers(1))[0]
        for mine, its in zip(lanes, alone, strict=True):
            assert [r.curves[k].tolist() for r, k in mine] == [r.curves[k].tolist() for r, k in its]


def test_each_on_its_own_seed_is_what_all_seeds_give() -> None:
    small, other = load_workload("teacher_student", steps=8), load_workload("noisy_labels", steps=8)
    wide = tuple(LaneSpec(lr, "constant") for lr in GRID[:5])
    asked = [Asked(w, 8, RuleLanes("update = g\n", wide)) for w in (small, other)]
    apart = train_each([(asked[1], 2), (asked[0], 1)], Plan(), 4, Workers(1))
    together = train_lanes(asked, (1, 2), Plan(), 4, Workers(1))
    for lanes, (i, seed) in zip(apart, ((1, 1), (0, 0)), strict=True):
        for (result, row), its in zip(lanes, together[i], strict=True):
            other_result, other_row = its[seed]
            assert result.curves[row].tolist() == other_result.curves[other_row].tolist()
