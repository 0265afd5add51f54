"""One attempt at a search in a process of its own, with a fault that waits for it.

Processes are forked from one that has everything loaded, so that an attempt costs its own work alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruleforge.app.config import parse_config
from ruleforge.app.interrupts import every_interrupt
from ruleforge.app.progress import QuietProgress
from ruleforge.app.run import resume_run, run_search
from ruleforge.errors import RuleforgeError
from ruleforge.store import DATABASE, FINISHED, Store

OFF, KILL, FULL, BROKEN, SLOW = range(5)
INTERRUPTED = 130
LIMIT_S = 600.0  # of wall time; a machine that does other things is slow, not hung

CONFIG: dict[str, Any] = {
    "grammar": "adaptive",
    "seed": 3,
    "folder": "/",
    "search": {
        "population": 8,
        "generations": 4,
        "finalists": 1,
        "confirm": 2,
        "confirm_seeds": 1,
        "rescore": 1,
        "rescore_seeds": 1,
        "validate_every": 3,
        "validate_top": 1,
        "seed_rules": ["sgd", "adam"],
    },
    "training": {
        "workloads": ["teacher_student"],
        "validation_suite": "validation",
        "steps": 4,
        "batch_size": 4,
        "lrs": {"low": 1e-3, "high": 1e-1, "points": 2},
        "schedules": ["constant"],
        "seeds": 1,
        "score_seeds": 1,
        "chunk_lanes": 12,
        "update_plane": "torch",
        "rungs": [{"steps": 2, "lrs": 2, "workloads": 1, "promote": 0.5}],
    },
    "baselines": {"rules": ["sgd", "adam"]},
}

_layer = ctypes.CDLL(None)


def is_layered() -> bool:
    """Whether the fault layer is loaded into this process."""
    return hasattr(_layer, "faultfs_arm")


@dataclass(frozen=True)
class Fault:
    """What happens to an attempt.

    Attributes:
        kind: "none", "kill" (in a write), "full", "broken", "slow", "kill-now", "int" or "int-twice".
        at: for faults in writes, the operation; for others, seconds from the start.
        share: of a killed write, how much of it is done.
        after_s: seconds after which operations are counted.
    """

    kind: str
    at: float = 0.0
    share: float = 1.0
    after_s: float = 0.0


@dataclass
class Outcome:
    """How an attempt ended.

    Attributes:
        status: "finished", "killed", "refused" (one message), "interrupted", "crashed" or "hung".
        acked: generations that it said were done.
        message: of a refusal or a crash.
        n_operations: how many operations on files it did, if it lived to tell.
    """

    status: str
    acked: int = 0
    message: str = ""
    n_operations: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


class _Telling(QuietProgress):
    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def generation(self, n: int, stats: Any) -> None:
        self.tell(f"g {n + 1}")
        _layer.faultfs_mark(ctypes.c_long(n + 1))


def warm_up(folder: Path) -> None:
    """A run in this process, so that the forked ones find all loaded and compiled."""
    run_search(parse_config(CONFIG), out=folder, progress=QuietProgress())


def attempt(
    folder: Path,
    fault: Fault,
    *,
    workers: int = 1,
    parallel: str = "loky",
    trace: Path | None = None,
    meanwhile: Callable[[int], None] | None = None,
    config: dict[str, Any] = CONFIG,
    limit_s: float = LIMIT_S,
) -> Outcome:
    """Start or resume the run in `folder` in a forked process, with a fault.

    Args:
        folder: the run's.
        fault: what happens.
        workers, parallel: as for a search.
        trace: where to write down all operations on files.
        meanwhile: called again and again with the process's number while it lives.
        config: of a new run.
        limit_s: after how long it counts as hanging.
    """
    reader, writer = os.pipe()
    # An interrupt that comes before the run is under way waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child == 0:
        os.close(reader)
        _live(folder, fault, workers, parallel, trace, writer, config)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.close(writer)
    os.set_blocking(reader, False)
    told = b""
    began = time.monotonic()
    waiting = fault.kind in ("kill-now", "int", "int-twice")
    outcome: int | None = None
    while outcome is None:
        told += _waiting_in(reader)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            outcome = status
            break
        gone = time.monotonic() - began
        if waiting and gone >= fault.at:
            waiting = False
            os.kill(child, signal.SIGKILL if fault.kind == "kill-now" else signal.SIGINT)
            if fault.kind == "int-twice":
                time.sleep(0.003)
                os.kill(child, signal.SIGINT)
        if gone > limit_s:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            return Outcome("hung")
        if meanwhile is not None:
            meanwhile(child)
        time.sleep(0.005)
    told += _waiting_in(reader)
    os.close(reader)
    lines = told.decode().split("\n")
    acked = max((int(line[2:]) for line in lines if line.startswith("g ")), default=0)
    message = next((line[2:] for line in lines if line.startswith("m ")), "")
    count = next((int(line[2:]) for line in lines if line.startswith("n ")), 0)
    if os.WIFSIGNALED(outcome):
        return Outcome("killed", acked, f"signal {os.WTERMSIG(outcome)}")
    code = os.WEXITSTATUS(outcome)
    names = {0: "finished", 1: "refused", INTERRUPTED: "interrupted"}
    return Outcome(names.get(code, "crashed"), acked, message, count)


def _waiting_in(reader: int) -> bytes:
    """What lies in a pipe now. One that nobody reads is full after 64 KiB, and its writer stands still."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while some := os.read(reader, 1 << 16):
            found += some
    return found


def _live(
    folder: Path, fault: Fault, workers: int, parallel: str, trace: Path | None, writer: int,
    config: dict[str, Any],
) -> None:  # fmt: skip
    """What the forked process does; never returns."""

    def tell(line: str) -> None:
        os.write(writer, f"{line}\n".encode())

    code = 3
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        if trace is not None:
            _layer.faultfs_trace(str(trace).encode())
        how = {"kill": KILL, "full": FULL, "broken": BROKEN, "slow": SLOW}.get(fault.kind, OFF)
        at = int(fault.at) if how in (KILL, FULL, BROKEN) else -1

        def arm() -> None:
            # The draft of a new run lies beside its folder, under a name that starts alike.
            where = str(folder.parent).encode()
            _layer.faultfs_arm(where, ctypes.c_long(at), how, ctypes.c_double(fault.share))

        if fault.after_s:
            waiting = threading.Timer(fault.after_s, arm)
            waiting.daemon = True
            waiting.start()
        else:
            arm()
        progress = _Telling(tell)
        try:
            with every_interrupt():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                if (folder / DATABASE).is_file():
                    resume_run(folder, workers=workers, parallel=parallel, progress=progress)
                else:
                    run_search(
                        parse_config(config),
                        out=folder,
                        workers=workers,
                        parallel=parallel,
                        progress=progress,
                    )
            code = 0
        except KeyboardInterrupt:
            code = INTERRUPTED
        except RuleforgeError as error:
            tell("m " + str(error).replace("\n", " | "))
            code = 1
        tell(f"n {_layer.faultfs_count()}")
    except BaseException as error:  # what a user would see as a traceback
        import traceback

        last = traceback.extract_tb(error.__traceback__)[-1]
        tell(f"m {type(error).__name__}: {error} at {last.filename}:{last.lineno}".replace("\n", " | "))
    finally:
        os._exit(code)


def contents(folder: Path) -> list[str]:
    """All that must repeat of a finished run, as lines."""
    with Store.open(folder, readonly=True) as store:
        assert FINISHED in store.results()
        lines = store.dump().splitlines()
    return [*lines, *(folder / "champion.rule").read_text(encoding="utf-8").splitlines()]


def examine(folder: Path, acked: int, reference: set[str]) -> list[str]:
    """What a fault broke in a run folder, in words: lost generations, other rows, damage."""
    if not folder.exists():
        return [] if acked == 0 else ["the folder is gone"]
    try:
        with Store.open(folder, readonly=True) as store:
            wrong = store.check()
            n_generations = store.counts()[0]
            if n_generations < acked:
                wrong.append(f"{acked - n_generations} lost generations")
            if other := [line for line in store.dump().splitlines() if line not in reference]:
                wrong.append(f"{len(other)} other rows, such as {other[0][:200]}")
    except RuleforgeError as error:
        return [f"unreadable: {error}"]
    return wrong


def children_of(pid: int) -> list[int]:
    """Processes that a process started, its threads' too, and theirs."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(child) for child in listed.read_text(encoding="ascii").split()]
        except OSError:
            continue
        for child in own:
            found += [child, *children_of(child)]
    return found


def draw_fault(rng: random.Random, n_operations: int, duration_s: float) -> Fault:
    """A fault at a random place of a run of about this many operations and seconds."""
    kind = rng.choices(("kill", "full", "broken", "kill-now", "int", "int-twice"), (8, 4, 4, 2, 1, 1))[0]
    if kind in ("kill", "full", "broken"):
        return Fault(kind, rng.randint(1, max(1, n_operations // 3)), rng.choice((0.0, 0.3, 0.7, 1.0)))
    return Fault(kind, rng.uniform(0.0, duration_s / 2))


if not is_layered():
    print("chaos: the fault layer is not loaded; start with `python -m chaos`", file=sys.stderr)
    sys.exit(2)
