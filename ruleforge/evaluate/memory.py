"""A chunk of lanes that does not fit in the GPU's memory is trained in halves, and nothing is lost.

A lane does not depend on its neighbours, so the parts train the same lanes as the whole. Their last bits
may differ, since libraries choose other kernels for other shapes: what was halved is said in the log.
The module knows neither devices nor training loops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from dataclasses import replace

import torch

from ruleforge.errors import RunError
from ruleforge.evaluate.blame import joined
from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, parts_of_jobs

_log = logging.getLogger(__name__)
_FITTING: dict[str, int] = {}


def train_in_memory(
    train: Callable[[ChunkJob], ChunkResult],
    job: ChunkJob,
    fitting: MutableMapping[str, int] = _FITTING,
    report: Callable[[str], None] = _log.warning,
) -> ChunkResult:
    """`train(job)`, in chunks of half the lanes, and so on, where the GPU's memory runs out.

    Args:
        train: what runs out of memory by raising `torch.cuda.OutOfMemoryError`.
        job: lanes to train; its parts are padded to their own smaller size.
        fitting: lanes of a chunk that are known to fit, by workload; kept for the next job.
        report: told of each halving.

    Returns:
        The results of all lanes, in the job's order.

    Raises:
        RunError: a single lane does not fit.
    """
    name = job.workload.name
    if fitting.get(name, job.size) >= job.size:
        result = _tried(train, job)
        if result is not None:
            return result
        if job.size <= 1:
            raise RunError(
                f"workload {name}: a single lane does not fit in the GPU's memory",
                hint="give the workload a smaller batch_size, or use --backend numba",
            )
        fitting[name] = job.size // 2
        report(
            f"workload {name}: out of GPU memory with {job.size} lanes; going on with {job.size // 2} "
            "(training.chunk_lanes)"
        )
    size = fitting[name]
    parts = [replace(job, rules=rules, size=size) for rules in parts_of_jobs(job.rules, size, job.stops)]
    made = train_in_memory(train, parts[0], fitting, report)
    for part in parts[1:]:
        made = joined(made, train_in_memory(train, part, fitting, report))
    return made


def _tried(train: Callable[[ChunkJob], ChunkResult], job: ChunkJob) -> ChunkResult | None:
    """The result, or None where memory ran out; then what the attempt held is free again on return."""
    try:
        return train(job)
    except torch.cuda.OutOfMemoryError:
        pass
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
