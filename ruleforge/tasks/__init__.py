"""What rules are tried on. Knows nothing of rules.

Importing this package imports no torch: names, suites and sizes are at hand at once; a task is built
when `Workload.task` is first read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import SUITES, WORKLOADS, load_suite, load_workload, shares_data
from .sealed import SEALED
from .template import TEMPLATE
from .workload import TrainingData, Workload

if TYPE_CHECKING:
    from .base import Task
    from .check import check_task

__all__ = [
    "SEALED",
    "SUITES",
    "TEMPLATE",
    "WORKLOADS",
    "Task",
    "TrainingData",
    "Workload",
    "check_task",
    "load_suite",
    "load_workload",
    "shares_data",
]


def __getattr__(name: str) -> Any:
    """`Task` and `check_task`, whose modules import torch, on first use."""
    if name == "Task":
        from .base import Task

        return Task
    if name == "check_task":
        from .check import check_task

        return check_task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
