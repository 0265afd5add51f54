"""Tests that go beside an exported file: they pass, fail when the file changes, and refuse bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ruleforge.app.recording import record
from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export import export
from ruleforge.export.check_file import check_file


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "rule", "part", "changed"),
    [
        ("torch", "muon", "change = lr * update", "change = 1.001 * lr * update"),
        ("numpy", "nadam", "1 - beta", "1.001 - beta"),
        ("torch", "lion", "torch._foreach_lerp(g, exp_avg, beta1)", "torch._foreach_lerp(exp_avg, g, beta1)"),
    ],
)
def test_written_tests_see_a_change(target: str, rule: str, part: str, changed: str, tmp_path: Path) -> None:
    text = KNOWN[rule].rule
    source = export(text, target, class_name="Mine", weight_decay=0.1)
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    tests = check_file(target, "mine", "Mine", record(text))
    (tmp_path / "test_mine.py").write_text(tests, encoding="utf-8")
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert part in source
    (tmp_path / "mine.py").write_text(source.replace(part, changed), encoding="utf-8")
    assert run(tmp_path).returncode == 1


def test_bad_input() -> None:
    recording = record(KNOWN["lion"].rule)
    with pytest.raises(ExportError, match="no tests for json"):
        check_file("json", "lion", "Lion", recording)
    with pytest.raises(ExportError, match="cannot import 'my-lion'"):
        check_file("torch", "my-lion", "Lion", recording)
    with pytest.raises(ExportError, match="diverges"):
        record(RuleText.parse("update = g / 0"))
