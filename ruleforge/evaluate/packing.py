"""Lanes of many rules into chunks, and their results back: on several workloads and seeds in one go, so that
workers wait for each other once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, Plan, RuleLanes, pack
from ruleforge.evaluate.train import train_chunk
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload

Lane = tuple[ChunkResult, int]
"""A lane of a chunk: the chunk's result and the lane's row in it."""


@dataclass(frozen=True)
class Asked:
    """Lanes of one rule on one workload for a number of steps."""

    workload: Workload
    n_steps: int
    rule: RuleLanes


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
    jobs: list[ChunkJob] = []
    owners: list[list[tuple[int, int]]] = []
    numbered = list(enumerate(asked))
    for seed in seeds:
        for _, group in groupby(numbered, lambda each: (each[1].workload.name, each[1].n_steps)):
            mine = list(group)
            workload, n_steps = mine[0][1].workload, mine[0][1].n_steps
            pending = [(i, lane) for i, each in mine for lane in range(len(each.rule.lanes))]
            for part in pack([each.rule for _, each in mine], size):
                n_lanes = sum(len(rule.lanes) for rule in part)
                owners.append(pending[:n_lanes])
                pending = pending[n_lanes:]
                jobs.append(ChunkJob(workload, seed, n_steps, part, plan, size))
    found: list[list[list[Lane]]] = [[[] for _ in each.rule.lanes] for each in asked]
    for result, owner in zip(workers.map(train_chunk, jobs, done), owners, strict=True):
        for row, (i, lane) in enumerate(owner):
            found[i][lane].append((result, row))
    return found
