"""Training one chunk: gradients of all lanes, then updates of all lanes, step after step.

The chunk goes through its whole budget before anything else starts, so that weights, gradients
and states stay in the core's cache. Lanes never interact: a lane that turns non-finite leaves the
others bit for bit unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ruleforge.backends import load_plane
from ruleforge.backends.base import UpdatePlane
from ruleforge.evaluate.compiled import compiled
from ruleforge.evaluate.devices import on_device, products
from ruleforge.evaluate.gradients import CompiledPlane, GradientPlane, eager_plane, example, flatten
from ruleforge.evaluate.lanes import (
    IDLE_RULE,
    ChunkJob,
    ChunkResult,
    LaneSpec,
    RuleLanes,
    sample_steps,
)
from ruleforge.evaluate.memory import train_in_memory
from ruleforge.evaluate.probes import update_scales
from ruleforge.evaluate.schedules import factor
from ruleforge.evaluate.threads import training_thread
from ruleforge.tasks import Workload
from ruleforge.tasks.base import Batch
from ruleforge.tasks.workload import USER_SUITE

TRAIN_TAIL = 0.1


def graph_identity(workload: Workload, n_lanes: int) -> str:
    """What a workload's compiled gradients are called on disk; "" where nothing is kept.

    A user's file may import what its digest does not cover.
    """
    return "" if workload.suite == USER_SUITE else f"{workload.source_hash()} {n_lanes}"


@lru_cache(maxsize=256)  # every workload of a search: loading a compiled one again takes half a second
def gradient_plane(workload: Workload, n_lanes: int, is_compiled: bool) -> GradientPlane:
    """The gradient plane of a workload, once a process; a compiled one is made for `n_lanes` lanes."""
    layout, weights, batch = example(workload, n_lanes)
    if not is_compiled:
        return eager_plane(workload, layout)
    return CompiledPlane(workload.task, layout, weights, batch, graph_identity(workload, n_lanes))


@lru_cache(maxsize=256)  # half a megabyte each; a generation of `default` trains on 216
def training_data(
    workload: Workload, seed: int, n_steps: int, n_lanes: int, is_compiled: bool, device: str = "cpu"
) -> tuple[Tensor, Batch]:
    """Initial weights of a lane, (P,), and prepared batches of all steps, (T, …), for all of a seed."""
    data = workload.data(seed, n_steps)
    plane = gradient_plane(workload, n_lanes, is_compiled)
    return flatten(data.params).to(device), plane.prepared(tuple(c.to(device) for c in data.batches))


def by_step(columns: Batch, n_steps: int) -> list[Batch]:
    """The batch of each step. Not to be kept: thousands of small tensors would be searched for garbage."""
    return list(zip(*(column.unbind() for column in columns), strict=True)) if columns else [()] * n_steps


def train_chunk(job: ChunkJob) -> ChunkResult:
    """Train one chunk of lanes.

    Args:
        job: workload, seed, budget, rules with their lanes, and the execution plan.

    Returns:
        Loss curves, final scores and where lanes diverged, in lane order.
    """
    with training_thread(), on_device(job.plan.device):
        return _train(job) if job.plan.device == "cpu" else train_in_memory(_train, job)


def _train(job: ChunkJob) -> ChunkResult:
    rules = _padded(job)
    specs = [spec for rule in rules for spec in rule.lanes]
    sizes = update_scales(job.workload, [rule.text for rule in rules], job.plan.update_plane)
    scales = [size for rule, size in zip(rules, sizes, strict=True) for _ in rule.lanes]
    lr0 = np.array([spec.lr / scale for spec, scale in zip(specs, scales, strict=True)])
    is_compiled = job.workload.name in job.plan.compiled
    plane = gradient_plane(job.workload, job.size, is_compiled)
    device = job.plan.device
    start, columns = training_data(job.workload, job.seed, job.n_steps, job.size, is_compiled, device)
    weights = start.repeat(len(specs), 1)
    update = load_plane(job.plan.update_plane)(
        [compiled(rule.text).lanes(len(rule.lanes)) for rule in rules], plane.layout, lr0, weights.dtype
    )
    lrs = lr0 * _factors(specs, job.n_steps)
    return _run(job, by_step(columns, job.n_steps), plane, update, weights, lrs).of_lanes(job.n_lanes, lr0)


def _factors(specs: list[LaneSpec], n_steps: int) -> NDArray[np.float64]:
    """Each schedule's factor at each step, (T, L)."""
    columns = {
        name: [factor(name, t, n_steps) for t in range(1, n_steps + 1)]
        for name in {spec.schedule for spec in specs}
    }
    return np.array([columns[spec.schedule] for spec in specs]).T


@dataclass
class _Record:
    """What a training leaves behind; see `ChunkResult`."""

    curves: NDArray[np.float64]
    train_losses: NDArray[np.float64]
    metrics: NDArray[np.float64]
    diverged_at: NDArray[np.int64]

    def read(self, scores: dict[str, Tensor], sample: int) -> None:
        self.curves[:, sample] = scores["loss"].cpu().numpy()
        if "accuracy" in scores:
            self.metrics[:] = scores["accuracy"].cpu().numpy()

    def of_lanes(self, n: int, lr0: NDArray[np.float64]) -> ChunkResult:
        """The first `n` lanes."""
        return ChunkResult(
            self.curves[:n], self.train_losses[:n], self.metrics[:n], lr0[:n], self.diverged_at[:n]
        )


def _run(
    job: ChunkJob,
    batches: list[Batch],
    plane: GradientPlane,
    update: UpdatePlane,
    weights: Tensor,
    lrs: NDArray[np.float64],
) -> _Record:
    """Train; `weights` (L, P) are changed in place, `lrs` are (T, L)."""
    n_lanes, n_steps = len(weights), job.n_steps
    samples = {t: k for k, t in enumerate(sample_steps(n_steps))}
    first_of_tail = n_steps - max(1, round(n_steps * TRAIN_TAIL)) + 1
    decay = np.full(n_lanes, job.plan.weight_decay) if job.plan.weight_decay else None
    record = _Record(
        np.full((n_lanes, len(samples)), np.nan), np.zeros(n_lanes),
        np.full(n_lanes, np.nan), np.zeros(n_lanes, dtype=np.int64),
    )  # fmt: skip
    record.read(plane.evaluate(weights), 0)
    for t in range(1, n_steps + 1):
        with products(job.plan.device, job.plan.precision):
            found, grads = plane.step(weights, batches[t - 1], t)
        losses = found.cpu().numpy()
        lost = ~np.isfinite(losses)
        if lost.any():
            record.diverged_at[(record.diverged_at == 0) & lost] = t
        if t >= first_of_tail:
            record.train_losses += losses.astype(np.float64) / (n_steps - first_of_tail + 1)
        if job.plan.gradient_clip is not None:
            norms = grads.double().square().sum(1, keepdim=True).sqrt()
            grads *= (job.plan.gradient_clip / norms).clamp(max=1.0).to(grads.dtype)
        update.step(weights, grads, t=t, lr=lrs[t - 1], progress=t / n_steps, weight_decay=decay)
        if t in samples:
            record.read(plane.evaluate(weights), samples[t])
        if t % 10 == 0 and record.diverged_at[: job.n_lanes].all():
            break
    lost_last = (record.diverged_at == 0) & ~np.isfinite(record.curves[:, -1])
    record.diverged_at[lost_last] = n_steps
    return record


def _padded(job: ChunkJob) -> tuple[RuleLanes, ...]:
    missing = job.size - job.n_lanes
    idle = RuleLanes(IDLE_RULE, (LaneSpec(0.0, "constant"),) * missing)
    return (*job.rules, idle) if missing > 0 else job.rules
