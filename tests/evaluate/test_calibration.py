"""The calibration benchmark does what the tool does: the same interval, the same tuning and scoring."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ruleforge.core.known import known
from ruleforge.evaluate.evaluator import Protocol, evaluate
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.statistics import t_interval
from ruleforge.evaluate.targets import Targets, make_targets, speedup
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import WORKLOADS

PLAN = Plan(update_plane="torch")
SMALL = WORKLOADS["breast_cancer"].resized(steps=24)


@pytest.fixture
def calibration(project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(project_root / "benchmarks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return importlib.import_module("calibration")


def test_the_simulated_interval_is_the_tools(calibration: ModuleType) -> None:
    values = np.random.default_rng(0).standard_normal((50, 4))
    low, high = calibration.intervals.student(values)
    for row, ends in zip(values, zip(low, high, strict=True), strict=True):
        assert t_interval(row) == pytest.approx(ends)


def test_bootstraps_of_many_values_agree_with_students_interval(calibration: ModuleType) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((20, 60))
    low, high = calibration.intervals.student(values)
    for name in ("percentile", "bca", "studentized"):
        found = getattr(calibration.intervals, name)(values, rng)
        assert np.abs(found[0] - low).max() < 0.1 and np.abs(found[1] - high).max() < 0.1, name


@pytest.mark.parametrize("lrs", [(0.01, 0.03, 0.1, 0.3), (1e-5, 3e-5, 1e-4)])
def test_a_copy_from_the_pool_is_tuned_and_scored_as_the_evaluator_does(
    calibration: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lrs: tuple[float, ...]
) -> None:
    """Also where the grid must widen, as far as it may."""
    monkeypatch.setattr(calibration, "DEFAULT_BASELINES", ("sgd",))
    protocol = Protocol(lrs, ("constant", "cosine"), score_seeds=(1, 2), widen=True)
    pool = calibration.make_pool(SMALL, protocol, 6, tmp_path, Workers(1), PLAN)
    tuning, scoring = np.array([0, 1, 2]), np.array([4, 5])
    mine = pool.outcome(tuning, scoring, 2)
    first = calibration.POOL_SEED
    same = replace(
        protocol, tune_seeds=tuple(int(first + s) for s in tuning),
        score_seeds=tuple(int(first + s) for s in scoring),
    )  # fmt: skip
    ((theirs,),) = evaluate([str(known("adam").rule)], [SMALL], same, PLAN, Workers(1))
    assert theirs.setting is not None and mine.setting is not None
    assert mine.setting.schedule == theirs.setting.schedule
    assert mine.setting.lr == pytest.approx(theirs.setting.lr)
    np.testing.assert_allclose(mine.curves, theirs.curves, rtol=1e-4)
    assert pool.targets(mine) == make_targets(SMALL.name, SMALL.steps, {**pool.others, "adam": mine})
    kept = calibration.make_pool(SMALL, protocol, 6, tmp_path, Workers(1), PLAN)
    assert np.array_equal(kept.curves, pool.curves) and kept.others == pool.others


def test_a_planted_factor_is_found_again(calibration: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    """Slowed by 2, on the very same seeds: every step to a target doubles, where it is still reached."""
    monkeypatch.setattr(calibration, "DEFAULT_BASELINES", ("sgd",))
    protocol = Protocol((0.01, 0.1), score_seeds=(1,), widen=True)
    pool = calibration.make_pool(SMALL, protocol, 4, tmp_path, Workers(1), PLAN)
    seeds = np.array([0]), np.array([1, 2])
    plain, slow = pool.outcome(*seeds, 1), pool.outcome(*seeds, 1, 2.0)
    level = np.interp(8.0, np.linspace(0, 24, len(plain.curves[0])), plain.curves[0])
    found = speedup(plain, slow, Targets(SMALL.name, 24, (float(level),)))
    assert found.value == pytest.approx(2.0, rel=0.15)
