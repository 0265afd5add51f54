"""Runs the speed benchmarks at their quick size and writes their figures into docs/benchmarks.md.

What stands between the page's two markers is replaced; the words around it are people's. `--only NAME`
runs some of them and keeps what the page says of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ruleforge.evaluate.machine import processor

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
SCRIPTS = ("throughput", "update_plane", "search", "startup", "export_step", "scaling", "matrix_ops")
BEGIN, END = "<!-- figures of {name}: begin -->", "<!-- figures of {name}: end -->"


def machine() -> str:
    """Processor, cores and versions, in one line."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "numba"))
    return f"{os.cpu_count()} cores of {processor()}; Python {platform.python_version()}, {packages}"


def run(name: str) -> dict[str, Any]:
    """The record of one benchmark at its quick size."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--quick", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE.parent)
    return dict(json.loads(done.stdout))


def rows(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every number of a record with its path, in the record's order: ratios come first in each."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from rows(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for number, each in enumerate(value):
                yield from rows(each, f"{name}.{number}.")
        elif isinstance(value, bool | str | int) or value is None:
            yield name, "not measured" if value is None else str(value)
        elif isinstance(value, float):
            yield name, shown(value)
        elif isinstance(value, list) and all(isinstance(each, float) for each in value):
            yield name, "; ".join(map(shown, value))
        else:
            yield name, json.dumps(value)


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def block(name: str, record: dict[str, Any]) -> str:
    table = "\n".join(f"| {key} | {value} |" for key, value in rows(record))
    return "\n".join(
        (
            BEGIN.format(name=name), f"`python benchmarks/{name}.py --quick --json`", "",
            f"{machine()}.", "", "| figure | value |", "|---|---|", table, END.format(name=name),
        )
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=SCRIPTS, action="append", help="run this one; may be repeated")
    for name in parser.parse_args().only or SCRIPTS:
        print(f"== benchmarks/{name}.py", file=sys.stderr)
        written = block(name, run(name))
        page = PAGE.read_text(encoding="utf-8")
        found = re.compile(
            re.escape(BEGIN.format(name=name)) + ".*?" + re.escape(END.format(name=name)), re.S
        )
        if found.search(page):
            page = found.sub(lambda _, text=written: text, page)
        else:
            page = f"{page.rstrip()}\n\n### Figures: {name}\n\n{written}\n"
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
