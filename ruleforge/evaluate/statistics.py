"""How sure a speed-up is: geometric means over workloads and bootstrap intervals.

The bootstrap resamples workloads and, within each, paired seeds; targets of one seed stay
together, since they share a curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ruleforge.evaluate.targets import Speedup

N_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """A speed-up over a suite.

    Attributes:
        speedup: geometric mean over workloads, or None when nothing could be compared.
        ci: 95 % interval of it, or None.
        median, worst: over workloads.
        n_workloads: workloads that counted.
    """

    speedup: float | None
    ci: tuple[float, float] | None
    median: float | None
    worst: float | None
    n_workloads: int

    def as_json(self) -> dict[str, object]:
        return {
            "speedup": self.speedup, "ci": list(self.ci) if self.ci else None, "median": self.median,
            "worst": self.worst, "n_workloads": self.n_workloads,
        }  # fmt: skip


def geometric_mean(values: list[float]) -> float | None:
    return math.exp(math.fsum(math.log(v) for v in values) / len(values)) if values else None


def summarize(speedups: Mapping[str, Speedup], *, seed: int = 0) -> Summary:
    """Aggregate one rule's speed-ups over workloads."""
    by_workload = [_seed_means(s) for s in speedups.values() if s.log_ratios]
    if not by_workload:
        return Summary(None, None, None, None, 0)
    means = np.array([rows.mean() for rows in by_workload])
    draws = bootstrap(by_workload, np.random.Generator(np.random.PCG64(seed)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.exp(np.quantile(draws, [tail, 1 - tail]))
    return Summary(
        float(np.exp(means.mean())), (float(low), float(high)),
        float(np.exp(np.median(means))), float(np.exp(means.min())), len(means),
    )  # fmt: skip


def interval(speedup: Speedup, *, seed: int = 0) -> tuple[float, float] | None:
    """95 % bootstrap interval over seeds on one workload; None with fewer than two seeds."""
    rows = _seed_means(speedup)
    if len(rows) < 2:
        return None
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = rows[rng.integers(len(rows), size=(N_RESAMPLES, len(rows)))].mean(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.exp(np.quantile(draws, [tail, 1 - tail]))
    return float(low), float(high)


def _seed_means(speedup: Speedup) -> np.ndarray:
    """Mean log ratio of each seed, (S,)."""
    ratios, seeds = np.array(speedup.log_ratios), np.array(speedup.seeds)
    return np.array([ratios[seeds == s].mean() for s in np.unique(seeds)])


def bootstrap(by_workload: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Means of resampled workloads of resampled seeds, (N_RESAMPLES,).

    Args:
        by_workload: one value a seed for each workload; numbers of seeds may differ.
        rng: draws the workloads, (N, W), and then uniform numbers for the seeds, (N, W, S).
    """
    sizes = np.array([len(rows) for rows in by_workload])
    table = np.zeros((len(sizes), sizes.max()))
    for row, rows in zip(table, by_workload, strict=True):
        row[: len(rows)] = rows
    chosen = rng.integers(len(sizes), size=(N_RESAMPLES, len(sizes)))
    n_seeds = sizes[chosen][:, :, None]
    seeds = (rng.random((*chosen.shape, table.shape[1])) * n_seeds).astype(np.int64)
    drawn = table[chosen[:, :, None], seeds]
    counts = np.arange(table.shape[1]) < n_seeds
    return np.asarray((np.where(counts, drawn, 0.0).sum(2) / n_seeds[:, :, 0]).mean(1))
