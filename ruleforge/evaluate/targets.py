"""Speed-up: how many steps a rule needs to reach losses that tuned baselines reach.

Targets are validation losses taken from the tuned baselines' curves: what the median baseline
reaches at 50, 75 and 100 % of the budget, and the best at 75 and 100 %. A rule's speed-up over
another is the geometric mean, over targets and seeds, of steps(other) / steps(rule). A miss
counts as 1.5 budgets on either side; a pair in which both miss, or whose loss is met before the first
step, says nothing, is dropped and counted. "×1.30" means: the same loss in 1/1.30 of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ruleforge.evaluate.lanes import sample_steps

if TYPE_CHECKING:
    from ruleforge.evaluate.evaluator import Outcome

MISS = 1.5
LEVELS = (("median", 0.5), ("median", 0.75), ("median", 1.0), ("best", 0.75), ("best", 1.0))

Curve = Sequence[float | None]
Levels = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Targets:
    """Losses to reach on one workload at one budget.

    Attributes:
        workload: name.
        n_steps: budget.
        levels: validation losses, descending; those met before the first step are left out.
        miss: budgets that a miss counts as.
    """

    workload: str
    n_steps: int
    levels: tuple[float, ...]
    miss: float = MISS


@dataclass(frozen=True)
class Speedup:
    """One rule against one reference on one workload.

    Attributes:
        log_ratios: log(steps(reference) / steps(rule)), one for each target and seed that counts.
        seeds: the seed number of each of them.
        n_dropped: pairs in which both missed, or had met the target before the first step.
        n_missed: pairs in which the rule alone missed.
    """

    log_ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    n_dropped: int = 0
    n_missed: int = 0

    @property
    def value(self) -> float | None:
        """Geometric mean; None when nothing could be compared."""
        return math.exp(math.fsum(self.log_ratios) / len(self.log_ratios)) if self.log_ratios else None


def smooth(curve: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each sample and its neighbours; the same for every rule. The first sample stays."""
    values = np.asarray(curve, dtype=np.float64)
    out = values.copy()
    if len(values) > 2:
        out[1:-1] = (values[:-2] + values[1:-1] + values[2:]) / 3
        out[-1] = (values[-2] + values[-1]) / 2
    return out


def _array(curve: Curve) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in curve], dtype=np.float64)


def steps_to(curve: Curve, n_steps: int, level: float) -> float | None:
    """Steps until a smoothed curve first reaches a level, interpolated; None if it never does."""
    values = _array(curve)
    steps = sample_steps(n_steps)
    for k, value in enumerate(values):
        if not np.isfinite(value):
            return None
        if value <= level:
            if k == 0:
                return float(max(steps[0], 1))
            before = values[k - 1]
            share = (before - level) / (before - value) if before > value else 1.0
            return float(max(1.0, steps[k - 1] + share * (steps[k] - steps[k - 1])))
    return None


def make_targets(
    workload: str,
    n_steps: int,
    baselines: Mapping[str, Outcome],
    *,
    levels: Levels = LEVELS,
    miss: float = MISS,
) -> Targets:
    """Targets from the tuned baselines' outcomes on one workload.

    Args:
        workload, n_steps: name and budget.
        baselines: rule name → outcome.
        levels: which losses; another choice than the default asks how much a verdict depends on it.
        miss: budgets that a miss counts as.
    """
    curves, starts = [], []
    for outcome in baselines.values():
        if outcome.curves:
            per_seed = np.stack([_array(curve) for curve in outcome.curves])
            filled = np.where(np.isfinite(per_seed), per_seed, np.inf)
            curves.append(np.minimum.accumulate(np.median(filled, axis=0)))
            starts.append(float(filled[:, 0].max()))
    if not curves:
        return Targets(workload, n_steps, (), miss)
    steps = np.array(sample_steps(n_steps))
    grid = np.stack(curves)
    losses = set()
    for which, share in levels:
        reached = grid[:, int(np.searchsorted(steps, share * n_steps))]
        level = float(np.median(reached) if which == "median" else np.min(reached))
        if np.isfinite(level) and level < min(starts):
            losses.add(level)
    return Targets(workload, n_steps, tuple(sorted(losses, reverse=True)), miss)


def speedup(outcome: Outcome, reference: Outcome, targets: Targets) -> Speedup:
    """How much sooner `outcome` reaches the targets than `reference`, seed by seed."""
    ratios: list[float] = []
    seeds: list[int] = []
    dropped = missed = 0
    n_seeds = max(len(outcome.curves), len(reference.curves))
    for seed in range(n_seeds):
        for level in targets.levels:
            mine, theirs = (
                steps_to(o.curves[seed], targets.n_steps, level) if seed < len(o.curves) else None
                for o in (outcome, reference)
            )
            is_met = any(_is_met(o, seed, level) for o in (outcome, reference))
            if is_met or (mine is None and theirs is None):
                dropped += 1
                continue
            missed += mine is None
            penalty = targets.miss * targets.n_steps
            ratios.append(math.log((theirs or penalty) / (mine or penalty)))
            seeds.append(seed)
    return Speedup(tuple(ratios), tuple(seeds), dropped, missed)


def _is_met(outcome: Outcome, seed: int, level: float) -> bool:
    """Whether the initial weights of a seed reach a level already; they are the same for all rules."""
    start = outcome.curves[seed][0] if seed < len(outcome.curves) else None
    return start is not None and start <= level
