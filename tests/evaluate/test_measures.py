"""Steps and robustness read off outcomes whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.lanes import LaneSpec, sample_steps
from ruleforge.evaluate.measures import lr_decades, mean_log_steps, median_steps
from ruleforge.evaluate.targets import Targets

STEPS = np.array(sample_steps(100))


def tuned(losses: dict[float, float | None], other: float = 9.0) -> Outcome:
    """Under the constant schedule these losses, under another one a better loss that must not count."""
    chosen = LaneSpec(min(losses, key=lambda lr: math.inf if losses[lr] is None else losses[lr]), "constant")
    tried = tuple(LaneSpec(lr, s) for lr in losses for s in ("constant", "cosine"))
    finals = tuple(v for loss in losses.values() for v in (loss, other))
    return Outcome("w", 100, chosen, 1.0, (), finals, tried)


def test_decades_are_counted_around_the_best_and_interpolated() -> None:
    assert lr_decades(tuned({0.01: 2.0, 0.1: 1.0, 1.0: 2.0})) == pytest.approx(0.2)
    assert lr_decades(tuned({0.001: 1.05, 0.01: 1.0, 0.1: 1.1, 1.0: 1.1})) == pytest.approx(3.0)
    # behind a hill nothing counts, and a diverged neighbour is a wall
    assert lr_decades(tuned({0.001: 1.0, 0.01: 2.0, 0.1: 1.0})) == pytest.approx(0.1)
    assert lr_decades(tuned({0.1: 1.0, 1.0: None})) == 0.0
    # losses below 0 have a tenth too
    assert lr_decades(tuned({0.1: -1.0, 1.0: 0.0})) == pytest.approx(0.1)


def test_what_diverged_everywhere_has_no_robustness() -> None:
    assert lr_decades(Outcome("w", 100, None, None, (), (None,), (LaneSpec(1.0, "constant"),))) is None


def falling(rate: float) -> tuple[float, ...]:
    return tuple(float(v) for v in 10.0 - rate * STEPS)


def test_steps_are_over_targets_and_seeds_and_most_missed_is_none() -> None:
    targets = Targets("w", 100, (8.0, 5.0))
    outcome = Outcome("w", 100, LaneSpec(0.1, "constant"), 0.1, (falling(0.1), falling(0.2)))
    assert median_steps(outcome, targets) == pytest.approx((20 + 25) / 2)  # of 20, 50, 10, 25
    assert mean_log_steps(outcome, targets) == pytest.approx(np.mean(np.log([20, 50, 10, 25])))
    slow = Outcome("w", 100, LaneSpec(0.1, "constant"), 0.1, (falling(0.01),))
    assert median_steps(slow, targets) is None
    assert mean_log_steps(slow, targets) == pytest.approx(math.log(150))
