"""What travels to a worker and back: rule text and numbers, nothing else.

A chunk is a fixed number of lanes that share a workload, a seed and a budget. It is the unit of
work, and its result depends on its content alone: not on the worker, nor on other chunks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends import is_on_gpu
from ruleforge.evaluate.devices import Precision
from ruleforge.tasks import Workload

N_SAMPLES = 20
MIN_SPACING = 4
IDLE_RULE = "update = g\n"
CHUNKS_THAT_STOP = 4
"""Chunks of one job where lanes are stopped: those left are put together, and fill fewer."""


@dataclass(frozen=True)
class Plan:
    """The recorded execution plan: what decides the bits of a training besides its content.

    Attributes:
        chunk_lanes: lanes of a chunk that tunes; padded, never shrunk.
        score_lanes: lanes of a chunk that scores, where a rule has one lane; padded, never shrunk.
        update_plane: name in `backends.PLANES`.
        compiled: names of the workloads whose gradients are compiled.
        weight_decay: decoupled, for all lanes.
        gradient_clip: largest global gradient norm of a lane, or None.
        precision: of the gradients' matrix products on a GPU, see `devices`.
    """

    chunk_lanes: int = 24
    score_lanes: int = 24
    update_plane: str = "torch"
    compiled: tuple[str, ...] = ()
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    precision: Precision = "float32"

    @property
    def device(self) -> str:
        """Where lanes are trained: where their rules run."""
        on_gpu = is_on_gpu(self.update_plane) and os.environ.get("TRITON_INTERPRET") != "1"
        return "cuda" if on_gpu else "cpu"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The plan that a run recorded. Runs of 0.1 say "gradient_plane"; those were op by op."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        return cls(**{**values, "compiled": tuple(values.get("compiled", ()))})


@dataclass(frozen=True)
class LaneSpec:
    """One training of a rule: a relative learning rate and a schedule.

    `lr` is in units of one over the rule's update RMS on the workload's own gradients, so that a
    sign rule and SGD are searched around their own scale.
    """

    lr: float
    schedule: str


@dataclass(frozen=True)
class RuleLanes:
    """A rule's text and its lanes in one chunk."""

    text: str
    lanes: tuple[LaneSpec, ...]


@dataclass(frozen=True)
class ChunkJob:
    """Train some rules' lanes on one workload from one seed for a number of steps.

    Attributes:
        rules: with their lanes; a rule whose lanes are stopped has all of them here.
        size: lanes of a chunk; the job is one chunk, or several where lanes are stopped.
        stops: whether lanes that have no hope end before their last step, see `stopping`.
    """

    workload: Workload
    seed: int
    n_steps: int
    rules: tuple[RuleLanes, ...]
    plan: Plan
    size: int
    stops: bool = False

    @property
    def n_lanes(self) -> int:
        """Lanes asked for; what they lack of whole chunks is padding."""
        return sum(len(rule.lanes) for rule in self.rules)


@dataclass(frozen=True)
class ChunkResult:
    """What a chunk's lanes did, in lane order, padding left out.

    Attributes:
        curves: validation loss at `sample_steps(n_steps)`, (L, K); NaN from where a lane diverged, and the
            last one from where a lane was stopped.
        train_losses: mean training loss over the last tenth of the steps, (L,); NaN where it was stopped.
        metrics: accuracy at the end, (L,); NaN where the task has none.
        lrs: absolute learning rates, (L,).
        diverged_at: first step with a loss that is not finite, 0 where there is none, (L,).
        stopped_at: last step of a lane that was stopped, 0 where none was, (L,).
    """

    curves: NDArray[np.float64]
    train_losses: NDArray[np.float64]
    metrics: NDArray[np.float64]
    lrs: NDArray[np.float64]
    diverged_at: NDArray[np.int64]
    stopped_at: NDArray[np.int64]


def sample_steps(n_steps: int) -> tuple[int, ...]:
    """Steps after which the validation loss is read: 0, the last, and evenly between.

    Twenty times a run, but no closer than every fourth step: on a short rung reading would cost more
    than training.
    """
    count = max(1, min(N_SAMPLES, n_steps // MIN_SPACING))
    return tuple(sorted({round(k * n_steps / count) for k in range(count + 1)}))


def pack(rules: Sequence[RuleLanes], size: int) -> list[tuple[RuleLanes, ...]]:
    """Rules in order into chunks of `size` lanes, the last one of what is left; a rule at a border is cut."""
    chunks: list[list[RuleLanes]] = [[]]
    room = size
    for rule in rules:
        lanes = rule.lanes
        while lanes:
            if not room:
                chunks.append([])
                room = size
            part, lanes = lanes[:room], lanes[room:]
            chunks[-1].append(RuleLanes(rule.text, part))
            room -= len(part)
    return [tuple(chunk) for chunk in chunks if chunk]


def pack_whole(rules: Sequence[RuleLanes], size: int) -> list[tuple[RuleLanes, ...]]:
    """Rules in order into parts of at most `size` lanes, none cut; a rule with more is a part of its own."""
    parts: list[list[RuleLanes]] = []
    room = 0
    for rule in rules:
        if not parts or len(rule.lanes) > room:
            parts.append([])
            room = size
        parts[-1].append(rule)
        room -= len(rule.lanes)
    return [tuple(part) for part in parts]


def parts_of_jobs(rules: Sequence[RuleLanes], size: int, stops: bool) -> list[tuple[RuleLanes, ...]]:
    """Rules in order, divided into those of one job each: a chunk, or `CHUNKS_THAT_STOP` of whole rules."""
    return pack_whole(rules, CHUNKS_THAT_STOP * size) if stops else pack(rules, size)
