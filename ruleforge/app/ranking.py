"""Which stored candidates are best: the Pareto front of the highest rung, then the runners-up.

Reads the store, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

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
        on_front: of the run's highest rung, and no other there has a better speed-up in as few nodes.
    """

    row: CandidateRow
    rung: int
    speedup: float | None
    on_front: bool


def front_of(best_first: Iterable[tuple[int, int]]) -> list[int]:
    """Of (id, nodes) pairs, best speed-up first, those that no better one matches in nodes."""
    front: list[int] = []
    fewest: int | None = None
    for number, nodes in best_first:
        if fewest is None or nodes < fewest:
            front.append(number)
            fewest = nodes
    return front


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
    front = set(front_of((row.id, row.nodes) for row in compared))
    rows.sort(key=lambda row: row.id not in front)
    return [Ranked(row, *reached[row.id], row.id in front) for row in rows]
