"""The honest comparison of rules that are at hand: equal tuning, fresh seeds, intervals.

Everything on the table is tuned on the same grid and seeds; the reference is the best single
baseline of the suite, or the rule that the user names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruleforge.app.progress import Progress
from ruleforge.app.schema import DEFAULT_BASELINES
from ruleforge.app.setup import default_grid
from ruleforge.backends import fastest_plane, prepare_plane
from ruleforge.core.known import known
from ruleforge.core.text import RuleText
from ruleforge.errors import InputError
from ruleforge.evaluate.baselines import Baselines, tune_baselines
from ruleforge.evaluate.evaluator import COMPARE_SEED, TUNE_SEED, Outcome, Protocol, evaluate
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.statistics import Summary, interval, summarize
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload, load_suite, load_workload

SCHEDULES = ("constant", "cosine", "warmup_cosine")
SEEDS = 3
TUNING_SEEDS = 3  # with one, chance picks the learning rate: intervals are twice as wide


def comparison_protocol(seeds: int) -> Protocol:
    """The whole grid, widened, on three tuning seeds; scored on seeds that no search uses."""
    scored = tuple(COMPARE_SEED + k for k in range(seeds))
    tuned = tuple(TUNE_SEED + k for k in range(TUNING_SEEDS))
    return Protocol(default_grid(), SCHEDULES, score_seeds=scored, tune_seeds=tuned, widen=True)


def compare_rules(
    targets: Mapping[str, RuleText],
    against: Mapping[str, RuleText] | None = None,
    *,
    suite: str = "validation",
    workloads: Sequence[str] = (),
    folder: str | Path | None = None,
    seeds: int = SEEDS,
    workers: int = 1,
    backend: str = "auto",
    progress: Progress,
) -> dict[str, Any]:
    """Compare rules with a reference on a suite.

    Args:
        targets: rules by name.
        against: the reference rules; the default baselines when empty. With several, the best
            single one of them on the suite is the reference.
        suite: `search`, `validation` or `held_out`; ignored when workloads are named.
        workloads: workload names or task references.
        folder: folder that task references are relative to.
        seeds: scoring seeds.
        workers: processes.
        backend: update plane, or "auto".
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
    rules.setdefault("adam", known("adam").rule)
    protocol = comparison_protocol(seeds)
    plan = Plan(update_plane=fastest_plane(progress.message) if backend == "auto" else backend)
    prepare_plane(plan.update_plane, progress.message)
    pool = Workers(workers)
    tuned = tune_baselines(
        rules, places, protocol, plan, pool, say=progress.message,
        done=lambda k, n: progress.phase("tuning baselines", k, n),
    )  # fmt: skip
    left_out = sorted({w.name for w in places} - set(tuned.usable()))
    if not tuned.usable():
        raise InputError(f"no baseline learns anything on {', '.join(left_out)}", hint="train for more steps")
    rows = evaluate(
        [str(text) for text in targets.values()], places, protocol, plan, pool,
        lambda k, n: progress.phase("training", k, n),
    )  # fmt: skip
    names = [name for name in rules if name != "adam" or not against or "adam" in against]
    reference = names[0] if len(names) == 1 else _best(tuned, names)
    compared = [
        _compared(name, text, {o.workload: o for o in row}, tuned, reference)
        for (name, text), row in zip(targets.items(), rows, strict=True)
    ]
    warnings = [f"left out, no baseline learns anything on it: {name}" for name in left_out]
    if len(tuned.usable()) == 1:
        warnings.append("one workload: nothing can be said about transfer")
    return {
        "suite": None if workloads else suite,
        "seeds": seeds,
        "reference": reference,
        "baselines": list(rules),
        "baselines_origin": tuned.origin,
        "workloads": compared[0]["workloads"],
        "overall": compared[0]["overall"],
        "rules": compared,
        "warnings": warnings,
    }


def _best(tuned: Baselines, names: Sequence[str]) -> str:
    chosen = {w: {n: rules[n] for n in names} for w, rules in tuned.outcomes.items()}
    return Baselines(chosen, tuned.targets, tuned.origin).best_single(tuned.usable())


def _compared(
    name: str, text: RuleText, outcomes: Mapping[str, Outcome], tuned: Baselines, reference: str
) -> dict[str, Any]:
    speedups = tuned.speedups(outcomes, reference)
    overall = summarize(speedups)
    return {
        "name": name,
        "nodes": text.rule.nodes,
        "states": text.rule.canonical.slots,
        "workloads": [_row(w, outcomes[w], tuned.outcomes[w][reference], s) for w, s in speedups.items()],
        "overall": {
            **overall.as_json(),
            "verdict": verdict(overall),
            "vs_oracle": summarize(tuned.speedups(outcomes, "oracle")).as_json(),
            "vs_adam": summarize(tuned.speedups(outcomes, "adam")).as_json(),
        },
    }


def _row(name: str, mine: Outcome, theirs: Outcome, value: Any) -> dict[str, Any]:
    ci = interval(value)
    return {
        "name": name,
        "speedup": value.value,
        "ci": list(ci) if ci else None,
        "final_loss": mine.final_loss,
        "reference_loss": theirs.final_loss,
        "metric": mine.metric,
        "lr": mine.lr,
        "schedule": mine.setting.schedule if mine.setting else None,
        "diverged": mine.n_diverged,
        "lanes": mine.n_lanes,
        "missed": value.n_missed,
        "dropped": value.n_dropped,
    }


def verdict(overall: Summary) -> str:
    """better, worse, or not distinguishable, by the 95 % interval."""
    if overall.ci is None:
        return "nothing could be compared"
    low, high = overall.ci
    words = "better" if low > 1 else "worse" if high < 1 else "not distinguishable"
    return f"{words} on {overall.n_workloads} workload{'s' if overall.n_workloads != 1 else ''}"


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
