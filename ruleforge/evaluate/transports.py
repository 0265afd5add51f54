"""Where jobs run: this process, threads, local processes; Dask and Ray are in `far`. One manner for all.

A transport takes jobs and gives back replies in any order; it never retries and never judges. A job
whose worker died or was stopped comes back as `Lost`. Processes and machines get text, see `wire`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ruleforge.errors import InputError
from ruleforge.evaluate.wire import Failure, attempt, read_reply, ready, request, work

Function = Callable[[Any], Any]
# What a library might start many threads by; a worker is one of as many processes as there are cores.
ONE_THREAD = dict.fromkeys(
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMBA_NUM_THREADS".split(), "1"
)
_IDLE_S = 300
_START_S = 120.0


@dataclass(frozen=True)
class Lost:
    """A job without an answer: its worker died, or was stopped.

    Attributes:
        reason: what happened, in words.
        blame: whether the job itself may be the cause.
    """

    reason: str
    blame: bool = True


Reply = tuple[int, Any]  # a ticket, and the result, a Failure or Lost


class Transport(Protocol):
    """Somewhere to run jobs."""

    can_stop: ClassVar[bool]
    stamps: set[str]

    def size(self) -> int:
        """How many jobs run at a time, now; 0 while no worker is there."""

    def submit(self, ticket: int, function: Function, job: Any) -> None:
        """Start a job, or queue it behind those submitted before."""

    def wait(self, timeout_s: float | None) -> list[Reply]:
        """Replies since the last call; waits for the first, at most so long."""

    def stop(self, tickets: Sequence[int]) -> None:
        """End these jobs by force; they, and others that this takes along, come back as Lost."""

    def close(self) -> None:
        """Give everything back."""


class Inline:
    """This process, one job at a time."""

    can_stop: ClassVar[bool] = False

    def __init__(self) -> None:
        self.stamps: set[str] = set()
        self._queue: list[tuple[int, Function, Any]] = []

    def size(self) -> int:
        return 1

    def submit(self, ticket: int, function: Function, job: Any) -> None:
        self._queue.append((ticket, function, job))

    def wait(self, timeout_s: float | None) -> list[Reply]:
        ticket, function, job = self._queue.pop(0)
        return [(ticket, attempt(function, job))]

    def stop(self, tickets: Sequence[int]) -> None:
        raise NotImplementedError("a job in this process cannot be stopped")

    def close(self) -> None:
        self._queue.clear()


class _Futures:
    """What transports share that answer with futures of `concurrent.futures`."""

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self.stamps: set[str] = set()
        self._out: dict[futures.Future[Any], int] = {}

    def size(self) -> int:
        return self.n_workers

    def wait(self, timeout_s: float | None) -> list[Reply]:
        done, _ = futures.wait(self._out, timeout_s, futures.FIRST_COMPLETED)
        return [(self._out.pop(future), self._reply(future)) for future in sorted(done, key=self._out.get)]  # type: ignore[arg-type]

    def _reply(self, future: futures.Future[Any]) -> Any:
        return future.result()

    def _read(self, text: str) -> Any:
        result, by = read_reply(text)
        self.stamps.add(by)
        return result


class Threads(_Futures):
    """Threads of this process. They cannot be stopped, so a job that hangs holds the run."""

    can_stop: ClassVar[bool] = False

    def __init__(self, n_workers: int) -> None:
        import torch

        super().__init__(n_workers)
        # One thread each, set once: a training that ends must not change it under another that goes on.
        self._n_torch = torch.get_num_threads()
        torch.set_num_threads(1)
        self._pool = futures.ThreadPoolExecutor(n_workers)

    def submit(self, ticket: int, function: Function, job: Any) -> None:
        self._out[self._pool.submit(attempt, function, job)] = ticket

    def stop(self, tickets: Sequence[int]) -> None:
        raise NotImplementedError("a job in a thread cannot be stopped")

    def close(self) -> None:
        import torch

        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._n_torch)


class Loky(_Futures):
    """Processes of this machine."""

    can_stop: ClassVar[bool] = True

    def __init__(self, n_workers: int) -> None:
        super().__init__(n_workers)
        self._overdue: set[int] = set()
        self._warm: tuple[int, str] | None = None

    def submit(self, ticket: int, function: Function, job: Any) -> None:
        asked = request(function, job)
        pool = self._ready_pool(function.__module__)
        self._out[pool.submit(work, asked)] = ticket

    def _pool(self) -> Any:
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(self.n_workers, timeout=_IDLE_S, env=ONE_THREAD)

    def _ready_pool(self, module: str) -> Any:
        """The pool, each of its processes started and loaded: starting is no part of a job's time."""
        pool = self._pool()
        if self._warm == (pool.executor_id, module):
            return pool
        seen: set[int] = set()
        asked: set[futures.Future[int]] = set()
        until = time.monotonic() + _START_S
        while len(seen) < self.n_workers and time.monotonic() < until:
            try:
                asked |= {pool.submit(ready, module) for _ in range(self.n_workers - len(asked))}
                # All of them are waited for: the same process may be the first to answer every time.
                done, asked = futures.wait(asked, until - time.monotonic(), futures.FIRST_COMPLETED)
                seen |= {future.result() for future in done}
            except (RuntimeError, futures.process.BrokenProcessPool):
                # It broke a moment ago, and nobody had noticed; one that breaks always is told by the jobs.
                pool, seen, asked = self._pool(), set(), set()
        self._warm = (pool.executor_id, module)
        return pool

    def _reply(self, future: futures.Future[Any]) -> Any:
        from joblib.externals.loky.process_executor import ShutdownExecutorError, TerminatedWorkerError

        try:
            return self._read(future.result())
        except ShutdownExecutorError:
            return Lost("its worker was stopped with another", blame=False)
        except TerminatedWorkerError as error:
            codes = str(error).rpartition("exit codes of the workers are")[2].strip(" {}.\n")
            return Lost(f"a worker process died ({codes})" if codes else "a worker process died")
        except futures.process.BrokenProcessPool as error:
            first = str(error.__cause__ or error).strip().splitlines()
            return Lost(f"a worker process broke: {first[-1] if first else type(error).__name__}")

    def wait(self, timeout_s: float | None) -> list[Reply]:
        found = super().wait(timeout_s)
        told = [(t, Lost("stopped") if t in self._overdue and isinstance(r, Lost) else r) for t, r in found]
        self._overdue -= {ticket for ticket, _ in found}
        return told

    def stop(self, tickets: Sequence[int]) -> None:
        self._overdue |= set(tickets)
        self._pool().shutdown(wait=True, kill_workers=True)

    def close(self) -> None:
        for future in self._out:
            future.cancel()
        if self._out:  # what still runs would hold the processes
            with suppress(Exception):
                self._pool().shutdown(wait=True, kill_workers=True)
        self._out.clear()


KINDS = ("loky", "threads", "dask", "ray")


def split_kind(parallel: str) -> tuple[str, str]:
    """Kind and address of "loky", "threads", "dask", "dask:tcp://host:8786", "ray" or "ray:host:6379".

    Raises:
        InputError: none of these.
    """
    kind, _, address = parallel.partition(":")
    if kind not in KINDS or (address and kind not in ("dask", "ray")):
        raise InputError(
            f"there is no way of running in parallel called {parallel!r}",
            hint="choose loky, threads, dask, dask:tcp://HOST:8786, ray or ray:HOST:6379",
        )
    return kind, address


def make_transport(parallel: str, n_workers: int) -> Transport:
    """The transport that `parallel` names; one local worker is this process itself."""
    kind, address = split_kind(parallel)
    if kind in ("dask", "ray"):
        from ruleforge.evaluate.far import Dask, Ray

        return Dask(n_workers, address) if kind == "dask" else Ray(n_workers, address)
    if n_workers == 1:
        return Inline()
    return Loky(n_workers) if kind == "loky" else Threads(n_workers)


__all__ = ["Failure", "Lost", "Transport", "make_transport", "split_kind", "KINDS"]
