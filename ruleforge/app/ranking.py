"""Which stored candidates are best: the Pareto front of the highest rung, then the runners-up.

Reads the store, and trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ruleforge.app.objectives import OBJECTIVES, front_of
from ruleforge.records import CandidateRow
from ruleforge.store import Store

SPEEDUP: Final = "speedup_vs_oracle"


@dataclass(frozen=True)
class Ranked:
    """A trained candidate and where it stands.

    Attributes:
        row: the candidate.
        rung: highest rung that it reached.
        speedup: over the oracle at that rung; None where nothing could be compared.
        on_front: of the run's highest rung, and no other there is as good on all of the run's axes; those are
            speed-up and nodes where it has a weighted sum in place of axes.
    """

    row: CandidateRow
    rung: int
    speedup: float | None
    on_front: bool


def rank(store: Store) -> list[Ranked]:
    """All trained candidates of a run: the front first, then by rung, speed-up and nodes."""
    reached: dict[int, tuple[int, float | None]] = {}
    for fit in store.fitness(objective=SPEEDUP):
        if fit.candidate not in reached or fit.rung > reached[fit.candidate][0]:
            reached[fit.candidate] = (fit.rung, fit.value)
    highest = max((rung for rung, _ in reached.values()), default=0)
    rows = [row for row in store.candidates("trained") if row.id in reached]

    def order(row: CandidateRow) -> tuple[int, float, int, int]:
        rung, speedup = reached[row.id]
        return (-rung, -speedup if speedup is not None else float("inf"), row.nodes, row.id)

    rows.sort(key=order)
    compared = [row for row in rows if reached[row.id][0] == highest and reached[row.id][1] is not None]
    compared = [row for row in compared if not row.reason]  # one with a reason is beyond a limit
    axes = {name: _of(store, name) for name in OBJECTIVES}
    axes = {
        name: values for name, values in axes.items() if compared and all(r.id in values for r in compared)
    }
    directions = [OBJECTIVES[name].direction for name in axes] or ["max", "min"]
    front = set(
        front_of(
            (
                (
                    row.id,
                    [values[row.id] for values in axes.values()] or (reached[row.id][1] or 0.0, row.nodes),
                )
                for row in compared
            ),
            directions,
        )
    )
    rows.sort(key=lambda row: row.id not in front)
    return [Ranked(row, *reached[row.id], row.id in front) for row in rows]


def _of(store: Store, name: str) -> dict[int, float]:
    """The values of an objective that a run was told, by candidate."""
    return {fit.candidate: fit.value for fit in store.fitness(objective=name) if fit.value is not None}
