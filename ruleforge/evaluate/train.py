"""Training one chunk: gradients of all lanes, then updates of all lanes, step after step.

The chunk goes through its whole budget before anything else starts, so that weights, gradients
and states stay in the core's cache. Lanes never interact: a lane that turns non-finite leaves the
others bit for bit unchanged.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ruleforge.backends import load_plane
from ruleforge.backends.base import LaneGroup
from ruleforge.evaluate.compiled import compiled
from ruleforge.evaluate.gradients import GradientPlane, flatten, layout_of
from ruleforge.evaluate.lanes import (
    IDLE_RULE,
    ChunkJob,
    ChunkResult,
    LaneSpec,
    RuleLanes,
    sample_steps,
)
from ruleforge.evaluate.probes import update_scales
from ruleforge.evaluate.schedules import factor
from ruleforge.evaluate.threads import training_thread
from ruleforge.tasks import TrainingData, Workload

TRAIN_TAIL = 0.1


@lru_cache(maxsize=16)
def training_data(workload: Workload, seed: int, n_steps: int) -> TrainingData:
    return workload.data(seed, n_steps)


@lru_cache(maxsize=16)
def gradient_plane(workload: Workload, mode: str) -> GradientPlane:
    layout = layout_of(workload.data(0, 1).params)
    return GradientPlane(workload.task, layout, compiled=mode == "compiled")


def train_chunk(job: ChunkJob) -> ChunkResult:
    """Train one chunk of lanes.

    Args:
        job: workload, seed, budget, rules with their lanes, and the execution plan.

    Returns:
        Loss curves, final scores and where lanes diverged, in lane order.
    """
    with training_thread():
        return _train(job)


def _train(job: ChunkJob) -> ChunkResult:
    rules = _padded(job.rules, job.size)
    specs = [spec for rule in rules for spec in rule.lanes]
    sizes = update_scales(job.workload, [rule.text for rule in rules], job.plan.update_plane)
    scales = [size for rule, size in zip(rules, sizes, strict=True) for _ in rule.lanes]
    lr0 = np.array([spec.lr / scale for spec, scale in zip(specs, scales, strict=True)])
    data = training_data(job.workload, job.seed, job.n_steps)
    plane = gradient_plane(job.workload, job.plan.gradient_plane)
    weights = flatten(data.params).repeat(len(specs), 1)
    update = load_plane(job.plan.update_plane)(
        [_group(rule) for rule in rules], plane.layout, lr0, weights.dtype
    )
    return _run(job, specs, lr0, data, plane, update, weights)


def _run(
    job: ChunkJob,
    specs: list[LaneSpec],
    lr0: np.ndarray,
    data: TrainingData,
    plane: GradientPlane,
    update: object,
    weights: Tensor,
) -> ChunkResult:
    n_lanes, n_steps = len(specs), job.n_steps
    n_real = sum(len(rule.lanes) for rule in job.rules)
    grads = torch.empty_like(weights)
    factors = {
        name: [factor(name, t, n_steps) for t in range(1, n_steps + 1)]
        for name in {s.schedule for s in specs}
    }
    decay = np.full(n_lanes, job.plan.weight_decay) if job.plan.weight_decay else None
    samples = sample_steps(n_steps)
    curves = np.full((n_lanes, len(samples)), np.nan)
    metrics = np.full(n_lanes, np.nan)
    diverged_at = np.zeros(n_lanes, dtype=np.int64)
    tail = max(1, round(n_steps * TRAIN_TAIL))
    train_losses = np.zeros(n_lanes)
    curves[:, 0] = _scores(plane, weights, metrics)
    for t in range(1, n_steps + 1):
        losses = (
            plane.step(weights, tuple(column[t - 1] for column in data.batches), t, grads).double().numpy()
        )
        diverged_at[(diverged_at == 0) & ~np.isfinite(losses)] = t
        if t > n_steps - tail:
            train_losses += losses / tail
        if job.plan.gradient_clip is not None:
            norms = grads.double().square().sum(1, keepdim=True).sqrt()
            grads *= (job.plan.gradient_clip / norms).clamp(max=1.0).to(grads.dtype)
        lr = lr0 * np.array([factors[spec.schedule][t - 1] for spec in specs])
        update.step(weights, grads, t=t, lr=lr, progress=t / n_steps, weight_decay=decay)  # type: ignore[attr-defined]
        if t in samples:
            curves[:, samples.index(t)] = _scores(plane, weights, metrics)
        if t % 10 == 0 and diverged_at[:n_real].all():
            break
    lost = diverged_at > 0
    diverged_at[~lost & ~np.isfinite(curves[:, -1])] = n_steps
    return ChunkResult(
        curves[:n_real], train_losses[:n_real], metrics[:n_real], lr0[:n_real], diverged_at[:n_real]
    )  # fmt: skip


def _scores(plane: GradientPlane, weights: Tensor, metrics: np.ndarray) -> np.ndarray:
    scores = plane.evaluate(weights)
    if "accuracy" in scores:
        metrics[:] = scores["accuracy"].double().numpy()
    return scores["loss"].double().numpy()


def _padded(rules: tuple[RuleLanes, ...], size: int) -> tuple[RuleLanes, ...]:
    missing = size - sum(len(rule.lanes) for rule in rules)
    idle = RuleLanes(IDLE_RULE, (LaneSpec(0.0, "constant"),) * missing)
    return (*rules, idle) if missing > 0 else rules


def _group(rule: RuleLanes) -> LaneGroup:
    made = compiled(rule.text)
    hypers = np.repeat(np.asarray(made.defaults, dtype=np.float64)[:, None], len(rule.lanes), axis=1)
    return LaneGroup(made.program, len(rule.lanes), hypers)
