"""Where a new run goes, and whether it can be written, found out before the work starts."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ruleforge.app.targets import RESULTS
from ruleforge.errors import StoreError
from ruleforge.store.store import refuse_occupied


def fresh_folder(name: str, seed: int) -> Path:
    """A folder under results/ that does not exist: NAME-seedN-DATE-TIME."""
    stem = f"{name}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = RESULTS / stem, 1
    while folder.exists():
        number += 1
        folder = RESULTS / f"{stem}-{number}"
    return folder


def require_writable(folder: Path) -> None:
    """Nothing for a folder that can be made or is empty and can be filled; leaves nothing behind.

    Raises:
        StoreError: something is there already, or its parent cannot be written.
    """
    refuse_occupied(folder)
    parent = folder.absolute()
    while not parent.is_dir():
        if parent.exists() or parent.is_symlink():
            raise StoreError(
                "a file stands where a folder is needed", file=str(parent), hint="choose another --out"
            )
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise StoreError(
            f"cannot make a run folder in it: {error.strerror or error}",
            file=str(parent),
            hint="choose another folder with --out, or check its permissions and the free space",
        ) from None
