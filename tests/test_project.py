"""The project's own files agree: one version, and an exact version for everything that is installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ruleforge


def test_one_version_everywhere(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (project_root / "CITATION.cff").read_text(encoding="utf-8")
    assert project["version"] == ruleforge.__version__
    assert f"\nversion: {ruleforge.__version__}\n" in citation


def test_constraints_pin_all_that_make_installs(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (project_root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins), pins
    pinned = {line.partition("==")[0].lower() for line in pins}
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    missing = {re.split(r"[<>=;\[ ]", each)[0].lower() for each in wanted} - pinned
    assert not missing
