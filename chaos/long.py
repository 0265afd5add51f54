"""One long run with a fault every minute or so, beside the same run without: they must say the same."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.victim import CONFIG, Fault, attempt
from ruleforge.store import FINISHED, Store

GENERATIONS = 100_000  # more than there is time for: both are ended by the clock
OPERATIONS = 25  # within so many after the minute, a fault of the disk strikes
KINDS = ("kill", "full", "broken", "kill-now", "int", "int-twice")


def long_run(
    place: Path,
    minutes: float,
    every_s: float,
    seed: int,
    counts: Counter[str],
    wrong: list[str],
    tell: Callable[[str], None],
) -> None:
    """Run both for so long and compare all generations that both have.

    Args:
        place: a folder for the two runs.
        minutes: how long.
        every_s: seconds between two faults.
        seed: of the faults.
        counts, wrong: where to add what was done and what went wrong.
        tell: told once a fault.
    """
    # No looks at the validation suite: they add to what earlier generations did, and so to those compared.
    search = {**CONFIG["search"], "generations": GENERATIONS, "validate_every": 0}
    config: dict[str, Any] = {**CONFIG, "search": search}
    calm, stormy = place / "calm" / "run", place / "stormy" / "run"
    for folder in (calm, stormy):
        folder.parent.mkdir()
    until = time.monotonic() + 60 * minutes
    beside = os.fork()
    if beside == 0:
        ended = "crashed"
        try:
            ended = attempt(
                calm, Fault("int", 60 * minutes), config=config, limit_s=120 * minutes + 600
            ).status
        finally:
            os._exit(ended != "interrupted")
    rng = random.Random(f"{seed} long")
    acked = 0
    while (left := until - time.monotonic()) > 0:
        wait, kind = min(every_s, left), rng.choice(KINDS)
        if kind in ("kill", "full", "broken"):
            fault = Fault(kind, rng.randint(1, OPERATIONS), rng.choice((0.0, 0.3, 0.7, 1.0)), after_s=wait)
        else:
            fault = Fault(kind, wait)
        outcome = attempt(stormy, fault, config=config, limit_s=600 + 2 * wait)
        acked = max(acked, outcome.acked)
        counts[f"fault {kind}"] += 1
        counts["SIGKILL"] += outcome.message == "signal 9"
        if outcome.status in ("crashed", "hung", "finished") or (
            outcome.status == "refused" and not outcome.message
        ):
            wrong.append(f"{outcome.status}: {outcome.message} after {fault}")
        wrong += [f"{each} after {fault}" for each in damage(stormy, acked)]
        tell(f"{kind}: {outcome.status} after generation {acked}")
        if wrong:
            break
    _, status = os.waitpid(beside, 0)
    if status:
        wrong.append(f"the run without faults ended with {status}")
    compare(calm, stormy, counts, wrong)
    tell(f"{counts['generations compared']} generations, {counts['rows compared']} rows compared")


def damage(folder: Path, acked: int) -> list[str]:
    """Lost generations and damage; the rows are compared at the end."""
    if not folder.exists():
        return [] if acked == 0 else ["the folder is gone"]
    with Store.open(folder, readonly=True) as store:
        lost = acked - store.counts()[0]
        return [*store.check(), *([f"{lost} lost generations"] if lost > 0 else [])]


def compare(calm: Path, stormy: Path, counts: Counter[str], wrong: list[str]) -> None:
    """Every row of the generations that both runs have."""
    with Store.open(calm, readonly=True) as one, Store.open(stormy, readonly=True) as other:
        common = min(one.counts()[0], other.counts()[0])
        said = [_until(store, common) for store in (one, other)]
        counts["generations compared"] += common
        counts["generations without faults"] += one.counts()[0]
        counts["generations with faults"] += other.counts()[0]
    counts["rows compared"] += len(said[0])
    if said[0] != said[1]:
        first = next((a for a, b in zip(*said, strict=False) if a != b), "the number of rows")
        wrong.append(f"the runs differ, first at {first[:200]}")


def _until(store: Store, n: int) -> list[str]:
    """All rows of the first `n` generations that must repeat."""
    born = {row.id for row in store.candidates() if row.generation < n}
    lines = [repr(row) for row in store.generations() if row.n < n]
    lines += [repr(row) for row in store.candidates() if row.id in born]
    lines += [repr(row) for row in store.evaluations() if row.candidate in born]
    lines += [repr(row) for row in store.fitness() if row.candidate in born]
    return lines + [f"{name}: {value}" for name, value in store.results().items() if name != FINISHED]
