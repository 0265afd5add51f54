"""How long it takes until ruleforge answers: whole processes, against an empty Python in turns.

`ruleforge --help` and `import ruleforge` should answer in under 0.3 s each, and neither may import torch.
`--json` prints one object; `--quick` takes a few seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ruleforge.evaluate.machine import processor

PYTHON = sys.executable
COMMANDS = {
    "python": [PYTHON, "-c", "pass"],
    "import_ruleforge": [PYTHON, "-c", "import ruleforge"],
    "help": [str(Path(PYTHON).with_name("ruleforge")), "--help"],
    "rules": [str(Path(PYTHON).with_name("ruleforge")), "rules"],
    "import_torch": [PYTHON, "-c", "import torch"],
}
TORCH_ASKED = "import sys, ruleforge, ruleforge.app.cli; sys.exit('torch' in sys.modules)"


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="five repeats in place of fifteen")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    repeats = 5 if options.quick else 15
    for command in COMMANDS.values():  # once, so that all of it is in the file system's cache
        seconds(command)
    runs: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            runs[name].append(seconds(command))
    middle = {name: statistics.median(values) for name, values in runs.items()}
    record = {
        "over_empty_python": {name: value / middle["python"] for name, value in middle.items()},
        "median_s": middle,
        "least_s": {name: min(values) for name, values in runs.items()},
        "imports_torch": subprocess.run([PYTHON, "-c", TORCH_ASKED], check=False).returncode != 0,
        "repeats": repeats,
        "machine": processor(),
    }
    if options.json:
        print(json.dumps(record))
        return 0
    for name, value in middle.items():
        times = record["over_empty_python"][name]  # type: ignore[index]
        print(f"{name:18s} ×{times:.1f} of an empty Python, {value:.3f} s (least {min(runs[name]):.3f})")
    print(f"torch is imported by it: {record['imports_torch']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
