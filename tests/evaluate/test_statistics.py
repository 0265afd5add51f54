"""Intervals and tests, held to ones written out, and to what they promise by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ruleforge.evaluate.statistics import (
    holm,
    interval,
    p_value,
    stratified_interval,
    summarize,
    t_interval,
)
from ruleforge.evaluate.targets import Speedup

VALUES = st.lists(st.floats(-2, 2), min_size=2, max_size=12)


def one_a_seed(*values: float) -> Speedup:
    return Speedup(values, tuple(range(len(values))))


@given(VALUES)
def test_the_interval_and_the_p_value_are_students(values: list[float]) -> None:
    """Held to scipy's own test, which is written independently."""
    if np.std(values) < 1e-6:
        return
    found, p, given = t_interval(values), p_value(values), stats.ttest_1samp(values, 0.0)
    expected = given.confidence_interval(0.95)
    assert found == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert p == pytest.approx(given.pvalue, rel=1e-6, abs=1e-12)


@given(VALUES)
def test_an_interval_excludes_no_difference_exactly_when_p_is_below_5_percent(values: list[float]) -> None:
    found, p = t_interval(values), p_value(values)
    assert found is not None and p is not None
    if abs(p - 0.05) > 1e-6:
        assert (found[0] <= 0 <= found[1]) == (p > 0.05)


def test_equal_values_have_no_width_and_no_rounding() -> None:
    assert t_interval([0.1] * 7) == (0.1, 0.1)
    assert (p_value([0.0, 0.0, 0.0]), p_value([0.1, 0.1])) == (1.0, 0.0)
    assert t_interval([0.3]) is None and p_value([]) is None


def test_over_workloads_each_counts_once_whatever_its_seeds() -> None:
    given = {"a": one_a_seed(0.1, 0.3), "b": one_a_seed(0.0), "c": one_a_seed(-0.1, 0.1, 0.3, 0.1)}
    found = summarize(given)
    assert found.speedup == pytest.approx(math.exp(0.1))
    half = stats.t.ppf(0.975, 2) * np.std([0.2, 0.0, 0.1], ddof=1) / math.sqrt(3)
    assert found.ci == pytest.approx((math.exp(0.1 - half), math.exp(0.1 + half)))
    assert (found.ci_over, found.n_workloads, found.ci_here) == ("workloads", 3, None)
    assert (found.worst, found.median) == pytest.approx((1.0, math.exp(0.1)))


def test_one_workload_has_an_interval_over_seeds_and_says_so() -> None:
    given = one_a_seed(0.1, 0.2, 0.4)
    found = summarize({"w": given})
    assert found.ci_over == "seeds" and found.ci == interval(given) == found.ci_here
    assert summarize({"w": one_a_seed(0.1)}).ci is None


def test_a_rule_against_itself_is_exactly_one() -> None:
    found = summarize({name: one_a_seed(0.0, 0.0, 0.0) for name in "abc"})
    assert (found.speedup, found.ci, found.ci_here) == (1.0, (1.0, 1.0), (1.0, 1.0))


def test_ratios_of_one_seed_stay_together() -> None:
    """Five targets of one seed are one look, not five."""
    alone = Speedup((0.3, -0.1), (0, 1))
    five = Speedup((0.3,) * 5 + (-0.1,) * 5, (0,) * 5 + (1,) * 5)
    assert summarize({"w": alone}).ci == pytest.approx(summarize({"w": five}).ci)


def test_nothing_to_compare_has_no_interval() -> None:
    assert summarize({"w": Speedup((), ())}).ci is None
    assert interval(one_a_seed(0.5)) is None


def test_holm_is_the_step_down_of_the_textbook() -> None:
    """Literal: the k-th smallest is tested at 5 % / (n − k + 1), and the first that fails ends it."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = list(rng.random(rng.integers(1, 9)) ** 3)
        rejected, left = set(), sorted(range(len(p)), key=p.__getitem__)
        while left and p[left[0]] <= 0.05 / len(left):
            rejected.add(left.pop(0))
        assert {i for i, value in enumerate(holm(p)) if value <= 0.05} == rejected
    assert holm([]) == []


def test_the_interval_over_workloads_covers_the_population() -> None:
    """Within three standard errors of 95 %, with few workloads and with seeds that differ or do not."""
    rng = np.random.default_rng(7)
    for n_workloads, tau in ((4, 0.3), (6, 0.0), (3, 0.1)):
        held = 0
        for _ in range(1000):
            truth = 0.2 + tau * rng.standard_normal((n_workloads, 1))
            rows = truth + 0.2 * rng.standard_normal((n_workloads, 3))
            ci = summarize({f"w{k}": one_a_seed(*row) for k, row in enumerate(rows)}).ci
            assert ci is not None
            held += ci[0] <= math.exp(0.2) <= ci[1]
        assert abs(held / 1000 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 1000)


def test_the_interval_for_these_workloads_covers_them() -> None:
    """Workloads that differ widely, noise that differs too: the mean of these very ones is covered."""
    rng = np.random.default_rng(8)
    truth, sigma = rng.standard_normal(5), np.array([0.05, 0.1, 0.1, 0.2, 0.4])
    held = 0
    for _ in range(1000):
        found = stratified_interval(
            [t + s * rng.standard_normal(4) for t, s in zip(truth, sigma, strict=True)]
        )
        assert found is not None
        held += found[0] <= truth.mean() <= found[1]
    assert 0.93 <= held / 1000 <= 0.985
    assert stratified_interval([np.zeros(3), np.zeros(1)]) is None
