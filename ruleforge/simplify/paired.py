"""How much faster or slower a variant of a rule trains than the rule itself: paired, with an interval.

Rule and variants are tuned on the same grid and the same three tuning seeds, and scored on the same fresh
seeds, so batches and initial weights are common to every pair. (On one tuning seed, chance picks another
learning rate for a variant that hardly differs, and no number of scoring seeds makes that good.) What is
to be reached are the losses that the rule itself reaches at 40, 60 and 80 % of the budget (its median
over seeds): no baseline is involved, and a rule set against itself gives exactly 1. The interval
is that of `evaluate.statistics`: over workloads, or over seeds for these workloads alone.

Who asks "is this part worth anything?" removes the part, and reads the variant's speed-up: ×0.80 with an
interval below 1 means that without the part the rule needs 1/0.80 as many steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ruleforge.core.text import RuleText
from ruleforge.evaluate.evaluator import TUNE_SEED, Outcome, Progress, Protocol, evaluate
from ruleforge.evaluate.lanes import Plan, sample_steps
from ruleforge.evaluate.statistics import in_words, summarize
from ruleforge.evaluate.targets import Targets, speedup
from ruleforge.evaluate.workers import Workers
from ruleforge.records import Json
from ruleforge.tasks import Workload

PAIRED_SEED = 4000
SEEDS = 8
TUNING_SEEDS = 3
LEVELS = (0.4, 0.6, 0.8)
LRS = tuple(float(v) for v in np.geomspace(1e-4, 1.0, 9))
SCHEDULES = ("constant", "cosine")
MARGIN = 0.1  # of speed: about the noise of a fitness at 3 seeds


@dataclass(frozen=True)
class Paired:
    """A variant against the rule that it was made from.

    Attributes:
        speedup: steps(rule) / steps(variant) to the same losses, geometric mean over workloads; None when
            nothing could be compared.
        ci: 95 % interval over workloads and paired seeds, or None.
        ci_here: the same over seeds alone, for these workloads and no others, or None.
        by_workload: the speed-up on each workload.
        n_workloads: workloads that counted.
        n_seeds: seeds scored on each.
        n_missed: pairs of a target and a seed that the variant alone missed.
        diverged: workloads on which every lane of the variant diverged.
    """

    speedup: float | None
    ci: tuple[float, float] | None
    ci_here: tuple[float, float] | None
    by_workload: Mapping[str, float]
    n_workloads: int
    n_seeds: int
    n_missed: int = 0
    diverged: tuple[str, ...] = ()

    def is_no_worse(self, margin: float = MARGIN) -> bool:
        """Whether the interval excludes a loss of more than `margin`: non-inferiority."""
        return self.ci is not None and self.ci[0] >= 1 - margin

    @property
    def verdict(self) -> str:
        """better, worse, or not distinguishable, by the interval."""
        return in_words(self.ci)

    def as_json(self) -> dict[str, Json]:
        return {
            "speedup": self.speedup, "ci": list(self.ci) if self.ci else None,
            "ci_here": list(self.ci_here) if self.ci_here else None,
            "by_workload": dict(self.by_workload), "n_workloads": self.n_workloads,
            "n_seeds": self.n_seeds, "n_missed": self.n_missed, "diverged": list(self.diverged),
            "verdict": self.verdict,
        }  # fmt: skip


def paired_protocol(seeds: int = SEEDS, first_seed: int = PAIRED_SEED) -> Protocol:
    """How rule and variants are tuned and scored: one grid, three tuning seeds, fresh ones for the score."""
    scored = tuple(first_seed + k for k in range(seeds))
    tuned = tuple(TUNE_SEED + k for k in range(TUNING_SEEDS))
    return Protocol(LRS, SCHEDULES, score_seeds=scored, tune_seeds=tuned)


@dataclass
class Bench:
    """Trains each rule once, however often it is asked about.

    Attributes:
        workloads: where.
        protocol: the same for all.
        plan: execution plan.
        workers: where the chunks run.
    """

    workloads: Sequence[Workload]
    protocol: Protocol = field(default_factory=paired_protocol)
    plan: Plan = field(default_factory=Plan)
    workers: Workers = field(default_factory=Workers)
    _known: dict[str, dict[str, Outcome]] = field(default_factory=dict, repr=False)

    def outcomes(
        self, rules: Sequence[RuleText], done: Progress = lambda finished, total: None
    ) -> list[dict[str, Outcome]]:
        """What each rule did, by workload."""
        keys = [rule.rule.full_key for rule in rules]
        missing = {key: str(rule) for key, rule in zip(keys, rules, strict=True) if key not in self._known}
        if missing:
            rows = evaluate(
                list(missing.values()), self.workloads, self.protocol, self.plan, self.workers, done
            )
            for key, row in zip(missing, rows, strict=True):
                self._known[key] = {outcome.workload: outcome for outcome in row}
        return [self._known[key] for key in keys]

    def compare(
        self,
        rule: RuleText,
        variants: Sequence[RuleText],
        done: Progress = lambda finished, total: None,
    ) -> list[Paired]:
        """Each variant against the rule."""
        own, *others = self.outcomes([rule, *variants], done)
        targets = {name: own_targets(outcome) for name, outcome in own.items()}
        return [self._paired(own, other, targets) for other in others]

    def _paired(
        self, own: Mapping[str, Outcome], other: Mapping[str, Outcome], targets: Mapping[str, Targets]
    ) -> Paired:
        speedups = {name: speedup(other[name], own[name], targets[name]) for name in own}
        counted = {name: s for name, s in speedups.items() if s.log_ratios}
        overall = summarize(counted)
        return Paired(
            overall.speedup, overall.ci, overall.ci_here,
            {name: value for name, s in counted.items() if (value := s.value) is not None},
            overall.n_workloads, len(self.protocol.score_seeds) or 1,
            sum(s.n_missed for s in counted.values()),
            tuple(name for name, outcome in other.items() if outcome.setting is None),
        )  # fmt: skip


def paired_differences(
    rule: RuleText,
    variants: Sequence[RuleText],
    workloads: Sequence[Workload],
    *,
    protocol: Protocol | None = None,
    plan: Plan | None = None,
    workers: Workers | None = None,
    done: Progress = lambda finished, total: None,
) -> list[Paired]:
    """Train a rule and variants of it side by side, and return how each variant differs.

    Args:
        rule: the rule.
        variants: rules made from it, such as the rule with a part removed or frozen.
        workloads: where to train.
        protocol: grid, schedules and scoring seeds; `paired_protocol()` when None.
        plan: execution plan; the default one when None.
        workers: processes; this one when None.
        done: told the progress in chunks.

    Returns:
        One difference a variant, in order. A variant that diverges everywhere is a result: it misses
        every target, and `diverged` names the workloads.

    Example:
        >>> from ruleforge.core.known import known
        >>> from ruleforge.tasks import load_suite
        >>> adam = known("adam").rule
        >>> paired_differences(adam, [known("lion").rule], load_suite("search"))  # doctest: +SKIP
    """
    bench = Bench(workloads, protocol or paired_protocol(), plan=plan or Plan(), workers=workers or Workers())
    return bench.compare(rule, variants, done)


def own_targets(outcome: Outcome) -> Targets:
    """The losses that a rule reaches on its own way; none where it diverges or learns nothing."""
    if not outcome.curves:
        return Targets(outcome.workload, outcome.n_steps, ())
    curves = np.array([[np.inf if v is None else v for v in curve] for curve in outcome.curves])
    middle = np.minimum.accumulate(np.median(curves, axis=0))
    steps = np.array(sample_steps(outcome.n_steps))
    start = float(curves[:, 0].max())
    reached = {float(middle[int(np.searchsorted(steps, share * outcome.n_steps))]) for share in LEVELS}
    levels = sorted((v for v in reached if np.isfinite(v) and v < start), reverse=True)
    return Targets(outcome.workload, outcome.n_steps, tuple(levels))
