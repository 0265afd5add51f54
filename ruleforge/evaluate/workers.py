"""Processes: jobs in, results out, in any number of workers with one thread each.

A job's result depends on the job alone, so the number of workers cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from joblib import Parallel, delayed

from ruleforge.errors import RuleforgeError, RunError
from ruleforge.tasks import Workload
from ruleforge.tasks.workload import USER_SUITE

Job = TypeVar("Job")
Result = TypeVar("Result")


def _numbered(function: Callable[[Any], Any], number: int, job: Any) -> tuple[int, Any]:
    return number, _explained(function, job)


def _explained(function: Callable[[Any], Any], job: Any) -> Any:
    """`function(job)`; what a user's task raises in it is told with the task's file and line."""
    try:
        return function(job)
    except RuleforgeError:
        raise
    except Exception as error:
        workload = getattr(job, "workload", None)
        if isinstance(workload, Workload) and workload.suite == USER_SUITE:
            raise workload.failed(error) from error
        raise


class Workers:
    """A pool that lives as long as the run. One worker means this process itself."""

    def __init__(self, n_workers: int = 1, backend: str = "loky") -> None:
        self.n_workers = max(1, n_workers)
        self.backend = backend

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        done: Callable[[int, int], None] = lambda finished, total: None,
    ) -> list[Result]:
        """`[function(job) for job in jobs]`, in the order of the jobs.

        Args:
            function: a module-level function.
            jobs: what travels: text and numbers.
            done: told how many of how many are finished.

        Raises:
            RunError: a worker died.
        """
        results: dict[int, Result] = {}
        for number, result in self._results(function, jobs):
            results[number] = result
            done(len(results), len(jobs))
        return [results[number] for number in range(len(jobs))]

    def _results(
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result]]:
        if self.n_workers == 1 or len(jobs) <= 1:
            for number, job in enumerate(jobs):
                yield _numbered(function, number, job)
            return
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        pool = Parallel(
            n_jobs=self.n_workers, backend=self.backend, return_as="generator_unordered",
            pre_dispatch="2*n_jobs", batch_size=1,
        )  # fmt: skip
        try:
            yield from pool(delayed(_numbered)(function, number, job) for number, job in enumerate(jobs))
        except TerminatedWorkerError as error:
            raise RunError(
                "a worker process died", hint="the run is saved up to its last generation: resume it"
            ) from error
