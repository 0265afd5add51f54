"""What a rule can be judged by: one row an objective. The config's schema, the search, `ruleforge list` and
docs/objectives.md are made from this table.

Losses of different workloads are not comparable, nor are accuracies. Losses are therefore counted on the
way from the loss before the first step to the lowest final loss of a tuned baseline: 0 where a rule ends
where that baseline does, 1 where it has learned nothing or diverged, below 0 where it ends lower. The mean
over workloads is then a mean of like things. Knows what is measured, and not how a search uses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from ruleforge.core.rule import Rule
from ruleforge.evaluate.limits import energy_pj

if TYPE_CHECKING:
    from ruleforge.evaluate.baselines import Baselines
    from ruleforge.evaluate.evaluator import Outcome

Direction = Literal["max", "min"]
Needs = Literal["rule", "training", "clock"]

EARLY: Final = 0.25  # of the budget


@dataclass(frozen=True)
class Measured:
    """A rule and what its highest rung showed.

    Attributes:
        rule: the rule; None where only that is asked for which training shows.
        outcomes: workload → outcome; empty for a rule that was not trained.
        speedups: workload → speed-up over the oracle; None where nothing could be compared.
        speedup: their geometric mean.
        baselines: tuned under the rung's protocol.
        latency_ns: of one step of one weight on this machine, where it was measured.
    """

    rule: Rule | None
    outcomes: Mapping[str, Outcome]
    speedups: Mapping[str, float | None]
    speedup: float
    baselines: Baselines | None = None
    latency_ns: float | None = None

    def places(self) -> Iterator[tuple[Outcome, Way, Sequence[Outcome]]]:
        """Of each workload on which a baseline learns: the outcome, the way, the baselines' outcomes."""
        for name in self.baselines.usable() if self.baselines else ():
            others = tuple(self.baselines.outcomes[name].values()) if self.baselines else ()
            way = make_way(others)
            if name in self.outcomes and way is not None:
                yield self.outcomes[name], way, others


@dataclass(frozen=True)
class Way:
    """From the loss before the first step to the best that a tuned baseline ends with."""

    start: float
    best: float

    def left(self, loss: float | None, best: float | None = None) -> float:
        """The share of the way between a loss and the best one; 1 at most, and where there is none."""
        if loss is None or not math.isfinite(loss):
            return 1.0
        return min(1.0, (loss - (self.best if best is None else best)) / (self.start - self.best))


def make_way(baselines: Iterable[Outcome]) -> Way | None:
    """The way of one workload, or None where no baseline ends below its start."""
    starts = [c[0] for o in baselines for c in o.curves if c and c[0] is not None]
    ends = [o.final_loss for o in baselines if o.final_loss is not None]
    if not starts or not ends or not min(ends) < median(starts):
        return None
    return Way(float(median(starts)), min(ends))


def loss_after(outcome: Outcome, share: float) -> float | None:
    """Median loss over seeds after a share of the budget, interpolated; None where half of them diverged."""
    from ruleforge.evaluate.lanes import sample_steps

    steps = sample_steps(outcome.n_steps)
    values = []
    for curve in outcome.curves:
        losses = [math.nan if v is None else v for v in curve]
        values.append(float(np.interp(share * outcome.n_steps, steps, losses)))
    found = median(math.inf if math.isnan(v) else v for v in values) if values else math.inf
    return float(found) if math.isfinite(found) else None


# The objectives: each a function of what was measured.


def _speedup(seen: Measured) -> float:
    return seen.speedup


def _consistency(seen: Measured) -> float:
    return min((value for value in seen.speedups.values() if value is not None), default=0.0)


def _final_loss(seen: Measured) -> float:
    return _mean((way.left(own.final_loss) for own, way, _ in seen.places()), 1.0)


def _sample_efficiency(seen: Measured) -> float:
    values = []
    for own, way, others in seen.places():
        reached = [loss for o in others if (loss := loss_after(o, EARLY)) is not None]
        values.append(way.left(loss_after(own, EARLY), min(reached, default=way.best)))
    return _mean(values, 1.0)


def _final_metric(seen: Measured) -> float:
    values = []
    for own, _, others in seen.places():
        best = max((o.metric for o in others if o.metric is not None), default=None)
        if best is not None:
            values.append((own.metric or 0.0) - best)
    return _mean(values, 0.0)


def _generalization_gap(seen: Measured) -> float:
    values = []
    for own, way, _ in seen.places():
        known = own.final_loss is not None and own.train_loss is not None
        values.append((own.final_loss - own.train_loss) / (way.start - way.best) if known else 1.0)  # type: ignore[operator]
    return _mean(values, 1.0)


def _stability(seen: Measured) -> float:
    values = []
    for own, way, _ in seen.places():
        ends = [way.left(curve[-1]) for curve in own.curves]
        spread = pstdev(ends) if len(ends) > 1 else 0.0
        values.append(max(0.0, 1.0 - own.n_diverged / max(1, own.n_lanes) - spread))
    return _mean(values, 0.0)


def _lr_robustness(seen: Measured) -> float:
    from ruleforge.evaluate.measures import lr_decades

    return _mean((lr_decades(own) or 0.0 for own, _, _ in seen.places()), 0.0)


def _complexity(rule: Rule) -> float:
    return float(rule.nodes)


def _cost(rule: Rule) -> float:
    return float(rule.cost.flops)


def _bytes(rule: Rule) -> float:
    return float(rule.cost.bytes)


def _slots(rule: Rule) -> float:
    return float(rule.cost.slots)


def _smoothness(rule: Rule) -> float:
    from ruleforge.evaluate.schedule_probe import largest_step

    return largest_step(rule)


def _alone(value: Callable[[Rule], float]) -> Callable[[Measured], float]:
    """What needs the rule and nothing that was measured."""

    def of(seen: Measured) -> float:
        if seen.rule is None:
            raise ValueError("this objective is one of the rule, and none was given")
        return value(seen.rule)

    return of


def _latency(seen: Measured) -> float:
    return math.inf if seen.latency_ns is None else seen.latency_ns


def _mean(values: Iterable[float], nothing: float) -> float:
    known = list(values)
    return fmean(known) if known else nothing


@dataclass(frozen=True)
class Objective:
    """One row of the table.

    Attributes:
        name: key in a config.
        direction: which way is better.
        unit: of the value.
        meaning: one sentence for the schema and the docs.
        value: the function.
        needs: the rule alone, a training, or a clock.
        missed: what one rung that a candidate did not reach does to the value, since short budgets
            flatter: a factor for speed-ups and decades, an addend for the others.
    """

    name: str
    direction: Direction
    unit: str
    meaning: str
    value: Callable[[Measured], float]
    needs: Needs = "rule"
    missed: tuple[Literal["times", "plus"], float] = ("plus", 0.0)

    def judged(self, seen: Measured, rungs_missed: int) -> float:
        """The value, with the price of the rungs that were not reached."""
        kind, amount = self.missed
        value = self.value(seen)
        return value * amount**rungs_missed if kind == "times" else value + amount * rungs_missed

    @property
    def described(self) -> str:
        """Its meaning and unit as a sentence."""
        return f"{self.meaning[:1].upper()}{self.meaning[1:]} ({self.unit})."

    @property
    def word(self) -> str:
        """How a hard limit on it reads."""
        return "at least" if self.direction == "max" else "at most"


_HALVED: Final = ("times", 0.5)
_ROWS: Final = (
    Objective(
        "speedup", "max", "ratio of steps",
        "steps of the oracle's baseline to its targets over the rule's steps, geometric mean over workloads",
        _speedup, "training", _HALVED,
    ),
    Objective("complexity", "min", "nodes", "distinct nodes of the canonical rule", _alone(_complexity)),
    Objective("cost", "min", "FLOPs", "floating-point operations per weight and step", _alone(_cost)),
    Objective("slots", "min", "slots", "state tensors of the size of the weights", _alone(_slots)),
    Objective("bytes", "min", "bytes", "bytes moved per weight and step in float32", _alone(_bytes)),
    Objective(
        "energy", "min", "pJ",
        "estimated energy per weight and step: additions, and bytes from memory (Horowitz 2014, 45 nm)",
        _alone(energy_pj),
    ),
    Objective(
        "final_loss", "min", "share of the way",
        "loss at the end, counted from the best tuned baseline's to the loss before the first step",
        _final_loss, "training", ("plus", 0.5),
    ),
    Objective(
        "final_metric", "max", "points",
        "the workloads' own metric at the end, such as accuracy, less the best tuned baseline's",
        _final_metric, "training", ("plus", -0.5),
    ),
    Objective(
        "generalization_gap", "min", "share of the way",
        "validation loss at the end less training loss, in units of the same way",
        _generalization_gap, "training", ("plus", 0.5),
    ),
    Objective(
        "stability", "max", "share",
        "1 less the share of lanes that diverged, less the spread of final losses over seeds",
        _stability, "training", _HALVED,
    ),
    Objective(
        "lr_robustness", "max", "decades",
        "learning rates around the best whose final loss is within 10 % of the best's",
        _lr_robustness, "training", _HALVED,
    ),
    Objective(
        "sample_efficiency", "min", "share of the way",
        "loss after 25 % of the budget, counted from the best tuned baseline's at that point",
        _sample_efficiency, "training", ("plus", 0.5),
    ),
    Objective(
        "consistency", "max", "ratio of steps",
        "speed-up over the oracle on the worst workload", _consistency, "training", _HALVED,
    ),
    Objective(
        "smoothness", "min", "share of the largest step",
        "largest change of the step size from one step to the next, of a schedule that the rule owns "
        "by reading progress", _alone(_smoothness),
    ),
    Objective(
        "latency", "min", "ns",
        "measured time per weight and step on this machine; needs deterministic = false", _latency, "clock",
    ),
)  # fmt: skip

OBJECTIVES: Final[dict[str, Objective]] = {row.name: row for row in _ROWS}


def front_of(points: Iterable[tuple[int, Sequence[float]]], directions: Sequence[Direction]) -> list[int]:
    """Of (id, values), those that no other dominates or equals, best in the first value first; ties to the
    smaller id.
    """
    signs = [-1.0 if way == "max" else 1.0 for way in directions]
    costs = sorted((tuple(s * v for s, v in zip(signs, values, strict=True)), n) for n, values in points)
    front: list[tuple[tuple[float, ...], int]] = []
    for cost, number in costs:
        if not any(all(a <= b for a, b in zip(kept, cost, strict=True)) for kept, _ in front):
            front.append((cost, number))
    return [number for _, number in front]


def objectives_page() -> str:
    """docs/objectives.md."""
    lines = [
        "# Objectives", "",
        "What a search can be for. Each may be a Pareto axis (`[objectives]`), a term of a weighted sum "
        "(`[weights]`) or a hard limit (`[limits]`). Made from the table in `ruleforge/app/objectives.py` by "
        "`make docs`.", "",
        "Losses of different workloads are not comparable. They are counted on *the way*: from the loss "
        "before the first step to the lowest final loss of a tuned baseline. 0: as good as that; 1: nothing "
        "learned, or diverged; below 0: better than all of them. The mean is over workloads.", "",
        "A candidate that was stopped at a low rung is judged by what it showed there, and each rung that it "
        "missed has a price, since short budgets flatter.", "",
        "| objective | better | unit | needs | a missed rung | meaning |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in OBJECTIVES.values():
        kind, amount = row.missed
        price = (
            "—" if (kind, amount) == ("plus", 0.0) else f"× {amount:g}" if kind == "times" else f"{amount:+g}"
        )
        better = "more" if row.direction == "max" else "less"
        lines.append(f"| `{row.name}` | {better} | {row.unit} | {row.needs} | {price} | {row.meaning} |")
    return "\n".join(lines) + "\n"
