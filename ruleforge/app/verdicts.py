"""A comparison in words: better, not distinguishable, worse; wins, ties and losses; what carries over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ruleforge.app.plain import format_interval, format_ratio
from ruleforge.evaluate.statistics import Summary, in_words
from ruleforge.words import counted

SIGNIFICANT = 0.05


def words_of(found: Summary) -> str:
    """One word, or three: what the two-sided 95 % interval says."""
    if found.speedup is not None and found.ci is None:
        return "no verdict"
    return in_words(found.ci)


def verdict(found: Summary) -> str:
    """The same, and on how many workloads."""
    words = words_of(found)
    if found.speedup is None:
        return words
    where = f"{words} on {counted(found.n_workloads, 'workload')}"
    if found.ci is None:
        return f"{where}: one seed shows no spread"
    return f"{where}, over seeds alone" if found.ci_over == "seeds" else where


def result_of(p_adjusted: float | None, ratio: float | None) -> str | None:
    """win, loss or tie on one workload, by a p value corrected for their number; None without one."""
    if ratio is None or p_adjusted is None:
        return None
    if p_adjusted > SIGNIFICANT:
        return "tie"
    return "win" if ratio > 1 else "loss"


def carries_over(standing: Mapping[str, Mapping[str, Any] | None], fresh: str) -> str:
    """Whether the win of a search carries over, in plain sentences.

    Args:
        standing: suite → speed-up over the best single baseline there, as `Summary.as_json` tells it,
            in the order of telling; "search" is where the rule was found.
        fresh: the one of them that decides.
    """
    search, last = standing.get("search"), standing.get(fresh)
    place = fresh if " " in fresh or fresh == "validation" else f"the {fresh} suite"
    if not search or search["speedup"] is None:
        return "Nothing could be compared on the search suite."
    if not last or last["speedup"] is None or last["ci"] is None:
        return f"There is nothing on {place} to say whether it carries over."
    alone = search["n_workloads"] == 1
    words = {"search": "the one workload that it was searched on" if alone else "the search suite"}
    shown = ", ".join(
        f"{_cell(each)} on {words.get(name, name)}"
        for name, each in standing.items()
        if each and each["speedup"]
    )
    if search["speedup"] <= 1:
        return f"It does not beat the best single tuned baseline where it was searched: {shown}."
    is_shown = search["ci"] is not None and search["ci"][0] > 1
    gap = _gap(search["speedup"], last["speedup"]) if is_shown else ""
    if last["ci"][0] > 1:
        return f"The win carries over to {place}: {shown}.{gap}"
    if last["speedup"] > 1:
        return f"It may carry over, but the interval on {place} includes ×1.00: {shown}.{gap}"
    if last["ci"][1] >= 1:
        return f"That the win carries over to {place} is not shown: {shown}."
    fitted = (
        " It is fitted to that one workload: search on several." if alone
        else " It is good on the search tasks alone."
    )  # fmt: skip
    return f"The win does NOT carry over to {place}: {shown}.{fitted}"


def gap_in_words(
    search: float,
    validation: float,
    first: int,
    pair: tuple[float, float],
    is_champion: bool,
    n_searched: int,
) -> str:
    """How much of what the finalists gain on the search suite is left on validation, and of its best."""
    alone = n_searched == 1
    there = "the one workload that was searched on" if alone else "the search suite"
    lines = [f"The finalists together: ×{search:.2f} on {there}, ×{validation:.2f} on validation"]
    best = f"the best there, rule {first}, stands at ×{pair[0]:.2f} and on validation at ×{pair[1]:.2f}"
    if pair[0] > 1 >= pair[1]:
        best += ", which is overfitting"
        best += "" if is_champion else ": chosen by the search alone, it would be the champion"
    lines.append(best)
    if alone:
        lines.append("a search on one workload can hardly do otherwise than fit it")
    return "; ".join(lines) + "."


def _gap(search: float, fresh: float) -> str:
    """What is left of a gain, as a share of its logarithm; nothing where none is lost."""
    left = math.log(fresh) / math.log(search)
    return f" {left:.0%} of the gain is left (of its logarithm)." if left < 0.995 else ""


def _cell(record: Mapping[str, Any]) -> str:
    ci = record["ci"]
    return format_ratio(record["speedup"]) + (f" {format_interval(ci)}" if ci else "")
