"""Draws the seed of the sealed suite, once: `python -m ruleforge.app.seal`.

To be run when search_configs/default.toml will not change any more. What it writes goes into version
control; a second draw is refused, since a suite that could be drawn again could be chosen.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ruleforge.app.config import find_config
from ruleforge.errors import InputError, RuleforgeError
from ruleforge.tasks import sealed


def draw() -> dict[str, Any]:
    """Draw the seed and record it with the date, the commit and the default configuration's digest.

    Raises:
        InputError: it has been drawn already.
    """
    config = find_config("default").resolve()
    record = {
        "seed": secrets.randbelow(2**32),
        "drawn": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(config.parent),
        "default_config_sha256": sha256(config.read_bytes()).hexdigest(),
    }
    try:
        with sealed.SEAL.open("x", encoding="utf-8") as file:  # fails where there is one: never drawn twice
            file.write(json.dumps(record, indent=2) + "\n")
    except FileExistsError:
        raise InputError(
            "the sealed suite's seed has been drawn already",
            file=str(sealed.SEAL),
            hint="it is drawn once; compare with it: ruleforge compare RUN --suite sealed",
        ) from None
    return record


def _commit(folder: Path) -> str:
    """The commit that is checked out, "+changes" where files differ from it; "unknown" without git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        is_changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + ("+changes" if is_changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> int:
    """Draw, and say what was recorded."""
    try:
        record = draw()
    except RuleforgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(record, indent=2))
    print(f"written to {sealed.SEAL}: commit it, and run `ruleforge compare RUN --suite sealed` once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
