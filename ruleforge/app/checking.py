"""Whether a run folder is sound: the database, its rules, and the text files beside it.

Repair touches text files, leftovers and indexes alone. What was measured is never changed: where rows
are lost, only a copy of the folder has them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruleforge.app.config import load_config
from ruleforge.app.resuming import digest, lost_generations
from ruleforge.core.text import load, parse
from ruleforge.errors import InputError, StoreError
from ruleforge.store import CHAMPION, CONFIG, DATABASE, Store, is_being_written, write_text_atomic
from ruleforge.words import counted

_COPY = "restore the folder from a copy"


@dataclass(frozen=True)
class Fault:
    """Something wrong with a run folder, and what helps."""

    message: str
    remedy: str = ""
    is_repairable: bool = False


def find_faults(folder: Path) -> list[Fault]:
    """What is wrong with a run folder, in words."""
    with Store.open(folder, readonly=True) as store:
        damage = store.check()
        if damage:  # rows of a damaged database say nothing
            indexes = _reindexing_helps(folder)
            remedy = "its index can be built anew" if indexes else _COPY
            return [Fault(f"run.db: {each}", remedy, indexes) for each in damage]
        faults = [Fault(each, _COPY) for each in _rule_faults(store)]
        for name in (CONFIG, CHAMPION):
            faults += _file_faults(store, name)
    return faults


def find_notes(folder: Path) -> list[str]:
    """What is no fault and yet worth knowing."""
    notes = []
    with Store.open(folder, readonly=True) as store:
        if lost := lost_generations(store):
            notes.append(
                f"the log tells of {counted(lost, 'generation')} more than run.db holds: run.db-wal was "
                "deleted, or run.db is an older copy; resume runs them again, the same"
            )
        notes += [
            f"set aside{f' on {rule.workload}' if rule.workload else ''}: {rule.reason}: {rule.text.strip()}"
            for rule in store.set_aside()
        ]
        notes += [f"left over by a crash, harmless: {each.name}" for each in leftovers(folder)]
    return notes


def _rule_faults(store: Store) -> list[str]:
    faults = []
    for row in store.candidates():
        try:
            rule = parse(row.text, file=f"candidate {row.id}").rule
        except InputError as error:
            faults.append(str(error).split("\n")[0])
            continue
        if row.full_key != rule.full_key:
            faults.append(f"candidate {row.id}: its text is another rule than its key says")
    return faults


def _file_faults(store: Store, name: str) -> list[Fault]:
    path, kept = store.path / name, store.kept_file(name)
    if kept is not None:
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else None
        except (OSError, UnicodeDecodeError):
            text = ""
        if text == kept:
            return []
        what = "is missing" if text is None else f"is not what the run wrote{_unreadable(path)}"
        return [Fault(f"{name} {what}", "the run keeps a copy", is_repairable=True)]
    read: Callable[[Any], Any] = load_config if name == CONFIG else load
    if name == CHAMPION and not path.exists():
        return []
    try:
        read(path if name == CONFIG else str(path))
        if name == CONFIG and digest(store.config_text) != store.meta.get("config_hash"):
            return [Fault(f"{name} was changed after the run began", "put the old text back")]
    except InputError as error:
        return [Fault(str(error), _COPY)]
    return []


def _unreadable(path: Path) -> str:
    try:
        if path.name == CONFIG:
            load_config(path)
        else:
            load(str(path))
    except InputError as error:
        return f": {error.message.splitlines()[0]}"
    return ""


def _reindexing_helps(folder: Path) -> bool:
    """Whether the damage lies in indexes alone, found out on a copy."""
    with tempfile.TemporaryDirectory() as place:
        for name in (DATABASE, f"{DATABASE}-wal"):
            if (folder / name).exists():
                shutil.copy(folder / name, Path(place) / name)
        try:
            with Store.open(place) as copy:
                copy.rebuild_indexes()
                return not copy.check()
        except StoreError:
            return False


def leftovers(folder: Path) -> list[Path]:
    """Files that a crash left half-written beside the finished ones."""
    return sorted(folder.glob(".*.tmp"))


def mend(folder: Path) -> list[str]:
    """Repair what can be, and say what was done.

    Raises:
        StoreError: the run is being written, or cannot be written.
    """
    if is_being_written(folder):
        raise StoreError(
            "the run is being written", file=str(folder), hint="wait for it or stop it, then repair it"
        )
    done = []
    with Store.open(folder) as store:
        if store.check() and _reindexing_helps(folder):
            store.rebuild_indexes()
            done.append("the indexes of run.db are built anew")
        for name in (CONFIG, CHAMPION):
            kept = store.kept_file(name)
            if kept is not None and _file_faults(store, name):
                write_text_atomic(folder / name, kept)
                done.append(f"{name} is written back")
        for path in leftovers(folder):
            path.unlink(missing_ok=True)
            done.append(f"{path.name} is removed")
    return done
