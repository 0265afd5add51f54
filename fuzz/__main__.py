"""`python -m fuzz`: every reader of strangers' files, fuzzed with coverage guidance by atheris.

Prints a line for each target and fails if an input crashed, hung for more than a second of processor
time, was executed, or was refused without saying where. Where atheris cannot be installed,
`--engine mutate` does the same without coverage guidance.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DEFAULTS = {
    "texts": 1_000_000,
    "exports": 50_000,
    "grammars": 50_000,
    "configs": 50_000,
    "databases": 50_000,
    "journals": 50_000,
}
MAX_LENGTH = {
    "texts": 1500,
    "exports": 1500,
    "grammars": 4000,
    "configs": 4000,
    "databases": 400,
    "journals": 4000,
}


def main() -> int:
    """Fuzz in processes of their own, as many at a time as there are cores."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of inputs")
    parser.add_argument("--seconds", type=int, default=0, help="end each target after so long")
    parser.add_argument("--only", nargs="*", choices=DEFAULTS, default=list(DEFAULTS))
    parser.add_argument("--engine", choices=("atheris", "mutate"), default=None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, default=None, help="folder for inputs that broke something")
    parser.add_argument("--worker", nargs=3, metavar=("TARGET", "RUNS", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    engine = given.engine or _engine()
    if given.worker:
        target, runs, folder = given.worker
        return _fuzz(engine, target, int(runs), Path(folder), given.seed, given.seconds)
    return _spread(given, engine)


def _engine() -> str:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return "mutate"
    return "atheris"


def _spread(given: argparse.Namespace, engine: str) -> int:
    began = time.monotonic()
    todo: list[tuple[str, int, int]] = []
    for name in given.only:
        runs = max(1, round(given.scale * DEFAULTS[name]))
        pieces = given.jobs if name == "texts" else 1
        todo += [(name, runs // pieces, given.seed + k) for k in range(pieces)]
    print(f"{engine}: {sum(runs for _, runs, _ in todo):,} inputs", flush=True)
    running: list[tuple[str, subprocess.Popen[str], Path, Any]] = []
    totals: dict[str, int] = dict.fromkeys(given.only, 0)
    cpu_s: dict[str, float] = dict.fromkeys(given.only, 0.0)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="ruleforge-fuzz-") as place:
        while todo or running:
            while todo and len(running) < given.jobs:
                name, runs, seed = todo.pop(0)
                folder = Path(place) / f"{name}-{seed}"
                folder.mkdir()
                log = (folder / "log").open("w+")
                command = [
                    sys.executable, "-m", "fuzz", "--engine", engine, "--seed", str(seed),
                    "--seconds", str(given.seconds), "--worker", name, str(runs), str(folder),
                ]  # fmt: skip
                running.append(
                    (name, subprocess.Popen(command, stdout=log, stderr=log, text=True), folder, log)
                )
            time.sleep(0.2)
            for each in list(running):
                name, process, folder, log = each
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                if not pid:
                    continue
                process.returncode = os.waitstatus_to_exitcode(status)
                running.remove(each)
                cpu_s[name] += used.ru_utime + used.ru_stime
                log.seek(0)
                told = log.read()
                log.close()
                found = re.search(r"number_of_executed_units: (\d+)", told)
                totals[name] += int(found[1]) if found else 0
                state = "done" if process.returncode == 0 else "BROKEN"
                print(
                    f"[{time.monotonic() - began:5.0f} s] {name}: {totals[name]:,} inputs in "
                    f"{cpu_s[name]:.0f} s of processor time, {state}",
                    flush=True,
                )
                if process.returncode:
                    broken += 1
                    print("\n".join(told.splitlines()[-40:]), flush=True)
                    for culprit in folder.glob("crash-*"):
                        print(f"{culprit.name}: {culprit.read_bytes()[:400]!r}", flush=True)
                        if given.keep:
                            given.keep.mkdir(parents=True, exist_ok=True)
                            (given.keep / f"{name}-{culprit.name}").write_bytes(culprit.read_bytes())
    record = {
        "engine": engine,
        "inputs": totals,
        "broken": broken,
        "cpu_s": {name: round(value, 1) for name, value in cpu_s.items()},
        "wall_s": round(time.monotonic() - began, 1),
    }
    print(json.dumps(record))
    return 1 if broken else 0


def _fuzz(engine: str, name: str, runs: int, folder: Path, seed: int, seconds: int) -> int:
    if engine == "mutate":
        return _mutate(name, runs, folder, seed, seconds)
    import atheris

    with atheris.instrument_imports(include=["ruleforge"], enable_loader_override=False):
        from fuzz.targets import TARGETS, warm_up

        target = TARGETS[name]()
        warm_up(target)
    corpus = folder / "corpus"
    corpus.mkdir()
    for k, text in enumerate(target.seeds()):
        (corpus / f"seed{k}").write_bytes(text)
    words = folder / "words"
    words.write_text("".join(f"{_quoted(word)}\n" for word in target.words()))
    arguments = [
        "fuzz", f"-runs={runs}", f"-seed={seed}", f"-max_len={MAX_LENGTH[name]}", f"-dict={words}",
        f"-artifact_prefix={folder}/", "-print_final_stats=1", f"-max_total_time={seconds}", "-timeout=600",
        "-verbosity=0", "-rss_limit_mb=4096", str(corpus),
    ]  # fmt: skip
    atheris.Setup(arguments, target.try_one)
    atheris.Fuzz()
    return 0


def _quoted(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'


def _mutate(name: str, runs: int, folder: Path, seed: int, seconds: int) -> int:
    """Without atheris: random changes to the seeds and to each other's children."""
    from fuzz.targets import TARGETS, warm_up

    target = TARGETS[name]()
    warm_up(target)
    rng = random.Random(seed)
    pool, words = target.seeds(), [word.encode() for word in target.words()]
    until = time.monotonic() + (seconds or float("inf"))
    done = 0
    for k in range(runs):
        if time.monotonic() > until:
            break
        done += 1
        data = bytearray(rng.choice(pool))
        for _ in range(rng.randint(1, 6)):
            at = rng.randint(0, len(data))
            match rng.randrange(5):
                case 0:
                    data[at : at + rng.randint(0, 8)] = rng.randbytes(rng.randint(0, 8))
                case 1:
                    data[at:at] = rng.choice(words)
                case 2:
                    other = rng.choice(pool)
                    start = rng.randint(0, len(other))
                    data[at:at] = other[start : start + rng.randint(0, 60)]
                case 3:
                    del data[at : at + rng.randint(0, 40)]
                case _ if data:
                    data[at % len(data)] ^= 1 << rng.randrange(8)
        del data[MAX_LENGTH[name] :]
        try:
            target.try_one(bytes(data))
        except BaseException:
            (folder / f"crash-{k}").write_bytes(data)
            raise
        if len(pool) < 500 and rng.random() < 0.01:
            pool.append(bytes(data))
    print(f"stat::number_of_executed_units: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
