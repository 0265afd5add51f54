"""The bootstrap, held to one written out in loops."""

from __future__ import annotations

import numpy as np
import pytest

from ruleforge.evaluate import statistics
from ruleforge.evaluate.statistics import bootstrap, summarize
from ruleforge.evaluate.targets import Speedup


def literal(by_workload: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Resample workloads, and within each its seeds: the same draws, one at a time."""
    n_workloads, widest = len(by_workload), max(map(len, by_workload))
    chosen = rng.integers(n_workloads, size=(statistics.N_RESAMPLES, n_workloads))
    uniform = rng.random((statistics.N_RESAMPLES, n_workloads, widest))
    draws = []
    for k in range(statistics.N_RESAMPLES):
        means = []
        for place in range(n_workloads):
            rows = by_workload[chosen[k, place]]
            picked = [rows[int(uniform[k, place, s] * len(rows))] for s in range(len(rows))]
            means.append(sum(picked) / len(picked))
        draws.append(sum(means) / len(means))
    return np.array(draws)


@pytest.mark.parametrize("sizes", [(1,), (3,), (2, 2), (1, 3, 2), (5, 1, 1, 4)])
def test_the_bootstrap_is_the_literal_one(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "N_RESAMPLES", 200)
    rng = np.random.default_rng(1)
    rows = [rng.standard_normal(size) for size in sizes]
    fast, slow = (run(rows, np.random.default_rng(7)) for run in (bootstrap, literal))
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-14)


def test_the_interval_is_that_of_the_normal_law_and_does_not_change() -> None:
    rng = np.random.default_rng(0)
    logs = {f"w{i}": tuple(0.2 + 0.1 * rng.standard_normal(40)) for i in range(1)}
    given = {name: Speedup(ratios, tuple(range(40))) for name, ratios in logs.items()}
    summary = summarize(given)
    values = np.array(logs["w0"])
    half = 1.96 * values.std() / np.sqrt(40)
    assert summary.ci == pytest.approx(np.exp([values.mean() - half, values.mean() + half]), rel=0.01)
    assert summary == summarize(given)
    assert summary != summarize(given, seed=1)


def test_ratios_of_one_seed_stay_together() -> None:
    """Five targets of one seed are one look, not five."""
    alone = Speedup((0.3, -0.1), (0, 1))
    five = Speedup((0.3,) * 5 + (-0.1,) * 5, (0,) * 5 + (1,) * 5)
    assert summarize({"w": alone}) == summarize({"w": five})


def test_nothing_to_compare_has_no_interval() -> None:
    assert summarize({"w": Speedup((), ())}).ci is None
