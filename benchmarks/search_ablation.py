"""Searches at equal cost: what each part of the search is worth, and whether it beats its controls.

    python benchmarks/search_ablation.py [--arms nsga2 random …] [--seeds 5] [--lane-steps 3000000]
        [--quick | --full] [--set key=value …] [--json]

An arm is a config with something changed (`ARMS`). Each (arm, seed) is one search that may spend the
same number of lane-steps, training steps of all lanes together, and its final comes on top. What it found is
measured on seeds that nothing in it used, under the protocol of `ruleforge compare` (whole grid, three
tuning seeds): its champion, and what it would have recommended by its own fitness at each quarter of its
budget. Search and validation suite alone: the held-out suite is not looked at.

Everything is kept in --out: one JSON file for each (arm, seed), with the commit that it ran on, and the run
under way, so an interrupted benchmark goes on where it stopped. The default budget is meant for an hour on
two cores for five seeds of two arms; `--full` is for a larger machine.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ruleforge.app.compare import SEEDS, comparison_protocol
from ruleforge.app.config import load_config, load_validation_workloads, load_workloads
from ruleforge.app.identity import identify_text
from ruleforge.app.progress import PlainProgress
from ruleforge.app.run import resume_run, run_search
from ruleforge.app.schema import Config
from ruleforge.app.setup import baseline_rules
from ruleforge.backends import fastest_plane, prepare_plane
from ruleforge.core.known import known
from ruleforge.evaluate.baselines import tune_baselines
from ruleforge.evaluate.evaluator import evaluate
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.statistics import p_value, t_interval
from ruleforge.evaluate.workers import Workers
from ruleforge.store import FINISHED, Store

ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nsga2": ("the config as it is", ()),
    "random": ("fresh draws from the grammar alone", ('search.strategy="random"',)),
    "hyper_only": (
        "other constants for AdamW, its formula as it is",
        ('search.strategy="hyper_only"', 'search.seed_rules=["adam"]'),
    ),
    "aging": ("aging evolution", ('search.strategy="aging"',)),
    "nsga2_no_dedupe": ("rules that act alike are all trained", ("search.dedupe=false",)),
    "nsga2_no_seeds": ("a cold start", ("search.seed_rules=[]",)),
    "published_seeds": ("without seed rules that searches of ours found", ()),
    "nsga2_no_funnel": ("every rule at full budget", ("training.rungs=[]", "training.full_rung=true")),
    "islands": ("four populations on a ring", ('search.strategy="islands"',)),
    "tournament": (
        "parents by tournaments on front and crowding",
        ('search.selection="nsga2"', "search.tournament=4"),
    ),
    "not_tuned": ("no siblings of the best with other constants", ("search.tune_top=0",)),
    "crowded": ("any number of rules in a niche", ("search.alike=0",)),
    "restarts": ("a new population after 6 generations without a better rule", ("search.restarts=6",)),
    "no_rescore": ("no further seeds for what seems to be among the best", ("search.rescore=0",)),
    "novelty": ("behaviour unlike the others' as one more axis", ("search.novelty=true",)),
    "no_second_look": ("finalists by the search's own fitness", ("search.confirm=0",)),
    "second_look": ("32 rules looked at again before the final", ("search.confirm=32",)),
    "watch": ("looks at the validation suite, restarts", ("search.validate_every=3",)),
    "prior": ("ops of an earlier run's survivors more often; needs --prior", ()),
}
SUITES = ("search", "validation")
QUARTERS = (0.25, 0.5, 0.75, 1.0)
REDUCED = 3_000_000
FULL = 200_000_000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="arms:\n" + "\n".join(f"  {name:<16} {words}" for name, (words, _) in ARMS.items()),
    )
    parser.add_argument("--arms", nargs="+", default=["nsga2", "random"], choices=[*ARMS], metavar="ARM")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lane-steps", type=int, default=REDUCED, help="of each search")
    parser.add_argument("--config", default="default")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for every arm")
    parser.add_argument("--prior", help="run folder, for the arm of that name")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/ablation"))
    parser.add_argument("--quick", action="store_true", help="two seeds, small: shows that it works")
    parser.add_argument("--full", action="store_true", help=f"ten seeds of {FULL:,} lane-steps")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.full:
        options.seeds, options.lane_steps = 10, FULL
    if options.quick:
        options.seeds, options.lane_steps = 2, 150_000
        options.set = ["search.population=40", "search.finalists=2", "search.confirm=4", *options.set]
    if "prior" in options.arms and not options.prior:
        parser.error("the arm prior needs --prior RUN")
    # All arms of one seed before the next seed, so that an unfinished benchmark has complete pairs.
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
    for seed in range(options.seeds):
        for arm in options.arms:
            runs[arm].append(measure(arm, seed, options))
    summary = summarize(runs)
    print(json.dumps(summary, indent=1) if options.json else table(summary))
    return 0


# one search


def config_of(arm: str, seed: int, options: argparse.Namespace) -> Config:
    """The arm's config. Only lane-steps end it, so that every arm may spend the same."""
    own = ARMS[arm][1]
    if arm == "prior":
        own = (f"search.prior={json.dumps(str(Path(options.prior).absolute()))}",)
    elif arm == "published_seeds":
        names = [entry.name for entry in load_config(options.config, options.set).search.seed_rules]
        published = [name for name in names if known(name).family != "found"]
        own = (f"search.seed_rules={json.dumps(published)}",)
    ends = [f"search.lane_steps={options.lane_steps}", 'search.budget="1000h"', "search.generations=100000"]
    return load_config(options.config, [f"seed={seed}", *ends, *options.set, *own])


def measure(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One search and what it found, or what an earlier call kept of it."""
    changed = "".join(f"-{each.replace('/', '_')}" for each in options.set)
    name = f"{Path(options.config).stem}-{options.lane_steps}{changed}-{arm}-{seed}".replace("=", "_")
    kept = options.out / f"{name}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    folder = options.out / "under_way" / name
    config = config_of(arm, seed, options)
    progress = PlainProgress(sys.stderr, every_s=30)
    progress.message(f"{arm}, seed {seed}")
    if not (folder / "run.db").is_file():
        run_search(config, out=folder, workers=options.workers, progress=progress)
    elif not _is_finished(folder):
        resume_run(folder, workers=options.workers, progress=progress)
    record = {
        "arm": arm,
        "seed": seed,
        "commit": _commit(),
        "config": options.config,
        "set": options.set,
        "lane_steps": options.lane_steps,
        **_found(folder, config, options.workers),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(kept)
    shutil.rmtree(folder)
    return record


def _is_finished(folder: Path) -> bool:
    with Store.open(folder, readonly=True) as store:
        return FINISHED in store.results()


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()


def _found(folder: Path, config: Config, workers: int) -> dict[str, Any]:
    """The run's curves, and what its recommendations are worth on fresh seeds."""
    with Store.open(folder, readonly=True) as store:
        walls: dict[int, float] = {}
        for row in store.timings():
            walls[row.generation] = walls.get(row.generation, 0.0) + row.wall_s
        curve, leaders = [], []
        for generation in store.generations():
            best = generation.best or {"id": None, "value": 0.0}
            curve.append(
                {
                    "lane_steps": generation.funnel.get("lane_steps", 0),
                    "trained": generation.funnel.get("rung_0", 0),
                    "wall_s": round(sum(walls[n] for n in range(generation.n + 1)), 2),
                    "best": best["value"],
                }
            )
            leaders.append(best["id"])
        final = store.results()["final"]
        champion = final["champion"]
        chosen: list[int | None] = []
        for share in QUARTERS:
            within = [
                k for k, point in enumerate(curve) if point["lane_steps"] <= share * curve[-1]["lane_steps"]
            ]
            chosen.append(leaders[within[-1]] if within else None)
        if champion:
            chosen.append(champion["id"])
        texts = {n: store.candidate(n).text for n in chosen if n is not None}
    standings = fresh_standings(texts, config, workers)
    points = [
        {"share": share, "id": n, **(standings[n] if n is not None else {})}
        for share, n in zip(QUARTERS, chosen, strict=False)
    ]
    return {
        "funnel": final["funnel"],
        "curve": curve,
        "by_own_fitness": points,
        "champion": {"id": champion["id"], "text": champion["text"], **standings[champion["id"]]}
        if champion
        else None,
        "known_as": str(identify_text(champion["text"])) if champion else None,
        "looks": (final.get("watch") or {}).get("looks", []),
    }


def fresh_standings(texts: dict[int, str], config: Config, workers: int) -> dict[int, dict[str, Any]]:
    """Rules on seeds that no search uses, tuned as `ruleforge compare` does, by candidate and suite."""
    plan = Plan(update_plane=fastest_plane())
    prepare_plane(plan.update_plane)
    protocol = comparison_protocol(SEEDS)
    found: dict[int, dict[str, Any]] = {number: {} for number in texts}
    with Workers(workers) as pool:
        for suite, places in zip(
            SUITES, (load_workloads(config), load_validation_workloads(config)), strict=True
        ):
            tuned = tune_baselines(baseline_rules(config), places, protocol, plan, pool)
            rows = evaluate(list(texts.values()), places, protocol, plan, pool)
            for number, row in zip(texts, rows, strict=True):
                outcomes = {outcome.workload: outcome for outcome in row}
                standing = tuned.standing(outcomes)
                found[number][suite] = {name: each.as_json() for name, each in standing.items()} | {
                    "workloads": tuned.values(outcomes, "oracle")
                }
    return found


# all of them


def log_of(point: dict[str, Any] | None, suite: str, reference: str = "vs_best_single") -> float:
    """Log speed-up of a recommendation; a search without any counts as half as fast as the reference."""
    speedup = (((point or {}).get(suite) or {}).get(reference) or {}).get("speedup")
    return math.log(speedup) if speedup else math.log(0.5)


def spread(logs: Sequence[float]) -> dict[str, Any]:
    """Geometric mean over seeds, and its t interval; nothing where one of them has no value yet."""
    if not all(map(math.isfinite, logs)):
        return {"mean": None, "ci": None, "each": [math.exp(v) for v in logs]}
    ci = t_interval(list(logs))
    return {
        "mean": math.exp(fmean(logs)),
        "ci": [math.exp(v) for v in ci] if ci else None,
        "each": [math.exp(v) for v in logs],
    }


def summarize(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Curves and final standings over seeds, and each arm against the first one, paired by seed."""
    everything = [run for seeds in runs.values() for run in seeds]
    first = next(iter(runs))
    out: dict[str, Any] = {
        "commits": sorted({run["commit"] for run in everything}),
        "seeds": len(runs[first]),
        "lane_steps": everything[0]["lane_steps"],
        "arms": {},
        "paired": {},
    }
    for arm, seeds in runs.items():
        out["arms"][arm] = {
            "spent": fmean(run["curve"][-1]["lane_steps"] for run in seeds),
            "trained": fmean(run["curve"][-1]["trained"] for run in seeds),
            "wall_s": fmean(run["curve"][-1]["wall_s"] for run in seeds),
            "own_fitness": [
                spread([math.log(best) if (best := best_at(run, share)) else -math.inf for run in seeds])
                for share in QUARTERS
            ],
            "by_own_fitness": {
                suite: [
                    spread([log_of(run["by_own_fitness"][k], suite) for run in seeds])
                    for k in range(len(QUARTERS))
                ]
                for suite in SUITES
            },
            "best_validated": [
                spread([best_validated(run, k) for run in seeds]) for k in range(len(QUARTERS))
            ],
            "champion": {
                suite: spread([log_of(run["champion"], suite) for run in seeds]) for suite in SUITES
            },
            "known_as": [run["known_as"] for run in seeds],
        }
        if arm != first:
            out["paired"][arm] = {
                suite: paired(
                    [log_of(run["champion"], suite) for run in runs[first]],
                    [log_of(run["champion"], suite) for run in seeds],
                )
                for suite in SUITES
            }
    return out


def best_at(run: dict[str, Any], share: float) -> float:
    """The best own fitness within a share of the budget."""
    limit = share * run["curve"][-1]["lane_steps"]
    return float(max((point["best"] for point in run["curve"] if point["lane_steps"] <= limit), default=0.0))


def best_validated(run: dict[str, Any], quarter: int) -> float:
    """The best log speed-up on validation of what was recommended so far; the champion counts at the end.

    A maximum over looks, so it flatters all arms alike; `champion` does not.
    """
    points = [
        *run["by_own_fitness"][: quarter + 1],
        *([run["champion"]] if quarter == len(QUARTERS) - 1 else []),
    ]
    known = [point for point in points if point and point.get("id") is not None]
    return max((log_of(point, "validation") for point in known), default=-math.inf)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """How much better the first is than the second over common seeds: ratio, interval, p."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return {**spread(differences), "p": p_value(differences)}


def shown(each: dict[str, Any]) -> str:
    if each["mean"] is None:
        return "—"
    interval = f" [{each['ci'][0]:.2f}, {each['ci'][1]:.2f}]" if each["ci"] else ""
    return f"×{each['mean']:.3f}{interval}"


def table(summary: dict[str, Any]) -> str:
    first, *others = summary["arms"]
    width = max(len(arm) for arm in summary["arms"]) + 2
    quarters = " ".join(f"{f'{share:.0%} of the budget':>24}" for share in QUARTERS)
    lines = [
        f"{summary['seeds']} seeds of {summary['lane_steps']:,} lane-steps; "
        f"commit {', '.join(summary['commits'])}",
        "in brackets 95 % t intervals over seeds",
    ]
    for key, title in (
        ("own_fitness", "Best so far by the search's own fitness: speed-up over the oracle, its own seeds"),
        ("best_validated", "Best validation speed-up so far over the best single baseline, fresh seeds"),
    ):
        lines += ["", title, " " * width + quarters]
        lines += [
            f"{arm:<{width}}" + " ".join(f"{shown(each):>24}" for each in found[key])
            for arm, found in summary["arms"].items()
        ]
    lines += ["", "Champions on fresh seeds against the best single tuned baseline"]
    heads = f"{'search suite':>24} {'validation suite':>24} {'rules trained':>14} {'seconds':>8}"
    lines.append(f"{'':<{width}}{heads}")
    for arm, found in summary["arms"].items():
        cells = " ".join(f"{shown(found['champion'][suite]):>24}" for suite in SUITES)
        lines.append(f"{arm:<{width}}{cells} {found['trained']:>14.0f} {found['wall_s']:>8.0f}")
    lines.append("")
    for arm in others:
        for suite in SUITES:
            each = summary["paired"][arm][suite]
            lines.append(f"{first} beats {arm} in champions' {suite} speed-up by {shown(each)}{_words(each)}")
    return "\n".join(lines)


def _words(each: dict[str, Any]) -> str:
    if each["ci"] is None:
        return ": one seed says nothing"
    low, high = each["ci"]
    verdict = "better" if low > 1 else "worse" if high < 1 else "not distinguishable"
    return f": {verdict} (p = {each['p']:.3f})"


if __name__ == "__main__":
    sys.exit(main())
