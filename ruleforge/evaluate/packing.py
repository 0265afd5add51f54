"""Lanes of many rules into chunks, and their results back: on several workloads and seeds in one go, so that
workers wait for each other once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, Plan, RuleLanes, parts_of_jobs
from ruleforge.evaluate.train import train_chunk
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload

Lane = tuple[ChunkResult, int]
"""A lane of a chunk: the chunk's result and the lane's row in it."""


@dataclass(frozen=True)
class Asked:
    """Lanes of one rule on one workload for a number of steps, of which those without hope may be stopped."""

    workload: Workload
    n_steps: int
    rule: RuleLanes
    stops: bool = False


def train_lanes(
    asked: Sequence[Asked],
    seeds: Sequence[int],
    plan: Plan,
    size: int,
    workers: Workers,
    done: Callable[[int, int], None] = lambda finished, total: None,
) -> list[list[list[Lane]]]:
    """Train lanes on each of the seeds.

    Args:
        asked: those on one workload after one another, for they share chunks.
        seeds: of weights and batches.
        plan: recorded execution plan.
        size: lanes of a chunk.
        workers: where the chunks run.
        done: told the progress in chunks.

    Returns:
        For each one asked, for each of its lanes, the lane on each seed.
    """
    found = train_each([(each, seed) for seed in seeds for each in asked], plan, size, workers, done)
    return [
        [[found[k][lane] for k in range(i, len(found), len(asked))] for lane in range(len(each.rule.lanes))]
        for i, each in enumerate(asked)
    ]


def train_each(
    asked: Sequence[tuple[Asked, int]],
    plan: Plan,
    size: int,
    workers: Workers,
    done: Callable[[int, int], None] = lambda finished, total: None,
) -> list[list[Lane]]:
    """Train lanes, each on a seed of its own; see `train_lanes`.

    Args:
        asked: with the seed; those on one workload and seed after one another.

    Returns:
        For each one asked, its lanes.
    """
    jobs: list[ChunkJob] = []
    owners: list[list[int]] = []
    for (seed, _, n_steps, stops), group in groupby(enumerate(asked), _place):
        mine = [(i, each) for i, (each, _) in group]
        pending = [i for i, each in mine for _ in each.rule.lanes]
        for part in parts_of_jobs([each.rule for _, each in mine], size, stops):
            n_lanes = sum(len(rule.lanes) for rule in part)
            owners.append(pending[:n_lanes])
            pending = pending[n_lanes:]
            jobs.append(ChunkJob(mine[0][1].workload, seed, n_steps, part, plan, size, stops))
    found: list[list[Lane]] = [[] for _ in asked]
    # A suite's cheap workloads come first: begun last, they fill the wait for whoever has an expensive one.
    results = workers.map(train_chunk, jobs[::-1], done)[::-1]
    for result, owner in zip(results, owners, strict=True):
        for row, i in enumerate(owner):
            found[i].append((result, row))
    return found


def _place(numbered: tuple[int, tuple[Asked, int]]) -> tuple[int, str, int, bool]:
    """What lanes of one chunk have in common."""
    _, (asked, seed) = numbered
    return seed, asked.workload.name, asked.n_steps, asked.stops
