"""The search loop: ask → admit → climb → tell → commit, one generation at a time.

A generation is one transaction. Everything that a later one depends on is in the run folder, so
`restore` makes a resumed run the same run. Opening and ending a run is `run`'s business.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ruleforge.app.config import load_validation_workloads
from ruleforge.app.identity import form_key
from ruleforge.app.progress import Progress
from ruleforge.app.ranking import SPEEDUP, front_of
from ruleforge.app.schema import Config
from ruleforge.app.setup import LANE_STEPS_PER_S, final_protocol
from ruleforge.core.rule import Rule
from ruleforge.core.text import parse
from ruleforge.evaluate.funnel import Funnel, RungResult, Verdict, standing_value
from ruleforge.evaluate.lanes import sample_steps
from ruleforge.records import (
    CandidateRow,
    EvaluationRow,
    FitnessRow,
    GenerationRow,
    ParentRow,
    TimingRow,
    finite_or_none,
)
from ruleforge.search.genome import to_text
from ruleforge.search.strategies import Proposal, Strategy, Told
from ruleforge.store import Store
from ruleforge.tasks import Workload

ASK_FACTOR = 4
NAMING_S = 10.0
EAGER_COST = 4  # what a lane-step costs op by op, where others are compiled


@dataclass
class _Known:
    """What the run remembers of a candidate between generations."""

    text: str
    nodes: int
    value: float = 0.0
    rung: int = -1


@dataclass
class SearchRun:
    """A search under way."""

    config: Config
    store: Store
    progress: Progress
    workloads: tuple[Workload, ...]
    funnel: Funnel
    strategy: Strategy
    candidates: dict[int, _Known] = field(default_factory=dict)
    next_id: int = 0
    generation: int = 0
    started: float = field(default_factory=time.monotonic)
    slowest_s: float = 0.0
    training_s: float = 0.0

    # the loop

    def search(self) -> None:
        """Generations until the first of generations, evaluations and budget ends."""
        limits = self.config.search
        self.progress.start(limits.generations, limits.budget_s)
        while not self._is_over():
            began = time.monotonic()
            self.one_generation()
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _is_over(self) -> bool:
        limits = self.config.search
        if limits.generations is not None and self.generation >= limits.generations:
            return True
        if limits.evaluations is not None and self.n_trained() >= limits.evaluations:
            return True
        if limits.budget_s is None or self.generation == 0:
            return False
        reserve = self._final_s()
        return time.monotonic() - self.started + self.slowest_s + reserve > limits.budget_s

    def _final_s(self) -> float:
        """Seconds that the final will take, at the pace of training so far, with time to simplify and name.

        What comes once, such as compiling the kernel, is no part of the pace.
        """
        pace = max(self.funnel.counts["lane_steps"] / max(1e-9, self.training_s), LANE_STEPS_PER_S / 10)
        protocol = final_protocol(self.config)
        lanes = protocol.n_lanes
        places = {w.name: w.steps for w in (*self.workloads, *load_validation_workloads(self.config))}
        compiled = self.funnel.plan.compiled
        slower = {name: EAGER_COST if compiled and name not in compiled else 1 for name in places}
        work = self.config.search.finalists * lanes * sum(slower[w] * n for w, n in places.items())
        return NAMING_S + work / pace

    def n_trained(self) -> int:
        return sum(known.rung >= 0 for known in self.candidates.values())

    def one_generation(self) -> None:
        clock = _Clock()
        asked, verdicts = self._ask()
        clock.lap("admit")
        admitted = {n: verdict.text for n, verdict in verdicts.items() if verdict.status == "trained"}
        before = self.generation + 1
        climbed = self.funnel.climb(
            admitted, lambda k, total: self.progress.phase(f"generation {before}, training", k, total)
        )
        clock.lap("train")
        self.training_s += clock.laps["train"]
        told = []
        for number, verdict in verdicts.items():
            results = climbed.get(number, ())
            objectives = self._objectives(asked[number].rule, results) if results else None
            self.candidates[number] = _Known(
                verdict.text, asked[number].rule.nodes, standing_value(results, len(self.funnel.rungs)),
                results[-1].rung if results else -1,
            )  # fmt: skip
            told.append(Told(asked[number], number, objectives))
        self.strategy.tell(told)
        clock.lap("select")
        self._commit(asked, verdicts, climbed, clock)
        self.generation += 1

    def _ask(self) -> tuple[dict[int, Proposal], dict[int, Verdict]]:
        """Proposals until a population's worth of them is worth training."""
        wanted = self.config.search.population
        asked: dict[int, Proposal] = {}
        verdicts: dict[int, Verdict] = {}
        index = 0
        while index < ASK_FACTOR * wanted:
            admitted = sum(v.status == "trained" for v in verdicts.values())
            missing = wanted - admitted
            if missing <= 0:
                break
            batch = self.strategy.ask(self.generation, index, missing)
            index += len(batch)
            new = {self.next_id + k: proposal for k, proposal in enumerate(batch)}
            self.next_id += len(new)
            judged = self.funnel.admit({n: proposal.rule for n, proposal in new.items()})
            for number, verdict in judged.items():
                if verdict.status != "duplicate_key":
                    asked[number], verdicts[number] = new[number], verdict
        return asked, verdicts

    def _objectives(self, rule: Rule, results: tuple[RungResult, ...]) -> tuple[float, ...]:
        cost = rule.cost
        values = {
            "speedup": standing_value(results, len(self.funnel.rungs)),
            "complexity": float(rule.nodes),
            "cost": float(cost.flops),
            "slots": float(cost.slots),
        }
        weights = self.config.signed_weights
        if weights is not None:
            return (sum(weight * values[name] for name, weight in weights.items()),)
        return tuple(values[name] for name in self.config.axes)

    # keeping

    def _commit(
        self,
        asked: Mapping[int, Proposal],
        verdicts: Mapping[int, Verdict],
        climbed: Mapping[int, tuple[RungResult, ...]],
        clock: _Clock,
    ) -> None:
        candidates, parents, evaluations, fitness = [], [], [], []
        for number, verdict in verdicts.items():
            proposal = asked[number]
            known = self.candidates[number]
            candidates.append(
                CandidateRow(
                    id=number, key=proposal.rule.key, full_key=proposal.rule.full_key, text=known.text,
                    genome=to_text(proposal.genome), nodes=known.nodes, states=proposal.rule.canonical.slots,
                    generation=self.generation, origin=proposal.origin, status=verdict.status,  # type: ignore[arg-type]
                    reason=verdict.reason, same_as=verdict.twin,
                    fingerprint=json.dumps(verdict.fingerprint) if verdict.fingerprint else "",
                )
            )  # fmt: skip
            parents += [ParentRow(number, parent, k) for k, parent in enumerate(proposal.parents)]
            for result in climbed.get(number, ()):
                evaluations += _evaluation_rows(number, result)
                fitness.append(FitnessRow(number, result.rung, SPEEDUP, result.speedup))
        best = self._best()
        row = GenerationRow(
            n=self.generation,
            population=tuple(person.id for person in self.strategy.population),
            rng={"seed": self.config.seed, "next_id": self.next_id},
            strategy=self.strategy.state(),
            funnel=dict(self.funnel.counts),
            best={"id": best, "value": self.candidates[best].value} if best is not None else None,
        )
        timings = [TimingRow(self.generation, name, wall_s) for name, wall_s in clock.laps.items()]
        self.store.commit_generation(row, candidates, parents, evaluations, fitness, timings)
        front = self.front()
        self.progress.generation(
            self.generation,
            {
                "best_speedup": self.candidates[best].value if best is not None else None,
                "front": len(front),
                "trained": self.n_trained(),
                "rules_per_s": len(climbed) / max(1e-9, sum(clock.laps.values())),
                "funnel": funnel_counts(self.funnel.counts, len(self.funnel.rungs)),
            },
        )

    def _best(self) -> int | None:
        trained = [n for n, known in self.candidates.items() if known.rung >= 0]
        return min(trained, key=lambda n: (-self.candidates[n].value, n), default=None)

    def front(self) -> list[int]:
        """Candidates of the full rung that no other beats in both speed-up and nodes, best first."""
        full = [n for n, known in self.candidates.items() if known.rung == len(self.funnel.rungs) - 1]
        full.sort(key=lambda n: (-self.candidates[n].value, self.candidates[n].nodes, n))
        return front_of((n, self.candidates[n].nodes) for n in full)

    def finalists(self) -> dict[int, str]:
        """The best of the full rung, one a form: half by speed-up alone, then the front's, then the rest.

        Rules that differ in constants alone are one form, and its best stands for all: eight Adams
        with eight values of eps would leave no room for anything else.
        """
        full = [n for n, known in self.candidates.items() if known.rung == len(self.funnel.rungs) - 1]
        full.sort(key=lambda n: (-self.candidates[n].value, self.candidates[n].nodes, n))
        forms: dict[str, int] = {}
        for n in full:
            forms.setdefault(form_key(parse(self.candidates[n].text).rule), n)
        by_value = list(forms.values())
        count = self.config.search.finalists
        front = [n for n in self.front() if n in by_value]
        chosen = dict.fromkeys([*by_value[: (count + 1) // 2], *front, *by_value])
        return {n: self.candidates[n].text for n in list(chosen)[:count]}

    def restore(self) -> None:
        """Take up the run where its last generation left it."""
        last = self.store.last_generation()
        if last is None:
            return
        values: dict[int, tuple[int, float]] = {}
        for row in self.store.fitness(objective=SPEEDUP):
            if row.rung >= values.get(row.candidate, (-1, 0.0))[0]:
                values[row.candidate] = (row.rung, row.value or 0.0)
        n_rungs = len(self.funnel.rungs)
        for candidate in self.store.candidates():
            fingerprint = json.loads(candidate.fingerprint) if candidate.fingerprint else ()
            known_to_behave = fingerprint if candidate.status == "trained" else ()
            self.funnel.remember(candidate.id, candidate.full_key, known_to_behave)
            rung, speedup = values.get(candidate.id, (-1, 0.0))
            value = standing_value((RungResult(rung, {}, {}, speedup),), n_rungs) if rung >= 0 else 0.0
            self.candidates[candidate.id] = _Known(candidate.text, candidate.nodes, value, rung)
        self.funnel.counts = Counter(last.funnel)
        self.next_id = int(last.rng["next_id"])
        self.generation = last.n + 1
        self.strategy.restore(last.strategy)
        timings = self.store.timings()
        self.training_s = sum(row.wall_s for row in timings if row.phase == "train")
        spent = sum(row.wall_s for row in timings)
        self.started -= spent


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def funnel_counts(counts: Mapping[str, int], n_rungs: int) -> dict[str, int]:
    """The funnel's stages in order, for people."""
    stages = ["proposed", "unique", "distinct", *(f"rung_{k}" for k in range(n_rungs))]
    names = {f"rung_{n_rungs - 1}": "full"}
    return {names.get(stage, stage): int(counts.get(stage, 0)) for stage in stages}


def _evaluation_rows(number: int, result: RungResult) -> list[EvaluationRow]:
    rows = []
    for name, outcome in result.outcomes.items():
        curve = outcome.curves[0] if outcome.curves else ()
        rows.append(
            EvaluationRow(
                candidate=number, rung=result.rung, workload=name, steps=outcome.n_steps,
                n_lanes=outcome.n_lanes, n_diverged=outcome.n_diverged, diverged_at=outcome.diverged_at,
                best_lr=finite_or_none(outcome.lr),
                best_schedule=outcome.setting.schedule if outcome.setting else None,
                final_loss=finite_or_none(outcome.final_loss), metric=finite_or_none(outcome.metric),
                speedup={"vs_oracle": result.speedups.get(name)}, losses=outcome.final_losses,
                curve=tuple(zip(sample_steps(outcome.n_steps), curve, strict=True)) if curve else (),
            )
        )  # fmt: skip
    return rows
