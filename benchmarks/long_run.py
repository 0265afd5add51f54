"""Whether a long run stays small: memory by generation, bytes of run.db by candidate.

Prints the process's resident memory at several generations, its slope over the second half, and how
run.db grew. The trainings are tiny, so that hundreds of generations pass in minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ruleforge.app.config import parse_config
from ruleforge.app.progress import QuietProgress
from ruleforge.app.run import run_search

CONFIG: dict[str, Any] = {
    "grammar": "full",
    "search": {"population": 8, "finalists": 1, "seed_rules": ["sgd", "adam"]},
    "training": {
        "workloads": ["teacher_student"],
        "validation_suite": "validation",
        "steps": 4,
        "batch_size": 4,
        "lrs": {"low": 1e-3, "high": 1e-1, "points": 2},
        "schedules": ["constant"],
        "seeds": 1,
        "score_seeds": 1,
        "chunk_lanes": 16,
        "update_plane": "torch",
        "rungs": [],
    },
    "baselines": {"rules": ["sgd", "adam"]},
}


class Watching(QuietProgress):
    """Reads memory and the size of run.db after each generation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory_mb: list[float] = []
        self.bytes: list[int] = []

    def generation(self, n: int, stats: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        self.memory_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.bytes.append((self.folder / "run.db").stat().st_size)


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--generations", type=int, default=200)
    given = parser.parse_args()
    n = 10 if given.quick else given.generations
    config = parse_config({**CONFIG, "search": {**CONFIG["search"], "generations": n}})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        watching = Watching(folder)
        run_search(config, out=folder, progress=watching)
        from ruleforge.store import Store

        with Store.open(folder, readonly=True) as store:
            _, n_candidates, n_trained = store.counts()
    memory = watching.memory_mb
    half = memory[n // 2 :]
    slope = float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else 0.0
    shown = sorted({0, n // 4, n // 2, 3 * n // 4, n - 1})
    record = {
        "generations": n,
        "candidates": n_candidates,
        "trained": n_trained,
        "memory_mb": {k + 1: round(memory[k], 1) for k in shown},
        "memory_kb_per_generation_second_half": round(1024 * slope, 1),
        "run_db_bytes": watching.bytes[-1],
        "run_db_bytes_per_candidate": round((watching.bytes[-1] - watching.bytes[0]) / max(1, n_candidates)),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
