"""How many different rules a search trains a minute, where its time goes, and what rediscovery takes.

    python benchmarks/search.py [--quick] [--repeats 3] [--workers 2] [--json]

Two arms on one commit and one config: `fast` compiles gradients; `slow` runs the rules on the torch
plane and the gradients op by op. What comes once a machine (compilation, tuned baselines) is done before
the clock starts. `rediscovery` starts from SGD alone and ends when a trained rule is momentum, whatever its
constants and scale. Medians over repeats, which differ in the seed; ratios first.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruleforge.app.config import load_workloads, parse_config, resolved_toml
from ruleforge.app.identity import identify_text
from ruleforge.app.loop import SearchRun, funnel_counts
from ruleforge.app.progress import QuietProgress
from ruleforge.app.schema import Config
from ruleforge.app.setup import (
    baseline_rules,
    make_limits,
    make_plan,
    make_rungs,
    rung_protocols,
    search_strategy,
)
from ruleforge.backends import prepare_plane
from ruleforge.evaluate.baselines import tune_baselines
from ruleforge.evaluate.funnel import Funnel
from ruleforge.evaluate.prepare import compile_gradients
from ruleforge.evaluate.workers import Workers
from ruleforge.store import Store

ARMS = {
    "fast": 'gradient_plane = "compiled"\n',  # "auto" compiles in long searches alone
    "slow": 'update_plane = "torch"\ngradient_plane = "eager"\n',
}
QUICK = ("teacher_student", "noisy_labels")


def config_of(options: argparse.Namespace, arm: str, seed: int, *, rediscover: bool = False) -> Config:
    """The search of one arm: quickstart's shape, sized by the options."""
    workloads = f"workloads = {json.dumps(list(QUICK))}\nsteps = 60\n" if options.quick else ""
    population = 40 if rediscover else options.population
    rules = ["sgd"] if rediscover else ["sgd", "nesterov", "rmsprop", "adam", "nadam_simple", "signum"]
    text = f"""
grammar = "full"
seed = {seed}
[search]
population = {population}
generations = {options.generations}
seed_rules = {json.dumps(rules)}
[training]
{workloads}{ARMS[arm]}lrs = {{ low = 1e-3, high = 1.0, points = 7 }}
seeds = 1
[[training.rungs]]
steps = 24
lrs = 3
workloads = 2
promote = 0.2
[[training.rungs]]
steps = 60
lrs = 4
workloads = 3
promote = 0.2
[limits]
nodes = 24
[baselines]
rules = ["sgd", "momentum", "rmsprop", "adam"]
"""
    return parse_config(text, file="benchmark", folder=Path.cwd())


def searched(config: Config, folder: Path, workers: int, rediscover: bool = False) -> dict[str, Any]:
    """One search without its final: counts, seconds by phase, and when momentum was found."""
    workloads = load_workloads(config)
    plan = make_plan(config, workloads)
    prepare_plane(plan.update_plane)
    ladder = rung_protocols(config, workloads)
    with (
        Store.create(folder, config_text=resolved_toml(config), meta={"plan": {}}) as store,
        Workers(workers) as pool,
    ):
        compile_gradients(workloads, plan, pool, lambda text: None)
        tuned = [
            tune_baselines(baseline_rules(config), places, protocol, plan, pool)
            for places, protocol, _ in ladder
        ]
        funnel = Funnel(make_rungs(ladder, tuned), make_limits(config), plan, pool)
        run = SearchRun(config, store, QuietProgress(), workloads, funnel, search_strategy(config))
        began = time.monotonic()
        found = None
        for generation in range(config.search.generations or 1):
            run._one_generation()
            if rediscover and any(
                is_momentum(store, row) for row in store.candidates() if row.generation == generation
            ):
                found = {"rules": run.n_trained(), "wall_s": round(time.monotonic() - began, 2)}
                break
        wall_s = time.monotonic() - began
        phases: dict[str, float] = {}
        for row in store.timings():
            phases[row.phase] = phases.get(row.phase, 0.0) + row.wall_s
        return {
            "rules_per_min": 60 * run.n_trained() / wall_s,
            "trained": run.n_trained(),
            "wall_s": wall_s,
            "shares": {name: value / wall_s for name, value in phases.items()},
            "funnel": funnel_counts(funnel.counts, len(ladder)),
            "lane_steps": funnel.counts["lane_steps"],
            "lane_steps_saved": funnel.counts["lane_steps_saved"],
            "rediscovery": found,
        }


def is_momentum(store: Store, row: Any) -> bool:
    """Whether a trained candidate is momentum, with any constant and at any scale."""
    return row.status == "trained" and row.states == 1 and identify_text(row.text).name == "momentum"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    again: list[dict[str, Any] | None] = []
    with TemporaryDirectory() as kept:
        warm = argparse.Namespace(**{**vars(options), "generations": 1, "population": 20})
        for arm in ARMS:
            searched(config_of(warm, arm, 99), Path(kept) / f"warm-{arm}", options.workers)
        for seed in range(options.repeats):
            for arm, found in runs.items():
                folder = Path(kept) / f"{arm}-{seed}"
                found.append(searched(config_of(options, arm, seed), folder, options.workers))
            few = argparse.Namespace(**{**vars(options), "generations": options.rediscovery})
            config = config_of(few, "fast", seed, rediscover=True)
            again.append(searched(config, Path(kept) / f"again-{seed}", options.workers, True)["rediscovery"])
    rates = {arm: [run["rules_per_min"] for run in found] for arm, found in runs.items()}
    ratios = [fast / slow for fast, slow in zip(rates["fast"], rates["slow"], strict=True)]
    seen = [each for each in again if each is not None]
    return {
        "vs_torch_and_eager": statistics.median(ratios),
        "of_the_grid": statistics.median(
            run["lane_steps"] / (run["lane_steps"] + run["lane_steps_saved"]) for run in runs["fast"]
        ),
        "rules_per_min": {arm: statistics.median(values) for arm, values in rates.items()},
        "rediscovery": {
            "found": f"{len(seen)} of {len(again)}",
            "rules": statistics.median([each["rules"] for each in seen]) if seen else None,
            "wall_s": statistics.median([each["wall_s"] for each in seen]) if seen else None,
        },
        "shares": {arm: found[-1]["shares"] for arm, found in runs.items()},
        "funnel": runs["fast"][-1]["funnel"],
        "repeats": options.repeats, "workers": options.workers,
    }  # fmt: skip


def table(record: dict[str, Any]) -> str:
    rates, again = record["rules_per_min"], record["rediscovery"]
    lines = [
        f"x{record['vs_torch_and_eager']:.2f} as many different rules a minute as with the torch plane"
        f" and eager gradients ({rates['fast']:.0f} against {rates['slow']:.0f})",
        f"x{record['of_the_grid']:.2f} of the lane-steps that whole grids would take",
        f"momentum from SGD: {again['found']}"
        + (f", after {again['rules']:.0f} rules and {again['wall_s']:.1f} s" if again["rules"] else ""),
        *(
            f"{arm}: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
            for arm, shares in record["shares"].items()
        ),
        "funnel: " + " → ".join(f"{name} {n}" for name, n in record["funnel"].items()),
        f"medians of {record['repeats']} repeats, {record['workers']} workers",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small workloads, one repeat: under 45 s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--population", type=int, default=300)
    parser.add_argument("--generations", type=int, default=3, help="generations of each timed search")
    parser.add_argument("--rediscovery", type=int, default=12, help="generations until rediscovery gives up")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.population, options.generations, options.rediscovery = 1, 60, 2, 6
    record = measure(options)
    print(json.dumps(record, indent=1) if options.json else table(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
