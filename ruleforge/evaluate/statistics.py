"""How sure a speed-up is: geometric means over workloads, and intervals that cover with few of them.

The interval over a suite is a t interval over the workloads' mean log ratios. It is an interval *of the
mean over a population of workloads like these*: what differs between workloads, noise of seeds and of
tuning included, is its only yardstick, so more seeds alone do not shrink it to nothing. On one workload
there is only the interval over seeds, which says how this rule does here and nothing about transfer.
Targets of one seed stay together, since they share a curve. `benchmarks/calibration.py` shows how often
these intervals cover, beside bootstraps that do so less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ruleforge.evaluate.targets import Speedup

CONFIDENCE = 0.95

Interval = tuple[float, float]
Basis = Literal["workloads", "seeds"]


@dataclass(frozen=True)
class Summary:
    """A speed-up over a suite.

    Attributes:
        speedup: geometric mean over workloads, or None when nothing could be compared.
        ci: interval of it, 95 % unless asked otherwise, or None.
        median, worst: over workloads.
        n_workloads: workloads that counted.
        ci_over: what the interval generalises over: "workloads" like these, or, of one workload, "seeds".
        ci_here: the same over seeds for these very workloads and the settings chosen on them; None
            with a single seed.
    """

    speedup: float | None
    ci: Interval | None
    median: float | None
    worst: float | None
    n_workloads: int
    ci_over: Basis | None = None
    ci_here: Interval | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "speedup": self.speedup, "ci": list(self.ci) if self.ci else None, "median": self.median,
            "worst": self.worst, "n_workloads": self.n_workloads, "ci_over": self.ci_over,
            "ci_here": list(self.ci_here) if self.ci_here else None,
        }  # fmt: skip


def geometric_mean(values: list[float]) -> float | None:
    return math.exp(math.fsum(math.log(v) for v in values) / len(values)) if values else None


def sure_mean(values: Sequence[float | None]) -> float:
    """Geometric mean less one standard error over workloads, 0 of none: the one to choose rules by.

    Of two rules with one mean, that is the better choice which does not owe it to a few workloads. One
    standard error is Breiman's measure (CART, 1984); a whole interval would prefer a copy of the reference.

    Example:
        >>> round(sure_mean([1.1, 1.1, 1.1]), 3), round(sure_mean([1.0, 1.0, 1.331]), 3)
        (1.1, 1.0)
    """
    logs = [math.log(value) for value in values if value]
    if not logs:
        return 0.0
    found = _standard_error(logs)
    return math.exp(found[0] - found[1] if found else logs[0])


def summarize(speedups: Mapping[str, Speedup], confidence: float = CONFIDENCE) -> Summary:
    """Aggregate one rule's speed-ups over workloads."""
    by_workload = [seed_means(s) for s in speedups.values() if s.log_ratios]
    if not by_workload:
        return Summary(None, None, None, None, 0)
    means = np.array([rows.mean() for rows in by_workload])
    here = _exp(stratified_interval(by_workload, confidence))
    one = len(means) == 1
    return Summary(
        float(np.exp(means.mean())), here if one else _exp(t_interval(means, confidence)),
        float(np.exp(np.median(means))), float(np.exp(means.min())), len(means),
        "seeds" if one else "workloads", here,
    )  # fmt: skip


def in_words(ci: Interval | None) -> str:
    """better, worse or not distinguishable, by a two-sided 95 % interval of a ratio."""
    if ci is None:
        return "nothing could be compared"
    return "better" if ci[0] > 1 else "worse" if ci[1] < 1 else "not distinguishable"


def interval(speedup: Speedup) -> Interval | None:
    """95 % interval over paired seeds on one workload; None with fewer than two seeds."""
    return _exp(t_interval(seed_means(speedup)))


def seed_means(speedup: Speedup) -> NDArray[np.float64]:
    """Mean log ratio of each seed, (S,)."""
    ratios, seeds = np.array(speedup.log_ratios), np.array(speedup.seeds)
    return np.array([ratios[seeds == s].mean() for s in np.unique(seeds)])


def t_interval(
    values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE
) -> Interval | None:
    """Student's interval of a mean; None for fewer than two values."""
    found = _standard_error(values)
    if found is None:
        return None
    mean, error, n = found
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    return mean - half, mean + half


def p_value(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Two-sided p of Student's test that a mean is 0; None for fewer than two values.

    Values that are all the same show no spread to judge by: p is 1 where they are 0, and 0 elsewhere.
    """
    found = _standard_error(values)
    if found is None:
        return None
    mean, error, n = found
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: those at most 0.05 are significant with a family-wise error of 5 %.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def stratified_interval(
    groups: Sequence[NDArray[np.float64]], confidence: float = CONFIDENCE
) -> Interval | None:
    """Interval of the mean of the groups' means, the groups being given and only their members drawn.

    Variances add up, and Satterthwaite's formula says how many degrees of freedom the sum has. None
    where a group has one member, so that nothing is known of its spread.
    """
    errors = [_standard_error(rows) for rows in groups]
    known = [found for found in errors if found is not None]
    if not known or len(known) < len(errors):
        return None
    mean = math.fsum(m for m, _, _ in known) / len(known)
    variances = [(error**2, n - 1) for _, error, n in known]
    total = math.fsum(v for v, _ in variances)
    if total == 0.0:
        return mean, mean
    freedom = total**2 / math.fsum(v**2 / df for v, df in variances)
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(total) / len(known)
    return mean - half, mean + half


def _standard_error(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, int] | None:
    """Mean, its standard error and the number of values. Equal values have no error, not a rounding's."""
    given = np.asarray(values, dtype=np.float64)
    if len(given) < 2:
        return None
    if np.all(given == given[0]):
        return float(given[0]), 0.0, len(given)
    return float(given.mean()), float(given.std(ddof=1) / math.sqrt(len(given))), len(given)


def _exp(found: Interval | None) -> Interval | None:
    """From logs of ratios to ratios; an end beyond what a float holds stays finite."""
    if found is None:
        return None
    low, high = (math.exp(min(max(end, -700.0), 700.0)) for end in found)
    return low, high
