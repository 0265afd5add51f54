"""Do the statistics keep their word? Three looks, each with its own command:

    python benchmarks/calibration.py coverage   how often intervals cover, by simulation
    python benchmarks/calibration.py aa         two copies of Adam: how often is one called better?
    python benchmarks/calibration.py power      one of them slowed down: how often is that seen?

`coverage` simulates comparisons: log speed-ups of W workloads around a mean with spread TAU, normal,
heavy-tailed (Student's t with 3 degrees of freedom) or skewed (exponential), and on each S seeds with
normal noise SIGMA. It counts how often a 95 % interval holds the population's mean, and how wide it is.

`aa` and `power` train a pool once: Adam on each workload of a suite, under every setting that tuning may
choose (a grid that has been widened to its limits), on many seeds. A repetition draws disjoint tuning
and scoring seeds for two copies, tunes and scores both by the protocol of `ruleforge compare`, and
judges them by its statistics, next to other tuned baselines whose curves help to set the targets. For
`power`, the second copy is slowed down by a factor: its curve at step t is the original's at t / factor,
so that nothing needs to be known beyond the budget. "Called different" is what the two-sided 95 %
interval does when it excludes ×1: 5 % is right, half of it on either side. The pool is kept in
results/calibration, one JSON file a workload, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import intervals
import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from ruleforge.app.compare import SEEDS, TUNING_SEEDS, comparison_protocol
from ruleforge.app.schema import DEFAULT_BASELINES
from ruleforge.backends import fastest_plane, prepare_plane
from ruleforge.core.known import known
from ruleforge.evaluate.baselines import (
    outcome_from_json,
    outcome_to_json,
    tune_baselines,
    tuning_key,
)
from ruleforge.evaluate.evaluator import MAX_WIDENINGS, Outcome, Protocol
from ruleforge.evaluate.lanes import ChunkJob, LaneSpec, Plan, RuleLanes, sample_steps
from ruleforge.evaluate.statistics import holm, p_value, seed_means, summarize, t_interval
from ruleforge.evaluate.targets import LEVELS, Speedup, Targets, smooth, speedup
from ruleforge.evaluate.train import train_chunk
from ruleforge.evaluate.tuning import QUARTERS, best_setting, tuning_loss
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload, load_suite

POOL_SEED = 50_000
MARGINS = (1.05, 1.1, 1.2)
FACTORS = (1.05, 1.1, 1.2, 1.4)


# Coverage

SHAPES = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "heavy": lambda rng, size: rng.standard_t(3, size) / np.sqrt(3),
    "skewed": lambda rng, size: rng.exponential(1.0, size) - 1.0,
}


def coverage(options: argparse.Namespace) -> dict[str, Any]:
    """Share of intervals that hold the population's mean, and their mean width, in logs."""
    rng = np.random.Generator(np.random.PCG64(options.seed))
    rows, single = [], []
    for shape, draw in SHAPES.items():
        for n_workloads in (4, 6, 12):
            for n_seeds in (2, 3, 5):
                size = (options.repetitions, n_workloads)
                truth = options.tau * draw(rng, size)
                noise = options.sigma * rng.standard_normal((*size, n_seeds))
                values = truth[:, :, None] + noise
                means = values.mean(2)
                found = {
                    "two-level bootstrap": intervals.two_level(values, rng),
                    "bootstrap": intervals.percentile(means, rng),
                    "BCa": intervals.bca(means, rng),
                    "bootstrap-t": intervals.studentized(means, rng),
                    "t": intervals.student(means),
                }
                rows.append(
                    {"truth": shape, "workloads": n_workloads, "seeds": n_seeds, **_covered(found, 0.0)}
                )
    for n_seeds in (3, 5, 8):
        for shape, draw in SHAPES.items():
            values = options.sigma * draw(rng, (options.repetitions, n_seeds))
            found = {
                "bootstrap": intervals.percentile(values, rng),
                "BCa": intervals.bca(values, rng),
                "bootstrap-t": intervals.studentized(values, rng),
                "t": intervals.student(values),
            }
            single.append({"noise": shape, "seeds": n_seeds, **_covered(found, 0.0)})
    return {
        "repetitions": options.repetitions, "tau": options.tau, "sigma": options.sigma,
        "over_workloads": rows, "over_seeds": single,
    }  # fmt: skip


def _covered(found: Mapping[str, intervals.Ends], truth: float) -> dict[str, dict[str, float]]:
    return {
        name: {
            "coverage": round(float(((low <= truth) & (truth <= high)).mean()), 4),
            "width": round(float(np.median(high - low)), 3),
        }
        for name, (low, high) in found.items()
    }


def coverage_table(record: Mapping[str, Any]) -> str:
    lines = []
    for key, words in (
        ("over_workloads", ("truth", "workloads", "seeds")),
        ("over_seeds", ("noise", "seeds")),
    ):
        rows = record[key]
        methods = [name for name, value in rows[0].items() if isinstance(value, dict)]
        lines.append(f"| {' | '.join((*words, *methods))} |")
        lines.append("|---" * (len(words) + len(methods)) + "|")
        for row in rows:
            cells = [str(row[w]) for w in words]
            cells += [f"{100 * row[m]['coverage']:.1f} % ({row[m]['width']:.2f})" for m in methods]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


# A pool of trainings


@dataclass(frozen=True)
class Pool:
    """Adam on one workload under every setting that tuning may reach, on many seeds.

    Attributes:
        workload, n_steps: name and budget.
        lrs, schedules: the settings: the grid, as far as it may widen, each step divided into quarters;
            `inner` is where the grid proper begins and ends, in whole steps.
        curves: smoothed validation losses, (lr, schedule, seed, sample); NaN from where a lane diverged.
        losses: what tuning reads, infinite where a lane diverged, (lr, schedule, seed).
        others: other baselines, tuned and scored by the same protocol.
    """

    workload: str
    n_steps: int
    lrs: tuple[float, ...]
    schedules: tuple[str, ...]
    inner: tuple[int, int]
    curves: NDArray[np.float64]
    losses: NDArray[np.float64]
    others: Mapping[str, Outcome]

    def chosen(self, seeds: NDArray[np.int64], n_schedules: int) -> tuple[int, int]:
        """The setting that tuning on these seeds leads to; the grid widens as in `evaluate`."""
        losses = self.losses[::QUARTERS, :n_schedules][:, :, seeds].mean(2)
        grid = self.lrs[::QUARTERS]
        low, high = self.inner
        for _ in range(MAX_WIDENINGS + 1):
            at, schedule = np.unravel_index(int(np.argmin(losses[low:high])), losses[low:high].shape)
            best = low + int(at)
            if best not in (low, high - 1) or not np.isfinite(losses[best, schedule]):
                break
            low, high = (low - 1, high) if best == low else (low, high + 1)
            low, high = max(low, 0), min(high, len(grid))
        specs = [LaneSpec(lr, name) for lr in grid[low:high] for name in self.schedules[:n_schedules]]
        found = best_setting(specs, losses[low:high].ravel().tolist(), grid[1] / grid[0])
        assert found is not None, f"Adam diverges everywhere on {self.workload}"
        nearest = int(np.argmin(np.abs(np.log(np.array(self.lrs) / found.lr))))
        return nearest, self.schedules.index(found.schedule)

    @cached_property
    def _reached(self) -> tuple[NDArray[np.float64], float]:
        """What the other baselines reach by each sample, (others, sample), and their least start."""
        rows = [reached(outcome) for outcome in self.others.values() if outcome.curves]
        return np.stack([row for row, _ in rows]), min(start for _, start in rows)

    def targets(self, copy: Outcome) -> Targets:
        """`make_targets` of the others and a copy; what the others reach is computed once."""
        grid, start = self._reached
        if copy.curves:
            mine, own_start = reached(copy)
            grid, start = np.vstack((grid, mine)), min(start, own_start)
        steps = np.array(sample_steps(self.n_steps))
        losses = set()
        for which, share in LEVELS:
            column = grid[:, int(np.searchsorted(steps, share * self.n_steps))]
            level = float(np.median(column) if which == "median" else column.min())
            if np.isfinite(level) and level < start:
                losses.add(level)
        return Targets(self.workload, self.n_steps, tuple(sorted(losses, reverse=True)))

    def outcome(
        self, tuning: NDArray[np.int64], scoring: NDArray[np.int64], n_schedules: int, factor: float = 1.0
    ) -> Outcome:
        """One copy of Adam, tuned and scored on the given seeds, slowed down by a factor."""
        lr, schedule = self.chosen(tuning, n_schedules)
        steps = np.array(sample_steps(self.n_steps), dtype=float)
        curves = [np.interp(steps / factor, steps, c) for c in self.curves[lr, schedule, scoring]]
        return Outcome(
            self.workload, self.n_steps, LaneSpec(self.lrs[lr], self.schedules[schedule]), self.lrs[lr],
            tuple(tuple(float(v) if np.isfinite(v) else None for v in curve) for curve in curves),
        )  # fmt: skip


def reached(outcome: Outcome) -> tuple[NDArray[np.float64], float]:
    """The median curve over seeds, never rising, and the largest start."""
    curves = np.array([[np.inf if v is None else v for v in curve] for curve in outcome.curves])
    return np.minimum.accumulate(np.median(curves, axis=0)), float(curves[:, 0].max())


def make_pool(
    workload: Workload, protocol: Protocol, n_seeds: int, folder: Path, pool: Workers, plan: Plan
) -> Pool:
    """Train a workload's pool, or read what an earlier call kept."""
    ratio = protocol.lrs[1] / protocol.lrs[0]
    outside = range(1, MAX_WIDENINGS + 1)
    grid = (
        *(protocol.lrs[0] / ratio**k for k in reversed(outside)), *protocol.lrs,
        *(protocol.lrs[-1] * ratio**k for k in outside),
    )  # fmt: skip
    between = [lr * ratio ** (k / QUARTERS) for lr in grid for k in range(QUARTERS)]
    lrs = tuple(between[: -(QUARTERS - 1)])
    kept = folder / f"{workload.name}-{n_seeds}.json"
    key = tuning_key(workload, known("adam").rule.rule, protocol, plan)
    record = json.loads(kept.read_text()) if kept.is_file() else {}
    if record.get("key") != key:
        print(f"training the pool of {workload.name}", file=sys.stderr, flush=True)
        specs = tuple(LaneSpec(lr, schedule) for lr in lrs for schedule in protocol.schedules)
        rule = RuleLanes(str(known("adam").rule), specs)
        jobs = [
            ChunkJob(workload, POOL_SEED + seed, workload.steps, (rule,), plan, len(specs))
            for seed in range(n_seeds)
        ]
        results = pool.map(train_chunk, jobs)
        curves = np.stack([[smooth(curve) for curve in result.curves] for result in results], axis=1)
        losses = np.stack(
            [list(map(tuning_loss, result.curves, result.diverged_at)) for result in results], axis=1
        )
        names = [name for name in DEFAULT_BASELINES if name != "adam"]
        tuned = tune_baselines(
            {name: known(name).rule for name in names}, [workload], protocol, plan, pool, say=print
        )
        record = {
            "key": key, "commit": commit(),
            "curves": _json(curves), "losses": _json(losses),
            "others": {n: outcome_to_json(o) for n, o in tuned.outcomes[workload.name].items()},
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(record))
    shape = (len(lrs), len(protocol.schedules), n_seeds)
    curves = np.array(record["curves"], dtype=float).reshape(*shape, -1)
    losses = np.array(record["losses"], dtype=float).reshape(shape)
    return Pool(
        workload.name, workload.steps, lrs, protocol.schedules,
        (MAX_WIDENINGS, MAX_WIDENINGS + len(protocol.lrs)), curves,
        np.where(np.isnan(losses), np.inf, losses),
        {name: outcome_from_json(each) for name, each in record["others"].items()},
    )  # fmt: skip


def _json(values: NDArray[np.float64]) -> list[Any]:
    """Seven digits, and None for what is not finite."""
    flat = [float(f"{v:.7g}") if np.isfinite(v) else None for v in values.ravel()]
    return list(np.array(flat, dtype=object).reshape(values.shape).tolist())


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip()


# Two copies


@dataclass(frozen=True)
class Design:
    """How two copies are compared: seeds of tuning and of scoring, and the planted difference.

    Attributes:
        n_tune, n_score: seeds of each copy.
        factor: how much slower the second copy is; each workload's own is `spread` away in logs.
        paired: whether both are scored on the same seeds, as `ruleforge compare` does; tuning seeds are
            disjoint all the same.
    """

    n_tune: int
    n_score: int
    factor: float = 1.0
    spread: float = 0.0
    paired: bool = False


@dataclass(frozen=True)
class Look:
    """One repetition: the speed-up of the first copy over the second, as `ruleforge compare` tells it."""

    speedup: float
    ci: tuple[float, float]
    single: tuple[bool, ...]
    after_holm: tuple[tuple[float, float], ...]

    def differs_somewhere(self, margin: float = 1.0) -> bool:
        """Whether a workload is won or lost after Holm's correction, by more than a margin."""
        return any(p <= 0.05 and size > np.log(margin) for p, size in self.after_holm)


def draws(pools: Sequence[Pool], design: Design, repetitions: int, seed: int) -> Iterator[dict[str, Speedup]]:
    """The speed-ups of the first copy over the second, on each workload, of each repetition."""
    rng = np.random.Generator(np.random.PCG64(seed))
    n_seeds, n_schedules = pools[0].losses.shape[2], len(pools[0].schedules)
    cuts = np.cumsum([design.n_tune, design.n_tune, design.n_score, design.n_score])
    for _ in range(repetitions):
        mine, copies = {}, {}
        for pool in pools:
            tune_a, tune_b, score_a, score_b, _ = np.split(rng.permutation(n_seeds), cuts)
            slower = design.factor * float(np.exp(design.spread * rng.standard_normal()))
            first, second = max(1.0, 1 / slower), max(1.0, slower)
            score_b = score_a if design.paired else score_b
            mine[pool.workload] = pool.outcome(tune_a, score_a, n_schedules, first)
            copies[pool.workload] = pool.outcome(tune_b, score_b, n_schedules, second)
        yield {
            pool.workload: speedup(mine[pool.workload], copies[pool.workload], targets)
            for pool in pools
            if (targets := pool.targets(copies[pool.workload])).levels
        }


def look(speedups: Mapping[str, Speedup]) -> Look | None:
    """What `ruleforge compare` would say of them; None where nothing could be compared."""
    found = summarize(speedups)
    if found.speedup is None or found.ci is None:
        return None
    rows = [row for s in speedups.values() if len(row := seed_means(s)) > 1]
    single = [t_interval(row) for row in rows]
    adjusted = holm([p for row in rows if (p := p_value(row)) is not None])
    return Look(
        found.speedup,
        found.ci,
        tuple(ci is not None and not ci[0] <= 0 <= ci[1] for ci in single),
        tuple((p, abs(float(row.mean()))) for p, row in zip(adjusted, rows, strict=True)),
    )


def judged(found: Sequence[Look]) -> dict[str, Any]:
    """How often the first copy is called better or worse, with an exact upper bound."""
    n = len(found)
    better, worse = sum(f.ci[0] > 1 for f in found), sum(f.ci[1] < 1 for f in found)
    wrong = better + worse
    return {
        "repetitions": n, "better": better / n, "worse": worse / n, "different": wrong / n,
        "different_upper_95": float(betaincinv(wrong + 1, n - wrong, 0.95)) if wrong < n else 1.0,
        "speedup_median": float(np.median([f.speedup for f in found])),
        "ci_width_median": float(np.median([np.log(f.ci[1] / f.ci[0]) for f in found])),
        "one_workload_different": float(np.mean([v for f in found for v in f.single])),
        "any_workload_after_holm": float(np.mean([f.differs_somewhere() for f in found])),
        "by_more_than": {
            f"{margin:g}": float(np.mean([f.differs_somewhere(margin) for f in found]))
            for margin in MARGINS
        },
    }  # fmt: skip


def copies(options: argparse.Namespace, factors: Sequence[float]) -> dict[str, Any]:
    """Every design asked for, on each suite and on all of them together."""
    plan = Plan(update_plane=fastest_plane(print))
    prepare_plane(plan.update_plane, print)
    workers = Workers(options.workers)
    protocol = comparison_protocol(SEEDS)
    pools = [
        make_pool(w, protocol, options.pool_seeds, options.out, workers, plan)
        for suite in options.suites
        for w in load_suite(suite)
    ]
    places = {suite: [w.name for w in load_suite(suite)] for suite in options.suites}
    if len(places) > 1:
        places[" + ".join(places)] = [pool.workload for pool in pools]
    rows = []
    for n_tune, n_score, paired, spread, factor in product(
        options.tune_seeds, options.score_seeds, options.paired, options.spread, factors
    ):
        design = Design(n_tune, n_score, factor, spread, paired == "paired")
        drawn = list(draws(pools, design, options.repetitions, options.seed))
        for name, chosen in places.items():
            found = [look({w: each[w] for w in chosen if w in each}) for each in drawn]
            judgement = judged([each for each in found if each is not None])
            rows.append({"suite": name, "workloads": len(chosen), **asdict(design), **judgement})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"commit": commit(), "pool_seeds": options.pool_seeds, "rows": rows}


def copies_table(record: Mapping[str, Any]) -> str:
    lines = [
        "| workloads | tuning, scoring seeds | scored on | factor, spread | better | worse "
        "| different (upper 95 %) | width | one workload | any after Holm |",
        "|---" * 10 + "|",
    ]
    for row in record["rows"]:
        upper = f"{100 * row['different']:.1f} % ({100 * row['different_upper_95']:.1f})"
        lines.append(
            f"| {row['suite']}, {row['workloads']} | {row['n_tune']}, {row['n_score']} "
            f"| {'the same' if row['paired'] else 'others'} | ×{row['factor']:g}, {row['spread']:g} "
            f"| {100 * row['better']:.1f} % | {100 * row['worse']:.1f} % | {upper} "
            f"| {row['ci_width_median']:.2f} | {100 * row['one_workload_different']:.1f} % "
            f"| {100 * row['any_workload_after_holm']:.1f} % |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("coverage", "aa", "power"))
    parser.add_argument("--repetitions", type=int, default=0, help="default: 4000 simulated, 400 resampled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tau", type=float, default=0.3, help="spread of log speed-ups over workloads")
    parser.add_argument("--sigma", type=float, default=0.15, help="noise of a seed's log speed-up")
    parser.add_argument("--suites", nargs="+", default=["search", "validation"])
    parser.add_argument("--tune-seeds", type=int, nargs="+", default=[TUNING_SEEDS])
    parser.add_argument("--score-seeds", type=int, nargs="+", default=[SEEDS])
    parser.add_argument("--spread", type=float, nargs="+", default=[0.0], help="of the planted log factor")
    parser.add_argument(
        "--paired", choices=("disjoint", "paired"), nargs="+", default=["disjoint", "paired"],
        help="scoring seeds of the two copies",
    )  # fmt: skip
    parser.add_argument("--pool-seeds", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/calibration"))
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    usual = 4000 if options.part == "coverage" else 400
    options.repetitions = options.repetitions or (100 if options.quick else usual)
    if options.part == "coverage":
        record = coverage(options)
        print(json.dumps(record, indent=1) if options.json else coverage_table(record))
    else:
        record = copies(options, (1.0,) if options.part == "aa" else FACTORS)
        print(json.dumps(record, indent=1) if options.json else copies_table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
