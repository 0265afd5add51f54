"""From rules and workloads to outcomes: which lanes to train, and which lr to believe.

A protocol is the same for a candidate and for a baseline: a grid of relative learning rates times
schedules on a tuning seed, or the part of it around where every second learning rate did best; the
setting that these lanes point to (`tuning`), trained on seeds that the choice never saw, is the outcome. A
rung without scoring seeds is read off the best lane of the tuning seed itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ruleforge.evaluate.hypers import settings_of
from ruleforge.evaluate.lanes import ChunkResult, LaneSpec, Plan, RuleLanes
from ruleforge.evaluate.packing import Asked, Lane, train_lanes
from ruleforge.evaluate.targets import smooth
from ruleforge.evaluate.tuning import best_lane, best_setting, tuning_loss
from ruleforge.evaluate.workers import Workers
from ruleforge.records import finite_or_none
from ruleforge.tasks import Workload

TUNE_SEED = 0
SCORE_SEED = 1000
FINAL_SEED = 2000
COMPARE_SEED = 3000
MAX_WIDENINGS = 3

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Protocol:
    """How a rule is tuned and scored on one workload.

    Attributes:
        n_steps: budget; 0 for the workload's own.
        lrs: relative learning rates, ascending.
        schedules: names in `SCHEDULES`.
        score_seeds: seeds of the outcome's curves; empty to read the tuning seed's best lane.
        tune_seeds: seeds of the grid; the mean last loss over them chooses the setting.
        widen: add learning rates while the best lies on an edge.
        refine: train every second learning rate under the first schedule, then the best of them and its
            neighbours under all.
        hyper_settings: settings of the hyperparameters that are tuned beside the rule's defaults, each
            over the grid of learning rates; see `hypers.settings_of`.
        stops: end tuning lanes that have no hope before their last step, see `stopping`.
    """

    lrs: tuple[float, ...]
    schedules: tuple[str, ...] = ("constant",)
    n_steps: int = 0
    score_seeds: tuple[int, ...] = ()
    tune_seeds: tuple[int, ...] = (TUNE_SEED,)
    widen: bool = False
    refine: bool = False
    hyper_settings: int = 0
    stops: bool = False

    def steps(self, workload: Workload) -> int:
        return self.n_steps or workload.steps

    @property
    def step(self) -> float:
        """Ratio of one learning rate of the grid to the one before."""
        return self.lrs[1] / self.lrs[0] if len(self.lrs) > 1 else 1.0

    def grid(self) -> tuple[LaneSpec, ...]:
        return tuple(LaneSpec(lr, schedule) for lr in self.lrs for schedule in self.schedules)

    def first_wave(self) -> tuple[LaneSpec, ...]:
        """The lanes to begin with: the whole grid, or every second learning rate under one schedule."""
        if not self._refines:
            return self.grid()
        return tuple(LaneSpec(lr, self.schedules[0]) for lr in self.lrs[1::2])

    def second_wave(self, best: LaneSpec | None) -> tuple[LaneSpec, ...]:
        """Around the best of the first wave; the smallest learning rate where all of that diverged."""
        if not self._refines:
            return ()
        if best is None:
            return tuple(LaneSpec(self.lrs[0], schedule) for schedule in self.schedules)
        at = self.lrs.index(best.lr)
        near = self.lrs[at - 1 : at + 2]
        return tuple(spec for lr in near for s in self.schedules if (spec := LaneSpec(lr, s)) != best)

    @property
    def _refines(self) -> bool:
        return self.refine and len(self.lrs) > 3

    @property
    def n_lanes(self) -> int:
        """Lanes of one rule on one workload, scoring included, before any widening."""
        first = self.first_wave()
        tuned = len(first) + len(self.second_wave(first[0]))
        return tuned * len(self.tune_seeds) * (1 + self.hyper_settings) + len(self.score_seeds)


@dataclass(frozen=True)
class Outcome:
    """What one rule did on one workload.

    Attributes:
        workload: name.
        n_steps: budget of every lane.
        setting: chosen relative lr and schedule, or None when every lane diverged.
        lr: absolute learning rate of the chosen lane.
        curves: smoothed validation loss of the chosen setting, one tuple a scoring seed; None
            from where a lane diverged.
        final_losses: last loss of each tuning lane, mean over tuning seeds; None where it diverged.
        tried: the setting of each of them.
        train_loss, metric: of the chosen lane, mean over scoring seeds; None where there is none.
        n_lanes, n_diverged: lanes trained, and how many of them diverged.
        diverged_at: first step at which one diverged, or None.
        hypers: the rule's text under the chosen setting of its hyperparameters; "" for its defaults.
        steps_saved: steps that lanes would have gone on for, had they not been stopped.
    """

    workload: str
    n_steps: int
    setting: LaneSpec | None
    lr: float | None
    curves: tuple[tuple[float | None, ...], ...]
    final_losses: tuple[float | None, ...] = ()
    tried: tuple[LaneSpec, ...] = ()
    train_loss: float | None = None
    metric: float | None = None
    n_lanes: int = 0
    n_diverged: int = 0
    diverged_at: int | None = None
    hypers: str = ""
    steps_saved: int = 0

    @property
    def lane_steps(self) -> int:
        """Steps trained, of all lanes."""
        return self.n_lanes * self.n_steps - self.steps_saved

    @property
    def final_loss(self) -> float | None:
        """Median last loss over scoring seeds, or None if half of them diverged."""
        last = [np.inf if curve[-1] is None else curve[-1] for curve in self.curves]
        value = float(np.median(last)) if last else np.inf
        return value if np.isfinite(value) else None


def evaluate(
    texts: Sequence[str],
    workloads: Sequence[Workload],
    protocol: Protocol,
    plan: Plan,
    workers: Workers,
    done: Progress = lambda finished, total: None,
) -> list[list[Outcome]]:
    """Tune and score rules on workloads.

    Args:
        texts: rule texts; each rule runs at its hyperparameter defaults, and at the protocol's number of
            other settings of them, of which the best on the tuning seeds is scored.
        workloads: where to train.
        protocol: the same for all rules.
        plan: recorded execution plan.
        workers: where the chunks run.
        done: told the progress in chunks.

    Returns:
        One list of outcomes a rule, in the order of the workloads.
    """
    return _Evaluation(list(texts), list(workloads), protocol, plan, workers, done).run()


@dataclass
class _Tuning:
    """One entrant on one workload so far.

    Attributes:
        specs: settings that were trained.
        losses: what each is judged by, mean over tuning seeds.
        finals: last loss of each, mean over tuning seeds; infinite where one diverged.
        shown: its lane on the first tuning seed.
        lost: of every lane on every tuning seed, where it diverged, or 0.
        stopped: of every one of them that was stopped, after which step.
    """

    specs: list[LaneSpec] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)
    shown: list[Lane] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)

    def add(self, spec: LaneSpec, lanes: Sequence[Lane]) -> None:
        """A setting, with its lane on each tuning seed."""
        self.specs.append(spec)
        self.losses.append(float(np.mean([tuning_loss(r.curves[k], r.diverged_at[k]) for r, k in lanes])))
        self.finals.append(float(np.mean([_last_loss(*lane) for lane in lanes])))
        self.shown.append(lanes[0])
        self.lost += [int(r.diverged_at[k]) for r, k in lanes]
        self.stopped += [at for r, k in lanes if (at := int(r.stopped_at[k]))]

    @property
    def least(self) -> float:
        return min(self.losses)

    def best(self) -> int | None:
        return best_lane(self.losses)


class _Evaluation:
    """One call of `evaluate`. An entrant is a rule at one setting of its hyperparameters."""

    def __init__(
        self, texts: list[str], workloads: list[Workload], protocol: Protocol, plan: Plan,
        workers: Workers, done: Progress,
    ) -> None:  # fmt: skip
        self.workloads, self.protocol = workloads, protocol
        self.plan, self.workers, self.done = plan, workers, done
        self.entrants: list[str] = []
        self.entrants_of: list[range] = []
        for text in texts:
            first = len(self.entrants)
            self.entrants += (text, *settings_of(text, protocol.hyper_settings))
            self.entrants_of.append(range(first, len(self.entrants)))
        self.tuning = {(e, w): _Tuning() for e in range(len(self.entrants)) for w in range(len(workloads))}

    def run(self) -> list[list[Outcome]]:
        first = self.protocol.first_wave()
        self._tune(dict.fromkeys(self.tuning, first), self.plan.chunk_lanes)
        second = {at: specs for at in self.tuning if (specs := self._around_best(at))}
        if second:
            self._tune(second, self.plan.chunk_lanes)
        for _ in range(MAX_WIDENINGS if self.protocol.widen else 0):
            wider = {at: specs for at in self.tuning if (specs := self._beyond_edge(at))}
            if not wider:
                break
            self._tune(wider, self.plan.score_lanes)
        chosen = [[self._best_of(mine, w) for w in range(len(self.workloads))] for mine in self.entrants_of]
        scored = self._score([at for row in chosen for at in row])
        return [
            [self._outcome(mine, at, scored.get(at)) for at in row]
            for mine, row in zip(self.entrants_of, chosen, strict=True)
        ]

    def _best_of(self, mine: range, w: int) -> tuple[int, int]:
        """The entrant of one rule that did best on the tuning seeds of a workload; defaults on a tie."""
        return min(((e, w) for e in mine), key=lambda at: (self.tuning[at].least, at))

    def _train(
        self,
        lanes: Mapping[tuple[int, int], tuple[LaneSpec, ...]],
        seeds: Sequence[int],
        chunk: int,
        stops: bool = False,
    ) -> dict[tuple[int, int], list[list[Lane]]]:
        """Train lanes on seeds; for each (entrant, workload) its lanes in order, each on all seeds."""
        places = sorted(lanes, key=lambda at: at[1])
        asked = [
            Asked(
                self.workloads[w],
                self.protocol.steps(self.workloads[w]),
                RuleLanes(self.entrants[e], specs),
                stops,
            )
            for (e, w), specs in ((at, lanes[at]) for at in places)
        ]
        found = train_lanes(asked, seeds, self.plan, chunk, self.workers, self.done)
        return dict(zip(places, found, strict=True))

    def _tune(self, lanes: Mapping[tuple[int, int], tuple[LaneSpec, ...]], chunk: int) -> None:
        for at, found in self._train(lanes, self.protocol.tune_seeds, chunk, self.protocol.stops).items():
            for spec, mine in zip(lanes[at], found, strict=True):
                self.tuning[at].add(spec, mine)

    def _around_best(self, at: tuple[int, int]) -> tuple[LaneSpec, ...]:
        tuning = self.tuning[at]
        best = tuning.best()
        return self.protocol.second_wave(None if best is None else tuning.specs[best])

    def _beyond_edge(self, at: tuple[int, int]) -> tuple[LaneSpec, ...]:
        """The next learning rate outwards, if the best so far lies on an edge of the grid."""
        tuning = self.tuning[at]
        best = tuning.best()
        lrs = sorted({spec.lr for spec in tuning.specs})
        if best is None or len(lrs) < 2:
            return ()
        ratio = lrs[1] / lrs[0]
        edge = {lrs[0]: lrs[0] / ratio, lrs[-1]: lrs[-1] * ratio}
        lr = edge.get(tuning.specs[best].lr)
        return tuple(LaneSpec(lr, schedule) for schedule in self.protocol.schedules) if lr else ()

    def _score(self, places: list[tuple[int, int]]) -> dict[tuple[int, int], tuple[LaneSpec, list[Lane]]]:
        """The setting chosen at each place, and its lane on each scoring seed."""
        if not self.protocol.score_seeds:
            return {}
        step = self.protocol.step
        settings = {at: best_setting(self.tuning[at].specs, self.tuning[at].losses, step) for at in places}
        chosen = {at: (spec,) for at, spec in settings.items() if spec is not None}
        found = self._train(chosen, self.protocol.score_seeds, self.plan.score_lanes)
        return {at: (chosen[at][0], lanes) for at, (lanes,) in found.items()}

    def _outcome(
        self, mine: range, at: tuple[int, int], score: tuple[LaneSpec, list[Lane]] | None
    ) -> Outcome:
        tuning, workload = self.tuning[at], self.workloads[at[1]]
        tuned = [where for e in mine for where in self.tuning[e, at[1]].lost]
        stopped = [where for e in mine for where in self.tuning[e, at[1]].stopped]
        n_steps = self.protocol.steps(workload)
        lost = [where for where in tuned if where]
        best = tuning.best()
        read = None if best is None else (tuning.specs[best], [tuning.shown[best]])
        setting, shown = score or read or (None, [])
        scored = shown if score else []
        outcome = Outcome(
            workload=workload.name, n_steps=n_steps, setting=setting, lr=None, curves=(),
            final_losses=tuple(map(finite_or_none, tuning.finals)), tried=tuple(tuning.specs),
            n_lanes=len(tuned) + len(scored),
            n_diverged=len(lost) + sum(bool(r.diverged_at[k]) for r, k in scored),
            diverged_at=min(lost, default=None),
            hypers=self.entrants[at[0]] if at[0] != mine[0] else "",
            steps_saved=len(stopped) * n_steps - sum(stopped),
        )  # fmt: skip
        if not shown:
            return outcome
        result, row = shown[0]
        return replace(
            outcome,
            lr=float(result.lrs[row]),
            curves=tuple(tuple(finite_or_none(v) for v in smooth(r.curves[k])) for r, k in shown),
            train_loss=finite_or_none(float(np.mean([r.train_losses[k] for r, k in shown]))),
            metric=finite_or_none(float(np.mean([r.metrics[k] for r, k in shown]))),
        )


def _last_loss(result: ChunkResult, row: int) -> float:
    """The smoothed loss at the end of a lane; infinite where it diverged."""
    final = float(smooth(result.curves[row])[-1])
    return final if np.isfinite(final) and not result.diverged_at[row] else np.inf
