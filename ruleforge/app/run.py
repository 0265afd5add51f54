"""The composition root of a search: config in, champion and evidence out.

One loop, ask → admit → climb → tell → commit, where each generation is one transaction. Everything
a later generation depends on is in the run folder, so a resumed run is the same run.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

from ruleforge.app.config import load_validation_workloads, load_workloads, parse_config, resolved_toml
from ruleforge.app.finals import Suites, baselines_json, carries_over, run_final
from ruleforge.app.identity import form_key
from ruleforge.app.progress import Progress
from ruleforge.app.publish import publish
from ruleforge.app.schema import Config
from ruleforge.app.setup import (
    baseline_rules,
    final_protocol,
    lane_steps,
    make_limits,
    make_plan,
    make_rungs,
    rung_protocols,
    search_strategy,
)
from ruleforge.backends import prepare_plane
from ruleforge.core.rule import Rule
from ruleforge.core.text import parse
from ruleforge.errors import StoreError
from ruleforge.evaluate.baselines import (
    Baselines,
    outcome_from_json,
    outcome_to_json,
    tune_baselines,
    with_targets,
)
from ruleforge.evaluate.funnel import Funnel, RungResult, Verdict, standing_value
from ruleforge.evaluate.lanes import Plan, sample_steps
from ruleforge.evaluate.workers import Workers
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
from ruleforge.store import CHAMPION, FINISHED, Store
from ruleforge.tasks import Workload

ASK_FACTOR = 4
LANE_STEPS_PER_S = 9000.0


@dataclass
class _Known:
    """What the run remembers of a candidate between generations."""

    text: str
    nodes: int
    objectives: tuple[float, ...] | None
    value: float = 0.0
    rung: int = -1


@dataclass
class _Run:
    """A search under way."""

    config: Config
    store: Store
    plan: Plan
    workers: Workers
    progress: Progress
    workloads: tuple[Workload, ...]
    funnel: Funnel
    strategy: Strategy
    candidates: dict[int, _Known] = field(default_factory=dict)
    next_id: int = 0
    generation: int = 0
    started: float = field(default_factory=time.monotonic)
    slowest_s: float = 0.0

    # the loop

    def search(self) -> None:
        """Generations until the first of generations, evaluations and budget ends."""
        limits = self.config.search
        self.progress.start(limits.generations, limits.budget_s)
        while not self._is_over():
            began = time.monotonic()
            self._one_generation()
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
        """Seconds that the final will take, from the pace so far."""
        pace = self.funnel.counts["lane_steps"] / max(1e-9, time.monotonic() - self.started)
        protocol = final_protocol(self.config)
        lanes = len(protocol.grid()) + len(protocol.score_seeds)
        places = {w.name: w.steps for w in (*self.workloads, *load_validation_workloads(self.config))}
        return self.config.search.finalists * lanes * sum(places.values()) / max(pace, LANE_STEPS_PER_S / 10)

    def n_trained(self) -> int:
        return sum(known.rung >= 0 for known in self.candidates.values())

    def _one_generation(self) -> None:
        clock = _Clock()
        asked, verdicts = self._ask()
        clock.lap("admit")
        admitted = {n: verdict.text for n, verdict in verdicts.items() if verdict.status == "trained"}
        before = self.generation + 1
        climbed = self.funnel.climb(
            admitted, lambda k, total: self.progress.phase(f"generation {before}, training", k, total)
        )
        clock.lap("train")
        told = []
        for number, verdict in verdicts.items():
            results = climbed.get(number, ())
            objectives = self._objectives(asked[number].rule, results) if results else None
            self.candidates[number] = _Known(
                verdict.text, asked[number].rule.nodes, objectives,
                standing_value(results, len(self.funnel.rungs)), results[-1].rung if results else -1,
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
                fitness.append(FitnessRow(number, result.rung, "speedup_vs_oracle", result.speedup))
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
        front: list[int] = []
        for number in full:
            if not front or self.candidates[number].nodes < self.candidates[front[-1]].nodes:
                front.append(number)
        return front

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
        for row in self.store.fitness(objective="speedup_vs_oracle"):
            if row.rung >= values.get(row.candidate, (-1, 0.0))[0]:
                values[row.candidate] = (row.rung, row.value or 0.0)
        n_rungs = len(self.funnel.rungs)
        for candidate in self.store.candidates():
            fingerprint = json.loads(candidate.fingerprint) if candidate.fingerprint else ()
            known_to_behave = fingerprint if candidate.status == "trained" else ()
            self.funnel.remember(candidate.id, candidate.full_key, known_to_behave)
            rung, speedup = values.get(candidate.id, (-1, 0.0))
            value = standing_value((RungResult(rung, {}, {}, speedup),), n_rungs) if rung >= 0 else 0.0
            self.candidates[candidate.id] = _Known(candidate.text, candidate.nodes, None, value, rung)
        self.funnel.counts = Counter(last.funnel)
        self.next_id = int(last.rng["next_id"])
        self.generation = last.n + 1
        self.strategy.restore(last.strategy)
        spent = sum(row.wall_s for row in self.store.timings())
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


# starting, resuming, ending


def run_search(
    config: Config,
    *,
    out: Path,
    workers: int = 1,
    backend: str = "auto",
    parallel: str = "loky",
    progress: Progress,
) -> dict[str, Any]:
    """Search for update rules.

    Args:
        config: validated config.
        out: the run's folder, new or empty.
        workers: processes; the result does not depend on it.
        backend: update plane, or "auto".
        parallel: joblib backend.
        progress: told what happens.

    Returns:
        The record that `ruleforge search --json` prints.

    Raises:
        StoreError: the folder cannot be used.
        TaskError: a workload cannot be used.
    """
    began = time.monotonic()
    plan = make_plan(config, backend, progress.message)
    prepare_plane(plan.update_plane, progress.message)
    workloads = load_workloads(config)
    text = resolved_toml(config)
    versions = {name: metadata.version(name) for name in ("ruleforge", "torch", "numpy", "deap", "sympy")}
    meta = {
        "seed": config.seed,
        "config_hash": blake2b(text.encode(), digest_size=16).hexdigest(),
        "plan": asdict(plan),
        "versions": versions,
        "machine": {
            "workers": workers,
            "parallel": parallel,
            "cpu": platform.processor() or platform.machine(),
        },
    }
    with Store.create(out, config_text=text, meta=meta) as store:
        pool = Workers(workers, parallel)
        ladder = rung_protocols(config, workloads)
        rules = baseline_rules(config)
        tuned = [
            tune_baselines(
                rules, places, protocol, plan, pool, say=progress.message,
                done=lambda k, n: progress.phase("tuning baselines", k, n),
            )
            for places, protocol, _ in ladder
        ]  # fmt: skip
        store.put_result("baselines", [_baselines_record(each) for each in tuned])
        return _go(config, store, plan, pool, workloads, tuned, progress, began)


def resume_run(path: Path, *, workers: int = 1, parallel: str = "loky", progress: Progress) -> dict[str, Any]:
    """Go on with a run exactly where its last generation left it.

    Raises:
        StoreError: the folder is no run, or the run is finished.
    """
    began = time.monotonic()
    with Store.open(path) as store:
        results = store.results()
        if FINISHED in results:
            raise StoreError(
                f"the run {path.name} is finished",
                hint=f"see `ruleforge list {path}` or `ruleforge show {path}`",
            )
        config = parse_config(store.config_text, file=str(path / "config.toml"), folder=path)
        plan = Plan(**store.meta["plan"])
        prepare_plane(plan.update_plane, progress.message)
        _warn_of_other_versions(store.meta["versions"], progress)
        pool = Workers(workers, parallel)
        workloads = load_workloads(config)
        if "baselines" in results:
            tuned = [_baselines_from(record) for record in results["baselines"]]
        else:
            rules = baseline_rules(config)
            tuned = [
                tune_baselines(rules, places, protocol, plan, pool, say=progress.message)
                for places, protocol, _ in rung_protocols(config, workloads)
            ]
            store.put_result("baselines", [_baselines_record(each) for each in tuned])
        return _go(config, store, plan, pool, workloads, tuned, progress, began)


def _warn_of_other_versions(recorded: Mapping[str, str], progress: Progress) -> None:
    for name, version in recorded.items():
        now = metadata.version(name)
        if now != version:
            progress.message(f"this run began with {name} {version} and goes on with {now}: bits may differ")


def _go(
    config: Config, store: Store, plan: Plan, pool: Workers, workloads: tuple[Workload, ...],
    tuned: list[Baselines], progress: Progress, began: float,
) -> dict[str, Any]:  # fmt: skip
    rungs = make_rungs(rung_protocols(config, workloads), tuned)
    for name in sorted({w.name for w in workloads} - set(tuned[-1].usable())):
        progress.message(f"no baseline learns anything on {name}: it is left out")
    if len(workloads) == 1:
        progress.message("one workload: nothing can be said about transfer")
    funnel = Funnel(rungs, make_limits(config), plan, pool, dedupe=config.search.dedupe)
    run = _Run(config, store, plan, pool, progress, workloads, funnel, search_strategy(config), started=began)
    run.restore()
    run.search()
    return _finish(run, began, tuned)


def _finish(run: _Run, began: float, tuned: list[Baselines]) -> dict[str, Any]:
    config, store, progress = run.config, run.store, run.progress
    candidates = run.finalists()
    suites = Suites(run.workloads, load_validation_workloads(config))
    report: dict[str, Any] = {
        "seed": config.seed,
        "generations": run.generation,
        "funnel": {
            **funnel_counts(run.funnel.counts, len(run.funnel.rungs)),
            **{
                k: int(v)
                for k, v in sorted(run.funnel.counts.items())
                if k.startswith(("dup", "rej", "lane"))
            },
        },
    }
    progress.message(f"final: {len(candidates)} finalists on {', '.join(w.name for w in suites.all)}")
    finalists, final_baselines = run_final(
        candidates, baseline_rules(config), suites, final_protocol(config), run.plan, run.workers,
        progress.phase, progress.message,
    )  # fmt: skip
    report["baselines"] = baselines_json(final_baselines, suites)
    report["reference"] = {
        "search": final_baselines.best_single([w.name for w in suites.search]),
        "validation": final_baselines.best_single([w.name for w in suites.validation]),
    }
    report["champion"] = report["best_new"] = None
    report["front"] = [finalist.as_json() for finalist in finalists]
    if finalists:
        champion = finalists[0]
        adam = {w: rules["adam"] for w, rules in final_baselines.outcomes.items() if "adam" in rules}
        report["champion"] = champion.as_json()
        report["carries_over"] = carries_over(champion)
        new = next((f for f in finalists if f.known_as.relation == "new"), None)
        if new is not None:
            report["best_new"] = new.as_json() | publish(new, adam, config.seed).record
        published = publish(champion, adam, config.seed)
        report["champion"] |= published.record
        store.put_champion(published.text)
    store.put_result("final", report)
    store.put_result(FINISHED, {"generations": run.generation})
    progress.close()
    return {
        "run": str(store.path),
        **report,
        "champion_file": str(store.path / CHAMPION) if finalists else None,
        "baselines_origin": sorted({each.origin for each in (*tuned, final_baselines)}),
        "wall_s": round(time.monotonic() - began, 1),
        "peak_memory_mb": round(_peak_memory_mb(), 1),
        "seconds_per_workload": _seconds(store),
    }


def _seconds(store: Store) -> dict[str, float]:
    totals: dict[str, float] = {}
    for row in store.timings():
        totals[row.phase] = totals.get(row.phase, 0.0) + row.wall_s
    return {phase: round(wall_s, 2) for phase, wall_s in totals.items()}


def _peak_memory_mb() -> float:
    """Largest resident memory of this process and of any worker that has ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024


def _baselines_record(tuned: Baselines) -> dict[str, Any]:
    return {w: {name: outcome_to_json(o) for name, o in rules.items()} for w, rules in tuned.outcomes.items()}


def _baselines_from(record: Mapping[str, Any]) -> Baselines:
    outcomes = {w: {name: outcome_from_json(o) for name, o in rules.items()} for w, rules in record.items()}
    return with_targets(outcomes, "stored")


def estimate(config: Config, workers: int | None = None) -> dict[str, Any]:
    """What a search will cost, before it starts."""
    workloads = load_workloads(config)
    ladder = rung_protocols(config, workloads)
    per_rung = lane_steps(ladder, config.search.population)
    generations = config.search.generations
    n_workers = workers or os.cpu_count() or 1
    per_generation_s = sum(per_rung) / (LANE_STEPS_PER_S * n_workers)
    if config.search.budget_s is not None:
        fits = max(1, int(config.search.budget_s / per_generation_s))
        generations = min(generations, fits) if generations else fits
    return {
        "grammar": config.grammar,
        "workloads": [{"name": w.name, "steps": w.steps, "n_weights": w.n_weights} for w in workloads],
        "rungs": [
            {
                "workloads": [w.name for w in places],
                "steps": [protocol.steps(w) for w in places],
                "lanes_per_rule": len(protocol.grid()) + len(protocol.score_seeds),
                "promote": share,
                "lane_steps": cost,
            }
            for (places, protocol, share), cost in zip(ladder, per_rung, strict=True)
        ],
        "lane_steps_per_generation": sum(per_rung),
        "generations": generations,
        "workers": n_workers,
        "assumed_lane_steps_per_s": LANE_STEPS_PER_S * n_workers,
        "estimated_s": round((generations or 1) * per_generation_s, 1),
    }
