"""A stand-in for training whose rules may kill, hang or raise, and whose results tell lanes apart."""

from __future__ import annotations

import os
import signal
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, LaneSpec, Plan, RuleLanes, sample_steps
from ruleforge.tasks import load_workload

LANES = (LaneSpec(0.1, "constant"), LaneSpec(1.0, "cosine"))


def lane_value(text: str, spec: LaneSpec) -> float:
    digest = blake2b(f"{text} {spec}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def train(job: ChunkJob) -> ChunkResult:
    """Numbers that depend on each lane's own rule and lr alone; a rule's comments say what it does."""
    for rule in job.rules:
        for line in rule.text.splitlines():
            match line.split():
                case ["#", "kill"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                case ["#", "kill-once", flag] if not Path(flag).exists():
                    Path(flag).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                case ["#", "hang"]:
                    time.sleep(600)
                case ["#", "raise"]:
                    raise ValueError("no such row")
    if job.seed == 13:
        raise ValueError("it rains")
    values = np.array([lane_value(r.text, spec) for r in job.rules for spec in r.lanes])
    curves = np.repeat(values[:, None], len(sample_steps(job.n_steps)), axis=1)
    never = np.zeros(len(values), dtype=np.int64)
    return ChunkResult(curves, values, values, values, never, never)


def texts_with_marks(texts: list[str]) -> list[int]:
    """Lengths; one mark kills."""
    if any("# kill" in text for text in texts):
        os.kill(os.getpid(), signal.SIGKILL)
    return [len(text) for text in texts]


def refuse_all(job: int) -> int:
    raise ValueError(f"not {job}")


def double(job: int) -> int:
    return 2 * job


def rule(k: int, mark: str = "") -> RuleLanes:
    return RuleLanes(f"# {mark}\nupdate = {k} * g\n", LANES)


def chunk(*rules: RuleLanes, seed: int = 0) -> ChunkJob:
    return ChunkJob(load_workload("teacher_student"), seed, 8, rules, Plan(), 16)


def who_slowly(job: int) -> int:
    """The number of the process that did it."""
    time.sleep(0.3)
    return os.getpid()
