"""How far apart tuned SGD and tuned Adam lie on each workload, and what a lane-step costs there.

    python benchmarks/workloads.py [--suite NAME ...] [--tasks NAME ...] [--seeds 3] [--workers 2] [--json]

All rules are tuned as `ruleforge compare` tunes: the whole grid of learning rates, widened, constant and
cosine, then fresh seeds. Targets are taken from the four rules' own curves. "adam/sgd" is how much sooner
Adam reaches them than SGD, with an interval over seeds; "best/worst" the same for the best rule over the
worst: where both are near 1, no choice of rule matters. With held_out this is a look at that suite; it
serves to see that its workloads can be learned, and no choice may rest on it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import sys
import time
from typing import Any

from ruleforge.app.compare import comparison_protocol
from ruleforge.backends import fastest_plane, prepare_plane
from ruleforge.core.known import known
from ruleforge.evaluate.baselines import Baselines, tune_baselines
from ruleforge.evaluate.lanes import ChunkJob, LaneSpec, Plan, RuleLanes
from ruleforge.evaluate.prepare import compilable, compile_gradients
from ruleforge.evaluate.statistics import interval
from ruleforge.evaluate.targets import speedup
from ruleforge.evaluate.train import train_chunk
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import SUITES, Workload, load_suite, load_workload

RULES = ("sgd", "momentum", "adam", "lion")


def measured(workload: Workload, tuned: Baselines, plan: Plan) -> dict[str, Any]:
    """One row of the table."""
    outcomes, targets = tuned.outcomes[workload.name], tuned.targets[workload.name]
    ratio = speedup(outcomes["adam"], outcomes["sgd"], targets)
    ranked = sorted(RULES, key=lambda name: tuned._log_steps(workload.name, name))
    return {
        "name": workload.name,
        "suite": workload.suite,
        "adam_over_sgd": ratio.value,
        "ci": interval(ratio),
        "n_dropped": ratio.n_dropped,
        "best": ranked[0],
        "worst": ranked[-1],
        "best_over_worst": speedup(outcomes[ranked[0]], outcomes[ranked[-1]], targets).value,
        "start_loss": outcomes["adam"].curves[0][0] if outcomes["adam"].curves else None,
        "final_losses": {name: outcomes[name].final_loss for name in RULES},
        "settings": {name: [s.lr, s.schedule] if (s := outcomes[name].setting) else None for name in RULES},
        "metrics": {name: outcomes[name].metric for name in RULES},
        "n_weights": workload.n_weights,
        "steps": workload.steps,
        "lane_step_us": {
            kind: lane_step_us(workload, Plan(update_plane=plan.update_plane, compiled=names))
            for kind, names in (("eager", ()), ("compiled", (workload.name,)))
            if not names or workload.name in plan.compiled
        },
    }


def lane_step_us(workload: Workload, plan: Plan, repeats: int = 3) -> float:
    """Median microseconds of processor time that a step of a lane takes: Adam in a whole chunk, scored."""
    n_steps = max(20, workload.steps // 4)
    lanes = RuleLanes(str(known("adam").rule), (LaneSpec(0.003, "cosine"),) * plan.chunk_lanes)
    job = ChunkJob(workload, 0, n_steps, (lanes,), plan, plan.chunk_lanes)
    train_chunk(job)
    times = []
    for _ in range(repeats):
        start = time.process_time()  # one thread: what other programs take does not count
        train_chunk(job)
        times.append(time.process_time() - start)
    return statistics.median(times) / (n_steps * plan.chunk_lanes) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--suite", action="append", choices=[*SUITES, "sealed"], default=[])
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--compiled", action="store_true", help="compile gradients; time both ways")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    suites = options.suite or ([] if options.tasks else list(SUITES))
    workloads = [w for suite in suites for w in load_suite(suite)]
    workloads += [load_workload(name) for name in options.tasks]
    plane = fastest_plane(print)
    prepare_plane(plane)
    plan = Plan(update_plane=plane, compiled=compilable(workloads, print) if options.compiled else ())
    workers = Workers(options.workers)
    if options.compiled:
        compile_gradients(workloads, plan, workers, lambda text: print(text, file=sys.stderr))
    rules = {name: known(name).rule for name in RULES}
    tuned = tune_baselines(
        rules, workloads, comparison_protocol(options.seeds), plan, workers,
        say=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    rows = [measured(workload, tuned, plan) for workload in workloads]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(
        f"{'suite':10} {'workload':21} {'adam/sgd':>8} {'95 % CI':>13} {'best/worst':>10}  {'which':17}"
        f" {'start':>7} {'sgd':>8} {'adam':>8} {'eager µs':>8} {'compiled':>8}"
    )
    for row in rows:
        low, high = row["ci"] or (float("nan"),) * 2
        cost, final = row["lane_step_us"], row["final_losses"]
        print(
            f"{row['suite']:10} {row['name']:21} {shown(row['adam_over_sgd'], '8.2f')}"
            f" [{low:5.2f},{high:6.2f}] {shown(row['best_over_worst'], '10.2f')}"
            f"  {row['best'] + '/' + row['worst']:17} {shown(row['start_loss'], '7.3f')}"
            f" {shown(final['sgd'], '8.4f')} {shown(final['adam'], '8.4f')}"
            f" {cost['eager']:8.0f} {shown(cost.get('compiled'), '8.0f')}"
        )


def shown(value: float | None, spec: str) -> str:
    return format(value, spec) if value is not None else "—".rjust(int(spec.split(".")[0]))


if __name__ == "__main__":
    main()
