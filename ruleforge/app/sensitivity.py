"""How much a verdict depends on choices that could have been made otherwise.

Recomputed from the curves at hand; nothing is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ruleforge.app.plain import format_interval, format_ratio
from ruleforge.app.verdicts import words_of
from ruleforge.evaluate.baselines import Baselines, with_targets
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.statistics import Summary, summarize
from ruleforge.evaluate.targets import LEVELS, MISS, Levels

# Other definitions of the losses to reach, and of what a miss costs.
DEFINITIONS: dict[str, tuple[Levels, float]] = {
    "the median baseline's losses alone": (tuple(each for each in LEVELS if each[0] == "median"), MISS),
    "the best baseline's losses alone": (tuple(each for each in LEVELS if each[0] == "best"), MISS),
    "losses of half the budget": ((("median", 0.25), ("median", 0.5), ("best", 0.5)), MISS),
    "losses of the whole budget alone": ((("median", 1.0), ("best", 1.0)), MISS),
    "a miss counted as 1.25 budgets": (LEVELS, 1.25),
    "a miss counted as 2 budgets": (LEVELS, 2.0),
}


def under_other_targets(
    outcomes: Mapping[str, Outcome], tuned: Baselines, reference: str
) -> list[dict[str, Any]]:
    """The speed-up over the same reference under each definition of the targets."""
    rows = []
    for name, (levels, miss) in DEFINITIONS.items():
        other = with_targets(tuned.outcomes, tuned.origin, levels=levels, miss=miss)
        rows.append({"definition": name, **_row(summarize(other.speedups(outcomes, reference)))})
    return rows


def without_each(outcomes: Mapping[str, Outcome], tuned: Baselines, reference: str) -> list[dict[str, Any]]:
    """The speed-up with each workload left out in turn; nothing where fewer than two would be left."""
    speedups = {w: s for w, s in tuned.speedups(outcomes, reference).items() if s.log_ratios}
    if len(speedups) < 3:
        return []
    return [
        {"without": w, **_row(summarize({v: s for v, s in speedups.items() if v != w}))} for w in speedups
    ]


def _row(found: Summary) -> dict[str, Any]:
    ci = list(found.ci) if found.ci else None
    return {"speedup": found.speedup, "ci": ci, "verdict": words_of(found)}


def in_words(words: str, rows: list[dict[str, Any]], key: str, what: str, named: str) -> str:
    """One sentence: under how many of the alternatives the verdict is the same, and where it is not.

    Args:
        words: the verdict proper.
        rows: the alternatives.
        key: what names one.
        what: what they are, in the plural.
        named: what stands before a name, such as "without ".
    """
    if not rows:
        return ""
    same = Counter(row["verdict"] for row in rows)[words]
    if same == len(rows):
        values = [row["speedup"] for row in rows if row["speedup"] is not None]
        span = f" (×{min(values):.2f} to ×{max(values):.2f})" if values else ""
        return f"the same, {words}, under all {len(rows)} {what}{span}"
    others = "; ".join(
        f"{named}{row[key]} it is {row['verdict']}{_shown(row)}" for row in rows if row["verdict"] != words
    )
    return f"the same, {words}, under {same} of {len(rows)} {what}; {others}"


def _shown(row: Mapping[str, Any]) -> str:
    if row["speedup"] is None or row["ci"] is None:
        return ""
    return f" ({format_ratio(row['speedup'])} {format_interval(row['ci'])})"
