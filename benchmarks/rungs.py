"""Does a rung foretell the full budget? Rank correlations of cheap protocols with a dear one.

    python benchmarks/rungs.py [--rules known|variants] [--config default] [--json]

Rules are trained under many protocols on the config's workloads: the known ones within its limits, or the
`variants` of the best of them. What is true is the geometric mean of the speed-up over the best baselines, on
search and validation workloads, as `ruleforge compare` tunes, on twelve scoring seeds that no other protocol
uses. Printed for each protocol: lane-steps and milliseconds of wall time a rule, and Spearman's rank
correlation with the truth over all rules and over the better half, where a search lives.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from scipy.stats import spearmanr
from variants import VARIANTS

from ruleforge.app.compare import comparison_protocol
from ruleforge.app.config import load_config, load_validation_workloads, load_workloads
from ruleforge.app.finals import Suites
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
    parser.add_argument("--rules", choices=("known", "variants"), default="known")
    parser.add_argument("--config", default="default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.rules, options.config, options.workers)
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    return 0


def protocols(lrs: Sequence[float], n_workloads: int) -> dict[str, tuple[int, Protocol]]:
    """Name → how many of the workloads, and the protocol."""
    found: dict[str, tuple[int, Protocol]] = {}
    for n_steps, points in ((24, 3), (40, 4)):
        words = f"{n_steps} steps, 8 workloads, best of {points} lanes"
        found[words] = 8, Protocol(coarse(lrs, points), ("cosine",), n_steps)
    for n_steps in (60, 100, 0):  # 0 is each workload's own budget
        for count in (8, 22, n_workloads):
            words = f"{n_steps or 'all'} steps, {min(count, n_workloads)} workloads, refined, seeds: 3"
            found[words] = count, Protocol(tuple(lrs), ("cosine",), n_steps, _seeds(OWN_SEED, 3), refine=True)
    tuned = replace(found[words][1], schedules=("constant", "cosine"))
    found[f"{words}, constant or cosine"] = n_workloads, tuned
    return found


def _seeds(first: int, n: int) -> tuple[int, ...]:
    return tuple(first + k for k in range(n))


def measure(which: str, name: str, n_workers: int) -> list[dict[str, Any]]:
    config = load_config(name)
    workloads = load_workloads(config)
    suites = Suites(workloads, load_validation_workloads(config))
    plan = make_plan(config, workloads, validation=suites.validation)
    prepare_plane(plan.update_plane)
    texts = list(VARIANTS.values())
    if which == "known":
        texts = [str(e.rule) for e in KNOWN.values() if not config.limits.static.broken_by(e.rule.rule)]
    rules = baseline_rules(config)
    *_, full = rung_protocols(config, workloads)
    tried: dict[str, tuple[Sequence[Workload], Protocol]] = {
        words: (workloads[:count], protocol)
        for words, (count, protocol) in protocols(full[1].lrs, len(workloads)).items()
    }
    truth = replace(comparison_protocol(12), score_seeds=_seeds(TRUE_SEED, 12))
    values: dict[str, list[float]] = {}
    cost: dict[str, float] = {}
    seconds: dict[str, float] = {}
    with Workers(n_workers) as pool:
        compile_gradients(suites.all, plan, pool, lambda text: print(text, file=sys.stderr))
        for words, (places, protocol) in {**tried, TRUTH: (suites.all, truth)}.items():
            tuned = tune_baselines(rules, places, protocol, plan, pool)
            began = time.perf_counter()
            rows = evaluate(texts, places, protocol, plan, pool)
            seconds[words] = (time.perf_counter() - began) / len(texts)
            cost[words] = fmean(sum(o.n_lanes * o.n_steps for o in row) for row in rows)
            values[words] = [_log_speedup(tuned, row) for row in rows]
    true = values.pop(TRUTH)
    better = [k for k, value in enumerate(true) if value > median(true)]
    return [
        {
            "protocol": words, "rules": len(texts), "lane_steps": cost[words], "seconds": seconds[words],
            "all": float(spearmanr(mine, true)[0]),
            "better_half": float(spearmanr([mine[k] for k in better], [true[k] for k in better])[0]),
        }
        for words, mine in values.items()
    ]  # fmt: skip


def _log_speedup(tuned: Baselines, row: Sequence[Outcome]) -> float:
    against = tuned.speedups({o.workload: o for o in row}, "oracle").values()
    return fmean(math.log(each.value or 0.01) for each in against)


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| protocol | lane-steps, ms a rule | all rules | the better half |", "|---|---|---|---|"]
    lines += [
        f"| {r['protocol']} | {r['lane_steps']:,.0f}, {1e3 * r['seconds']:.0f} "
        f"| {r['all']:.2f} | {r['better_half']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
