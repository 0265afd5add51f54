"""Measure every known rule against its upstreams and write `ruleforge/core/known/verified.json`.

    python -m tests.known.regenerate

For each rule the comparisons in the order of the specs; the first is the one that `ruleforge rules`
shows. Refuses to write a record in which a rule misses its tolerance.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ruleforge.core.known
from ruleforge.core.known import KNOWN
from tests.golden.upstream.specs import SPECS
from tests.known.comparison import measure, version

PATH = Path(ruleforge.core.known.__file__).parent / "verified.json"


def build() -> dict[str, list[dict[str, Any]]]:
    """Comparisons by rule, as `verified.json` holds them."""
    record: dict[str, list[dict[str, Any]]] = {name: [] for name in KNOWN}
    for spec in SPECS:
        row = {
            "upstream": spec.upstream,
            "version": version(spec.package),
            "max_diff": float(f"{measure(spec.id):.2g}"),
            "tolerance": spec.tolerance,
        }
        record[spec.rule].append(row | ({"variant": spec.variant} if spec.variant else {}))
    return record


def main() -> int:
    """Write the record, or name the rules that miss their tolerance."""
    record = build()
    missed = [
        f"{name}: {row['upstream']} differs by {row['max_diff']:.1e}, allowed is {row['tolerance']:.0e}"
        for name, rows in record.items()
        for row in rows
        if not row["max_diff"] <= row["tolerance"]
    ]
    if missed:
        print("\n".join(missed), file=sys.stderr)
        return 1
    PATH.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{len(record)} rules, {sum(map(len, record.values()))} comparisons: {PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
