"""Records that travel between parts: what a search hands to the store and reads back from it.

Knows the fields and their units, and nothing of SQL, of rules as graphs, or of how a number was
measured: text, numbers and plain JSON values only, so that any part may import it.

A measured number that is not finite is `None` here: a lane that diverged is a result, counted in
`n_diverged`, and JSON has no spelling for NaN. `finite_or_none` does the conversion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

# A value that JSON can spell: None, bool, int, float, str, lists and str-keyed dicts of these.
Json: TypeAlias = Any

CandidateStatus = Literal["rejected", "duplicate_behaviour", "trained"]
CANDIDATE_STATUSES: Final[tuple[CandidateStatus, ...]] = ("rejected", "duplicate_behaviour", "trained")


def finite_or_none(value: float | None) -> float | None:
    """The number itself, or None where it is missing, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


@dataclass(frozen=True)
class CandidateRow:
    """A rule that was proposed and was new by its canonical form.

    Attributes:
        id: number given by the driver in proposal order, unique in the run.
        key: canonical identity without hyper defaults.
        full_key: canonical identity with hyper defaults; unique in the run.
        text: rule text.
        genome: the genome, serialised by the search.
        nodes: distinct nodes of the canonical graph.
        states: state slots, each the size of the weights.
        generation: generation that proposed it.
        origin: name of the variation that made it, or `seed:adam`.
        status: how far it came.
        reason: why it was rejected, or "".
        fingerprint: digest of its behaviour on the probes, or "" when it did not get there.
        same_as: id of the candidate that behaves alike; only for `duplicate_behaviour`.
    """

    id: int
    key: str
    full_key: str
    text: str
    genome: str
    nodes: int
    states: int
    generation: int
    origin: str
    status: CandidateStatus
    reason: str = ""
    fingerprint: str = ""
    same_as: int | None = None


@dataclass(frozen=True)
class ParentRow:
    """One edge of the lineage: `child` was made from `parent`, which stood at `position` (0, 1, …)."""

    child: int
    parent: int
    position: int = 0


@dataclass(frozen=True)
class EvaluationRow:
    """What training one candidate on one workload at one rung showed, over all its lanes.

    Attributes:
        candidate: candidate id.
        rung: level of the budget ladder, from 0.
        workload: workload name.
        steps: optimizer steps of each lane.
        n_lanes: lanes trained (lr × schedule × seed).
        n_diverged: lanes that went non-finite.
        diverged_at: first step at which a lane went non-finite, or None.
        best_lr: learning rate that was chosen, or None when every lane diverged.
        best_schedule: schedule that was chosen, or None.
        final_loss: loss at the end of the chosen lane, or None.
        metric: the workload's own metric at the end of the chosen lane, or None.
        speedup: speed-ups by reference, such as `{"vs_oracle": 0.8}`; steps(reference) / steps(candidate).
        losses: final loss of each lane in lane order; None where it diverged.
        curve: (step, loss) samples of the chosen lane.
    """

    candidate: int
    rung: int
    workload: str
    steps: int
    n_lanes: int
    n_diverged: int
    diverged_at: int | None = None
    best_lr: float | None = None
    best_schedule: str | None = None
    final_loss: float | None = None
    metric: float | None = None
    speedup: Mapping[str, float | None] = field(default_factory=dict)
    losses: tuple[float | None, ...] = ()
    curve: tuple[tuple[int, float | None], ...] = ()


@dataclass(frozen=True)
class FitnessRow:
    """One objective of one candidate after one rung; the config says its direction and unit."""

    candidate: int
    rung: int
    objective: str
    value: float | None


@dataclass(frozen=True)
class GenerationRow:
    """Where the search stood at the end of one generation: all that resume needs.

    Attributes:
        n: generation number, from 0 without gaps.
        population: ids of the individuals alive now, in the strategy's order.
        rng: state of the random generators; must round-trip exactly.
        strategy: the strategy's own state; must round-trip exactly.
        funnel: counts by name (`proposed`, `duplicate_key`, `trained`, …).
        best: the best so far, for display and plots.
    """

    n: int
    population: tuple[int, ...]
    rng: Json
    strategy: Json
    funnel: Mapping[str, Json] = field(default_factory=dict)
    best: Json = None


@dataclass(frozen=True)
class TimingRow:
    """Wall time of one phase, in seconds; kept apart, because two equal runs differ in it."""

    generation: int
    phase: str
    wall_s: float
