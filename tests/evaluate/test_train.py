"""Lanes never interact, and what a chunk computes depends on its content alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ruleforge.backends import PLANES
from ruleforge.backends.base import LaneGroup
from ruleforge.evaluate import train
from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, LaneSpec, Plan, RuleLanes, pack
from ruleforge.evaluate.schedules import SCHEDULES, factor
from ruleforge.evaluate.threads import training_thread
from ruleforge.evaluate.train import train_chunk
from ruleforge.tasks import WORKLOADS

ADAM = "update = ema_hat(g, 0.9) / (sqrt(ema_hat(g * g, 0.999)) + 1e-8)\n"
LION = "m: state = 0\nupdate = sign(lerp(g, m, 0.9))\nm = lerp(g, m, 0.99)\n"
CLIPPED = "update = clip_norm(trace(g, 0.9), 1)\n"
EXPLODES = "update = exp(exp(g * 1000)) * g\n"
LANES = (LaneSpec(0.003, "constant"), LaneSpec(0.01, "cosine"), LaneSpec(0.03, "warmup_cosine"))
WORKLOAD = WORKLOADS["teacher_student"]
# On a CPU the Triton planes run in Triton's own interpreter, a minute a training.
ALL_PLANES = [
    pytest.param(name, marks=[pytest.mark.slow] if name.startswith("triton") else [])
    for name in PLANES
    if name != "reference"
]


def run(rules: tuple[str, ...], *, plan: Plan | None = None, n_steps: int = 15) -> ChunkResult:
    lanes = tuple(RuleLanes(text, LANES) for text in rules)
    return train_chunk(ChunkJob(WORKLOAD, 0, n_steps, lanes, plan or Plan(), 16))


def rows(result: ChunkResult, number: int) -> np.ndarray:
    return result.curves[3 * number : 3 * number + 3]


@pytest.mark.parametrize("plane", ALL_PLANES)
def test_position_and_neighbours_change_no_bit(plane: str) -> None:
    plan = Plan(update_plane=plane)
    alone = run((ADAM,), plan=plan)
    last = run((LION, CLIPPED, ADAM), plan=plan)
    poisoned = run((EXPLODES, ADAM), plan=plan)
    assert (poisoned.diverged_at[:3] > 0).all(), "the neighbour must really have diverged"
    assert np.array_equal(rows(alone, 0), rows(last, 2))
    assert np.array_equal(rows(alone, 0), rows(poisoned, 1))


@pytest.mark.parametrize("plane", ALL_PLANES)
def test_planes_agree_with_the_reference(plane: str) -> None:
    rules = (ADAM, LION, CLIPPED)
    slow = run(rules, plan=Plan(update_plane="reference"), n_steps=8)
    fast = run(rules, plan=Plan(update_plane=plane), n_steps=8)
    assert np.allclose(slow.curves, fast.curves, rtol=1e-3, atol=1e-5)
    assert np.allclose(slow.lrs, fast.lrs, rtol=1e-5)


def test_a_diverged_lane_is_recorded_with_its_step() -> None:
    result = run((EXPLODES, ADAM))
    assert (result.diverged_at[:3] > 0).all() and (result.diverged_at[3:] == 0).all()
    assert np.isnan(result.curves[:3, -1]).all() and np.isfinite(result.curves[3:]).all()


def test_a_lane_lost_in_the_last_step_is_recorded_too() -> None:
    result = run(("update = g / lt(t, 15)\n", ADAM))
    assert list(result.diverged_at) == [15] * 3 + [0] * 3


def test_training_lowers_the_loss() -> None:
    result = run((ADAM,), n_steps=60)
    assert (result.curves[:, -1] < 0.8 * result.curves[:, 0]).all()


def test_gradient_clipping_and_weight_decay_reach_the_training() -> None:
    plain = run(("update = g\n",))
    clipped = run(("update = g\n",), plan=Plan(gradient_clip=1e-3))
    decayed = run(("update = g\n",), plan=Plan(weight_decay=1.0))
    assert (clipped.curves[:2, -1] > plain.curves[:2, -1]).all()
    assert not np.array_equal(decayed.curves, plain.curves)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_stay_in_their_range_and_always_move(name: str) -> None:
    factors = [factor(name, t, 50) for t in range(1, 51)]
    assert all(0 < f <= 1 for f in factors)
    assert max(factors) > 0.9


def test_packing_keeps_every_lane_in_order() -> None:
    rules = [RuleLanes(str(k), LANES * (1 + k % 4)) for k in range(20)]
    chunks = pack(rules, 16)
    assert all(sum(len(r.lanes) for r in chunk) <= 16 for chunk in chunks)
    flat = [(r.text, lane) for chunk in chunks for r in chunk for lane in r.lanes]
    assert flat == [(r.text, lane) for r in rules for lane in r.lanes]
    assert pack([RuleLanes("long", LANES * 10)], 16)[0][0].lanes == (LANES * 10)[:16]


def test_a_chunk_has_its_full_size_however_few_lanes_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of lanes is another execution plan, and gives other bits on some machines."""
    sizes = []
    load = train.load_plane

    def load_and_look(name: str) -> Any:
        def make(groups: Sequence[LaneGroup], *args: Any) -> Any:
            sizes.append(sum(group.n_lanes for group in groups))
            return load(name)(groups, *args)

        return make

    monkeypatch.setattr(train, "load_plane", load_and_look)
    run((ADAM,), n_steps=2)
    run((ADAM, LION), n_steps=2)
    assert sizes == [16, 16]


def test_a_training_has_one_thread_without_denormals_whatever_its_caller_has() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with training_thread():
            assert torch.get_num_threads() == 1
            assert (torch.full((4,), 1e-40) * 1.0 == 0).all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_training_leaves_the_thread_as_it_was() -> None:
    threads = torch.get_num_threads()
    run((ADAM,))
    assert torch.get_num_threads() == threads
    tiny = torch.full((4,), 1e-40)
    assert (tiny * 1.0 != 0).all(), "denormals are the caller's business again"
