"""docs/unexpressed.md names what it should, and nothing that a known rule expresses."""

from __future__ import annotations

import re
from pathlib import Path

from ruleforge.core.known import KNOWN
from ruleforge.core.ops import OPS


def _names(table: str) -> list[str]:
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_lists_agree_with_the_catalogue(project_root: Path) -> None:
    page = (project_root / "docs" / "unexpressed.md").read_text()
    _, missing, partial, *_ = re.split(r"^## .*$", page, flags=re.MULTILINE)
    absent = {name.lower().replace("-", "") for name in _names(missing)}
    assert {"adamp", "sgdp", "adafactor", "prodigy", "shampoo"} <= absent
    assert not absent & {name.replace("_", "") for name in KNOWN}
    named = {name for row in _names(partial) for name in re.findall(r"`(\w+)`", row)}
    assert named and named - set(OPS) <= set(KNOWN)
