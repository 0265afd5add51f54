"""`make fuzz` at its smallest, and its own honesty: what a reader may not do must be seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The guard hooks the interpreter for good, so it is tried in a process of its own.
NAUGHTY = """
import sys
from fuzz.targets import Broken, guard
from ruleforge.errors import InputError
def slow():
    import time
    until = time.process_time() + 1.2
    while time.process_time() < until:
        pass
def silent():
    raise InputError(" ")
def runs():
    exec("1")
def starts():
    import os
    os.system("true")
caught = []
for each in (slow, silent, runs, starts):
    try:
        guard.run(each)
    except Broken as error:
        caught.append(str(error)[:30])
assert isinstance(guard.run(lambda: int("3")), int)
print(len(caught), caught)
"""


def test_the_guard_sees_what_no_reader_may_do() -> None:
    done = subprocess.run([sys.executable, "-c", NAUGHTY], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("4 "), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mutate", "atheris"])
def test_every_reader_stands_some_thousand_inputs(engine: str) -> None:
    if engine == "atheris":
        pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--engine", engine, "--scale", "0.002", "--jobs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
    assert found["inputs"]["texts"] == 2000 and min(found["inputs"].values()) >= 100
