"""Meta-validation: while a search goes on, do the rules that it likes do well where it does not train?

Every few generations the best rules alive are scored on the validation suite, on seeds of their own. A
look is compared with the best earlier one, workload by workload on the same seeds. Looks decide what the
search does next, so what they found is stored with the generation, and a resumed run decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from statistics import fmean
from typing import Any, Final, Self

from ruleforge.app.config import load_validation_workloads
from ruleforge.app.schema import Config
from ruleforge.app.setup import full_protocol
from ruleforge.evaluate.baselines import Baselines
from ruleforge.evaluate.evaluator import Outcome, Protocol, evaluate
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.statistics import t_interval
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload

WATCH_SEED: Final = 5000
WATCH_SEEDS: Final = 2
PATIENCE: Final = 2
CERTAINTY: Final = 0.95
ONE_WORKLOAD_MARGIN: Final = math.log(1.1)


@dataclass(frozen=True)
class Look:
    """One look at the validation suite.

    Attributes:
        generation: at whose end.
        leaders: the best rules alive then, by the search's own fitness, best first.
        search: mean log of that fitness over the leaders.
        validation: workload → mean log speed-up over the oracle over the leaders.
        action: what was done because of it, or "".
    """

    generation: int
    leaders: tuple[int, ...]
    search: float
    validation: Mapping[str, float]
    action: str = ""

    @property
    def mean(self) -> float:
        """Mean log speed-up over the workloads."""
        return _mean(self.validation)

    def as_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "leaders": list(self.leaders),
            "search": math.exp(self.search),
            "validation": math.exp(self.mean) if self.validation else None,
            "workloads": {name: math.exp(value) for name, value in self.validation.items()},
            "action": self.action,
        }

    def record(self) -> dict[str, Any]:
        """What `from_record` reads back exactly."""
        return {**self.as_json(), "logs": [self.search, dict(self.validation)]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        search, validation = record["logs"]
        return cls(
            int(record["generation"]), tuple(record["leaders"]), float(search), validation, record["action"]
        )


def look_line(look: Look) -> str:
    """A look in words, for the log."""
    done = {
        "restart": "the search restarts from the best validated rules",
        "reparameterize": "the best validated rule gets other constants",
        "stop": "the search stops",
    }
    fallen = f"; it falls while fitness rises: {done[look.action]}" if look.action in done else ""
    where = f"×{math.exp(look.mean):.3f}" if look.validation else "nothing comparable"
    return (
        f"validation: the best {len(look.leaders)} alive stand at {where} over the oracle, "
        f"×{math.exp(look.search):.3f} where they are trained{fallen}"
    )


def best_look(looks: Sequence[Look]) -> Look:
    """The one with the best validation, the first of equals."""
    return max(looks, key=lambda look: (look.mean, -look.generation))


def is_degrading(looks: Sequence[Look]) -> bool:
    """Whether validation falls while the search's own fitness rises.

    That is so when the last two looks both found a better search fitness than the best validated look
    before them, and a worse validation: the upper end of a one-sided 95 % t interval over the workloads'
    differences lies below zero. The seeds are the same each time, so differences are paired. With one
    workload there is no interval, and a loss of 10 % is asked for. Two looks in a row, because the best of
    several looks was lucky as well as good.
    """
    if len(looks) <= PATIENCE:
        return False
    best = best_look(looks[:-PATIENCE])
    return all(look.search > best.search and _is_worse(look, best) for look in looks[-PATIENCE:])


def _is_worse(look: Look, best: Look) -> bool:
    gaps = [look.validation[w] - best.validation[w] for w in look.validation if w in best.validation]
    if len(gaps) == 1:
        return gaps[0] < -ONE_WORKLOAD_MARGIN
    found = t_interval(gaps, 2 * CERTAINTY - 1)  # both ends lie outside as often as one does at CERTAINTY
    return found is not None and found[1] < 0


@dataclass
class Watch:
    """Looks so far, and what is needed for the next.

    Attributes:
        workloads: the validation suite, without what the search trains on.
        protocol: candidates and baselines alike.
        baselines: tuned under it.
        plan, workers: as for training; chunks are those that score, since few rules look at a time.
        every, top: generations between two looks, and rules that each takes.
        policy: what to do on degradation.
        seen: candidate → workload → log speed-up over the oracle; a rule is looked at once.
        looks: all so far.
    """

    workloads: tuple[Workload, ...]
    protocol: Protocol
    baselines: Baselines
    plan: Plan
    workers: Workers
    every: int
    top: int
    policy: str
    seen: dict[int, dict[str, float]] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)

    def is_due(self, generation: int) -> bool:
        """Whether there is a look at the end of this generation."""
        return (generation + 1) % self.every == 0

    @property
    def is_stopped(self) -> bool:
        return bool(self.looks) and self.looks[-1].action == "stop"

    def look(
        self,
        generation: int,
        leaders: Mapping[int, tuple[str, float]],
        done: Callable[[int, int], None] = lambda finished, total: None,
    ) -> dict[int, dict[str, Outcome]]:
        """Score the leaders that were not looked at before, and decide.

        Args:
            generation: at whose end.
            leaders: candidate → text and search fitness, best first.
            done: told the progress.

        Returns:
            Outcomes by workload of those that were scored now.
        """
        fresh = [n for n in leaders if n not in self.seen]
        rows = evaluate(
            [leaders[n][0] for n in fresh], self.workloads, self.protocol, self.plan, self.workers, done
        )
        found = {n: {o.workload: o for o in row} for n, row in zip(fresh, rows, strict=True)}
        for number, outcomes in found.items():
            self.remember(number, self.speedups(outcomes))
        means = {
            w: fmean(known)
            for w in self.baselines.usable()
            if (known := [self.seen[n][w] for n in leaders if w in self.seen[n]])
        }
        logs = [math.log(value) for _, value in leaders.values() if value > 0]
        self.looks.append(Look(generation, tuple(leaders), fmean(logs) if logs else -1e300, means))
        if self.policy != "ignore" and is_degrading(self._since_the_last_action()):
            self.looks[-1] = replace(self.looks[-1], action=self.policy)
        return found

    def _since_the_last_action(self) -> list[Look]:
        """Looks that count: what the search did because of earlier ones made it another search."""
        return list(reversed([*takewhile(lambda look: not look.action, reversed(self.looks))]))

    def speedups(self, outcomes: Mapping[str, Outcome]) -> dict[str, float | None]:
        """Speed-up over the oracle by workload."""
        return self.baselines.values(outcomes, "oracle")

    def remember(self, number: int, speedups: Mapping[str, float | None]) -> None:
        """Know what a candidate did, now or before the run was interrupted."""
        self.seen[number] = {w: math.log(value) for w, value in speedups.items() if value}

    def best_validated(self) -> list[int]:
        """Who led at the best look before the last action, best on validation first."""
        before = [look for look in self.looks if not look.action] or self.looks
        leaders = best_look(before).leaders
        return sorted(leaders, key=lambda n: (-_mean(self.seen[n]), n))

    def as_json(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "every": self.every,
            "policy": self.policy,
            "workloads": [w.name for w in self.workloads],
            "looks": [look.as_json() for look in self.looks],
        }


def _mean(by_workload: Mapping[str, float]) -> float:
    """Mean log speed-up; what has none comes last."""
    return fmean(by_workload.values()) if by_workload else -math.inf


def watched_workloads(config: Config) -> tuple[Workload, ...]:
    """The validation suite without what the search trains on."""
    trained = set(config.training.workload_names)
    return tuple(w for w in load_validation_workloads(config) if w.name not in trained)


def watch_protocol(config: Config) -> Protocol:
    """The full rung's way of tuning, on the watch's own seeds."""
    return replace(full_protocol(config), score_seeds=tuple(WATCH_SEED + k for k in range(WATCH_SEEDS)))


def watch_plan(plan: Plan) -> Plan:
    """A few rules fill no chunk of the size that tunes populations, so theirs is the smaller one."""
    return replace(plan, chunk_lanes=min(plan.chunk_lanes, plan.score_lanes))
