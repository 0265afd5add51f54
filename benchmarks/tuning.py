"""What tuning leaves to chance: ways of choosing a learning rate and a schedule from the same lanes.

    python benchmarks/tuning.py [--seeds 18] [--json]

A pool is trained once: a few rules on the search suite under learning rates an eighth of a decade apart, two
schedules and many seeds. From it any grid with steps of half a decade, wherever it begins, is tuned on any
of the tuning seeds by each way, and what was chosen is scored on the last six seeds. A way is good when its
choices need few steps, and when they differ little between grids and seeds: that difference is noise in every
comparison of two rules. Printed for each way: the standard deviation of the log of steps to the targets on
one workload, over grids and seeds, and their mean.

ways: `last` judges a lane by its last loss, `half` by its mean loss over the second half of the budget;
`best` takes the best lane's setting, `parabola` what `ruleforge.evaluate.tuning` makes of its neighbours.
"""

from __future__ import annotations

import argparse
import json
import math
from statistics import fmean, pvariance
from typing import Any

import numpy as np

from ruleforge.app.config import load_config, load_workloads
from ruleforge.app.setup import baseline_rules, make_plan, rung_protocols
from ruleforge.backends import prepare_plane
from ruleforge.core.known import known
from ruleforge.evaluate.baselines import tune_baselines
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.lanes import LaneSpec, RuleLanes
from ruleforge.evaluate.measures import mean_log_steps
from ruleforge.evaluate.packing import Asked, train_lanes
from ruleforge.evaluate.prepare import compile_gradients
from ruleforge.evaluate.targets import smooth
from ruleforge.evaluate.tuning import QUARTERS, best_setting, tuning_loss
from ruleforge.evaluate.workers import Workers

RULES = ("adam", "cautious_adamw", "nadam", "lion", "rmsprop", "expert_nadam")
SCHEDULES = ("constant", "cosine")
STEP = math.sqrt(10)
LRS = tuple(10 ** (-3 + k / 8) for k in range(21))
POOL_SEED = 60_000
SCORING = 6
TUNING = (1, 2, 3)
WAYS = (("last", "best"), ("last", "parabola"), ("half", "best"), ("half", "parabola"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=18, help=f"of the pool; {SCORING} of them score")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.seeds, options.workers)
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    return 0


def measure(n_seeds: int, n_workers: int) -> list[dict[str, Any]]:
    config = load_config("default")
    workloads = load_workloads(config)
    plan = make_plan(config, workloads)
    prepare_plane(plan.update_plane)
    specs = [LaneSpec(lr, schedule) for lr in LRS for schedule in SCHEDULES]
    asked = [
        Asked(w, w.steps, RuleLanes(str(known(name).rule), tuple(specs))) for w in workloads for name in RULES
    ]
    with Workers(n_workers) as pool:
        compile_gradients(workloads, plan, pool, print)
        tuned = tune_baselines(
            baseline_rules(config), workloads, rung_protocols(config, workloads)[-1][1], plan, pool
        )
        seeds = [POOL_SEED + k for k in range(n_seeds)]
        trained = train_lanes(asked, seeds, plan, plan.chunk_lanes, pool)
    n_tuning = n_seeds - SCORING
    found: dict[tuple[int, str, str], list[tuple[float, float]]] = {}
    for each, lanes in zip(asked, trained, strict=True):
        curves = np.array([[r.curves[k] for r, k in lane] for lane in lanes])
        lost = np.array([[r.diverged_at[k] for r, k in lane] for lane in lanes])
        scores = [
            mean_log_steps(_outcome(each, spec, rows[n_tuning:]), tuned.targets[each.workload.name])
            for spec, rows in zip(specs, curves, strict=True)
        ]
        judged = {
            "half": np.array([list(map(tuning_loss, *pair)) for pair in zip(curves, lost, strict=True)]),
            "last": np.where(lost > 0, np.inf, np.array([[smooth(c)[-1] for c in rows] for rows in curves])),
        }  # fmt: skip
        for count in TUNING:
            for loss, choice in WAYS:
                values = [
                    _chosen(specs, judged[loss][:, first : first + count].mean(1), scores, offset, choice)
                    for first in range(0, n_tuning - count + 1, count)
                    for offset in range(QUARTERS)
                ]
                found.setdefault((count, loss, choice), []).append((pvariance(values), fmean(values)))
    return [
        {
            "tuning_seeds": count, "loss": loss, "choice": choice,
            "sd": math.sqrt(fmean(v for v, _ in cells)), "mean_log_steps": fmean(m for _, m in cells),
        }
        for (count, loss, choice), cells in found.items()
    ]  # fmt: skip


def _outcome(asked: Asked, spec: LaneSpec, curves: np.ndarray) -> Outcome:
    seen = tuple(tuple(float(v) if np.isfinite(v) else None for v in smooth(c)) for c in curves)
    return Outcome(asked.workload.name, asked.n_steps, spec, spec.lr, seen)


def _chosen(
    specs: list[LaneSpec], losses: np.ndarray, scores: list[float], offset: int, choice: str
) -> float:
    """The score of what a grid that begins at an offset leads to."""
    trained = [k for k in range(len(specs)) if (k // len(SCHEDULES)) % QUARTERS == offset]
    mine = [float(losses[k]) for k in trained]
    if choice == "best":
        return scores[trained[int(np.argmin(mine))]]
    setting = best_setting([specs[k] for k in trained], mine, STEP)
    assert setting is not None
    same = (k for k, spec in enumerate(specs) if spec.schedule == setting.schedule)
    return scores[min(same, key=lambda k: abs(math.log(specs[k].lr / setting.lr)))]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| tuning seeds | judged by | choice | SD on one workload | mean log steps |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['tuning_seeds']} | {r['loss']} | {r['choice']} | {r['sd']:.3f} | {r['mean_log_steps']:.3f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
