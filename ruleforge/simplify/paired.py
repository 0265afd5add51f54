"""How much faster or slower a variant of a rule trains than the rule itself: paired, with an interval.

Rule and variant train from the same weights on the same batches, and where that does a variant no harm, at
the same setting. The rule is tuned on the whole grid over three seeds. A variant is tuned around the rule's
setting, and takes that very setting unless another one is clearly better for it on the tuning seeds (a
one-sided 95 % t test over them). What is left between two that hardly differ is then what they do, not which
of two near-equal learning rates chance gave to which: that was most of the noise, and no number of scoring
seeds makes it good.

What is to be reached are the losses that the rule itself reaches at 40, 60 and 80 % of the budget (its median
over seeds): no baseline is involved, and a rule set against itself gives exactly 1. The interval is that of
`evaluate.statistics`: over workloads, or over seeds for these workloads alone.

`decide` adds seeds while a verdict is open: at most three looks, whose errors add up to 5 %.

Who asks "is this part worth anything?" removes the part, and reads the variant's speed-up: ×0.80 with an
interval below 1 means that without the part the rule needs 1/0.80 as many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ruleforge.core.text import RuleText
from ruleforge.evaluate.evaluator import TUNE_SEED, Outcome, Progress, Protocol
from ruleforge.evaluate.lanes import LaneSpec, Plan, RuleLanes, sample_steps
from ruleforge.evaluate.packing import Asked, train_each
from ruleforge.evaluate.statistics import CONFIDENCE, in_words, summarize
from ruleforge.evaluate.targets import Targets, smooth, speedup
from ruleforge.evaluate.tuning import best_lane
from ruleforge.evaluate.workers import Workers
from ruleforge.records import Json, finite_or_none
from ruleforge.tasks import Workload

PAIRED_SEED = 4000
SEEDS = 8
TUNING_SEEDS = 3
LEVELS = (0.4, 0.6, 0.8)
LRS = tuple(float(v) for v in np.geomspace(1e-4, 1.0, 9))
SCHEDULES = ("constant", "cosine")
MARGIN = 0.1  # of speed: about the noise of a fitness at 3 seeds
LOOKS = ((1, 0.99), (2, 0.985), (4, 0.975))  # times the seeds, and the interval's confidence at that look
CLEARLY = 0.95  # confidence at which a setting of its own is better for a variant than the rule's

Curve = tuple[float | None, ...]
Settings = dict[str, LaneSpec | None]  # by workload; None where every lane diverged
silent: Progress = lambda finished, total: None  # noqa: E731


@dataclass(frozen=True)
class Paired:
    """A variant against the rule that it was made from.

    Attributes:
        speedup: steps(rule) / steps(variant) to the same losses, geometric mean over workloads; None when
            nothing could be compared.
        ci: interval over workloads and paired seeds, or None.
        ci_here: the same over seeds alone, for these workloads and no others, or None.
        by_workload: the speed-up on each workload.
        n_workloads: workloads that counted.
        n_seeds: seeds scored on each.
        n_missed: pairs of a target and a seed that the variant alone missed.
        diverged: workloads on which every lane of the variant diverged.
        confidence: of both intervals.
    """

    speedup: float | None
    ci: tuple[float, float] | None
    ci_here: tuple[float, float] | None
    by_workload: Mapping[str, float]
    n_workloads: int
    n_seeds: int
    n_missed: int = 0
    diverged: tuple[str, ...] = ()
    confidence: float = CONFIDENCE

    def is_no_worse(self, margin: float = MARGIN) -> bool:
        """Whether the interval excludes a loss of more than `margin`: non-inferiority."""
        return self.ci is not None and self.ci[0] >= 1 - margin

    def is_open(self, margin: float = MARGIN) -> bool:
        """Whether more seeds could still decide it: a loss of `margin` lies inside the interval."""
        return self.ci is not None and self.ci[0] < 1 - margin <= self.ci[1]

    @property
    def verdict(self) -> str:
        """better, worse, or not distinguishable, by the interval."""
        return in_words(self.ci)

    def as_json(self) -> dict[str, Json]:
        return {
            "speedup": self.speedup, "ci": list(self.ci) if self.ci else None,
            "ci_here": list(self.ci_here) if self.ci_here else None, "confidence": self.confidence,
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
    """Trains each lane once, however often it is asked about.

    Attributes:
        workloads: where.
        protocol: grid, schedules, tuning and scoring seeds.
        plan: execution plan; tuning fills chunks of `chunk_lanes`, scoring of `score_lanes`.
        workers: where the chunks run.
    """

    workloads: Sequence[Workload]
    protocol: Protocol = field(default_factory=paired_protocol)
    plan: Plan = field(default_factory=Plan)
    workers: Workers = field(default_factory=Workers)
    _curves: dict[tuple[str, str, LaneSpec, int], Curve] = field(default_factory=dict, repr=False)
    _own: dict[str, Settings] = field(default_factory=dict, repr=False)

    def outcome(self, rule: RuleText) -> dict[str, Outcome]:
        """What a rule does at the setting that it is tuned to for itself, by workload."""
        return self._outcomes([(rule, self._settings(rule))], self.protocol.score_seeds)[0]

    def compare(
        self,
        rule: RuleText,
        variants: Sequence[RuleText],
        done: Progress = silent,
        *,
        seeds: int | None = None,
        confidence: float = CONFIDENCE,
    ) -> list[Paired]:
        """Each variant against the rule.

        Args:
            rule: tuned on the whole grid.
            variants: tuned around it.
            done: told the progress in chunks.
            seeds: how many scoring seeds; those of the protocol when None.
            confidence: of the intervals.
        """
        scored = self.protocol.score_seeds
        if seeds is not None:
            scored = tuple(scored[0] + k for k in range(seeds))
        own = self._settings(rule, done)
        near = self._settings_near(own, variants, done)
        return self._paired([(rule, own), *zip(variants, near, strict=True)], scored, confidence, done)

    def glance(
        self, rule: RuleText, variants: Sequence[RuleText], seeds: Sequence[int], done: Progress = silent
    ) -> list[Paired]:
        """A cheap look, to rank by: each variant at the rule's setting or the next learning rates.

        Which of the three is read off the very seeds that are compared, which flatters the variants.
        """
        own = self._settings(rule, done)
        near = {
            w: tuple(LaneSpec(lr, spec.schedule) for lr in self._beside(spec.lr))
            for w, spec in own.items()
            if spec is not None
        }
        size = self.plan.chunk_lanes
        self._train({(v, w): specs for v in variants for w, specs in near.items()}, seeds, size, done)
        chosen = [{w: self._best(v, w, near[w], seeds) if w in near else None for w in own} for v in variants]
        pairs = [(rule, own), *zip(variants, chosen, strict=True)]
        return self._paired(pairs, seeds, CONFIDENCE, done, size)

    def _paired(
        self, pairs: Sequence[tuple[RuleText, Settings]], seeds: Sequence[int], confidence: float,
        done: Progress, size: int = 0,
    ) -> list[Paired]:  # fmt: skip
        """All but the first against the first."""
        own, *others = self._outcomes(pairs, seeds, done, size)
        targets = {name: own_targets(outcome) for name, outcome in own.items()}
        return [_against(own, other, targets, len(seeds), confidence) for other in others]

    # tuning

    def _settings(self, rule: RuleText, done: Progress = silent) -> Settings:
        """The best setting of the whole grid on each workload."""
        key = rule.rule.full_key
        if key not in self._own:
            grid, seeds = self.protocol.grid(), self.protocol.tune_seeds
            lanes = {(rule, w.name): grid for w in self.workloads}
            self._train(lanes, seeds, self.plan.chunk_lanes, done)
            self._own[key] = {w.name: self._best(rule, w.name, grid, seeds) for w in self.workloads}
        return self._own[key]

    def _settings_near(self, own: Settings, variants: Sequence[RuleText], done: Progress) -> list[Settings]:
        """Each variant's settings: the rule's where nothing is clearly better.

        Tried are the rule's learning rate and its neighbours under all schedules, and further ones for
        as long as the best of them lies at the end of what was tried.
        """
        tune_seeds = self.protocol.tune_seeds
        tried: dict[tuple[RuleText, str], set[float]] = {
            (variant, w): set(self._beside(spec.lr) if spec else self.protocol.lrs)
            for variant in dict.fromkeys(variants)
            for w, spec in own.items()
        }
        size = self.plan.chunk_lanes
        while True:
            lanes = {at: self._specs(lrs) for at, lrs in tried.items()}
            self._train(lanes, tune_seeds, size, done)
            size = self.plan.score_lanes  # few are left to be tried
            best = {at: self._best(*at, specs, tune_seeds) for at, specs in lanes.items()}
            wider = {at: new for at, spec in best.items() if spec and (new := self._beyond(spec, tried[at]))}
            if not wider:
                break
            for at, lr in wider.items():
                tried[at].add(lr)
        return [{w: self._shared(variant, w, own[w], best[variant, w]) for w in own} for variant in variants]

    def _specs(self, lrs: Iterable[float]) -> tuple[LaneSpec, ...]:
        return tuple(LaneSpec(lr, schedule) for lr in sorted(lrs) for schedule in self.protocol.schedules)

    def _beside(self, lr: float) -> tuple[float, ...]:
        """A learning rate of the grid and its neighbours there."""
        at = self.protocol.lrs.index(lr)
        return self.protocol.lrs[max(at - 1, 0) : at + 2]

    def _beyond(self, best: LaneSpec, tried: set[float]) -> float | None:
        """The learning rate next to the best one that was not tried yet, if the grid has one."""
        return next((lr for lr in self._beside(best.lr) if lr not in tried), None)

    def _best(
        self, rule: RuleText, w: str, specs: Sequence[LaneSpec], seeds: Sequence[int]
    ) -> LaneSpec | None:
        """The setting with the least mean last loss; None where that is infinite for all."""
        means = [float(self._last_losses(rule, w, spec, seeds).mean()) for spec in specs]
        at = best_lane(means)
        return None if at is None else specs[at]

    def _shared(
        self, variant: RuleText, w: str, shared: LaneSpec | None, best: LaneSpec | None
    ) -> LaneSpec | None:
        """The rule's setting, or the variant's own where that is clearly better on the tuning seeds."""
        if best is None or shared is None or best == shared:
            return best
        seeds = self.protocol.tune_seeds
        at_shared = self._last_losses(variant, w, shared, seeds)
        if len(seeds) < 2 or not np.isfinite(at_shared).all():
            return best
        gain = at_shared - self._last_losses(variant, w, best, seeds)
        least = float(stdtrit(len(gain) - 1, CLEARLY)) * float(gain.std(ddof=1)) / len(gain) ** 0.5
        return best if gain.mean() > least else shared

    def _last_losses(
        self, rule: RuleText, w: str, spec: LaneSpec, seeds: Sequence[int]
    ) -> NDArray[np.float64]:
        """Last smoothed loss of a lane on each seed, (S,); infinite where it diverged."""
        last = [self._curves[rule.rule.full_key, w, spec, seed][-1] for seed in seeds]
        return np.array([np.inf if v is None else v for v in last])

    # training

    def _outcomes(
        self, pairs: Sequence[tuple[RuleText, Settings]], seeds: Sequence[int], done: Progress = silent,
        size: int = 0,
    ) -> list[dict[str, Outcome]]:  # fmt: skip
        """What each rule does at given settings, by workload."""
        lanes: dict[tuple[RuleText, str], tuple[LaneSpec, ...]] = {}
        for rule, settings in pairs:
            for w, spec in settings.items():
                if spec is not None:
                    lanes[rule, w] = (*lanes.get((rule, w), ()), spec)
        self._train(lanes, seeds, size or self.plan.score_lanes, done)
        steps = {workload.name: self.protocol.steps(workload) for workload in self.workloads}
        return [
            {
                w: Outcome(w, steps[w], spec, None, self._of_seeds(rule, w, spec, seeds))
                for w, spec in settings.items()
            }
            for rule, settings in pairs
        ]

    def _of_seeds(
        self, rule: RuleText, w: str, spec: LaneSpec | None, seeds: Sequence[int]
    ) -> tuple[Curve, ...]:
        key = rule.rule.full_key
        return tuple(self._curves[key, w, spec, seed] for seed in seeds) if spec is not None else ()

    def _train(
        self,
        lanes: Mapping[tuple[RuleText, str], Sequence[LaneSpec]],
        seeds: Sequence[int],
        size: int,
        done: Progress = silent,
    ) -> None:
        """Train what was not trained yet, all workloads and seeds at once, in chunks of `size` lanes."""
        asked: list[tuple[Asked, int]] = []
        keys: list[str] = []
        for workload in self.workloads:
            for seed in seeds:
                missing: dict[str, tuple[str, dict[LaneSpec, None]]] = {}
                for (rule, w), specs in lanes.items():
                    key = rule.rule.full_key
                    new = [s for s in specs if (key, w, s, seed) not in self._curves]
                    if w == workload.name and new:
                        missing.setdefault(key, (str(rule), {}))[1].update(dict.fromkeys(new))
                for key, (text, wanted) in missing.items():
                    rule_lanes = RuleLanes(text, tuple(wanted))
                    asked.append((Asked(workload, self.protocol.steps(workload), rule_lanes), seed))
                    keys.append(key)
        found = train_each(asked, self.plan, size, self.workers, done)
        for key, (each, seed), trained in zip(keys, asked, found, strict=True):
            for spec, (result, row) in zip(each.rule.lanes, trained, strict=True):
                curve = tuple(map(finite_or_none, smooth(result.curves[row])))
                lost = (None,) if result.diverged_at[row] else curve[-1:]
                self._curves[key, each.workload.name, spec, seed] = (*curve[:-1], *lost)


def _against(
    own: Mapping[str, Outcome], other: Mapping[str, Outcome], targets: Mapping[str, Targets], n_seeds: int,
    confidence: float,
) -> Paired:  # fmt: skip
    speedups = {name: speedup(other[name], own[name], targets[name]) for name in own}
    counted = {name: s for name, s in speedups.items() if s.log_ratios}
    overall = summarize(counted, confidence)
    return Paired(
        overall.speedup, overall.ci, overall.ci_here,
        {name: value for name, s in counted.items() if (value := s.value) is not None},
        overall.n_workloads, n_seeds,
        sum(s.n_missed for s in counted.values()),
        tuple(name for name, outcome in other.items() if outcome.setting is None),
        confidence,
    )  # fmt: skip


def decide(
    bench: Bench,
    rule: RuleText,
    variants: Sequence[RuleText],
    margin: float = MARGIN,
    *,
    enough: Callable[[Sequence[Paired]], bool] = lambda found: False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Paired]:
    """Each variant against the rule, with more seeds for as long as non-inferiority is open.

    At most `LOOKS`: at the protocol's number of scoring seeds, at twice and at four times as many, each look
    with an interval of its own confidence. The chance that any of them is wrong of one variant is at most the
    sum of theirs, 5 %, two-sided.

    Args:
        bench: where.
        rule, variants: see `Bench.compare`.
        margin: largest loss of speed that counts as none.
        enough: ends the looks early, given the findings so far.
        say: told in one line what is still open.
    """
    found: dict[int, Paired] = {}
    pending = list(range(len(variants)))
    for times, confidence in LOOKS:
        seeds = times * len(bench.protocol.score_seeds)
        asked = [variants[i] for i in pending]
        found |= zip(pending, bench.compare(rule, asked, seeds=seeds, confidence=confidence), strict=True)
        pending = [i for i in pending if found[i].is_open(margin)]
        if not pending or enough(list(found.values())):
            break
        if times < LOOKS[-1][0]:
            say(f"  {len(pending)} of {len(variants)} still open after {seeds} seeds")
    return [found[i] for i in range(len(variants))]


def paired_differences(
    rule: RuleText,
    variants: Sequence[RuleText],
    workloads: Sequence[Workload],
    *,
    protocol: Protocol | None = None,
    plan: Plan | None = None,
    workers: Workers | None = None,
    done: Progress = silent,
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
