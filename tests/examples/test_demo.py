"""The demo's parts run as they are; the slow test runs all of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ruleforge.core.known import known
from ruleforge.export import export


@pytest.fixture
def demo(project_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", project_root / "examples" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_exported_file_trains_beside_adam(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "champion.py"
    path.write_text(export(known("lion").rule, "torch"))
    assert issubclass(demo.load_optimizer(path), demo.torch.optim.Optimizer)
    monkeypatch.setattr(demo, "STEPS", 20)
    demo.compare_training(path, 0.1)
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["optimizer", "champion", "adam"]
    assert all(float(line.split()[2]) < 2.3 for line in table[1:]), "both must have learned something"


@pytest.mark.slow
def test_the_whole_demo_ends_in_success(project_root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "examples/demo.py", "--out", str(tmp_path / "run")],
        cwd=project_root, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for words in (
        "Speed-up on the search suite",
        "Speed-up on the validation suite",
        "valid loss",
        "champion",
    ):
        assert words in done.stdout
