"""More seeds for outcomes that matter: the chosen setting trained again, nothing tuned anew.

A tuning is many lanes and a score is one, so a few seeds more are cheap, and the largest of many scores is
no longer the luckiest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ruleforge.core.text import RuleText
from ruleforge.evaluate.baselines import Baselines, tune_baselines
from ruleforge.evaluate.evaluator import Outcome, Progress, Protocol
from ruleforge.evaluate.lanes import Plan, RuleLanes
from ruleforge.evaluate.packing import Asked, Lane, train_lanes
from ruleforge.evaluate.targets import smooth
from ruleforge.evaluate.workers import Workers
from ruleforge.records import finite_or_none
from ruleforge.tasks import Workload


@dataclass
class Rescoring:
    """Who gets more seeds, and what they are measured against.

    Attributes:
        keep: a candidate gets them when its score is among so many of the best that got them before.
        seeds: which; for candidates and baselines alike.
        baselines: with the curves of these seeds too.
        values: of all candidates that got them.
    """

    keep: int
    seeds: tuple[int, ...]
    baselines: Baselines
    values: list[float] = field(default_factory=list)

    @property
    def floor(self) -> float:
        """The score from which on a candidate gets more seeds. It never falls, so none is overlooked."""
        return sorted(self.values)[-self.keep] if len(self.values) >= self.keep else 0.0


def on_more_seeds(
    texts: Sequence[str],
    outcomes: Sequence[Mapping[str, Outcome]],
    workloads: Sequence[Workload],
    seeds: Sequence[int],
    plan: Plan,
    workers: Workers,
    done: Progress = lambda finished, total: None,
) -> list[dict[str, Outcome]]:
    """The same outcomes with the curves of more scoring seeds; those of rules that diverged stay as they are.

    Args:
        texts: rule texts.
        outcomes: of each rule, by workload.
        workloads: where to train; outcomes elsewhere are passed on.
        seeds: scoring seeds that the outcomes do not have yet.
        plan: recorded execution plan.
        workers: where the chunks run.
        done: told the progress in chunks.
    """
    places = [
        (i, w.name)
        for w in workloads
        for i, each in enumerate(outcomes)
        if w.name in each and each[w.name].setting
    ]
    by_name = {w.name: w for w in workloads}
    asked = [
        Asked(by_name[name], outcomes[i][name].n_steps, _lane(texts[i], outcomes[i][name]))
        for i, name in places
    ]
    trained = train_lanes(asked, seeds, plan, plan.score_lanes, workers, done)
    found = {at: lanes for at, (lanes,) in zip(places, trained, strict=True)}
    return [
        {name: _extended(outcome, found.get((i, name), [])) for name, outcome in each.items()}
        for i, each in enumerate(outcomes)
    ]


def _lane(text: str, outcome: Outcome) -> RuleLanes:
    assert outcome.setting is not None
    return RuleLanes(outcome.hypers or text, (outcome.setting,))


def _extended(outcome: Outcome, scored: list[Lane]) -> Outcome:
    """An outcome with more curves; train loss and metric are means over all seeds."""
    if not scored:
        return outcome
    n = len(outcome.curves)

    def mean(before: float | None, now: Sequence[float]) -> float | None:
        values = [np.nan if before is None else before] * n + list(now)
        return finite_or_none(float(np.mean(values)))

    lost = [int(r.diverged_at[k]) for r, k in scored if r.diverged_at[k]]
    first = [at for at in (outcome.diverged_at, *lost) if at]
    return replace(
        outcome,
        curves=(*outcome.curves, *(tuple(map(finite_or_none, smooth(r.curves[k]))) for r, k in scored)),
        train_loss=mean(outcome.train_loss, [float(r.train_losses[k]) for r, k in scored]),
        metric=mean(outcome.metric, [float(r.metrics[k]) for r, k in scored]),
        n_lanes=outcome.n_lanes + len(scored),
        n_diverged=outcome.n_diverged + len(lost),
        diverged_at=min(first, default=None),
    )


def baselines_on_more_seeds(
    tuned: Baselines,
    rules: Mapping[str, RuleText],
    workloads: Sequence[Workload],
    protocol: Protocol,
    seeds: Sequence[int],
    plan: Plan,
    workers: Workers,
    done: Progress = lambda finished, total: None,
) -> Baselines:
    """Baselines tuned under a protocol with the curves of more scoring seeds, and the targets that follow.

    They are cached as what they are: the same rules tuned under a protocol with all of the seeds.
    """

    def train(names: Sequence[str], places: Sequence[Workload]) -> list[list[Outcome]]:
        texts = [str(rules[name]) for name in names]
        before = [{w.name: tuned.outcomes[w.name][name] for w in places} for name in names]
        after = on_more_seeds(texts, before, places, seeds, plan, workers, done)
        return [[each[w.name] for w in places] for each in after]

    return tune_baselines(rules, workloads, with_more_seeds(protocol, seeds), plan, workers, train=train)


def with_more_seeds(protocol: Protocol, seeds: Sequence[int]) -> Protocol:
    return replace(protocol, score_seeds=(*protocol.score_seeds, *seeds))
