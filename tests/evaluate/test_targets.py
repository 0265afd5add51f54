"""Speed-ups mean what the definition says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.lanes import LaneSpec, sample_steps
from ruleforge.evaluate.statistics import interval, summarize
from ruleforge.evaluate.targets import MISS, Speedup, Targets, make_targets, smooth, speedup, steps_to

N_STEPS = 100
STEPS = np.array(sample_steps(N_STEPS))


def outcome(*curves: np.ndarray) -> Outcome:
    kept = tuple(tuple(None if not np.isfinite(v) else float(v) for v in curve) for curve in curves)
    return Outcome("w", N_STEPS, LaneSpec(1.0, "constant"), 1.0, kept)


def falling(rate: float) -> np.ndarray:
    """A loss that falls in a straight line, `rate` per step, so that crossings are exact."""
    return 10.0 - rate * STEPS


def test_curves_are_sampled_at_least_twenty_times() -> None:
    for n_steps in (80, 120, 200, 1000):
        steps = sample_steps(n_steps)
        assert steps[0] == 0 and steps[-1] == n_steps and len(steps) >= 21


def test_short_rungs_are_read_every_fourth_step() -> None:
    assert sample_steps(24) == (0, 4, 8, 12, 16, 20, 24)
    assert sample_steps(1) == (0, 1)


def test_twice_as_fast_is_a_speedup_of_two() -> None:
    targets = Targets("w", N_STEPS, (8.0, 7.0, 5.5))
    assert speedup(outcome(falling(0.1)), outcome(falling(0.05)), targets).value == pytest.approx(2.0)


def test_crossings_are_interpolated() -> None:
    assert steps_to(falling(0.1), N_STEPS, 9.27) == pytest.approx(7.3)


@given(rates=st.lists(st.floats(0.02, 0.2), min_size=2, max_size=2), level=st.floats(1.0, 9.5))
def test_speedup_is_antisymmetric(rates: list[float], level: float) -> None:
    a, b = (outcome(falling(rate)) for rate in rates)
    targets = Targets("w", N_STEPS, (level,))
    there, back = speedup(a, b, targets), speedup(b, a, targets)
    assert [-r for r in there.log_ratios] == pytest.approx(list(back.log_ratios))


def test_a_miss_costs_one_and_a_half_budgets_on_either_side() -> None:
    targets = Targets("w", N_STEPS, (5.0,))
    fast, slow = outcome(falling(0.1)), outcome(falling(0.01))
    assert speedup(slow, fast, targets).value == pytest.approx(50 / (MISS * N_STEPS))
    assert speedup(fast, slow, targets).value == pytest.approx(MISS * N_STEPS / 50)
    assert speedup(slow, fast, targets).n_missed == 1


def test_pairs_in_which_both_miss_are_dropped_and_counted() -> None:
    never = outcome(falling(0.01))
    result = speedup(never, never, Targets("w", N_STEPS, (5.0, 9.5)))
    assert result.n_dropped == 1 and result.value == pytest.approx(1.0)
    assert speedup(never, never, Targets("w", N_STEPS, (5.0,))).value is None


def test_a_diverged_lane_reaches_nothing_after_it_diverged() -> None:
    curve = falling(0.1)
    curve[10:] = np.nan
    assert steps_to(outcome(curve).curves[0], N_STEPS, 4.0) is None
    assert steps_to(outcome(curve).curves[0], N_STEPS, 9.0) == pytest.approx(10.0)
    gap = falling(0.1)
    gap[10] = np.nan  # what comes after a number that is not finite is no training any more
    assert steps_to(outcome(gap).curves[0], N_STEPS, 4.0) is None


def test_seeds_are_paired_and_a_lost_seed_counts_as_misses() -> None:
    targets = Targets("w", N_STEPS, (5.0,))
    two = outcome(falling(0.1), falling(0.1))
    one = outcome(falling(0.1))
    assert speedup(two, two, targets).seeds == (0, 1)
    assert speedup(one, two, targets).n_missed == 1


def test_targets_come_from_the_median_and_the_best_baseline() -> None:
    rules = {name: outcome(falling(rate)) for name, rate in (("a", 0.02), ("b", 0.04), ("c", 0.08))}
    levels = make_targets("w", N_STEPS, rules).levels
    assert levels == pytest.approx((10 - 0.04 * 50, 10 - 0.04 * 75, 10 - 0.04 * 100, 10 - 0.08 * 75, 2.0))


def test_targets_met_before_the_first_step_are_left_out() -> None:
    rising = outcome(10.0 + 0.01 * STEPS)
    assert make_targets("w", N_STEPS, {"a": rising}).levels == ()
    lost = Outcome("w", N_STEPS, None, None, ())
    assert make_targets("w", N_STEPS, {"a": lost}).levels == ()


def test_a_target_that_one_seed_meets_before_the_first_step_says_nothing_there() -> None:
    """Levels are below the start of most seeds; where one begins lower, its pair is dropped, not a tie."""
    low = falling(0.1) - 6.0
    fast, slow = outcome(falling(0.1), low), outcome(falling(0.05), 10.0 - 6.0 - 0.05 * STEPS)
    found = speedup(fast, slow, Targets("w", N_STEPS, (8.0,)))
    assert (found.seeds, found.n_dropped) == ((0,), 1)
    assert found.value == pytest.approx(2.0)


def test_other_levels_and_another_price_of_a_miss() -> None:
    rules = {name: outcome(falling(rate)) for name, rate in (("a", 0.02), ("b", 0.04), ("c", 0.08))}
    targets = make_targets("w", N_STEPS, rules, levels=(("best", 0.5),), miss=2.0)
    assert targets.levels == pytest.approx((6.0,))
    assert speedup(rules["c"], rules["a"], targets).value == pytest.approx(2.0 * N_STEPS / 50)


def test_smoothing_keeps_the_start_and_straight_lines() -> None:
    line = falling(0.1)
    assert smooth(line)[:-1] == pytest.approx(line[:-1])
    assert smooth(line)[-1] == pytest.approx((line[-2] + line[-1]) / 2)


def planted(value: float, noise: float, seed: int) -> dict[str, Speedup]:
    rng = np.random.default_rng(seed)
    return {
        f"w{k}": Speedup(tuple(math.log(value) + noise * rng.standard_normal(6)), (0, 0, 1, 1, 2, 2))
        for k in range(8)
    }


def test_intervals_cover_a_planted_speedup_and_exclude_none() -> None:
    found = summarize(planted(1.5, 0.1, 1))
    assert found.speedup == pytest.approx(1.5, rel=0.1)
    assert found.ci is not None and 1.0 < found.ci[0] < 1.5 < found.ci[1] < 2.0


def test_rules_that_are_alike_are_rarely_called_different() -> None:
    """A/A at the level of the aggregation: at most 1 in 6 intervals of 60 excludes 1."""
    wrong = 0
    for seed in range(60):
        ci = summarize(planted(1.0, 0.3, seed)).ci
        assert ci is not None
        wrong += not ci[0] <= 1.0 <= ci[1]
    assert wrong <= 10


def test_nothing_to_compare_is_said_not_invented() -> None:
    empty = summarize({"w": Speedup((), ())})
    assert empty.speedup is None and empty.ci is None and empty.n_workloads == 0
    assert interval(Speedup((0.1,), (0,))) is None
