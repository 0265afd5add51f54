"""Rows and runs for the store's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ruleforge.records import CandidateRow, EvaluationRow, FitnessRow, GenerationRow, ParentRow, TimingRow
from ruleforge.store import Store

Batch = dict[str, Any]


def make_batch(n: int, *, size: int = 4) -> Batch:
    """The arguments of `commit_generation` for generation n: `size` candidates, each but the first
    generation's with two parents from the generation before, some rejected, one a behavioural twin."""
    first = n * size
    ids = range(first, first + size)
    candidates, parents, evaluations, fitness = [], [], [], []
    for i in ids:
        twin = i % size == 2
        rejected = i % size == 3
        candidates.append(
            CandidateRow(
                id=i,
                key=f"k{i}",
                full_key=f"f{i}",
                text=f"update = g * {i}\n",
                genome=f"mul(g, {i})",
                nodes=3,
                states=0,
                generation=n,
                origin="seed:adam" if n == 0 else "crossover",
                status="rejected" if rejected else "duplicate_behaviour" if twin else "trained",
                reason="does not descend" if rejected else "",
                fingerprint="" if rejected else f"p{i - twin}",
                same_as=i - 1 if twin else None,
            )
        )
        if n:
            parents += [ParentRow(i, first - size, 0), ParentRow(i, first - size + 1, 1)]
        if not twin and not rejected:
            evaluations.append(
                EvaluationRow(
                    candidate=i,
                    rung=0,
                    workload="digits_mlp",
                    steps=20,
                    n_lanes=3,
                    n_diverged=1,
                    diverged_at=7,
                    best_lr=0.1 + 0.2,
                    best_schedule="cosine",
                    final_loss=1 / 3,
                    metric=0.875,
                    speedup={"vs_oracle": 0.1 * 3, "vs_adam": None},
                    losses=(1 / 3, None, 2 / 3),
                    curve=((0, 2.302585092994046), (10, 1e-300), (20, None)),
                )
            )
            fitness.append(FitnessRow(i, 0, "speedup", 1.1 + i / 7))
            fitness.append(FitnessRow(i, 0, "stability", None))
    return {
        "generation": GenerationRow(
            n=n,
            population=(first, first + 1),
            rng={"bit_generator": "PCG64", "state": {"state": 2**127 + n, "inc": 2**90 + 1}},
            strategy={"ages": [1, 2], "crowding": 0.1 + n},
            funnel={"proposed": size + 2, "unique": size},
            best={"id": first, "speedup": 1.1},
        ),
        "candidates": candidates,
        "parents": parents,
        "evaluations": evaluations,
        "fitness": fitness,
        "timings": [TimingRow(n, "train", 0.5)],
    }


@pytest.fixture
def batch() -> Callable[..., Batch]:
    return make_batch


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Store]:
    """A function that makes a run under a name with some generations, open for writing."""
    made: list[Store] = []

    def make(name: str = "run", generations: int = 2) -> Store:
        store = Store.create(
            tmp_path / name, config_text='grammar = "full"\n', meta={"seed": 3, "plan": {"chunk": 32}}
        )
        made.append(store)
        for n in range(generations):
            store.commit_generation(**make_batch(n))
        return store

    return make


@pytest.fixture
def run(make_run: Callable[..., Store]) -> Iterator[Store]:
    """A run of two generations, open for writing."""
    with make_run() as store:
        yield store
