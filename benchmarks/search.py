"""How many different rules a search trains a minute, and where its time goes.

    python benchmarks/search.py [--quick] [--repeats 3] [--workers 2] [--json]

Two arms on one commit and one config: `fast` compiles gradients; `slow` runs the rules on the torch
plane and the gradients op by op. What comes once a machine (compilation, tuned baselines) is done before
the clock starts. Medians over repeats, which differ in the seed; ratios first.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from stepwise import prepared

from ruleforge.app.config import parse_config
from ruleforge.app.loop import funnel_counts
from ruleforge.app.schema import Config

ARMS = {
    "fast": 'gradient_plane = "compiled"\n',  # "auto" compiles in long searches alone
    "slow": 'update_plane = "torch"\ngradient_plane = "eager"\n',
}
QUICK = ("teacher_student", "noisy_labels")


def config_of(options: argparse.Namespace, arm: str, seed: int) -> Config:
    """The search of one arm: quickstart's shape, sized by the options."""
    workloads = f"workloads = {json.dumps(list(QUICK))}\nsteps = 60\n" if options.quick else ""
    text = f"""
grammar = "full"
seed = {seed}
[search]
population = {options.population}
generations = {options.generations}
seed_rules = ["sgd", "nesterov", "rmsprop", "adam", "nadam_simple", "signum"]
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


def searched(config: Config, workers: int) -> dict[str, Any]:
    """One search without its final: counts, and seconds by phase."""
    with prepared(config, workers) as run:
        began = time.monotonic()
        for _ in range(config.search.generations or 1):
            run.one_generation()
        wall_s = time.monotonic() - began
        phases: dict[str, float] = {}
        for row in run.store.timings():
            phases[row.phase] = phases.get(row.phase, 0.0) + row.wall_s
        counts = run.funnel.counts
        return {
            "rules_per_min": 60 * run.candidates.n_trained() / wall_s,
            "trained": run.candidates.n_trained(),
            "wall_s": wall_s,
            "shares": {name: value / wall_s for name, value in phases.items()},
            "funnel": funnel_counts(counts, config.training),
            "lane_steps": counts["lane_steps"],
            "lane_steps_saved": counts["lane_steps_saved"],
        }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    warm = argparse.Namespace(**{**vars(options), "generations": 1, "population": 20})
    for arm in ARMS:
        searched(config_of(warm, arm, 99), options.workers)
    for seed in range(options.repeats):
        for arm, found in runs.items():
            found.append(searched(config_of(options, arm, seed), options.workers))
    rates = {arm: [run["rules_per_min"] for run in found] for arm, found in runs.items()}
    ratios = [fast / slow for fast, slow in zip(rates["fast"], rates["slow"], strict=True)]
    return {
        "vs_torch_and_eager": statistics.median(ratios),
        "of_the_grid": statistics.median(
            run["lane_steps"] / (run["lane_steps"] + run["lane_steps_saved"]) for run in runs["fast"]
        ),
        "rules_per_min": {arm: statistics.median(values) for arm, values in rates.items()},
        "shares": {arm: found[-1]["shares"] for arm, found in runs.items()},
        "funnel": runs["fast"][-1]["funnel"],
        "repeats": options.repeats, "workers": options.workers,
    }  # fmt: skip


def table(record: dict[str, Any]) -> str:
    rates = record["rules_per_min"]
    lines = [
        f"x{record['vs_torch_and_eager']:.2f} as many different rules a minute as with the torch plane"
        f" and eager gradients ({rates['fast']:.0f} against {rates['slow']:.0f})",
        f"x{record['of_the_grid']:.2f} of the lane-steps that whole grids would take",
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
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.population, options.generations = 1, 60, 2
    record = measure(options)
    print(json.dumps(record, indent=1) if options.json else table(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
