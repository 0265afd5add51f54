"""A comparison in words: better, not distinguishable, worse; wins, ties and losses."""

from __future__ import annotations

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
    """win, loss or tie on one workload, by a p value corrected for the number of workloads."""
    if ratio is None:
        return None
    if p_adjusted is None or p_adjusted > SIGNIFICANT:
        return "tie"
    return "win" if ratio > 1 else "loss"
