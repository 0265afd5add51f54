"""`make gpu-check` without a GPU: it says so, its code runs at a tiny size, and it sees what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ruleforge.app import gpu_check
from ruleforge.core.ops import CORE

pytest.importorskip("triton")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")


@needs_no_gpu
def test_without_a_gpu_it_fails_clearly(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 2
    assert "torch sees no CUDA device, so nothing was checked" in capsys.readouterr().err


@needs_no_gpu
def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    assert gpu_check.main(["--dry-run", "--json", str(found)]) == 0
    report = json.loads(found.read_text(encoding="utf-8"))
    assert report["dry_run"] and report["correctness"]["wrong"] == []
    assert report["update_plane"] and report["gradient_plane"]
    printed = capsys.readouterr().out
    assert "All agree" in printed and "gpu.toml is valid" in printed
    assert "/s —" in printed  # a time without a GPU is none


@pytest.mark.slow
@needs_no_gpu
def test_every_op_can_be_checked() -> None:
    worst = {op: gpu_check._op_error(op, 400) for op in CORE}
    assert max(worst.values()) <= 1, worst


@needs_no_gpu
def test_a_wrong_op_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ruleforge.backends import triton_lanes

    launch = triton_lanes.TritonLanes.launch

    def twisted(self: Any, weights: Any, grads: Any, updates: Any = None) -> None:
        launch(self, weights, grads, updates)
        if updates is not None:
            updates.mul_(1.001)

    monkeypatch.setattr(triton_lanes.TritonLanes, "launch", twisted)
    found = gpu_check.correctness(dry=True)
    assert len(found["wrong"]) >= 3
