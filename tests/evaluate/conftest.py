"""What several tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ruleforge.evaluate import kept_graphs


@pytest.fixture
def kept_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which compiled functions are kept, under the names that they are given."""

    def places(identity: str) -> tuple[Path, Path]:
        return tmp_path / f"{identity}.pt2", tmp_path / f"{identity}.compiled"

    monkeypatch.setattr(kept_graphs, "places", places)
    return tmp_path
