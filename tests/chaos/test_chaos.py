"""`make chaos` at its smallest, and its own honesty: a lost row or generation must be seen."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.power import Operation, after_cut

ROOT = Path(__file__).resolve().parents[2]
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="the fault layer is built with gcc")


def chaos(*arguments: str) -> tuple[int, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@needs_gcc
@pytest.mark.slow
def test_faults_and_power_cuts_lose_nothing() -> None:
    code, found = chaos("--faults", "12", "--cuts", "12", "--parallel")
    assert code == 0 and found["wrong"] == 0
    assert found["fault_points"] >= 24 and found["sigkills"] >= 1
    assert found["counts"]["runs compared"] >= 5
    assert found["counts"]["slow disks"] >= 1
    assert found["counts"]["power cuts looked into"] >= 300


@needs_gcc
@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["loky", "dask"])
def test_killed_workers_change_nothing(parallel: str) -> None:
    if parallel == "dask":
        pytest.importorskip("distributed")
    code, found = chaos("--faults", "0", "--cuts", "0", "--worker-kills", "2", "--parallel", parallel)
    assert code == 0 and found["wrong"] == 0
    assert found["counts"][f"{parallel} workers killed"] >= 2


def write(path: str, offset: int, data: bytes) -> Operation:
    return Operation("W", path, "", offset, data, len(data))


def test_a_power_cut_keeps_what_was_synced_and_may_take_the_rest() -> None:
    done = [
        write("/a", 0, b"x" * 1024),
        Operation("S", "/a", "", 0, b"", 0),
        Operation("M", "", "", 1, b"", 0),
        write("/a", 0, b"y" * 1024),
        write("/b", 0, b"z" * 2048),
        Operation("R", "/b", "/c", 0, b"", 0),
    ]
    seen = set()
    for seed in range(200):
        files, acked = after_cut(done, len(done), random.Random(seed))
        assert acked == 1
        assert len(files["/a"]) == 1024 and set(files["/a"]) <= set(b"xy")
        seen.add((files["/a"], "/c" in files, len(files.get("/b", files.get("/c", b"")))))
    assert {a for a, _, _ in seen} == {b"x" * 1024, b"y" * 1024, b"y" * 512 + b"x" * 512}
    assert {moved for _, moved, _ in seen} == {True, False}
    assert {0, 512, 1024, 1536, 2048} <= {size for _, _, size in seen}
    before, acked = after_cut(done, 1, random.Random(1))
    assert acked == 0 and set(before.get("/a", b"x")) <= set(b"x\0")
