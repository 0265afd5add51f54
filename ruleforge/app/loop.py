"""The search loop: ask → admit → climb → tell → look → commit, one generation at a time.

A generation is one transaction. Everything that a later one depends on is in the run folder, so
`restore` makes a resumed run the same run. Opening and ending a run is `run`'s business.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ruleforge.app.breeding import Bred, breed
from ruleforge.app.candidates import Candidates, Known
from ruleforge.app.config import load_validation_workloads, resolved_toml
from ruleforge.app.objectives import OBJECTIVES, Measured
from ruleforge.app.progress import Progress
from ruleforge.app.ranking import SPEEDUP
from ruleforge.app.schema import Config
from ruleforge.app.setup import LANE_STEPS_PER_S, lanes_at_the_end
from ruleforge.app.training_schema import Training
from ruleforge.app.watching import Look, Watch, look_line
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.funnel import STOPPED_EARLY, Funnel, RungResult, Verdict, standing_value
from ruleforge.evaluate.lanes import sample_steps
from ruleforge.evaluate.latency import latency_ns
from ruleforge.records import (
    CandidateRow,
    EvaluationRow,
    FitnessRow,
    GenerationRow,
    Json,
    ParentRow,
    TimingRow,
    finite_or_none,
)
from ruleforge.search.genome import from_text
from ruleforge.search.strategies import Individual, Strategy, Told
from ruleforge.store import Store
from ruleforge.tasks import Workload

ASK_FACTOR = 4
RESCORED = "speedup_rescored"
NAMING_S = 15.0
MOST_FOR_THE_END = 0.4  # of a time budget: the first generations are slow, and say little about the pace
END_COST = 1.4  # of a lane-step at the end: fewer rules to a chunk, and larger workloads
EAGER_COST = 4  # what a lane-step costs op by op, where others are compiled


@dataclass
class SearchRun:
    """A search under way."""

    config: Config
    store: Store
    progress: Progress
    workloads: tuple[Workload, ...]
    funnel: Funnel
    strategy: Strategy
    watch: Watch | None = None
    next_id: int = 0
    generation: int = 0
    started: float = field(default_factory=time.monotonic)
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    training_s: float = 0.0

    @cached_property
    def candidates(self) -> Candidates:
        """All of the run so far."""
        return Candidates(self.config, len(self.funnel.rungs) - 1, self.funnel.niches.of)

    @cached_property
    def spelled(self) -> str:
        """The config as the workers read it."""
        return resolved_toml(self.config)

    # the loop

    def search(self) -> None:
        """Generations until the first of generations, evaluations, lane-steps and budget ends."""
        limits = self.config.search
        self.progress.start(limits.generations, limits.budget_s)
        while not self._is_over():
            began = time.monotonic()
            self.one_generation()
            self.recent_s.append(time.monotonic() - began)

    def _is_over(self) -> bool:
        limits = self.config.search
        if self.watch is not None and self.watch.is_stopped:
            return True
        if limits.generations is not None and self.generation >= limits.generations:
            return True
        if limits.evaluations is not None and self.candidates.n_trained() >= limits.evaluations:
            return True
        if limits.lane_steps is not None and self.funnel.counts["lane_steps"] >= limits.lane_steps:
            return True
        if limits.budget_s is None or self.generation == 0:
            return False
        reserve = min(self._final_s(), limits.budget_s * MOST_FOR_THE_END)
        return time.monotonic() - self.started + max(self.recent_s, default=0.0) + reserve > limits.budget_s

    def _final_s(self) -> float:
        """Seconds that the end will take at the pace of training so far: the second look at the best, the
        final, and time to simplify and name.

        What comes once, such as compiling the kernel, is no part of the pace.
        """
        pace = max(self.funnel.counts["lane_steps"] / max(1e-9, self.training_s), LANE_STEPS_PER_S / 10)
        lanes = lanes_at_the_end(self.config)
        places = {w.name: w.steps for w in (*self.workloads, *load_validation_workloads(self.config))}
        compiled = self.funnel.plan.compiled
        slower = {name: EAGER_COST if compiled and name not in compiled else 1 for name in places}
        work = lanes * sum(slower[w] * n for w, n in places.items())
        return NAMING_S + END_COST * work / pace

    def one_generation(self) -> None:
        clock = _Clock()
        asked, verdicts = self._ask()
        clock.lap("admit")
        admitted = {n: verdict.text for n, verdict in verdicts.items() if verdict.status == "trained"}
        before = self.generation + 1
        climbed = self.funnel.climb(
            admitted,
            lambda k, total: self.progress.phase(f"generation {before}, training", k, total),
            sure={n for n in admitted if asked[n].origin.startswith("seed:")},
        )
        clock.lap("train")
        self.training_s += clock.laps["train"]
        told = []
        for number, verdict in verdicts.items():
            results = climbed.get(number, ())
            values = self._values(asked[number], results) if results else {}
            beyond = self._beyond(values, results)
            verdicts[number] = replace(verdict, reason=verdict.reason or beyond)
            self.candidates[number] = Known(
                verdict.text, asked[number].described.nodes, standing_value(results, len(self.funnel.rungs)),
                results[-1].rung if results else -1, self._objectives(values) if results else (), not beyond,
            )  # fmt: skip
            alive = bool(results) and not beyond
            told.append(
                Told(
                    asked[number], number, self.candidates[number].objectives if alive else None,
                    self._cases(results) if alive else (), verdict.fingerprint,
                    self.funnel.niches.of(number),
                )
            )  # fmt: skip
        self.strategy.tell(told)
        clock.lap("select")
        looked_at = self._look()
        clock.lap("validate")
        self._commit(asked, verdicts, climbed, looked_at, clock)
        self.generation += 1

    def _look(self) -> dict[int, dict[str, Outcome]]:
        """What those did on the validation suite that are seen there for the first time."""
        watch = self.watch
        if watch is None or not watch.is_due(self.generation):
            return {}
        leaders = self.candidates.best_of_niches(
            [person.id for person in self.strategy.population], watch.top
        )
        if not leaders:
            return {}
        before = self.generation + 1
        outcomes = watch.look(
            self.generation, {n: (self.candidates[n].text, self.candidates[n].value) for n in leaders},
            lambda k, total: self.progress.phase(f"generation {before}, training for validation", k, total),
        )  # fmt: skip
        self._act(watch)
        return outcomes

    def _act(self, watch: Watch) -> None:
        """Tell of the last look, and do what it decided."""
        look = watch.looks[-1]
        self.progress.message(look_line(look))
        if look.action not in ("restart", "reparameterize"):
            return
        people = [
            Individual(
                n,
                from_text(self.store.candidate(n).genome),
                self.candidates[n].objectives,
                niche=self.funnel.niches.of(n),
            )
            for n in watch.best_validated()
        ]
        (self.strategy.restart if look.action == "restart" else self.strategy.refocus)(people)

    def _ask(self) -> tuple[dict[int, Bred], dict[int, Verdict]]:
        """Proposals until a population's worth of them is worth training."""
        wanted = self.config.search.population
        asked: dict[int, Bred] = {}
        verdicts: dict[int, Verdict] = {}
        index, state = 0, json.dumps(self.strategy.state())
        while index < ASK_FACTOR * wanted:
            admitted = sum(v.status == "trained" for v in verdicts.values())
            missing = wanted - admitted
            if missing <= 0:
                break
            batch = breed(self.spelled, state, self.generation, index, missing, self.funnel.workers)
            index += len(batch)
            new = {self.next_id + k: proposal for k, proposal in enumerate(batch)}
            self.next_id += len(new)
            judged = self.funnel.admit({n: bred.described for n, bred in new.items()})
            for number, verdict in judged.items():
                if verdict.status != "duplicate_key":
                    asked[number], verdicts[number] = new[number], verdict
        return asked, verdicts

    def _cases(self, results: Sequence[RungResult]) -> tuple[float, ...]:
        """The speed-up on each workload, halved for each rung missed; their mean where it was not trained."""
        n_rungs, top = len(self.funnel.rungs), results[-1]
        halved = STOPPED_EARLY ** (n_rungs - 1 - top.rung)
        known = {w: value * halved for w, value in top.speedups.items() if value is not None}
        rest = standing_value(results, n_rungs)
        return tuple(known.get(w, rest) for w in self.funnel.rungs[-1].baselines.usable())

    def _values(self, bred: Bred, results: Sequence[RungResult]) -> dict[str, float]:
        """The objectives and trained limits of the config, as a candidate's highest rung showed them."""
        limits = self.config.limits
        names = [*self.config.axes, *limits.trained, *(["latency"] if limits.latency_ns is not None else [])]
        top = results[-1]
        text, plane = bred.described.text, self.funnel.plan.update_plane
        seen = Measured(
            None, top.outcomes, top.speedups, top.speedup, self.funnel.rungs[top.rung].baselines,
            latency_ns(text, plane) if "latency" in names else None,
        )  # fmt: skip
        missed = len(self.funnel.rungs) - 1 - top.rung
        trained = (name for name in names if name not in bred.judged)
        return {**bred.judged, **{name: OBJECTIVES[name].judged(seen, missed) for name in trained}}

    def _beyond(self, values: Mapping[str, float], results: Sequence[RungResult]) -> str:
        """What a rule of the highest rung passes, in words, or ""."""
        limits = self.config.limits
        full = bool(results) and results[-1].rung == len(self.funnel.rungs) - 1
        for name, limit in limits.trained.items() if full else ():
            row = OBJECTIVES[name]
            if values[name] < limit if row.direction == "max" else values[name] > limit:
                return f"{name} {values[name]:.3g} {row.unit}, {row.word} {limit:g} is asked for"
        if limits.latency_ns is not None and values.get("latency", 0.0) > limits.latency_ns:
            return f"{values['latency']:.3g} ns per weight, at most {limits.latency_ns:g} are allowed"
        return ""

    def _objectives(self, values: Mapping[str, float]) -> tuple[float, ...]:
        weights = self.config.signed_weights
        if weights is not None:
            return (sum(weight * values[name] for name, weight in weights.items()),)
        return tuple(values[name] for name in self.config.axes)

    # keeping

    def _commit(
        self,
        asked: Mapping[int, Bred],
        verdicts: Mapping[int, Verdict],
        climbed: Mapping[int, tuple[RungResult, ...]],
        looked_at: Mapping[int, Mapping[str, Outcome]],
        clock: _Clock,
    ) -> None:
        candidates, parents, evaluations, fitness = [], [], [], []
        for number, verdict in verdicts.items():
            bred = asked[number]
            known, rule = self.candidates[number], bred.described
            candidates.append(
                CandidateRow(
                    id=number, key=rule.key, full_key=rule.full_key, text=known.text,
                    genome=bred.spelled, nodes=known.nodes, states=rule.states,
                    generation=self.generation, origin=bred.origin, status=verdict.status,  # type: ignore[arg-type]
                    reason=verdict.reason, same_as=verdict.twin,
                    fingerprint=json.dumps(verdict.fingerprint) if verdict.fingerprint else "",
                )
            )  # fmt: skip
            parents += [ParentRow(number, parent, k) for k, parent in enumerate(bred.parents)]
            for result in climbed.get(number, ()):
                evaluations += evaluation_rows(number, result.rung, result.outcomes, result.speedups)
                fitness.append(FitnessRow(number, result.rung, SPEEDUP, result.speedup))
                if result.is_rescored:
                    fitness.append(FitnessRow(number, result.rung, RESCORED, result.speedup))
            if known.rung >= 0:
                fitness += [
                    FitnessRow(number, known.rung, name, finite_or_none(value))
                    for name, value in zip(self.config.fitness_names, known.objectives, strict=True)
                ]
        for number, outcomes in looked_at.items():
            speedups = self.watch.speedups(outcomes) if self.watch else {}
            evaluations += evaluation_rows(number, self.validation_rung, outcomes, speedups)
        best = self.candidates.best()
        shown: Json = {"id": best, "value": self.candidates[best].value} if best is not None else None
        looks = self.watch.looks if self.watch else []
        if shown is not None and looks and looks[-1].generation == self.generation:
            shown["look"] = looks[-1].record()
        row = GenerationRow(
            n=self.generation,
            population=tuple(person.id for person in self.strategy.population),
            rng={"seed": self.config.seed, "next_id": self.next_id},
            strategy=self.strategy.state(),
            funnel=dict(self.funnel.counts),
            best=shown,
        )
        timings = [TimingRow(self.generation, name, wall_s) for name, wall_s in clock.laps.items()]
        self.store.commit_generation(row, candidates, parents, evaluations, fitness, timings)
        front = self.candidates.front()
        self.progress.generation(
            self.generation,
            {
                "best_speedup": self.candidates[best].value if best is not None else None,
                "front": len(front),
                "trained": self.candidates.n_trained(),
                "rules_per_s": len(climbed) / max(1e-9, sum(clock.laps.values())),
                "funnel": funnel_counts(self.funnel.counts, self.config.training),
            },
        )

    @property
    def validation_rung(self) -> int:
        """The rung under which looks at the validation suite are stored: above all others."""
        return len(self.funnel.rungs)

    def restore(self) -> None:
        """Take up the run where its last generation left it."""
        last = self.store.last_generation()
        if last is None:
            return
        values: dict[int, tuple[int, float]] = {}
        for row in self.store.fitness(objective=SPEEDUP):
            if row.rung >= values.get(row.candidate, (-1, 0.0))[0]:
                values[row.candidate] = (row.rung, row.value or 0.0)
        n_rungs, names = len(self.funnel.rungs), self.config.fitness_names
        objectives = {
            (row.candidate, row.objective): row.value or 0.0
            for name in names
            for row in self.store.fitness(objective=name)
        }
        for candidate in self.store.candidates():
            fingerprint = json.loads(candidate.fingerprint) if candidate.fingerprint else ()
            known_to_behave = fingerprint if candidate.status == "trained" else ()
            self.funnel.remember(candidate.id, candidate.full_key, known_to_behave)
            rung, speedup = values.get(candidate.id, (-1, 0.0))
            value = standing_value((RungResult(rung, {}, {}, speedup),), n_rungs) if rung >= 0 else 0.0
            told = tuple(objectives.get((candidate.id, name), 0.0) for name in names) if rung >= 0 else ()
            self.candidates[candidate.id] = Known(
                candidate.text, candidate.nodes, value, rung, told, not (rung >= 0 and candidate.reason)
            )  # fmt: skip
        self.funnel.counts = Counter(last.funnel)
        if self.funnel.rescoring is not None:
            rows = self.store.fitness(objective=RESCORED)
            self.funnel.rescoring.values = [row.value or 0.0 for row in rows]
        self.next_id = int(last.rng["next_id"])
        self.generation = last.n + 1
        self.strategy.restore(last.strategy)
        if self.watch is not None:
            self._restore_watch(self.watch)
        timings = self.store.timings()
        self.training_s = sum(row.wall_s for row in timings if row.phase == "train")
        spent = sum(row.wall_s for row in timings)
        self.started -= spent

    def _restore_watch(self, watch: Watch) -> None:
        seen: dict[int, dict[str, float | None]] = {}
        for row in self.store.evaluations(rung=self.validation_rung):
            seen.setdefault(row.candidate, {})[row.workload] = row.speedup["vs_oracle"]
        for number, speedups in seen.items():
            watch.remember(number, speedups)
        for generation in self.store.generations():
            if generation.best and "look" in generation.best:
                watch.looks.append(Look.from_record(generation.best["look"]))


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def funnel_counts(counts: Mapping[str, int], training: Training) -> dict[str, int]:
    """The funnel's stages in order, for people."""
    rungs = [f"rung_{k}" for k in range(len(training.rungs))]
    found = {stage: int(counts.get(stage, 0)) for stage in ("proposed", "unique", "distinct", *rungs)}
    return found | ({"full": int(counts.get(f"rung_{len(rungs)}", 0))} if training.full_rung else {})


def evaluation_rows(
    number: int, rung: int, outcomes: Mapping[str, Outcome], speedups: Mapping[str, float | None]
) -> list[EvaluationRow]:
    """A candidate's outcomes at one rung, a row a workload."""
    rows = []
    for name, outcome in outcomes.items():
        curve = outcome.curves[0] if outcome.curves else ()
        rows.append(
            EvaluationRow(
                candidate=number, rung=rung, workload=name, steps=outcome.n_steps,
                n_lanes=outcome.n_lanes, n_diverged=outcome.n_diverged, diverged_at=outcome.diverged_at,
                best_lr=finite_or_none(outcome.lr),
                best_schedule=outcome.setting.schedule if outcome.setting else None,
                final_loss=finite_or_none(outcome.final_loss), metric=finite_or_none(outcome.metric),
                speedup={"vs_oracle": speedups.get(name)}, losses=outcome.final_losses,
                curve=tuple(zip(sample_steps(outcome.n_steps), curve, strict=True)) if curve else (),
            )
        )  # fmt: skip
    return rows
