"""Does a rung foretell the full budget? Rank correlations of cheap protocols with a dear one.

    python benchmarks/rungs.py [--config default] [--json]

Known rules within the config's limits, and the two written by hand, are trained under many protocols on the
config's workloads. What is true is the geometric mean of the speed-up at full budget with the whole grid, two
tuning seeds and twelve scoring seeds that no other protocol uses. Printed for each protocol: lane-steps a
rule, and Spearman's rank correlation with the truth over all rules and over the better half, where a search
lives.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from scipy.stats import spearmanr

from ruleforge.app.config import load_config, load_workloads
from ruleforge.app.setup import baseline_rules, coarse, make_plan, rung_protocols
from ruleforge.backends import prepare_plane
from ruleforge.core.known import KNOWN
from ruleforge.evaluate.baselines import Baselines, tune_baselines
from ruleforge.evaluate.evaluator import Outcome, Protocol, evaluate
from ruleforge.evaluate.prepare import compile_gradients
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload

OWN_SEED, TRUE_SEED = 5000, 6500
TRUTH = "truth"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.config, options.workers)
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    return 0


def protocols(lrs: Sequence[float], n_workloads: int) -> dict[str, tuple[int, Protocol]]:
    """Name → how many of the workloads, and the protocol."""
    found: dict[str, tuple[int, Protocol]] = {}
    for n_steps in (24, 60):
        for count in (2, n_workloads):
            for schedule in ("constant", "cosine"):
                few = Protocol(coarse(lrs, 3 if n_steps == 24 else 4), (schedule,), n_steps)
                fine = Protocol(tuple(lrs), (schedule,), n_steps, _seeds(OWN_SEED, 3), refine=True)
                at = f"{n_steps} steps, {count} workloads, {schedule}"
                found[f"{at}, best of {len(few.lrs)} lanes"] = (count, few)
                found[f"{at}, refined, 3 seeds"] = (count, fine)
    full = Protocol(tuple(lrs), ("constant", "cosine"), refine=True)
    for tuning, scoring in ((2, 2), (1, 3), (1, 6)):
        seeds = {"tune_seeds": _seeds(50, tuning), "score_seeds": _seeds(OWN_SEED, scoring)}
        found[f"full budget, tuned on {tuning}, scored on {scoring}"] = (n_workloads, replace(full, **seeds))
    true = {"tune_seeds": _seeds(60, 2), "score_seeds": _seeds(TRUE_SEED, 12), "refine": False, "widen": True}
    found[TRUTH] = (n_workloads, replace(full, **true))
    return found


def _seeds(first: int, n: int) -> tuple[int, ...]:
    return tuple(first + k for k in range(n))


def measure(name: str, n_workers: int) -> list[dict[str, Any]]:
    config = load_config(name)
    workloads = load_workloads(config)
    plan = make_plan(config, workloads)
    prepare_plane(plan.update_plane)
    limits = config.limits.static
    texts = [str(e.rule) for e in KNOWN.values() if not limits.broken_by(e.rule.rule)]
    rules = baseline_rules(config)
    *_, full = rung_protocols(config, workloads)
    grid_of_lrs = full[1].lrs
    values: dict[str, list[float]] = {}
    cost: dict[str, float] = {}
    with Workers(n_workers) as pool:
        compile_gradients(workloads, plan, pool, lambda text: print(text, file=sys.stderr))
        for words, (count, protocol) in protocols(grid_of_lrs, len(workloads)).items():
            places: Sequence[Workload] = workloads[:count]
            tuned = tune_baselines(rules, places, protocol, plan, pool)
            rows = evaluate(texts, places, protocol, plan, pool)
            cost[words] = fmean(sum(o.n_lanes * o.n_steps for o in row) for row in rows)
            values[words] = [_log_speedup(tuned, row) for row in rows]
    true = values.pop(TRUTH)
    better = [k for k, value in enumerate(true) if value > median(true)]
    return [
        {
            "protocol": words, "rules": len(texts), "lane_steps": cost[words],
            "all": float(spearmanr(mine, true)[0]),
            "better_half": float(spearmanr([mine[k] for k in better], [true[k] for k in better])[0]),
        }
        for words, mine in values.items()
    ]  # fmt: skip


def _log_speedup(tuned: Baselines, row: Sequence[Outcome]) -> float:
    against = tuned.speedups({o.workload: o for o in row}, "oracle").values()
    return fmean(math.log(each.value or 0.01) for each in against)


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| protocol | lane-steps a rule | all rules | the better half |", "|---|---|---|---|"]
    lines += [
        f"| {r['protocol']} | {r['lane_steps']:,.0f} | {r['all']:.2f} | {r['better_half']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
