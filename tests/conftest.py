"""What every test shares: threads, hypothesis profiles, and the folder of golden files.

Tests run with one thread a process: bits depend on the thread count, and two test processes share
two cores. The variables are set before any test module can import torch or numba.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # without a GPU, Triton's kernels run in its interpreter

# The same examples every time: a red test is red again on the next machine. `thorough` looks further.
settings.register_profile(
    "default",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough",
    max_examples=2000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("RULEFORGE_HYPOTHESIS", "default"))


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden_dir(project_root: Path) -> Path:
    """Recorded outputs under review: a change of behaviour is a diff in here."""
    return project_root / "tests" / "golden"
