"""The composition root of a search: config in, champion and evidence out.

Opens or resumes a run folder, lets `loop` search, and ends with the final and the report.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ruleforge.app import resuming
from ruleforge.app.config import load_validation_workloads, load_workloads, resolved_toml
from ruleforge.app.confirming import confirm
from ruleforge.app.finals import SecondLook, Suites, baselines_json, run_final, search_gap
from ruleforge.app.loop import SearchRun, funnel_counts
from ruleforge.app.progress import KeptProgress, Progress
from ruleforge.app.provenance import leave_one_out
from ruleforge.app.publish import publish
from ruleforge.app.schema import Config
from ruleforge.app.setup import (
    LANE_STEPS_PER_S,
    baseline_rules,
    expected_generations,
    final_protocol,
    lane_steps,
    make_plan,
    make_rungs,
    rescoring_seeds,
    rung_protocols,
    search_strategy,
)
from ruleforge.app.watching import Watch, watch_plan, watch_protocol, watched_workloads
from ruleforge.backends import fastest_plane, prepare_plane
from ruleforge.errors import RunError, StoreError
from ruleforge.evaluate.baselines import (
    Baselines,
    outcome_from_json,
    outcome_to_json,
    tune_baselines,
    with_targets,
)
from ruleforge.evaluate.funnel import Funnel
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.prepare import compile_gradients
from ruleforge.evaluate.rescoring import Rescoring, baselines_on_more_seeds
from ruleforge.evaluate.wire import stamp
from ruleforge.evaluate.workers import Workers
from ruleforge.store import CHAMPION, FINISHED, Store
from ruleforge.tasks import Workload
from ruleforge.words import counted


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
        parallel: where they are, see `Workers`.
        progress: told what happens.

    Returns:
        The record that `ruleforge search --json` prints.

    Raises:
        StoreError: the folder cannot be used.
        TaskError: a workload cannot be used.
    """
    began = time.monotonic()
    workloads = load_workloads(config)
    resuming.tell_foreign_code(workloads, progress.message)
    validation = load_validation_workloads(config)
    plan = make_plan(config, workloads, backend, progress.message, validation)
    text = resolved_toml(config)
    meta = {
        "seed": config.seed,
        "config_hash": resuming.digest(text),
        "plan": asdict(plan),
        "versions": resuming.versions(),
        "sources": resuming.sources(workloads),
        "machine": resuming.machine(workers, parallel),
    }
    with (
        Store.create(out, config_text=text, meta=meta) as store,
        _pool(config, store, workers, parallel, progress) as pool,
    ):
        progress = KeptProgress(progress, store.log)
        resuming.begin(store, workers, parallel)
        once_s = _compile(plan, Suites(workloads, validation), pool, progress)
        tuned = _tune_rungs(config, store, plan, pool, workloads, progress)
        return _go(config, store, plan, pool, workloads, tuned, progress, began, once_s)


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
        progress = KeptProgress(progress, store.log)
        resuming.require_sound(store)
        config = resuming.config_of(store, progress.message)
        plan = Plan.from_record(store.meta["plan"])
        workloads = load_workloads(config)
        resuming.tell_foreign_code(workloads, progress.message)
        resuming.tell_differences(store, workloads, progress.message)
        resuming.begin(store, workers, parallel)
        with _pool(config, store, workers, parallel, progress) as pool:
            suites = Suites(workloads, load_validation_workloads(config))
            once_s = _compile(plan, suites, pool, progress)
            if "baselines" in results:
                tuned = [_baselines_from(record) for record in results["baselines"]]
            else:
                tuned = _tune_rungs(config, store, plan, pool, workloads, progress)
            return _go(config, store, plan, pool, workloads, tuned, progress, began, once_s)


def _compile(plan: Plan, suites: Suites, pool: Workers, progress: Progress) -> float:
    """Compile kernel and gradients, or load them; the seconds, which a budget does not pay."""
    began = time.monotonic()
    prepare_plane(plan.update_plane, progress.message)
    prepare_plane(fastest_plane(), progress.message, dtype="float64")  # champions are named in it
    compile_gradients(
        suites.all, plan, pool, progress.message, lambda k, n: progress.phase("compiling gradients", k, n)
    )
    return time.monotonic() - began


def _pool(config: Config, store: Store, workers: int, parallel: str, progress: Progress) -> Workers:
    return Workers(
        workers, parallel, limit_s=config.training.job_limit_s, journal=store.journal, say=progress.message
    )


def _tune_rungs(
    config: Config, store: Store, plan: Plan, pool: Workers, workloads: tuple[Workload, ...],
    progress: Progress,
) -> list[Baselines]:  # fmt: skip
    """The baselines tuned for each rung, kept in the run."""
    rules = baseline_rules(config)
    tuned = [
        tune_baselines(
            rules, places, protocol, plan, pool, say=progress.message,
            done=lambda k, n: progress.phase("tuning baselines", k, n),
        )
        for places, protocol, _ in rung_protocols(config, workloads)
    ]  # fmt: skip
    store.put_result("baselines", [_baselines_record(each) for each in tuned])
    return tuned


def _go(
    config: Config, store: Store, plan: Plan, pool: Workers, workloads: tuple[Workload, ...],
    tuned: list[Baselines], progress: Progress, began: float, once_s: float,
) -> dict[str, Any]:  # fmt: skip
    rungs = make_rungs(rung_protocols(config, workloads), tuned)
    for name in sorted(set(tuned[-1].outcomes) - set(tuned[-1].usable())):
        progress.message(f"left out: {name}: {tuned[-1].why_left_out(name)}")
    if not tuned[-1].usable():
        raise RunError(
            "no baseline learns anything on any workload, so no rule can be compared with one",
            hint="give more steps or other learning rates, and look whether the task's loss turns nan",
        )
    _require_metrics(config, tuned[-1])
    for entry in config.search.seed_rules:
        if beyond := config.limits.static.broken_by(entry.rule().rule):
            progress.message(f"the seed rule {entry.name} is beyond the limits and is not trained: {beyond}")
    if len(workloads) == 1:
        progress.message("one workload: nothing can be said about transfer")
    funnel = Funnel(rungs, plan, pool, dedupe=config.search.dedupe, alike=config.search.alike)
    strategy = search_strategy(config)
    watch = _make_watch(config, store, plan, pool, progress)
    funnel.rescoring = _make_rescoring(config, store, funnel, tuned[-1], progress)
    run = SearchRun(config, store, progress, workloads, funnel, strategy, watch, started=began + once_s)
    run.restore()
    run.search()
    report = _finish(run, began, tuned)
    for other in sorted(pool.stamps - {stamp()}):
        progress.message(f"some workers were {other}, and this process is {stamp()}: bits may differ")
    return report


def _finish(run: SearchRun, began: float, tuned: list[Baselines]) -> dict[str, Any]:
    config, store, progress = run.config, run.store, run.progress
    suites = Suites(run.workloads, load_validation_workloads(config))
    candidates, second_looks = _choose_finalists(run, suites)
    report: dict[str, Any] = {
        "seed": config.seed,
        "generations": run.generation,
        "funnel": {
            **funnel_counts(run.funnel.counts, config.training),
            **{
                k: int(v)
                for k, v in sorted(run.funnel.counts.items())
                if k.startswith(("dup", "rej", "lane"))
            },
        },
    }
    progress.message(f"final: {len(candidates)} finalists on {', '.join(w.name for w in suites.all)}")
    finalists, final_baselines = run_final(
        candidates, baseline_rules(config), suites, final_protocol(config),
        run.funnel.plan, run.funnel.workers, progress.phase, progress.message, second_looks,
    )  # fmt: skip
    if run.watch is not None:
        report["watch"] = run.watch.as_json()
    report["baselines"] = baselines_json(final_baselines, suites)
    report["reference"] = {
        "search": _best_single(final_baselines, suites.search),
        "validation": _best_single(final_baselines, suites.validation),
    }
    report["champion"] = report["best_new"] = None
    report["front"] = [finalist.as_json() for finalist in finalists]
    if finalists:
        champion = finalists[0]
        adam = {w: rules["adam"] for w, rules in final_baselines.outcomes.items() if "adam" in rules}
        report["champion"] = champion.as_json()
        report["carries_over"] = champion.carries_over()
        report["gap"] = search_gap(finalists, champion)
        report["leave_one_out"] = leave_one_out(store, champion.id, report["front"])
        published = publish(champion, adam, config.seed)
        report["champion"] |= published.record
        store.put_champion(published.text)
        for note in published.notes:
            progress.message(f"simplifying the champion: {note}")
        new = next((f for f in finalists if f.is_new and (f is not champion or published.is_new)), None)
        if new is not None:
            shown = published if new is champion else publish(new, adam, config.seed)
            report["best_new"] = new.as_json() | shown.record
    store.put_result("final", report)
    store.put_end(FINISHED, {"generations": run.generation})
    progress.close()
    return {
        "run": str(store.path),
        **report,
        "champion_file": str(store.path / CHAMPION) if finalists else None,
        "baselines_origin": sorted({each.origin for each in (*tuned, final_baselines)}),
        "wall_s": round(time.monotonic() - began, 1),
        "peak_memory_mb": round(_peak_memory_mb(), 1),
        "phases_s": _seconds(store),
    }


def _require_metrics(config: Config, tuned: Baselines) -> None:
    """Refuse an objective or limit on the workloads' metric where none of them reports one."""
    asked = "final_metric" in config.axes or "final_metric" in config.limits.trained
    if asked and all(o.metric is None for w in tuned.usable() for o in tuned.outcomes[w].values()):
        raise RunError(
            "final_metric ranks nothing: no workload reports a metric",
            hint="leave it out, or let the task's evaluate return an accuracy",
        )


def _choose_finalists(run: SearchRun, suites: Suites) -> tuple[dict[int, str], dict[int, SecondLook]]:
    """Who goes to the final, and what a second look said of them."""
    search = run.config.search
    if not search.confirm:
        return run.candidates.finalists(), {}
    contenders = run.candidates.contenders(search.confirm)
    run.progress.message(f"second look: {counted(len(contenders), 'rule')} on fresh seeds")
    confirmed = confirm(
        contenders, run.config, suites, run.funnel.plan, run.funnel.workers, run.progress.phase,
        run.progress.message,
    )  # fmt: skip
    run.store.put_result("second_look", [each.as_json() for each in confirmed])
    share = search.confirm_seeds / run.config.training.score_seeds
    finalists = run.candidates.confirmed_finalists(confirmed)
    return finalists, {each.id: (each.speedups, share) for each in confirmed}


def _make_rescoring(
    config: Config, store: Store, funnel: Funnel, tuned: Baselines, progress: Progress
) -> Rescoring | None:
    """More seeds for the best; the baselines' own are kept in the run, since they decide what is best."""
    search = config.search
    if not search.rescore:
        return None
    seeds, top = rescoring_seeds(config), funnel.rungs[-1]

    def on_more() -> Baselines:
        return baselines_on_more_seeds(
            tuned, baseline_rules(config), top.workloads, top.protocol, seeds, funnel.plan, funnel.workers,
            lambda k, n: progress.phase("scoring baselines", k, n),
        )  # fmt: skip

    return Rescoring(search.rescore, seeds, _kept_baselines(store, "rescore_baselines", on_more))


def _make_watch(config: Config, store: Store, plan: Plan, pool: Workers, progress: Progress) -> Watch | None:
    """The watch over the validation suite; its baselines are kept in the run, since they steer it."""
    search = config.search
    places = watched_workloads(config)
    if not search.validate_every or not places:
        return None
    protocol, small = watch_protocol(config), watch_plan(plan)

    def tune() -> Baselines:
        return tune_baselines(
            baseline_rules(config), places, protocol, small, pool, say=progress.message,
            done=lambda k, n: progress.phase("tuning baselines", k, n),
        )  # fmt: skip

    return Watch(
        places, protocol, _kept_baselines(store, "watch_baselines", tune), small, pool,
        every=search.validate_every, top=search.validate_top, policy=search.on_degradation,
    )  # fmt: skip


def _kept_baselines(store: Store, name: str, make: Callable[[], Baselines]) -> Baselines:
    """The baselines that the run keeps under a name, made and stored where it has none yet."""
    kept = store.results().get(name)
    if kept is not None:
        return _baselines_from(kept)
    made = make()
    store.put_result(name, _baselines_record(made))
    return made


def _best_single(tuned: Baselines, places: Sequence[Workload]) -> str | None:
    names = [w.name for w in places if w.name in tuned.usable()]
    return tuned.best_single(names) if names else None


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
    n_workers = workers or os.cpu_count() or 1
    per_generation_s = sum(per_rung) / (LANE_STEPS_PER_S * n_workers)
    generations = expected_generations(config, sum(per_rung) // n_workers)
    return {
        "grammar": config.grammar,
        "workloads": [{"name": w.name, "steps": w.steps, "n_weights": w.n_weights} for w in workloads],
        "rungs": [
            {
                "workloads": [w.name for w in places],
                "steps": [protocol.steps(w) for w in places],
                "lanes_per_rule": protocol.n_lanes,
                "promote": share,
                "lane_steps": cost,
            }
            for (places, protocol, share), cost in zip(ladder, per_rung, strict=True)
        ],
        "lane_steps_per_generation": sum(per_rung),
        "generations": generations,
        "workers": n_workers,
        "assumed_lane_steps_per_s": LANE_STEPS_PER_S * n_workers,
        "estimated_s": round(generations * per_generation_s, 1),
    }
