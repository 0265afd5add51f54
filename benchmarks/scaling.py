"""How evaluation scales with workers, and where it stops: measured on this machine, modelled up to 1,000.

Prints candidates per second with 1 and 2 local processes, loky and Dask, what the driver spends on a
candidate and how many bytes one costs, and a model of the throughput of n workers:

    candidates/s = min(n × rate of one worker, 1 / driver's seconds a candidate, network / bytes a candidate)

The model is checked where this machine can: with real trainings on its cores, and with threads that
sleep as long as a training takes in place of workers that it does not have. What two cores can do at most
is measured by two processes that know nothing of each other and of no driver.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ruleforge.backends import fastest_plane
from ruleforge.core.known import KNOWN
from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, LaneSpec, Plan, RuleLanes, pack, sample_steps
from ruleforge.evaluate.train import train_chunk
from ruleforge.evaluate.transports import ONE_THREAD
from ruleforge.evaluate.wire import request, to_text
from ruleforge.evaluate.workers import Workers
from ruleforge.store import Store
from ruleforge.tasks import load_workload

LRS = (1e-3, 1e-2, 1e-1)
NETWORK_BYTES_PER_S = 125e6  # one gigabit a second
SLEEP_S = 0.25
_calls = itertools.count()


def chunk_jobs(n_candidates: int, n_steps: int) -> list[ChunkJob]:
    """The first rung for so many candidates: three learning rates each.

    No two calls give the same texts: a worker remembers a rule that it has read, but a search has new ones.
    """
    texts = [str(entry.rule) for entry in KNOWN.values() if entry.rule.rule.slots <= 2]
    plan = Plan(update_plane=fastest_plane())
    workload = load_workload("teacher_student")
    lanes = tuple(LaneSpec(lr, "constant") for lr in LRS)
    call = f"{os.getpid()}.{next(_calls)}"
    rules = [RuleLanes(f"# {call}.{k}\n{texts[k % len(texts)]}", lanes) for k in range(n_candidates)]
    return [
        ChunkJob(workload, 0, n_steps, part, plan, plan.chunk_lanes) for part in pack(rules, plan.chunk_lanes)
    ]


def nothing(job: ChunkJob) -> ChunkResult:
    """A result of the right shape at once: what is left is the driver's own work."""
    n = sum(len(rule.lanes) for rule in job.rules)
    numbers, never = np.full(n, 0.5), np.zeros(n, np.int64)
    curves = np.full((n, len(sample_steps(job.n_steps))), 0.25)
    return ChunkResult(curves, numbers, numbers, numbers, never, never)


def sleeping(job: ChunkJob) -> ChunkResult:
    """As long as a training, without using a core."""
    time.sleep(SLEEP_S)
    return nothing(job)


def rate(jobs: list[ChunkJob], n_workers: int, parallel: str, function: Any = train_chunk) -> float:
    """Candidates per second, processes started and kernels compiled before."""
    with Workers(n_workers, parallel) as pool:
        pool.map(function, jobs[: 2 * n_workers])
        began, timed = time.perf_counter(), jobs[2 * n_workers :]
        pool.map(function, timed)
        took = time.perf_counter() - began
    return sum(len(job.rules) for job in timed) / took


def apart(n_chunks: int, n_steps: int, n_processes: int) -> float:
    """Candidates per second of processes without a driver, each with its share of the chunks."""
    command = [sys.executable, __file__, "--part", str(n_chunks // n_processes), str(n_steps)]
    environment = {**os.environ, **ONE_THREAD}
    parts = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(n_processes)
    ]
    for part in parts:
        assert part.stdout is not None and part.stdout.readline() == "ready\n"
    for part in parts:
        assert part.stdin is not None
        part.stdin.write("go\n")
        part.stdin.flush()
    slowest = max(float(part.communicate()[0]) for part in parts)
    return 24 * (n_chunks // n_processes) * n_processes / slowest


def part(n_chunks: int, n_steps: int) -> None:
    """One such process."""
    jobs = chunk_jobs(24 * n_chunks, n_steps)
    train_chunk(jobs[0])
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for job in jobs:
        train_chunk(job)
    print(time.perf_counter() - began)


def driver_cost(n_candidates: int) -> dict[str, float]:
    """Seconds and bytes that one candidate costs the driver: hashing, sending, receiving, journal."""
    jobs = chunk_jobs(n_candidates, 24)
    with (
        tempfile.TemporaryDirectory() as place,
        Store.create(Path(place) / "run", config_text="", meta={}) as store,
        Workers(1, journal=store.journal) as pool,
    ):
        began = time.perf_counter()
        pool.map(nothing, jobs)
        plain = time.perf_counter() - began
    began = time.perf_counter()
    sent = sum(len(request(train_chunk, job)) for job in jobs)
    received = sum(len(to_text(nothing(job))) for job in jobs)
    spelled = time.perf_counter() - began
    return {
        "driver_s": (plain + spelled) / n_candidates,
        "bytes_sent": sent / n_candidates,
        "bytes_received": received / n_candidates,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="what is printed is JSON with it and without")
    has_dask = importlib.util.find_spec("distributed") is not None
    parser.add_argument("--parallel", nargs="*", default=["loky", "dask"] if has_dask else ["loky"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        return part(*given.part)
    n_chunks, n_steps = (4, 24) if given.quick else (48, 60)
    repeats = 1 if given.quick else given.repeats
    rates: dict[str, list[float]] = {}
    for _ in range(repeats):  # taken in turns, so that a slow minute meets all alike
        for name, n, parallel in (
            ("one", 1, "loky"),
            *((f"two_{each}", 2, each) for each in given.parallel),
        ):
            jobs = chunk_jobs(24 * n_chunks, n_steps)
            rates.setdefault(name, []).append(rate(jobs, n, parallel))
        for name, n in (("apart_one", 1), ("apart_two", 2)):
            rates.setdefault(name, []).append(apart(n_chunks, n_steps, n))
    best = {name: max(values) for name, values in rates.items()}
    cost = driver_cost(200 if given.quick else 1000)
    n_bytes = cost["bytes_sent"] + cost["bytes_received"]
    few = chunk_jobs(24 * (160 if given.quick else 256), 24)
    sleepers = {}
    for n in (4, 16, 64):
        measured = rate(few, n, "threads", sleeping)
        sleepers[n] = {"measured": measured, "model": min(n * 24 / SLEEP_S, 1 / cost["driver_s"])}
    bounds = {"driver": 1 / cost["driver_s"], "network": NETWORK_BYTES_PER_S / n_bytes}
    model = {n: min(n * best["one"], *bounds.values()) for n in (1, 2, 10, 100, 1000)}
    first = min(bounds, key=lambda name: bounds[name])
    record = {
        "candidates_per_s": {name: round(value, 2) for name, value in best.items()},
        "all": {name: [round(v, 2) for v in values] for name, values in rates.items()},
        "speedup_1_to_2": {
            name.removeprefix("two_"): round(value / best["one"], 3)
            for name, value in best.items()
            if name.startswith("two_")
        },
        "most_that_this_machine_can": round(best["apart_two"] / best["apart_one"], 3),
        "driver_ms_per_candidate": round(1e3 * cost["driver_s"], 4),
        "bytes_per_candidate": round(n_bytes),
        "sleeping_workers": {n: {k: round(v, 1) for k, v in each.items()} for n, each in sleepers.items()},
        "model_candidates_per_s": {n: round(value, 1) for n, value in model.items()},
        "first_bottleneck": f"{first}, at {bounds[first] / best['one']:.0f} workers",
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
