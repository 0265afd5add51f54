"""The examples of other people's training loops: each trains, and goes on from its own checkpoint."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Example -> packages that it needs, and how the line with its last accuracy begins.
EXAMPLES = {
    "with_lightning": (("lightning",), "after 220 steps"),
    "with_accelerate": (("accelerate",), "Exported on"),
    "with_transformers": (("transformers", "accelerate"), "after 220 steps"),
}
LEARNED = 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_trains(name: str, project_root: Path) -> None:
    packages, report = EXAMPLES[name]
    missing = [each for each in packages if importlib.util.find_spec(each) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: make examples")
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"],
        cwd=project_root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(rf"{report}.*: accuracy (\d\.\d+)", done.stdout)
    assert found, done.stdout
    assert float(found[1]) > LEARNED, done.stdout
    assert "missing keys" not in done.stderr, "the checkpoint did not hold the whole model"
