"""Does a search find again what people found? From plain SGD, with nothing else to start from.

    python benchmarks/rediscover.py [--targets momentum sign adam lion] [--seeds 5] [--evaluations 6000]
        [--quick] [--out results/rediscover] [--json]

Each (target, seed) is one search with the `full` grammar on two workloads. It ends when a rule that it
trained is the target by name: the same formula, or the same behaviour on the probes up to a scale, with
any constants. Kept in one JSON file each with the commit it ran on, so an interrupted benchmark goes on
where it stopped. At the default size about an hour on two cores; the full size is
--seeds 20 --evaluations 100000.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise import prepared

from ruleforge.app.config import parse_config
from ruleforge.app.identity import identify_text
from ruleforge.app.schema import Config
from ruleforge.core.canon import fold
from ruleforge.core.expr import walk
from ruleforge.core.text import parse


@dataclass(frozen=True)
class Target:
    """What is to be found again.

    Attributes:
        names: known rules that count; all differ from each other in scale or bias correction alone.
        workloads: where it is to be found.
        n_betas: constants between 0 and 1 that tell it from a rule with fewer: with equal betas Lion is the
            sign of one average.
    """

    names: frozenset[str]
    workloads: tuple[str, ...]
    n_betas: int = 1

    def is_met_by(self, text: str, name: str) -> bool:
        folded = fold(parse(text).rule.canonical)
        nodes = walk([folded.update, *folded.states.values()])
        betas = {item.number for item in nodes if item.op == "const" and 0 < item.number < 1}
        return name in self.names and len(betas) >= self.n_betas


TARGETS = {
    "momentum": Target(
        frozenset({"momentum", "momentum_dampened", "ema_momentum", "ema_momentum_debiased"}),
        ("teacher_student", "noisy_labels"),
    ),
    "sign": Target(frozenset({"signum", "tiger"}), ("teacher_student", "noisy_labels")),
    "adam": Target(
        frozenset(
            {
                "rmsprop",
                "rmsprop_eps_inside",
                "rmsprop_debiased",
                "rmsprop_momentum",
                "adam",
                "adamw",
                "laprop",
            }
        ),
        ("teacher_student", "noisy_labels"),
    ),
    "lion": Target(frozenset({"lion", "lion_tanh"}), ("teacher_student", "noisy_labels"), n_betas=2),
}


def config_of(target: Target, seed: int, options: argparse.Namespace) -> Config:
    steps = "steps = 60\n" if options.quick else ""
    text = f"""
grammar = "full"
seed = {seed}
[search]
population = {options.population}
evaluations = {options.evaluations}
seed_rules = ["sgd"]
[training]
workloads = {json.dumps(list(target.workloads))}
{steps}lrs = {{ low = 1e-3, high = 1.0, points = 7 }}
seeds = 1
[[training.rungs]]
steps = 24
lrs = 3
workloads = 2
promote = 0.25
[limits]
nodes = 24
[baselines]
rules = ["sgd", "momentum", "nesterov", "rmsprop", "adam", "nadam", "lion", "signum", "adabelief"]
"""
    return parse_config(text, file="benchmark", folder=Path.cwd())


def found_again(target: Target, config: Config, workers: int) -> dict[str, Any]:
    """One search until the target is found or its evaluations are spent."""
    with prepared(config, workers) as run:
        began = time.monotonic()
        generation = 0
        while run.candidates.n_trained() < (config.search.evaluations or 0):
            run.one_generation()
            texts = [
                row.text
                for row in run.store.candidates()
                if row.generation == generation and row.status == "trained"
            ]
            for text, known_as in zip(texts, run.funnel.workers.map(identify_text, texts), strict=True):
                if target.is_met_by(text, known_as.name):
                    return {
                        "found": str(known_as),
                        "text": text,
                        "rules": run.candidates.n_trained(),
                        "wall_s": round(time.monotonic() - began, 1),
                    }
            generation += 1
        return {
            "found": None,
            "rules": run.candidates.n_trained(),
            "wall_s": round(time.monotonic() - began, 1),
        }


def measure(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One search, or what an earlier call kept of it."""
    kept = options.out / f"{name}-{options.evaluations}-{seed}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    target = TARGETS[name]
    record = {
        "target": name,
        "seed": seed,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "workloads": target.workloads,
        **found_again(target, config_of(target, seed, options), options.workers),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"{name} seed {seed}: {record['found'] or 'not found'} after {record['rules']} rules", file=sys.stderr
    )
    return record


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """How often a target was found, and medians over the searches that found it."""
    found = [record for record in records if record["found"]]
    return {
        "searches": len(records),
        "found": len(found),
        "rules": statistics.median(r["rules"] for r in found) if found else None,
        "wall_s": statistics.median(r["wall_s"] for r in found) if found else None,
        "spent_in_vain": [r["rules"] for r in records if not r["found"]],
        "names": sorted({r["found"] for r in found}),
        "workloads": list(records[0]["workloads"]),
    }


def table(summary: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, row in summary.items():
        line = f"{name:>9}: found by {row['found']} of {row['searches']} on {', '.join(row['workloads'])}"
        if row["found"]:
            line += f", after {row['rules']:.0f} rules and {row['wall_s']:.0f} s in the median"
            line += f" ({'; '.join(row['names'])})"
        lines.append(line)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=6000, help="rules trained until a search gives up")
    parser.add_argument("--population", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/rediscover"))
    parser.add_argument("--quick", action="store_true", help="one seed and 200 rules: shows that it works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.evaluations, options.population = 1, 200, 40
    summary = {
        name: summarize([measure(name, seed, options) for seed in range(options.seeds)])
        for name in options.targets
    }
    print(json.dumps(summary, indent=1) if options.json else table(summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
