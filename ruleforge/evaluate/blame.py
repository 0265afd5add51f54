"""Which candidate is at fault when a job fails: halves of jobs, and results for what is set aside.

A lane does not depend on its neighbours, so the halves of a chunk give the lanes the same bits as the
whole. Knows the kinds of jobs that hold several rules. Does not know how or where jobs run.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ruleforge.evaluate.lanes import IDLE_RULE, ChunkJob, ChunkResult, LaneSpec, RuleLanes, sample_steps


@dataclass(frozen=True)
class SetAside:
    """A rule that was given up, and why.

    Attributes:
        text: the rule's text.
        workload: on which it failed, or "" for the probes.
        reason: what happened, in words.
        traceback: what it raised, or "" when its worker died or hung.
    """

    text: str
    workload: str
    reason: str
    traceback: str = ""


def halves(job: Any) -> tuple[Any, Any] | None:
    """Two jobs that make up this one, or None for one that cannot be divided."""
    if isinstance(job, ChunkJob) and len(job.rules) > 1:
        middle = len(job.rules) // 2
        return replace(job, rules=job.rules[:middle]), replace(job, rules=job.rules[middle:])
    if _is_texts(job) and len(job) > 1:
        middle = len(job) // 2
        return job[:middle], job[middle:]
    return None


def joined(first: Any, second: Any) -> Any:
    """The result of a job from those of its halves."""
    if isinstance(first, ChunkResult):
        pairs = ((getattr(each, field.name) for each in (first, second)) for field in fields(first))
        return ChunkResult(*(np.concatenate(list(pair)) for pair in pairs))
    return [*first, *second]


def can_give_up(job: Any) -> bool:
    """Whether a job is about a candidate, so that the search can do without its result."""
    return isinstance(job, ChunkJob) or _is_texts(job)


def given_up(job: Any, reason: str, traceback: str) -> tuple[Any, SetAside]:
    """The result of a job with one rule that is given up: all its lanes count as diverged."""
    if isinstance(job, ChunkJob):
        nothing = np.full(job.n_lanes, np.nan)
        curves = np.full((job.n_lanes, len(sample_steps(job.n_steps))), np.nan)
        lost = np.ones(job.n_lanes, dtype=np.int64)
        result: Any = ChunkResult(curves, nothing, nothing, nothing, lost, np.zeros_like(lost))
        return result, SetAside(job.rules[0].text, job.workload.name, reason, traceback)
    from ruleforge.evaluate.probes import ProbeResult

    return [ProbeResult((), f"set aside: {reason}")], SetAside(job[0], "", reason, traceback)


def control(job: Any) -> Any | None:
    """The same job with a rule that cannot be at fault, or None. If it fails too, the task is to blame."""
    if not isinstance(job, ChunkJob):
        return None
    return replace(job, rules=(RuleLanes(IDLE_RULE, (LaneSpec(1e-3, "constant"),)),))


def _is_texts(job: Any) -> bool:
    return isinstance(job, list) and all(isinstance(each, str) for each in job)
