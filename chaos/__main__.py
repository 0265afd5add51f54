"""`python -m chaos`: searches with faults all over them, resumed until they end, held against one without.

Prints what was done and what went wrong; the exit code is 0 if nothing was lost, nothing differed and
every folder could be read. Needs gcc, for the layer that fails on purpose.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MAX_FAULTS_A_RUN = 12


def main() -> int:
    """Parse the arguments, load the fault layer by starting anew, and run."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=150, help="faults within runs (default 150)")
    parser.add_argument(
        "--cuts", type=int, default=100,
        help="power cuts after which the run is resumed (default 100); what a cut at any operation leaves is "
        "looked into as well, at each of them",
    )  # fmt: skip
    parser.add_argument("--worker-kills", type=int, default=8, help="of each kind of workers (default 8)")
    parser.add_argument("--parallel", nargs="*", default=["loky", "dask"], help="kinds of workers to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--minutes", type=float, default=0, help="one long run instead, so long")
    parser.add_argument("--every", type=float, default=60, help="seconds between its faults (default 60)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    layer = Path(os.environ.get("LD_PRELOAD", ""))
    if layer.name != "faultfs.so":
        return _start_with_layer()
    os.environ.pop("LD_PRELOAD")
    os.environ["XDG_CACHE_HOME"] = str(layer.parent / "cache")
    return _Chaos(given, layer.parent).run()


def _start_with_layer() -> int:
    place = Path(tempfile.mkdtemp(prefix="ruleforge-chaos-"))
    built = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", place / "faultfs.so", HERE / "faultfs.c", "-ldl"],
        check=False,
    )
    if built.returncode:
        print("chaos: gcc cannot build the fault layer", file=sys.stderr)
        return 2
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **one, "LD_PRELOAD": str(place / "faultfs.so")}
    try:
        return subprocess.run(
            [sys.executable, "-m", "chaos", *sys.argv[1:]], env=environment, check=False
        ).returncode
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Chaos:
    def __init__(self, given: argparse.Namespace, place: Path) -> None:
        from ruleforge.evaluate import baselines, statistics

        # What takes long in so small a run and is no part of what is tested: the final's intervals, and
        # reading shipped baselines, of which none fits.
        statistics.N_RESAMPLES = 50
        baselines.SHIPPED = place / "none.json"
        self.given, self.place = given, place
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.began = time.monotonic()

    def run(self) -> int:
        from chaos.victim import Fault, attempt, contents, warm_up

        warm_up(self.place / "warm")
        if self.given.minutes:
            from chaos.long import long_run

            times = (self.given.minutes, self.given.every)
            long_run(self.place, *times, self.given.seed, self.counts, self.wrong, self.tell)
            return self._conclude()
        reference = self.place / "whole" / "run"
        reference.parent.mkdir()
        began = time.monotonic()
        trace = self.place / "trace"
        cold = attempt(reference, Fault("none"), trace=trace)
        assert cold.status == "finished", cold
        self.duration_s = time.monotonic() - began
        self.n_operations = cold.n_operations
        self.lines = contents(reference)
        self.rows = set(self.lines)
        self.tell(f"a run without faults: {self.n_operations} operations on files, {self.duration_s:.1f} s")
        self._in_parallel("faults", self.given.faults, self._chain)
        self._in_parallel("cuts", self.given.cuts, lambda k, n: self._cuts(trace, k, n))
        if self.given.cuts:
            self._in_parallel("looks", self.n_operations, lambda k, n: self._looks(trace, k, n))
        for parallel in self.given.parallel:
            self._kill_workers(parallel)
        return self._conclude()

    def tell(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:5.0f} s] {text}", flush=True)

    # forks that share the work

    def _in_parallel(self, what: str, total: int, work: Any) -> None:
        """Share `total` pieces of work among processes; each answers with its counts and what went wrong."""
        jobs = max(1, min(self.given.jobs, total))
        running = []
        for k in range(jobs if total else 0):
            share = total // jobs + (k < total % jobs)
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                self.counts, self.wrong = Counter(), []
                try:
                    work(k, share)
                except BaseException as error:
                    import traceback

                    self.wrong.append(f"chaos itself failed: {error!r} {traceback.format_exc()}")
                with os.fdopen(writer, "w") as out:
                    json.dump([self.counts, self.wrong], out)
                os._exit(0)
            os.close(writer)
            running.append((pid, reader))
        for pid, reader in running:
            with os.fdopen(reader) as answers:
                counts, wrong = json.load(answers)
            os.waitpid(pid, 0)
            self.counts += Counter(counts)
            self.wrong += wrong
            for each in wrong:
                print(f"WRONG: {each}", flush=True)
        self.tell(f"{what}: {dict(self.counts)}, {len(self.wrong)} wrong")

    def _chain(self, k: int, total: int) -> None:
        """Runs with faults one after the other, until so many have struck."""
        from chaos.victim import Fault, attempt, draw_fault, examine

        rng = random.Random(f"{self.given.seed} chain {k}")
        slow = self.place / f"slow-{k}" / "run"
        slow.parent.mkdir()
        outcome = attempt(slow, Fault("slow"))
        self.counts["slow disks"] += 1
        if outcome.status == "finished":
            self._compare(slow, "on a slow disk")
        else:
            self.wrong.append(f"{outcome.status}: {outcome.message} on a slow disk")
        struck, number = 0, 0
        while struck < total:
            number += 1
            folder = self.place / f"chain-{k}-{number}" / "run"
            folder.parent.mkdir()
            mine, acked, history = 0, 0, []
            while True:
                if (folder / "run.db").exists() and self._is_finished(folder):
                    self._compare(folder, f"after {history}")  # it was over when the fault struck
                    break
                calm = mine >= MAX_FAULTS_A_RUN or struck >= total
                fault = Fault("none") if calm else draw_fault(rng, self.n_operations, self.duration_s)
                outcome = attempt(folder, fault)
                history.append(f"{fault.kind}@{fault.at:.3g}/{fault.share}->{outcome.status}")
                acked = max(acked, outcome.acked)
                self.counts[outcome.status] += 1
                if outcome.status in ("crashed", "hung") or (
                    outcome.status == "refused" and not outcome.message
                ):
                    self.wrong.append(f"{outcome.status}: {outcome.message} after {history}")
                if outcome.status != "finished":
                    struck += 1
                    mine += 1
                    self.counts[f"fault {fault.kind}"] += 1
                    if outcome.message == "signal 9":
                        self.counts["SIGKILL"] += 1
                    elif fault.kind == "none":
                        self.wrong.append(f"stopped without a fault: {outcome}, after {history}")
                        break
                broken = examine(folder, acked, self.rows)
                self.wrong += [f"{each} after {history}" for each in broken]
                if broken:
                    break
                if outcome.status == "finished":
                    self._compare(folder, f"after {history}")
                    break
            shutil.rmtree(folder.parent)

    def _compare(self, folder: Path, when: str) -> None:
        from chaos.victim import contents

        self.counts["runs compared"] += 1
        if contents(folder) != self.lines:
            self.wrong.append(f"the end differs {when}")

    def _cuts(self, trace: Path, k: int, total: int) -> None:
        """Power cuts at points spread over the reference run, each resumed to its end."""
        from chaos.power import after_cut, read_trace
        from chaos.victim import Fault, attempt, examine

        operations = list(read_trace(trace))
        rng = random.Random(f"{self.given.seed} cuts {k}")
        for number in range(total):
            at = round((number + rng.random()) * len(operations) / total)
            place = self.place / f"cut-{k}-{number}"
            acked = self._lay_out(after_cut(operations, at, rng), place)
            when = f"after a power cut at operation {at} of {len(operations)}"
            self.counts["power cuts"] += 1
            broken = examine(place / "run", acked, self.rows)
            self.wrong += [f"{each} {when}" for each in broken]
            is_over = (place / "run").exists() and self._is_finished(place / "run")
            if not broken and not is_over:
                outcome = attempt(place / "run", Fault("none"))
                if outcome.status == "finished":
                    self._compare(place / "run", when)
                else:
                    self.wrong.append(f"{outcome.status}: {outcome.message} {when}")
            shutil.rmtree(place)

    def _looks(self, trace: Path, k: int, total: int) -> None:
        """What a power cut leaves before each operation of a share of the reference run, looked into."""
        from chaos.power import after_cut, read_trace
        from chaos.victim import examine

        operations = list(read_trace(trace))
        jobs = max(1, min(self.given.jobs, self.n_operations))
        rng = random.Random(f"{self.given.seed} looks {k}")
        for at in range(k, len(operations) + 1, jobs):
            place = self.place / f"look-{k}"
            acked = self._lay_out(after_cut(operations, at, rng), place)
            self.counts["power cuts looked into"] += 1
            self.wrong += [
                f"{each} after a power cut at operation {at}, not resumed"
                for each in examine(place / "run", acked, self.rows)
            ]
            shutil.rmtree(place)

    def _lay_out(self, cut: tuple[dict[str, bytes], int], place: Path) -> int:
        """Write what a disk holds into a folder; the number of generations that were acknowledged."""
        files, acked = cut
        place.mkdir()
        for name, data in files.items():
            path = place / Path(name).relative_to(self.place / "whole")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return acked

    def _is_finished(self, folder: Path) -> bool:
        from ruleforge.store import FINISHED, Store

        with Store.open(folder, readonly=True) as store:
            return FINISHED in store.results()

    def _kill_workers(self, parallel: str) -> None:
        """A run whose workers are killed at random moments, again and again."""
        from chaos.victim import Fault, attempt, children_of, examine

        rng = random.Random(f"{self.given.seed} {parallel}")
        killed = runs = 0
        while killed < self.given.worker_kills and runs < 2 * self.given.worker_kills:
            folder = self.place / f"{parallel}-{runs}" / "run"
            folder.parent.mkdir()
            runs += 1
            due = time.monotonic() + rng.uniform(3.0, 5.0)
            mine = 0

            def kill_one(driver: int) -> None:
                nonlocal killed, due, mine
                if time.monotonic() < due or mine >= 4:
                    return
                workers = [pid for pid in children_of(driver) if _is_worker(pid)]
                if workers:
                    victim = rng.choice(workers)
                    try:
                        os.kill(victim, 9)
                    except ProcessLookupError:
                        return
                    killed += 1
                    mine += 1
                    due = time.monotonic() + rng.uniform(0.3, 4.0)

            outcome = attempt(folder, Fault("none"), workers=2, parallel=parallel, meanwhile=kill_one)
            if outcome.status != "finished":
                self.wrong.append(f"{parallel}: {outcome.status}: {outcome.message}")
            else:
                self.wrong += [f"{parallel}: {each}" for each in examine(folder, outcome.acked, self.rows)]
                self._compare(folder, f"with {mine} workers of {parallel} killed")
            shutil.rmtree(folder.parent)
        for each in self.wrong:
            print(f"WRONG: {each}", flush=True)
        self.counts[f"{parallel} workers killed"] = killed
        self.tell(f"{parallel}: {killed} workers killed in {runs} runs, {len(self.wrong)} wrong")

    def _conclude(self) -> int:
        points = (
            sum(n for what, n in self.counts.items() if what.startswith("fault ")) + self.counts["power cuts"]
        )
        words = ("lost generations", "differ", "other rows", "unreadable")
        record = {
            "fault_points": points,
            "sigkills": self.counts["SIGKILL"],
            **{word.replace(" ", "_"): sum(word in each for each in self.wrong) for word in words},
            "wrong": len(self.wrong),
            "counts": dict(sorted(self.counts.items())),
            "wall_s": round(time.monotonic() - self.began, 1),
            "cpu_s": round(sum(os.times()[:4]), 1),
        }
        if self.given.json:
            print(json.dumps(record))
        else:
            self.tell(
                f"{points} fault points, {self.counts['SIGKILL']} of them SIGKILLs; "
                f"{self.counts['runs compared']} ends compared; {len(self.wrong)} wrong; "
                f"{record['cpu_s']:.0f} s of processor time"
            )
        return 1 if self.wrong else 0


def _is_worker(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return False
    return "popen_loky_posix" in line or "spawn_main" in line or "forkserver" in line


if __name__ == "__main__":
    sys.exit(main())
