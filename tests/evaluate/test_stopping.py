"""Lanes without hope are stopped, and nothing else changes: not a bit of those that go on."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core.known import known
from ruleforge.evaluate import train
from ruleforge.evaluate.baselines import tune_baselines, tuning_key
from ruleforge.evaluate.evaluator import SCORE_SEED, Protocol, evaluate
from ruleforge.evaluate.lanes import (
    CHUNKS_THAT_STOP,
    ChunkJob,
    ChunkResult,
    LaneSpec,
    Plan,
    RuleLanes,
    pack_whole,
    sample_steps,
)
from ruleforge.evaluate.memory import train_in_memory
from ruleforge.evaluate.stopping import checks, is_behind
from ruleforge.evaluate.train import train_chunk
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import WORKLOADS

WORKLOAD = WORKLOADS["teacher_student"]
SIZE, N_STEPS = 8, 40
LRS = tuple(float(lr) for lr in np.geomspace(1e-4, 10, 6))
LANES = tuple(LaneSpec(lr, "cosine") for lr in LRS)
NAMES = ("adam", "lion", "sgd", "muon_adamw", "nadam")
EXPLODES = "update = exp(exp(g * 1000)) * g\n"
TEXTS = (*(str(known(name).rule) for name in NAMES), EXPLODES)


def trained(*texts: str, plane: str = "numba", stops: bool = True) -> ChunkResult:
    rules = tuple(RuleLanes(text, LANES) for text in texts)
    return train_chunk(ChunkJob(WORKLOAD, 0, N_STEPS, rules, Plan(update_plane=plane), SIZE, stops))


def lanes_of(result: ChunkResult, lanes: slice | np.ndarray) -> list[np.ndarray]:
    return [getattr(result, field.name)[lanes] for field in fields(result)]


def is_same(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("plane", ["numba", "torch"])
def test_those_that_go_on_are_trained_as_if_none_had_been_stopped(plane: str) -> None:
    whole, stopped = trained(*TEXTS, plane=plane, stops=False), trained(*TEXTS, plane=plane)
    ended = stopped.stopped_at > 0
    assert 0.2 < ended.mean() < 0.9 and not whole.stopped_at.any()
    assert is_same(lanes_of(whole, ~ended), lanes_of(stopped, ~ended))


@pytest.mark.parametrize("plane", ["numba", "torch"])
def test_who_is_stopped_depends_on_the_rule_alone(plane: str) -> None:
    together = trained(*TEXTS, plane=plane)
    for k, text in enumerate(TEXTS):
        alone = trained(text, plane=plane)
        assert is_same(lanes_of(alone, slice(None)), lanes_of(together, slice(6 * k, 6 * k + 6))), text


def test_moving_lanes_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "MOVING", 1e9)
    left_where_they_were = trained(*TEXTS)
    monkeypatch.setattr(train, "MOVING", 0)
    moved = trained(*TEXTS)
    assert is_same(lanes_of(left_where_they_were, slice(None)), lanes_of(moved, slice(None)))


def test_fewer_lanes_fill_fewer_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: list[tuple[int, int]] = []
    advance = train._Training._advance

    def counted(self: train._Training, chunk: train._Chunk, begin: int, end: int) -> None:
        advanced.append((begin, len(chunk.lanes)))
        advance(self, chunk, begin, end)

    monkeypatch.setattr(train._Training, "_advance", counted)
    monkeypatch.setattr(train, "MOVING", 0)
    result = trained(*TEXTS)
    for begin in (0, *checks(N_STEPS)):
        going = int(((result.stopped_at == 0) | (result.stopped_at > begin)).sum())
        filled = [n for at, n in advanced if at == begin]
        assert sum(filled) == going and len(filled) == -(-going // SIZE)
    assert len({begin for begin, _ in advanced}) == 3


def test_a_stopped_lane_keeps_its_last_loss_and_one_that_diverged_has_none() -> None:
    result = trained(*TEXTS)
    steps = np.array(sample_steps(N_STEPS))
    assert set(result.stopped_at) <= {0, *checks(N_STEPS)}
    for curve, at, lost, loss in zip(
        result.curves, result.stopped_at, result.diverged_at, result.train_losses, strict=True
    ):
        if at:
            after = curve[steps >= at]
            assert np.isnan(loss)
            assert np.isnan(after[1:]).all() if lost else (after == after[0]).all()
    assert (result.diverged_at[-6:] > 0).all() and (result.stopped_at[-6:] > 0).all()
    assert ((result.stopped_at > 0) & (result.diverged_at == 0)).any()


def test_where_lanes_are_looked_at() -> None:
    assert checks(40) == {12: 0.0, 20: 0.5}
    assert checks(200) == {50: 0.0, 100: 0.5}
    assert checks(8) == {4: 0.5}, "one look where both fall together"
    assert checks(3) == {}


def test_who_is_behind() -> None:
    start = np.full(7, 10.0)
    now = np.array([2.0, 5.9, 6.1, 11.0, np.inf, 10.5, 12.0])
    rules = np.array([0, 0, 0, 0, 0, 1, 1])
    assert is_behind(start, now, rules, 0.5).tolist() == [False, False, True, True, True, False, False]
    assert is_behind(start, now, rules, 0.0).tolist() == [False, False, False, True, True, False, False]
    assert is_behind(start[:0], now[:0], rules[:0], 0.5).tolist() == []


@given(st.lists(st.integers(1, 12), max_size=20), st.integers(1, 20))
def test_whole_rules_are_packed_in_order(counts: list[int], size: int) -> None:
    rules = [RuleLanes(str(k), LANES[:1] * n) for k, n in enumerate(counts)]
    parts = pack_whole(rules, size)
    assert [rule for part in parts for rule in part] == rules
    n_lanes = [sum(len(rule.lanes) for rule in part) for part in parts]
    assert all(n <= size or len(part) == 1 for n, part in zip(n_lanes, parts, strict=True))
    for n, after in zip(n_lanes, parts[1:], strict=False):
        assert n + len(after[0].lanes) > size, "a part ends where the next rule has no room"


def test_what_does_not_fit_in_memory_is_halved_between_rules() -> None:
    rules = tuple(RuleLanes(text, LANES) for text in TEXTS)
    job = ChunkJob(WORKLOAD, 0, N_STEPS, rules, Plan(update_plane="numba"), 2 * SIZE, stops=True)
    parts: list[ChunkJob] = []

    def fits_in(part: ChunkJob) -> ChunkResult:
        if part.size > SIZE // 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        parts.append(part)
        return train_chunk(part)

    result = train_in_memory(fits_in, job, {}, lambda text: None)
    assert all(len(rule.lanes) == len(LANES) for part in parts for rule in part.rules)
    assert all(part.n_lanes <= CHUNKS_THAT_STOP * part.size for part in parts)
    assert result.stopped_at.tolist() == train_chunk(job).stopped_at.tolist()


SMALL = WORKLOADS["breast_cancer"].resized(steps=40)
GRID = Protocol(LRS, ("constant", "cosine"), score_seeds=(SCORE_SEED,), stops=True)


def test_the_steps_of_stopped_lanes_are_counted_as_saved_and_the_best_lane_is_the_same() -> None:
    plan = Plan(update_plane="numba")
    pairs = zip(
        evaluate(TEXTS[:3], [SMALL], GRID, plan, Workers(1)),
        evaluate(TEXTS[:3], [SMALL], replace(GRID, stops=False), plan, Workers(1)),
        strict=True,
    )
    for (stopped,), (whole,) in pairs:
        assert whole.lane_steps == whole.n_lanes * 40 and whole.steps_saved == 0
        assert stopped.n_lanes == whole.n_lanes and stopped.lane_steps < whole.lane_steps
        losses = [np.inf if v is None else v for v in whole.final_losses]
        ended = [np.inf if v is None else v for v in stopped.final_losses]
        assert int(np.argmin(losses)) == int(np.argmin(ended))


def test_no_lane_of_a_baseline_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[bool] = []

    class Recording(Workers):
        def map(self, function, jobs, done=lambda finished, total: None):  # type: ignore[no-untyped-def]
            asked.extend(job.stops for job in jobs)
            return super().map(function, jobs, done)

    adam, plan = known("adam").rule, Plan()
    tuned = tune_baselines({"adam": adam}, [SMALL], GRID, plan, Recording(1), recompute=True)
    assert asked and not any(asked)
    assert tuned.outcomes[SMALL.name]["adam"].steps_saved == 0
    keys = {tuning_key(SMALL, adam.rule, replace(GRID, stops=stops), plan) for stops in (False, True)}
    assert len(keys) == 1
