"""What a run says of its champion beside a comparison: both suites of its final, and who would have won
had a search workload not been there.

Reads the run folder, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruleforge.app.final_record import final_record
from ruleforge.app.ranking import SPEEDUP
from ruleforge.app.verdicts import carries_over
from ruleforge.evaluate.statistics import geometric_mean
from ruleforge.store import Store

Record = Mapping[str, Any]


def run_record(folder: Path, compared: Record, suite: str | None) -> dict[str, Any] | None:
    """A run's own figures beside those of a comparison.

    Args:
        folder: the run.
        compared: overall record of the champion's comparison.
        suite: where it was compared; None where workloads were named.

    Returns:
        `standing` (suite → speed-up over the best single baseline there), `carries_over` in words, and
        `leave_one_out`; None where the run has no final yet.
    """
    with Store.open(folder, readonly=True) as store:
        final = final_record(store)
        champion = final.get("champion")
        if not champion:
            return None
        left_out = leave_one_out(store, champion["id"], final.get("front") or ())
    standing = {
        name: (champion["speedup"].get(name) or {}).get("vs_best_single") for name in ("search", "validation")
    }
    fresh = suite if suite not in standing else f"{suite}, again"
    standing[fresh or "the named workloads"] = dict(compared)
    return {
        "run": str(folder),
        "champion": champion["id"],
        "standing": standing,
        "carries_over": carries_over(standing, fresh or "the named workloads"),
        "leave_one_out": left_out,
    }


def leave_one_out(store: Store, champion: int, finalists: Sequence[Record]) -> list[dict[str, Any]]:
    """Where the champion would stand without each search workload, at the run's highest rung.

    A row a workload: the champion's `rank` among the `of` rules of that rung, by the speed-up over the
    oracle on the other workloads; the `best` of them; and, of the finalists, the `chosen` one by the final
    itself, where the run kept the finalists' speed-ups on each workload.
    """
    highest = max((fit.rung for fit in store.fitness(objective=SPEEDUP)), default=0)
    by_rule: dict[int, dict[str, float]] = {}
    for row in store.evaluations(rung=highest):
        value = row.speedup.get("vs_oracle")
        if value is not None and value > 0:
            by_rule.setdefault(row.candidate, {})[row.workload] = value
    workloads = sorted(by_rule.get(champion, {}))
    if len(workloads) < 2:
        return []
    rows = []
    for left_out in workloads:
        merits = {
            number: merit
            for number, each in by_rule.items()
            if (merit := geometric_mean([v for w, v in each.items() if w != left_out])) is not None
        }
        order = sorted(merits, key=lambda n: (-merits[n], n))
        rows.append(
            {
                "without": left_out,
                "vs_oracle": merits[champion],
                "rank": order.index(champion) + 1,
                "of": len(order),
                "best": order[0],
                "best_vs_oracle": merits[order[0]],
                "chosen": _chosen(finalists, left_out),
            }
        )
    return rows


def _chosen(finalists: Sequence[Record], left_out: str) -> int | None:
    """The finalist with the best final over all workloads but one."""
    merits: dict[int, float] = {}
    for each in finalists:
        values = [
            place.get("vs_oracle") for w, place in (each.get("workloads") or {}).items() if w != left_out
        ]
        known = [value for value in values if value]
        if not known:
            return None
        merits[each["id"]] = geometric_mean(known) or 0.0
    return max(merits, key=lambda n: (merits[n], -n)) if merits else None


def left_out_in_words(champion: int | None, rows: Sequence[Record]) -> str:
    """One line: does the champion survive without each search workload?"""
    if not rows:
        return ""
    n = len(rows)
    ranks = ", ".join(f"{row['rank']} without {row['without']}" for row in rows)
    line = f"without one search workload ranks, of {rows[0]['of']} rules of the highest rung: {ranks}"
    if any(row["chosen"] is None for row in rows):
        return line
    others = [f"rule {row['chosen']} without {row['without']}" for row in rows if row["chosen"] != champion]
    kept = n - len(others)
    again = f"the final alone would choose it again {kept} times of {n}"
    return f"{line}; {again}" + (f", and {', '.join(others)}" if others else "")
