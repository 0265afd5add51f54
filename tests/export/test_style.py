"""Exported code reads as if ruff had formatted it, at 88 columns and at 110, and lints clean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText
from ruleforge.export.torch import export_torch
from tests.export.harness import random_rules
from tests.export.tricky import TRICKY

LONG_NAME = RuleText.parse(
    """
a_hyper_with_thirty_characters: hyper(0, 1) = 0.5
a_state_with_a_name_of_forty_characters_: state = 1e30
a_state_with_a_name_of_forty_characters_ = minimum(a_state_with_a_name_of_forty_characters_, g)
update = a_state_with_a_name_of_forty_characters_ * a_hyper_with_thirty_characters
"""
)

WITHOUT_STATES = RuleText.parse(
    """
first_hyper: hyper(0, 1) = 0.5
second_hyper: hyper(0, 1) = 0.25
update = g * first_hyper + w * second_hyper * progress / t
"""
)


def ruff(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *args], capture_output=True, text=True, timeout=120, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported")
    for name, entry in KNOWN.items():
        (path / f"known_{name}.py").write_text(export_torch(entry.rule), encoding="utf-8")
    for name, text in TRICKY.items():
        (path / f"tricky_{name}.py").write_text(export_torch(RuleText.parse(text)), encoding="utf-8")
    for number, text in enumerate(random_rules(40)):
        (path / f"random_{number}.py").write_text(export_torch(text), encoding="utf-8")
    long = export_torch(LONG_NAME, "AClassWithALongNameThatPeopleMayStillWantToUseForTheirRule")
    (path / "long_name.py").write_text(long, encoding="utf-8")
    (path / "without_states.py").write_text(export_torch(WITHOUT_STATES), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", ["88", "110"])
def test_ruff_format_changes_nothing(folder: Path, width: str) -> None:
    changed = ruff("format", "--isolated", "--line-length", width, "--diff", str(folder))
    assert not changed, changed[:4000]


def test_ruff_finds_nothing_in_known_rules(folder: Path, project_root: Path) -> None:
    files = [str(path) for path in sorted(folder.glob("known_*.py"))]
    assert not ruff("check", "--isolated", "--target-version", "py311", *files)
    ours = ruff("check", "--config", str(project_root / "pyproject.toml"), "--ignore", "E501", *files)
    assert not ours, ours[-4000:]


def test_ruff_finds_no_unused_name_anywhere(folder: Path) -> None:
    found = ruff("check", "--isolated", "--select", "E,F,I", "--ignore", "E501", str(folder))
    assert not found, found[-4000:]


@pytest.mark.slow
def test_mypy_is_content(folder: Path) -> None:
    files = [str(folder / f"known_{name}.py") for name in ("adam", "lion", "radam", "muon", "rprop", "adopt")]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


def test_the_maths_fits_a_screen() -> None:
    for name, entry in KNOWN.items():
        source = export_torch(entry.rule)
        body = source.split('"""The rule: the update')[1].split("\n\n\n")[0]
        assert body.count("\n") <= 40, name
