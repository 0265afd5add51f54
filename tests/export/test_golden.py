"""Exported files under review: a change of what people receive is a diff in tests/golden/export."""

from __future__ import annotations

from pathlib import Path

import pytest

from ruleforge.core.known import KNOWN
from ruleforge.export import TARGETS, export

ENTRIES = [
    ("lion", "torch"),
    ("adam", "torch"),
    ("cautious_lion", "torch"),
    ("rprop", "torch"),
    ("adam", "triton"),
    ("lion", "optax"),
    ("lion", "latex"),
    ("adam", "latex"),
    ("lion", "json"),
]


@pytest.mark.parametrize(("name", "target"), ENTRIES)
def test_exported_files_are_as_reviewed(name: str, target: str, golden_dir: Path) -> None:
    stem = name + {"triton": "_fused", "optax": "_optax"}.get(target, "")
    path = golden_dir / "export" / f"{stem}{TARGETS[target].suffix}"
    made = export(KNOWN[name].rule, target)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made, encoding="utf-8")
        pytest.fail(f"{path} was missing and has been written: look at it, then commit it")
    assert made == path.read_text(encoding="utf-8"), (
        f"{path.name} changed; delete it to write it anew, and review"
    )
