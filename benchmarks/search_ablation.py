"""Strategies at equal cost: best-so-far speed-up against rules trained, and against wall time.

    python benchmarks/search_ablation.py [--quick] [--arms nsga2 random] [--seeds 3] [--json]

Each (arm, seed) is one search on the quickstart config; what differs is the strategy alone. Its
curve is kept in one JSON file with the commit it ran on, so an interrupted benchmark goes on where it
stopped. "Best" is the search's own fitness: speed-up over the oracle at full budget, on the search
suite, whose scoring seeds the search saw; `validation` is the champion's on fresh seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruleforge.app.config import load_config
from ruleforge.app.progress import PlainProgress
from ruleforge.app.run import run_search
from ruleforge.store import Store

GRID = 8


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", default=["nsga2", "random"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=800, help="rules trained by each search")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/ablation"))
    parser.add_argument("--quick", action="store_true", help="one seed and 60 rules: shows that it works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.evaluations = 1, 60
    runs = {
        arm: [measure(arm, seed, options) for seed in range(options.seeds)] for arm in options.arms
    }  # fmt: skip
    summary = summarize(runs)
    print(json.dumps(summary, indent=1) if options.json else table(summary))
    return 0


def measure(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One search, or what an earlier call kept of it."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    kept = options.out / f"{options.config}-{options.evaluations}-{arm}-{seed}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    config = load_config(
        options.config,
        [
            f'search.strategy="{arm}"', f"seed={seed}", f"search.evaluations={options.evaluations}",
            'search.budget="24h"', "search.generations=1000",
            f"search.population={min(100, options.evaluations)}",
        ],
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        report = run_search(
            config, out=path, workers=options.workers, progress=PlainProgress(sys.stderr, every_s=30)
        )
        with Store.open(path, readonly=True) as store:
            walls: dict[int, float] = {}
            for row in store.timings():
                walls[row.generation] = walls.get(row.generation, 0.0) + row.wall_s
            curve = []
            wall_s = 0.0
            for generation in store.generations():
                wall_s += walls[generation.n]
                curve.append(
                    {
                        "trained": generation.funnel["rung_0"],
                        "wall_s": round(wall_s, 2),
                        "best": (generation.best or {}).get("value", 0.0),
                    }
                )
    champion = report["champion"] or {"speedup": {"search": {}, "validation": {}}}
    record = {
        "arm": arm,
        "seed": seed,
        "commit": commit,
        "curve": curve,
        "search": champion["speedup"]["search"].get("vs_best_single"),
        "validation": champion["speedup"]["validation"].get("vs_best_single"),
        "champion": champion.get("text"),
        "known_as": champion.get("known_as"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(record, indent=1) + "\n")
    return record


def best_at(run: dict[str, Any], axis: str, limit: float) -> float:
    """Best value of a run within so many rules, or so many seconds."""
    return float(max((point["best"] for point in run["curve"] if point[axis] <= limit), default=0.0))


def summarize(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over seeds on common grids of rules trained and of wall time."""
    everything = [run for seeds in runs.values() for run in seeds]
    out: dict[str, Any] = {
        "commits": sorted({run["commit"] for run in everything}),
        "seeds": {},
        "curves": {},
    }
    for axis in ("trained", "wall_s"):
        end = min(run["curve"][-1][axis] for run in everything)
        grid = [end * (k + 1) / GRID for k in range(GRID)]
        out["curves"][axis] = {
            "at": [round(value, 1) for value in grid],
            **{
                arm: [
                    round(statistics.median(best_at(run, axis, value) for run in seeds), 4) for value in grid
                ]
                for arm, seeds in runs.items()
            },
        }
    for arm, seeds in runs.items():
        out["seeds"][arm] = [
            {
                "seed": run["seed"],
                "best": run["curve"][-1]["best"],
                "validation": (run["validation"] or {}).get("speedup"),
                "known_as": run["known_as"],
            }
            for run in seeds
        ]
    return out


def table(summary: dict[str, Any]) -> str:
    lines = []
    for axis, words in (("trained", "rules trained"), ("wall_s", "seconds of search")):
        curves = summary["curves"][axis]
        lines.append(f"best speed-up over the oracle (median over seeds) by {words}:")
        lines.append(f"  {'':>10} " + " ".join(f"{value:>8.0f}" for value in curves["at"]))
        lines += [
            f"  {arm:>10} " + " ".join(f"{value:>8.3f}" for value in curves[arm])
            for arm in curves
            if arm != "at"
        ]
    for arm, seeds in summary["seeds"].items():
        for run in seeds:
            value = run["validation"]
            shown = f"×{value:.2f}" if value is not None else "none"
            lines.append(
                f"{arm} seed {run['seed']}: best ×{run['best']:.3f}; champion on validation against the best "
                f"single baseline {shown} ({run['known_as']})"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
