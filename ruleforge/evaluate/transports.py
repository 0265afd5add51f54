"""Where jobs run: this process, threads, local processes, Dask, Ray. One class each, one manner.

A transport takes jobs and gives back replies in any order; it never retries and never judges. A job
whose worker died or was stopped comes back as `Lost`. Processes and machines get text, see `wire`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ruleforge.errors import InputError, RunError
from ruleforge.evaluate.wire import Failure, attempt, read_reply, ready, request, work

Function = Callable[[Any], Any]
# What a library might start many threads by; a worker is one of as many processes as there are cores.
_ONE_THREAD = dict.fromkeys(
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMBA_NUM_THREADS".split(), "1"
)
_TRAINING = "ruleforge.evaluate.train"  # what a worker loads before it is one: no part of a job's time
_IDLE_S = 300
_DASK = {"scheduler.allowed-failures": 0, "deploy.lost-worker-timeout": "60s"}
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

        return get_reusable_executor(self.n_workers, timeout=_IDLE_S, env=_ONE_THREAD)

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


class Dask:
    """Workers of a Dask scheduler: one that runs already, or processes of this machine.

    Workers may join and leave while the run goes on. Each has one thread (`dask worker --nthreads 1`).
    """

    can_stop: ClassVar[bool] = True
    LOOK_S: ClassVar[float] = 1.0

    def __init__(self, n_workers: int, address: str = "") -> None:
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError:
            raise InputError(
                "Dask is not installed", hint="install it: pip install 'ruleforge[dask]'"
            ) from None
        self.n_workers = n_workers
        self.stamps: set[str] = set()
        self._out: dict[Any, int] = {}
        self._lost: list[Reply] = []
        self._cluster = None
        try:
            if not address:
                # Who is to blame is found out here; more tries by the scheduler only cost more workers. A
                # worker that dies and comes back again and again is not given up.
                dask.config.set({f"distributed.{name}": value for name, value in _DASK.items()})
                self._cluster = LocalCluster(
                    n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None,
                    host="127.0.0.1", env=_ONE_THREAD, preload=[_TRAINING],
                    silence_logs=logging.CRITICAL,  # what went wrong is told here
                )  # fmt: skip
            self._client = Client(self._cluster or address, timeout=30, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"cannot reach a Dask scheduler at {address!r}: {error}",
                hint="start one with `dask scheduler`, and workers with "
                "`dask worker tcp://HOST:8786 --nthreads 1`",
            ) from None
        self._size, self._looked = 0, -self.LOOK_S

    def size(self) -> int:
        if time.monotonic() - self._looked >= self.LOOK_S:
            self._looked = time.monotonic()
            self._size = sum(self._client.nthreads().values())
            if self._cluster is not None and self._size < self.n_workers:
                self._cluster.scale(self.n_workers)  # those that Dask itself has given up
        return self._size

    def submit(self, ticket: int, function: Function, job: Any) -> None:
        future = self._client.submit(work, request(function, job), pure=False, priority=-ticket)
        self._out[future] = ticket

    def wait(self, timeout_s: float | None) -> list[Reply]:
        from distributed import wait

        found, self._lost = self._lost, []
        if found or not self._out:
            if not found:
                time.sleep(0.1)  # no worker is there to send to
            return found
        try:
            with self._client.as_current():
                done = wait(list(self._out), timeout=timeout_s, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return []
        return [(self._out.pop(f), self._reply(f)) for f in sorted(done, key=self._out.get)]  # type: ignore[arg-type]

    def _reply(self, future: Any) -> Any:
        from distributed import KilledWorker

        self._looked = -self.LOOK_S if future.status != "finished" else self._looked

        if future.status in ("cancelled", "lost"):
            return Lost("the scheduler dropped it", blame=False)
        try:
            result, by = read_reply(future.result())
        except KilledWorker as error:
            n = error.allowed_failures + 1
            return Lost("its worker process died" if n == 1 else f"the {n} workers that it was on died")
        except Exception as error:  # such as a worker that lacks ruleforge
            told = (str(error).strip().split("\n") or [""])[0]
            raise RunError(
                f"a Dask worker failed: {type(error).__name__}: {told}",
                hint="workers need the same ruleforge and Python as this process",
            ) from error
        self.stamps.add(by)
        return result

    def stop(self, tickets: Sequence[int]) -> None:
        overdue = {future.key: future for future, ticket in self._out.items() if ticket in set(tickets)}
        busy = [
            address
            for address, keys in self._client.processing().items()
            if any(str(key) in overdue for key in keys)
        ]
        for future in overdue.values():
            self._lost.append((self._out.pop(future), Lost("stopped")))
        self._looked = -self.LOOK_S
        self._client.cancel(list(overdue.values()), force=True)
        if busy:
            with suppress(Exception):  # a worker without a nanny cannot be restarted: it stays hung
                self._client.restart_workers(busy, timeout=30, raise_for_error=False)

    def close(self) -> None:
        with suppress(Exception):
            self._client.cancel(list(self._out), force=True)
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class Ray:
    """Tasks of a Ray cluster: one that runs already, or processes of this machine."""

    can_stop: ClassVar[bool] = True

    def __init__(self, n_workers: int, address: str = "") -> None:
        try:
            import ray
        except ImportError:
            raise InputError(
                "Ray is not installed", hint="install it: pip install 'ruleforge[ray]'"
            ) from None
        self._ray = ray
        self.stamps: set[str] = set()
        local = {"num_cpus": n_workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(
                address=address or None, log_to_driver=False, logging_level="ERROR",
                runtime_env={"env_vars": _ONE_THREAD}, **({} if address else local),
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"cannot reach a Ray cluster at {address!r}: {error}",
                hint="start one with `ray start --head`, or leave the address out",
            ) from None
        self._call = ray.remote(max_retries=0, num_cpus=1)(work)
        self._out: dict[Any, int] = {}
        self._overdue: set[int] = set()

    def size(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, ticket: int, function: Function, job: Any) -> None:
        self._out[self._call.remote(request(function, job))] = ticket

    def wait(self, timeout_s: float | None) -> list[Reply]:
        done, _ = self._ray.wait(list(self._out), num_returns=1, timeout=timeout_s)
        found = []
        for reference in done:
            ticket = self._out.pop(reference)
            found.append((ticket, self._reply(ticket, reference)))
        return found

    def _reply(self, ticket: int, reference: Any) -> Any:
        fault = self._ray.exceptions
        try:
            result, by = read_reply(self._ray.get(reference))
        except (fault.TaskCancelledError, fault.WorkerCrashedError, fault.RaySystemError) as error:
            if ticket in self._overdue:
                self._overdue.discard(ticket)
                return Lost("stopped")
            return Lost(f"a worker process died ({type(error).__name__})")
        except fault.OutOfMemoryError:
            return Lost("a worker ran out of memory")
        except fault.RayTaskError as error:
            told = str(error).strip().split("\n")[-1]
            raise RunError(
                f"a Ray worker failed: {told}", hint="workers need the same ruleforge and Python"
            ) from error
        self.stamps.add(by)
        return result

    def stop(self, tickets: Sequence[int]) -> None:
        self._overdue |= set(tickets)
        for reference, ticket in list(self._out.items()):
            if ticket in self._overdue:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        self._ray.shutdown()


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
    if kind == "dask":
        return Dask(n_workers, address)
    if kind == "ray":
        return Ray(n_workers, address)
    if n_workers == 1:
        return Inline()
    return Loky(n_workers) if kind == "loky" else Threads(n_workers)


__all__ = ["Failure", "Lost", "Transport", "make_transport", "split_kind", "KINDS"]
