"""Training one chunk: gradients of all lanes, then updates of all lanes, step after step.

The chunk goes through its whole budget before anything else starts, so that weights, gradients
and states stay in the core's cache. Lanes never interact: a lane that turns non-finite leaves the
others bit for bit unchanged. Where lanes are stopped, a job is several chunks, which go from check to
check; what is left then goes on in fewer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruleforge.backends import load_plane
from ruleforge.backends.base import UpdatePlane
from ruleforge.backends.reference import RuleState
from ruleforge.evaluate.compiled import compiled
from ruleforge.evaluate.devices import on_device, products
from ruleforge.evaluate.gradients import (
    CompiledPlane,
    GradientPlane,
    eager_plane,
    example,
    flatten,
)
from ruleforge.evaluate.lanes import IDLE_RULE, ChunkJob, ChunkResult, LaneSpec, sample_steps
from ruleforge.evaluate.memory import train_in_memory
from ruleforge.evaluate.probes import update_scales
from ruleforge.evaluate.schedules import factor
from ruleforge.evaluate.stopping import checks, is_behind
from ruleforge.evaluate.threads import training_thread
from ruleforge.tasks import Workload
from ruleforge.tasks.base import Batch
from ruleforge.tasks.workload import USER_SUITE

TRAIN_TAIL = 0.1
MOVING = 12
"""Steps of a lane that cost as much as moving it to another chunk."""


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
    return _Training(job).run()


def _factors(specs: list[LaneSpec], n_steps: int) -> NDArray[np.float64]:
    """Each schedule's factor at each step, (T, L)."""
    columns = {
        name: [factor(name, t, n_steps) for t in range(1, n_steps + 1)]
        for name in {spec.schedule for spec in specs}
    }
    return np.array([columns[spec.schedule] for spec in specs]).T


@dataclass(frozen=True)
class _Chunk:
    """Rows that are trained side by side: lanes, and idle ones, and lanes that were stopped.

    Attributes:
        rows: those that count, ascending, (n,).
        lanes: their numbers in the job, ascending, (n,).
        update: the update plane of all `size` rows.
        weights: (size, P), changed in place.
        lrs: of each step, (T, size).
    """

    rows: NDArray[np.int64]
    lanes: NDArray[np.int64]
    update: UpdatePlane
    weights: Tensor
    lrs: NDArray[np.float64]


class _Training:
    """One job: its lanes in chunks, and what is known of each lane so far."""

    def __init__(self, job: ChunkJob) -> None:
        self.job = job
        plan, n_steps = job.plan, job.n_steps
        is_compiled = job.workload.name in plan.compiled
        self.plane = gradient_plane(job.workload, job.size, is_compiled)
        self.start, columns = training_data(
            job.workload, job.seed, n_steps, job.size, is_compiled, plan.device
        )
        self.batches = by_step(columns, n_steps)
        self.texts = [rule.text for rule in job.rules]
        self.rule_of = np.repeat(np.arange(len(job.rules)), [len(rule.lanes) for rule in job.rules])
        specs = [spec for rule in job.rules for spec in rule.lanes]
        scales = np.array(update_scales(job.workload, self.texts, plan.update_plane))[self.rule_of]
        self.lr0 = np.array([spec.lr for spec in specs]) / scales
        self.lrs = self.lr0 * _factors(specs, n_steps)
        self.samples = {t: k for k, t in enumerate(sample_steps(n_steps))}
        self.record = ChunkResult(
            np.full((len(specs), len(self.samples)), np.nan), np.zeros(len(specs)),
            np.full(len(specs), np.nan), self.lr0,
            np.zeros(len(specs), dtype=np.int64), np.zeros(len(specs), dtype=np.int64),
        )  # fmt: skip

    def run(self) -> ChunkResult:
        """Train all lanes to their end, which for those that are stopped comes sooner."""
        stops = checks(self.job.n_steps) if self.job.stops else {}
        chunks = [self._chunk(lanes) for lanes in self._cut(np.arange(len(self.rule_of)))]
        for chunk in chunks:
            self._read(chunk, 0)
        begin = 0
        for end in (*stops, self.job.n_steps):
            for chunk in chunks:
                self._advance(chunk, begin, end)
            if end in stops:
                chunks = self._without_stopped(chunks, end, stops[end])
            begin = end
        lost_last = (self.record.diverged_at == 0) & ~np.isfinite(self.record.curves[:, -1])
        self.record.diverged_at[lost_last] = self.job.n_steps
        return self.record

    def _cut(self, lanes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [lanes[i : i + self.job.size] for i in range(0, len(lanes), self.job.size)]

    def _chunk(self, lanes: NDArray[np.int64]) -> _Chunk:
        """Lanes at the start of their training."""
        size = self.job.size
        groups = [
            compiled(self.texts[rule]).lanes(len(list(mine))) for rule, mine in groupby(self.rule_of[lanes])
        ]
        if missing := size - len(lanes):
            groups.append(compiled(IDLE_RULE).lanes(missing))
        lr0, lrs = np.zeros(size), np.zeros((self.job.n_steps, size))
        lr0[: len(lanes)], lrs[:, : len(lanes)] = self.lr0[lanes], self.lrs[:, lanes]
        weights = self.start.repeat(size, 1)
        update = load_plane(self.job.plan.update_plane)(groups, self.plane.layout, lr0, weights.dtype)
        return _Chunk(np.arange(len(lanes)), lanes, update, weights, lrs)

    def _read(self, chunk: _Chunk, sample: int) -> None:
        """The validation loss now, and the accuracy where there is one."""
        scores = self.plane.evaluate(chunk.weights)
        self.record.curves[chunk.lanes, sample] = scores["loss"].cpu().numpy()[chunk.rows]
        if "accuracy" in scores:
            self.record.metrics[chunk.lanes] = scores["accuracy"].cpu().numpy()[chunk.rows]

    def _advance(self, chunk: _Chunk, begin: int, end: int) -> None:
        """Train a chunk from after step `begin` to `end`, or until all its lanes have diverged."""
        plan, n_steps = self.job.plan, self.job.n_steps
        first_of_tail = n_steps - max(1, round(n_steps * TRAIN_TAIL)) + 1
        decay = np.full(self.job.size, plan.weight_decay) if plan.weight_decay else None
        for t in range(begin + 1, end + 1):
            with products(plan.device, plan.precision):
                found, grads = self.plane.step(chunk.weights, self.batches[t - 1], t)
            losses = found.cpu().numpy()[chunk.rows]
            lost = ~np.isfinite(losses)
            if lost.any():
                new = chunk.lanes[lost]
                self.record.diverged_at[new[self.record.diverged_at[new] == 0]] = t
            if t >= first_of_tail:
                self.record.train_losses[chunk.lanes] += losses.astype(np.float64) / (
                    n_steps - first_of_tail + 1
                )
            if plan.gradient_clip is not None:
                norms = grads.double().square().sum(1, keepdim=True).sqrt()
                grads *= (plan.gradient_clip / norms).clamp(max=1.0).to(grads.dtype)
            chunk.update.step(
                chunk.weights, grads, t=t, lr=chunk.lrs[t - 1], progress=t / n_steps, weight_decay=decay
            )
            if t in self.samples:
                self._read(chunk, self.samples[t])
            if t % 10 == 0 and self.record.diverged_at[chunk.lanes].all():
                return

    def _without_stopped(self, chunks: list[_Chunk], t: int, share: float) -> list[_Chunk]:
        """Stop the lanes that have diverged or are behind after step `t`, and move the others together."""
        record, sample = self.record, self.samples[t]
        lanes = np.concatenate([chunk.lanes for chunk in chunks]) if chunks else np.zeros(0, np.int64)
        now = np.where(record.diverged_at[lanes] > 0, np.nan, record.curves[lanes, sample])
        behind = is_behind(record.curves[lanes, 0], now, self.rule_of[lanes], share)
        if not behind.any():
            return chunks
        stopped, last = lanes[behind], now[behind]
        record.stopped_at[stopped] = t
        record.train_losses[stopped] = np.nan
        record.curves[stopped, sample + 1 :] = last[:, None]
        record.diverged_at[stopped[~np.isfinite(last) & (record.diverged_at[stopped] == 0)]] = t
        left = [self._of_going(chunk) for chunk in chunks]
        n_going = len(lanes) - len(stopped)
        spared = len(chunks) * self.job.size - -(-n_going // self.job.size) * self.job.size
        pays = spared * (self.job.n_steps - t) > MOVING * n_going
        return self._moved(left) if pays else [chunk for chunk in left if len(chunk.lanes)]

    def _of_going(self, chunk: _Chunk) -> _Chunk:
        """The same chunk, its stopped lanes no longer counted."""
        going = self.record.stopped_at[chunk.lanes] == 0
        return replace(chunk, rows=chunk.rows[going], lanes=chunk.lanes[going])

    def _moved(self, chunks: list[_Chunk]) -> list[_Chunk]:
        """The lanes of chunks, with their weights and states, in as few as hold them."""
        nothing = ((),) * len(self.plane.layout.sizes)
        going, idle = [], RuleState((), nothing, nothing)
        for chunk in chunks:
            states = chunk.update.states()
            going += [
                (lane, chunk.weights[row], states[row])
                for lane, row in zip(chunk.lanes, chunk.rows, strict=True)
            ]
        moved = []
        for i in range(0, len(going), self.job.size):
            lanes, weights, kept = zip(*going[i : i + self.job.size], strict=True)
            chunk = self._chunk(np.array(lanes))
            chunk.weights[: len(lanes)] = torch.stack(weights)
            chunk.update.load_states([*kept, *[idle] * (self.job.size - len(lanes))])
            moved.append(chunk)
        return moved
