"""Running out of GPU memory in mid-run: halve the chunk, go on, lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.errors import RunError
from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, LaneSpec, Plan, RuleLanes
from ruleforge.evaluate.memory import train_in_memory
from ruleforge.evaluate.train import train_chunk
from ruleforge.tasks import load_suite

WORKLOAD = load_suite("search")[0]


def make_job(counts: list[int], size: int | None = None, n_steps: int = 4) -> ChunkJob:
    """A job whose rules have some lanes each, every lane with a learning rate of its own."""
    rules, number = [], 0
    for count in counts:
        lanes = tuple(LaneSpec(1e-3 * (1 + number + k), "constant") for k in range(count))
        rules.append(RuleLanes("update = g\n", lanes))
        number += count
    return ChunkJob(WORKLOAD, 0, n_steps, tuple(rules), Plan(), size or sum(counts))


def faked(fits: int, calls: list[int]) -> Callable[[ChunkJob], ChunkResult]:
    """A training that runs out of memory above a number of lanes; its results are the lanes' own lrs."""

    def train(job: ChunkJob) -> ChunkResult:
        calls.append(job.size)
        if job.size > fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        lrs = np.array([spec.lr for rule in job.rules for spec in rule.lanes])
        assert len(lrs) <= job.size
        never = np.zeros(len(lrs), np.int64)
        return ChunkResult(np.tile(lrs[:, None], 3), lrs, lrs, lrs, never, never)

    return train


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 60))
def test_no_lane_is_lost_and_their_order_stays(counts: list[int], fits: int) -> None:
    job = make_job(counts)
    calls: list[int] = []
    result = train_in_memory(faked(fits, calls), job, {}, lambda text: None)
    wanted = [spec.lr for rule in job.rules for spec in rule.lanes]
    assert result.lrs.tolist() == wanted
    assert result.curves.shape == (sum(counts), 3)
    assert calls[-1] <= fits


def test_what_fits_is_remembered_and_said_once() -> None:
    calls: list[int] = []
    said: list[str] = []
    fitting: dict[str, int] = {}
    train = faked(20, calls)
    for _ in range(3):
        train_in_memory(train, make_job([36, 36]), fitting, said.append)
    assert calls == [72, 36] + [18] * 4 + [18] * 8
    assert len(said) == 2 and "out of GPU memory with 72 lanes; going on with 36" in said[0]


def test_one_lane_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(RunError, match="a single lane does not fit"):
        train_in_memory(faked(0, []), make_job([4]), {}, lambda text: None)


def test_other_errors_pass() -> None:
    def broken(job: ChunkJob) -> Any:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train_in_memory(broken, make_job([4]), {}, lambda text: None)


def test_real_lanes_come_out_as_from_one_chunk() -> None:
    """Memory that runs out in the middle of a training: the lanes start again, in halves, and agree."""
    job = make_job([5, 3])
    whole = train_chunk(job)

    def train(part: ChunkJob) -> ChunkResult:
        made = train_chunk(part)
        if part.size > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return made

    halved = train_in_memory(train, job, {}, lambda text: None)
    assert halved.lrs.tolist() == whole.lrs.tolist()
    np.testing.assert_allclose(halved.curves, whole.curves, rtol=1e-5)
