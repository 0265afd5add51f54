"""What an outcome shows besides how soon it gets somewhere: steps, robustness to the learning rate.

Reads outcomes, and trains nothing.
"""

from __future__ import annotations

import math

import numpy as np

from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.targets import Targets, steps_to

NEAR_BEST = 0.1


def mean_log_steps(outcome: Outcome, targets: Targets) -> float:
    """Mean log steps to the targets over seeds, a miss at its price in budgets."""
    miss = targets.miss * targets.n_steps
    steps = [
        steps_to(curve, targets.n_steps, level) or miss
        for curve in outcome.curves
        for level in targets.levels
    ]
    return math.fsum(map(math.log, steps)) / len(steps) if steps else math.log(miss)


def median_steps(outcome: Outcome, targets: Targets) -> float | None:
    """Median steps to a target, over targets and seeds; None where most of them are missed."""
    steps = [
        steps_to(curve, targets.n_steps, level) or math.inf
        for curve in outcome.curves
        for level in targets.levels
    ]
    middle = float(np.median(steps)) if steps else math.inf
    return middle if math.isfinite(middle) else None


def lr_decades(outcome: Outcome) -> float | None:
    """Decades of learning rate around the best whose final loss is within 10 % of the best's.

    Read off the tuning lanes under the chosen schedule. Between a learning rate inside and its neighbour
    outside the edge is interpolated; towards one that diverged, or that was not tried, the last one
    inside is the edge. None where every lane diverged.
    """
    if outcome.setting is None:
        return None
    rows = sorted(
        (spec.lr, math.inf if loss is None else loss)
        for spec, loss in zip(outcome.tried, outcome.final_losses, strict=True)
        if spec.schedule == outcome.setting.schedule
    )
    losses = [loss for _, loss in rows]
    if not losses or not math.isfinite(min(losses)):
        return None
    best = min(range(len(losses)), key=losses.__getitem__)
    limit = losses[best] + NEAR_BEST * abs(losses[best])
    logs = [math.log10(lr) for lr, _ in rows]
    return _edge(logs, losses, best, limit, 1) - _edge(logs, losses, best, limit, -1)


def _edge(logs: list[float], losses: list[float], best: int, limit: float, step: int) -> float:
    """Where the loss leaves the limit, going from the best in one direction."""
    at = best
    while 0 <= at + step < len(losses) and losses[at + step] <= limit:
        at += step
    outside = at + step
    if not 0 <= outside < len(losses) or not math.isfinite(losses[outside]):
        return logs[at]
    share = (limit - losses[at]) / (losses[outside] - losses[at])
    return logs[at] + share * (logs[outside] - logs[at])
