"""The intervals that were in the running, each on many simulated comparisons at once.

Every function takes log ratios of shape (repetitions, workloads, seeds), or (repetitions, values), and
returns the ends of a 95 % interval of the mean, (repetitions,) each. `calibration.py` asks how often
they cover. What ruleforge uses is `evaluate.statistics.t_interval`; a test holds `student` to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

Array = NDArray[np.float64]
Ends = tuple[Array, Array]

N_RESAMPLES = 1000
TAIL = 0.025


def student(values: Array) -> Ends:
    """Student's t interval of the mean."""
    n = values.shape[1]
    half = stdtrit(n - 1, 1 - TAIL) * values.std(1, ddof=1) / np.sqrt(n)
    return values.mean(1) - half, values.mean(1) + half


def percentile(values: Array, rng: np.random.Generator) -> Ends:
    """Percentiles of means of resampled values."""
    low, high = np.quantile(_resampled(values, rng).mean(2), [TAIL, 1 - TAIL], axis=1)
    return low, high


def two_level(values: Array, rng: np.random.Generator) -> Ends:
    """Percentiles of means of resampled workloads of resampled seeds: what ruleforge 0.1 used."""
    n_reps, n_workloads, n_seeds = values.shape
    low, high = np.empty(n_reps), np.empty(n_reps)
    for k, rows in enumerate(values):
        chosen = rng.integers(n_workloads, size=(N_RESAMPLES, n_workloads))[:, :, None]
        seeds = rng.integers(n_seeds, size=(N_RESAMPLES, n_workloads, n_seeds))
        low[k], high[k] = np.quantile(rows[chosen, seeds].mean((1, 2)), [TAIL, 1 - TAIL])
    return low, high


def bca(values: Array, rng: np.random.Generator) -> Ends:
    """Bias-corrected and accelerated bootstrap (Efron 1987)."""
    n = values.shape[1]
    means = np.sort(_resampled(values, rng).mean(2), axis=1)
    centre = values.mean(1, keepdims=True)
    below = ((means < centre).sum(1) + 0.5 * (means == centre).sum(1)) / N_RESAMPLES
    bias = ndtri(np.clip(below, 1 / N_RESAMPLES, 1 - 1 / N_RESAMPLES))
    jackknife = (values.sum(1, keepdims=True) - values) / (n - 1)
    apart = jackknife.mean(1, keepdims=True) - jackknife
    spread = (apart**2).sum(1) ** 1.5
    acceleration = (apart**3).sum(1) / (6 * np.where(spread > 0, spread, 1.0))
    ends = []
    for z in (ndtri(TAIL), -ndtri(TAIL)):
        share = ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
        at = np.clip((share * N_RESAMPLES).astype(int), 0, N_RESAMPLES - 1)
        ends.append(means[np.arange(len(values)), at])
    return ends[0], ends[1]


def studentized(values: Array, rng: np.random.Generator) -> Ends:
    """Bootstrap-t: quantiles of resampled t statistics; a resample without spread counts as infinite."""
    n = values.shape[1]
    drawn = _resampled(values, rng)
    mean, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(n)
    apart, errors = drawn.mean(2) - mean[:, None], drawn.std(2, ddof=1) / np.sqrt(n)
    flat = errors <= 1e-9 * error[:, None]
    t = np.where(flat, np.sign(apart) * 1e9, apart / np.where(flat, 1.0, errors))
    low, high = np.quantile(t, [TAIL, 1 - TAIL], axis=1, method="inverted_cdf")
    return mean - high * error, mean - low * error


def _resampled(values: Array, rng: np.random.Generator) -> Array:
    """(repetitions, N_RESAMPLES, values)."""
    n_reps, n = values.shape
    at = rng.integers(n, size=(n_reps, N_RESAMPLES, n))
    return values[np.arange(n_reps)[:, None, None], at]
