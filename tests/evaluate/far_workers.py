"""`python -m tests.evaluate.far_workers KIND FAULT`: jobs with a rule at fault among them, as JSON.

`… joining` starts a Dask scheduler, and workers that come and go while jobs are under way.

A process of its own, because Dask and Ray warn and leave threads behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ruleforge.evaluate.workers import Workers
from tests.evaluate.faulty import chunk, lane_value, rule, train, who_slowly

GOOD = [chunk(*(rule(4 * k + i) for i in range(4))) for k in range(6)]


def main(kind: str, fault: str) -> None:
    """Good jobs, then good jobs and one with a rule at fault, then good jobs again."""
    flag = Path(tempfile.mkdtemp()) / "flag"
    mark = f"kill-once {flag}" if fault == "kill-once" else fault
    bad = chunk(rule(90), rule(91), rule(92, mark), rule(93), rule(94))
    wanted = [
        lane_value(r.text, spec) for job in (*GOOD, *GOOD, bad, *GOOD) for r in job.rules for spec in r.lanes
    ]
    said: list[str] = []
    with Workers(2, kind, limit_s=5 if fault == "hang" else 300, say=said.append) as pool:
        results = pool.map(train, GOOD)
        results += pool.map(train, [*GOOD, bad])
        results += pool.map(train, GOOD)
        aside = [[each.text, each.workload, each.reason, each.traceback] for each in pool.set_aside]
    found = [float(value) for result in results for value in result.metrics]
    wrong = [k for k, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b]
    at = 4 * 2 * 12 + 4  # the lanes of the rule at fault
    print(json.dumps({"wrong": wrong, "fault_at": [at, at + 1], "set_aside": aside, "said": said}))
    sys.stdout.flush()
    os._exit(0)  # what Dask does at exit is no part of this


def joining() -> None:
    """Nobody is there at first; then one worker, then two, and then the first one leaves."""
    here = Path(tempfile.mkdtemp()) / "scheduler.json"
    started: list[subprocess.Popen[bytes]] = []

    def start(what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    def worker() -> subprocess.Popen[bytes]:
        return start("worker", address, "--nthreads", "1", "--preload", "ruleforge.evaluate.train")

    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(here))
    while not here.exists():
        time.sleep(0.1)
    address = json.loads(here.read_text())["address"]
    said: list[str] = []
    seen: list[int] = []

    def done(finished: int, total: int) -> None:
        seen.append(finished)
        if finished == 5:
            worker()
        if finished == 40:
            started[1].terminate()

    threading.Timer(2.0, worker).start()
    try:
        with Workers(1, f"dask:{address}", say=said.append) as pool:
            pids = pool.map(who_slowly, list(range(90)), done)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)
    print(json.dumps({"said": said, "pids": pids, "done": seen}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    joining() if sys.argv[1] == "joining" else main(*sys.argv[1:])
