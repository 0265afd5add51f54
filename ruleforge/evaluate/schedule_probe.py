"""The schedule that a rule owns: how its step size depends on `progress`, with all else held."""

from __future__ import annotations

import numpy as np

from ruleforge.core.rule import Rule
from ruleforge.evaluate.answers import LAYOUT, answers

STEPS = 100


def largest_step(rule: Rule) -> float:
    """Largest change of the owned schedule from one step to the next, as a share of its largest value.

    The schedule's value at a step is the RMS of the update with `progress` as it is, over that with
    `progress` held at its first value, on the same gradients and weights. 0 for a rule that does not read
    `progress`: a rule that reads `lr` follows the schedule it is given, and owns none. 1 where it is not
    finite.
    """
    if not rule.reads("progress"):
        return 0.0
    moving, held = _sizes(rule, moves=True), _sizes(rule, moves=False)
    with np.errstate(all="ignore"):
        schedule = moving / held
    if not np.isfinite(schedule).all() or not schedule.max() > 0:
        return 1.0
    return float(np.abs(np.diff(schedule)).max() / schedule.max())


def _sizes(rule: Rule, *, moves: bool) -> np.ndarray:
    """RMS of the update at each step, (T,)."""
    rng = np.random.Generator(np.random.PCG64(1609))
    grads = rng.standard_normal((STEPS, 1, LAYOUT.n_weights))
    weights = rng.standard_normal((1, LAYOUT.n_weights))
    progress = [(t + 1 if moves else 1) / STEPS for t in range(STEPS)]
    updates = answers(rule, grads, np.broadcast_to(weights, grads.shape), progress)
    with np.errstate(all="ignore"):
        return np.asarray(np.sqrt(np.mean(np.square(updates), axis=(1, 2))))
