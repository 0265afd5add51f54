"""What a step costs here: gradients and update of one lane, timed on this machine, medians.

The same planes that train: gradients op by op for all lanes of a chunk, then the rule's update. So it is
the cost *of these small models in this trainer*; on a large model gradients and memory weigh otherwise.
Differs from run to run, and nothing that a search decides may depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from ruleforge.backends import load_plane
from ruleforge.core.text import RuleText
from ruleforge.evaluate.compiled import compiled
from ruleforge.evaluate.evaluator import COMPARE_SEED
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.threads import training_thread
from ruleforge.evaluate.train import by_step, gradient_plane, training_data
from ruleforge.tasks import Workload

WARM_UP, TIMED, ROUNDS = 2, 8, 3
LR = 1e-6  # weights hardly move, so that every rule is timed on the same numbers


def step_times(
    rules: Mapping[str, RuleText], workloads: Sequence[Workload], plan: Plan
) -> dict[str, dict[str, float]]:
    """Workload → rule → microseconds of one step of one lane.

    Rules take turns in several rounds, so that a machine that slows down slows all of them down. A
    workload's gradients cost every rule the same: their median is over all rules.
    """
    with training_thread():
        return {workload.name: _on(workload, rules, plan) for workload in workloads}


def _on(workload: Workload, rules: Mapping[str, RuleText], plan: Plan) -> dict[str, float]:
    lanes, n_steps = plan.score_lanes, WARM_UP + TIMED
    plane = gradient_plane(workload, lanes, False)
    start, columns = training_data(workload, COMPARE_SEED, n_steps, lanes, False)
    batches = by_step(columns, n_steps)
    gradients: list[float] = []
    updates: dict[str, list[float]] = {name: [] for name in rules}
    lr = np.full(lanes, LR)
    for _ in range(ROUNDS):
        for name, text in rules.items():
            group = compiled(str(text)).lanes(lanes)
            weights = start.repeat(lanes, 1)
            update = load_plane(plan.update_plane)([group], plane.layout, lr, weights.dtype)
            for t in range(1, n_steps + 1):
                began = time.perf_counter()
                _, grads = plane.step(weights, batches[t - 1], t)
                between = time.perf_counter()
                update.step(weights, grads, t=t, lr=lr, progress=t / n_steps)
                ended = time.perf_counter()
                if t > WARM_UP:
                    gradients.append(between - began)
                    updates[name].append(ended - between)
    per_lane = 1e6 / lanes
    return {name: per_lane * (median(gradients) + median(each)) for name, each in updates.items()}
