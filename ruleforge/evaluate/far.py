"""Workers on other machines, or made by Dask or Ray on this one: the transports of `transports`, with real
processes whose coming and going is somebody else's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

from ruleforge.errors import InputError, RunError
from ruleforge.evaluate.transports import ONE_THREAD, Function, Lost, Reply
from ruleforge.evaluate.wire import read_reply, request, work

_TRAINING: Final = "ruleforge.evaluate.train"  # what a worker loads before it is one: no part of a job's time
_STARTS: Final = 4
_DASK: Final = {
    "scheduler.allowed-failures": 0,
    "deploy.lost-worker-timeout": "60s",
    "worker.profile.enabled": False,  # samples a hundred times a second what nobody asks for
}


def _local_cluster(n_workers: int) -> Any:
    """Dask's scheduler and workers on this machine; started anew if a worker dies while it starts.

    Raises:
        RunError: workers die every time.
    """
    import dask
    from distributed import LocalCluster

    # Who is to blame is found out here; more tries by the scheduler only cost more workers. A worker that
    # dies and comes back again and again is not given up.
    dask.config.set({f"distributed.{name}": value for name, value in _DASK.items()})
    told = ""
    for _ in range(_STARTS):
        try:
            return LocalCluster(
                n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None,
                host="127.0.0.1", env=ONE_THREAD, preload=[_TRAINING],
                silence_logs=logging.CRITICAL,  # what went wrong is told here
            )  # fmt: skip
        except (RuntimeError, OSError) as error:
            told = str(error).strip().split("\n")[0]
    raise RunError(
        f"Dask's workers do not start: {told}", hint="look for free memory, or take --parallel loky"
    )


class Dask:
    """Workers of a Dask scheduler: one that runs already, or processes of this machine.

    Workers may join and leave while the run goes on. Each has one thread (`dask worker --nthreads 1`).
    """

    can_stop: ClassVar[bool] = True
    LOOK_S: ClassVar[float] = 1.0

    def __init__(self, n_workers: int, address: str = "") -> None:
        try:
            from distributed import Client
        except ImportError:
            raise InputError(
                "Dask is not installed", hint="install it: pip install 'ruleforge[dask]'"
            ) from None
        self.n_workers = n_workers
        self.stamps: set[str] = set()
        self._out: dict[Any, int] = {}
        self._lost: list[Reply] = []
        self._cluster = None if address else _local_cluster(n_workers)
        try:
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
        # Without "local" Ray would join a cluster that happens to run here, and refuse the rest.
        local = {"num_cpus": n_workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(
                address=address or "local", log_to_driver=False, logging_level="ERROR",
                runtime_env={"env_vars": ONE_THREAD}, **({} if address else local),
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            told = f"cannot reach a Ray cluster at {address!r}" if address else "Ray does not start"
            raise InputError(
                f"{told}: {error}",
                hint="start one with `ray start --head`, or leave the address out; if it has a token, set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as well",
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
