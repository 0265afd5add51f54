"""The honest comparison of rules that are at hand: equal tuning, fresh seeds, intervals.

Everything on the table is tuned on the same grid and seeds; the reference is the best single
baseline of the suite, or the rule that the user names. `standings` says what is then reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruleforge.app.profiles import performance_profiles
from ruleforge.app.progress import Progress
from ruleforge.app.provenance import run_record
from ruleforge.app.schema import DEFAULT_BASELINES
from ruleforge.app.setup import default_grid, tuning_seeds
from ruleforge.app.standings import Compared, adjust_over_rules, pairs, reference_rows, standing_of, twins
from ruleforge.app.step_time import step_times
from ruleforge.backends import fastest_plane, prepare_plane
from ruleforge.core.known import known
from ruleforge.core.text import RuleText
from ruleforge.errors import InputError
from ruleforge.evaluate.baselines import Baselines, tune_baselines
from ruleforge.evaluate.evaluator import COMPARE_SEED, Protocol, evaluate
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload, load_suite, load_workload

SCHEDULES = ("constant", "cosine", "warmup_cosine")
SEEDS = 6
TUNING_SEEDS = 3  # chance in tuning is no part of what a test over scoring seeds sees


def comparison_protocol(seeds: int, hyper_settings: int = 0) -> Protocol:
    """The whole grid, widened, on three tuning seeds; scored on seeds that no search uses."""
    return Protocol(
        default_grid(),
        SCHEDULES,
        score_seeds=tuple(COMPARE_SEED + k for k in range(seeds)),
        tune_seeds=tuning_seeds(TUNING_SEEDS),
        widen=True,
        hyper_settings=hyper_settings,
    )


def compare_rules(
    targets: Mapping[str, RuleText],
    against: Mapping[str, RuleText] | None = None,
    *,
    suite: str = "validation",
    workloads: Sequence[str] = (),
    folder: str | Path | None = None,
    seeds: int = SEEDS,
    hyper_settings: int = 0,
    workers: int = 1,
    backend: str = "auto",
    runs: Mapping[str, Path] | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Compare rules with a reference on a suite.

    Args:
        targets: rules by name.
        against: the reference rules; the default baselines when empty. With several, the best
            single one of them on the suite is the reference.
        suite: a suite's name; ignored when workloads are named.
        workloads: workload names or task references.
        folder: folder that task references are relative to.
        seeds: scoring seeds.
        hyper_settings: settings of the hyperparameters that are tuned on each workload beside the defaults,
            as many for every rule and every reference.
        workers: processes.
        backend: update plane, or "auto".
        runs: of targets that are champions, the run folders: their own figures are set beside.
        progress: told what happens.

    Returns:
        The record that `ruleforge compare --json` prints.

    Raises:
        InputError: no rule, or no workload on which any baseline learns.
    """
    if not targets:
        raise InputError("no rule to compare", hint="name a known rule, a .rule file or a run")
    places = [load_workload(name, folder) for name in workloads] or list(load_suite(suite))
    rules = dict(against) if against else {name: known(name).rule for name in DEFAULT_BASELINES}
    names = list(rules)
    rules.setdefault("adam", known("adam").rule)
    protocol = comparison_protocol(seeds, hyper_settings)
    plan = Plan(update_plane=fastest_plane(progress.message) if backend == "auto" else backend)
    prepare_plane(plan.update_plane, progress.message)
    pool = Workers(workers)
    tuned = tune_baselines(
        rules, places, protocol, plan, pool, say=progress.message,
        done=lambda k, n: progress.phase("tuning baselines", k, n),
    )  # fmt: skip
    left_out = {w.name: tuned.why_left_out(w.name) for w in places if w.name not in tuned.usable()}
    if not tuned.usable():
        raise InputError(
            "no workload is left: " + "; ".join(f"{w}: {why}" for w, why in left_out.items()),
            hint="train for more steps, or look whether the task's loss turns nan",
        )
    rows = evaluate(
        [str(text) for text in targets.values()], places, protocol, plan, pool,
        lambda k, n: progress.phase("training", k, n),
    )  # fmt: skip
    outcomes = {name: {o.workload: o for o in row} for name, row in zip(targets, rows, strict=True)}
    reference = names[0] if len(names) == 1 else _best(tuned, names)
    used = [w for w in places if w.name in tuned.usable()]
    times = _step_times({**targets, **{f"baseline {reference}": rules[reference]}}, used, plan, progress)
    theirs_us = {w: each[f"baseline {reference}"] for w, each in times.items()}
    compared = [
        standing_of(
            Compared(name, text, outcomes[name], {w: each[name] for w, each in times.items()}),
            tuned, reference, rules[reference], theirs_us,
        )
        for name, text in targets.items()
    ]  # fmt: skip
    adjust_over_rules(compared)
    keys = {text.rule.full_key for text in targets.values()}
    others = [name for name, text in rules.items() if text.rule.full_key not in keys]
    for record in compared:
        if folder_of_run := (runs or {}).get(record["name"]):
            record["run"] = run_record(folder_of_run, record["overall"], None if workloads else suite)
    return {
        "suite": None if workloads else suite,
        "seeds": seeds,
        "tuning_seeds": TUNING_SEEDS,
        "hyper_settings": hyper_settings,
        "reference": reference,
        "baselines": list(rules),
        "baselines_origin": tuned.origin,
        "workloads": compared[0]["workloads"],
        "overall": compared[0]["overall"],
        "rules": compared,
        "references": reference_rows(tuned, reference),
        "pairs": pairs(outcomes, tuned),
        "profiles": performance_profiles(outcomes, tuned, others),
        "left_out": left_out,
        "warnings": _warnings(tuned, left_out, seeds, {**targets}, compared),
    }


def _best(tuned: Baselines, names: Sequence[str]) -> str:
    chosen = {w: {n: rules[n] for n in names} for w, rules in tuned.outcomes.items()}
    return Baselines(chosen, tuned.targets, tuned.origin).best_single(tuned.usable())


def _step_times(
    rules: Mapping[str, RuleText], places: Sequence[Workload], plan: Plan, progress: Progress
) -> dict[str, dict[str, float]]:
    """Measured here, on the CPU; empty where the rules run on a GPU."""
    if plan.device != "cpu":
        return {}
    progress.phase("timing steps", 0, len(places))
    return step_times(rules, places, plan)


def _warnings(
    tuned: Baselines, left_out: Mapping[str, str], seeds: int, targets: Mapping[str, RuleText],
    compared: Sequence[Mapping[str, Any]],
) -> list[str]:  # fmt: skip
    found = [f"left out: {name}: {why}" for name, why in left_out.items()]
    count = len(tuned.usable())
    if count == 1:
        found.append("one workload: nothing can be said about transfer; the interval is over seeds alone")
    if count == 2:
        found.append("two workloads: an interval over them is very wide, as it must be")
    if seeds == 1:
        found.append("one scoring seed: no interval on a single workload")
    found += [f"{a} and {b} are the same rule" for a, b in twins(targets)]
    for record in compared:
        silent = [row["name"] for row in record["workloads"] if row["speedup"] is None]
        if silent:
            found.append(
                f"{record['name']}: no target is reached by it or the reference on {', '.join(silent)}"
            )
    return found


def list_baselines(
    *, suite: str = "search", recompute: bool = False, workers: int = 1, progress: Progress
) -> dict[str, Any]:
    """Tune the default baselines on a suite, or read them from the cache.

    Returns:
        The record that `ruleforge baselines --json` prints.
    """
    places: list[Workload] = list(load_suite(suite))
    rules = {name: known(name).rule for name in DEFAULT_BASELINES}
    protocol = comparison_protocol(SEEDS)
    plan = Plan(update_plane=fastest_plane(progress.message))
    prepare_plane(plan.update_plane, progress.message)
    tuned = tune_baselines(
        rules, places, protocol, plan, Workers(workers), recompute=recompute,
        say=progress.message, done=lambda k, n: progress.phase("tuning baselines", k, n),
    )  # fmt: skip
    rows = []
    for name in rules:
        outcomes = {w: tuned.outcomes[w][name] for w in tuned.outcomes}
        standing = tuned.standing(outcomes)
        rows.append(
            {
                "name": name,
                "speedup": {key: summary.as_json() for key, summary in standing.items()},
                "workloads": {
                    w: {
                        "lr": o.lr,
                        "schedule": o.setting.schedule if o.setting else None,
                        "final_loss": o.final_loss,
                        "metric": o.metric,
                    }
                    for w, o in outcomes.items()
                },
            }
        )
    rows.sort(key=lambda row: -(row["speedup"]["vs_oracle"]["speedup"] or 0.0))  # type: ignore[index]
    return {
        "suite": suite,
        "origin": tuned.origin,
        "best_single": tuned.best_single(tuned.usable()),
        "oracle": {w: tuned.oracle(w) for w in tuned.usable()},
        "baselines": rows,
    }
