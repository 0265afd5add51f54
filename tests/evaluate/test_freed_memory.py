"""What a training step frees is there for the next one, whatever the process was started with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from ruleforge.evaluate.threads import training_thread

def faults():
    for _ in range(100):
        torch.ones(1_000_000)  # 4 MB, a thousand pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
outside = faults() - before
with training_thread():
    before = faults()
    print(outside, faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these are settings of glibc's malloc")
def test_freed_memory_is_kept_where_dask_would_give_it_back() -> None:
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask starts its workers
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    outside, inside = map(int, found.stdout.split())
    assert outside > 50_000  # else this shows nothing
    assert inside < 2_000
