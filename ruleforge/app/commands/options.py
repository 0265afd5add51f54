"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

BACKENDS = ("auto", "numba", "torch", "cuda", "reference")


def json_option(command: _F) -> _F:
    """`--json`: the result as one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)


def workers_option(command: _F) -> _F:
    """`--workers N`: processes, one thread each; results do not depend on their number."""
    return click.option(
        "--workers",
        type=click.IntRange(min=1, max=1024),
        default=None,
        help="Processes; one per core by default. The result does not depend on it.",
    )(command)


def parallel_option(command: _F) -> _F:
    """`--parallel KIND[:ADDRESS]`: where the workers are; results do not depend on it."""
    return click.option(
        "--parallel",
        default="loky",
        show_default=True,
        metavar="KIND",
        help="loky (processes), threads, dask, dask:ADDRESS, ray or ray:ADDRESS. "
        "The result does not depend on it.",
    )(command)


def quiet_option(command: _F) -> _F:
    """`--quiet`: no progress."""
    return click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")(command)


def plane_named(backend: str) -> str:
    """The update plane that `--backend` asks for."""
    return "triton" if backend == "cuda" else backend


def worker_count(given: int | None) -> int:
    """The number asked for, or that of the cores this process may use."""
    return given if given is not None else len(os.sched_getaffinity(0))
