"""What must be the same when a run goes on, what is said when something is not, and what is refused.

A run goes on by its own config and its own task files: another config or task would be another search.
Other versions of libraries and another processor change floats in their last bits; the run records
them and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib import metadata
from typing import Any

from ruleforge.app.config import parse_config
from ruleforge.app.schema import Config
from ruleforge.errors import StoreError
from ruleforge.evaluate.machine import processor
from ruleforge.store import CONFIG, LOG, Store, write_text_atomic
from ruleforge.tasks import Workload
from ruleforge.tasks.workload import USER_SUITE

# What decides bits; resume says so when one of them is another.
RECORDED = ("ruleforge", "torch", "numpy", "numba", "scikit-learn", "deap", "sympy")

Say = Callable[[str], None]


def digest(text: str) -> str:
    """The hash under which a run keeps its config."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the libraries that decide bits."""
    return {name: _version(name) for name in RECORDED}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine(workers: int, parallel: str) -> dict[str, Any]:
    """On what a session works."""
    return {"workers": workers, "parallel": parallel, "cpu": processor()}


def begin(store: Store, workers: int, parallel: str) -> None:
    """Record that a session begins, with its versions and processor."""
    store.begin_session({**machine(workers, parallel), "versions": versions()})


def sources(workloads: Sequence[Workload]) -> dict[str, str]:
    """Digests of the tasks' sources, by workload."""
    return {workload.name: workload.source_hash() for workload in workloads}


def tell_foreign_code(workloads: Sequence[Workload], say: Say) -> None:
    """Say which code that is not ruleforge's is run, because the user named it."""
    for workload in workloads:
        if workload.suite == USER_SUITE:
            say(f"running the code of {workload.target.rpartition(':')[0]}, which the config names")


def require_sound(store: Store) -> None:
    """Nothing for a database without faults.

    Raises:
        StoreError: it is damaged; going on would lose or change something.
    """
    if faults := store.check():
        raise StoreError(
            f"run.db is damaged: {faults[0]}",
            file=str(store.path),
            hint=f"ruleforge check {store.path} tells all, and what can be repaired",
        )


def config_of(store: Store, say: Say) -> Config:
    """The config that the run began with; one that was lost is written again.

    Raises:
        StoreError: config.toml was changed after the start.
    """
    path, kept = store.path / CONFIG, store.kept_file(CONFIG)
    if kept is not None and not path.exists():
        write_text_atomic(path, kept)
        say(f"{CONFIG} was missing: the run's own copy is written back")
    text = store.config_text
    if (text != kept) if kept is not None else (digest(text) != store.meta.get("config_hash")):
        raise StoreError(
            f"{CONFIG} was changed after the run began{_first_change(kept, text)}",
            file=str(path),
            hint=_UNDO.format(store.path)
            if kept is not None
            else "put the old text back, or start a new run",
        )
    return parse_config(text, file=str(path), folder=store.path)


_UNDO = "ruleforge check {} --repair puts the old text back; another config needs another run"


def _first_change(kept: str | None, text: str) -> str:
    if kept is None:
        return ""
    before, after = kept.splitlines(), text.splitlines()
    for number, (old, new) in enumerate(zip(before, after, strict=False), start=1):
        if old != new:
            return f": line {number} was {old.strip()[:60]!r} and is {new.strip()[:60]!r}"
    return f": it had {len(before)} lines and has {len(after)}"


def tell_differences(store: Store, workloads: Sequence[Workload], say: Say) -> None:
    """Say what is not as it was when the run began or went on last.

    Raises:
        StoreError: the file of a user's task was changed, so what was measured does not hold for it.
    """
    meta = store.meta
    for name, before in dict(meta.get("versions", {})).items():
        now = _version(name)
        if now != before:
            say(f"this run began with {name} {before} and goes on with {now}: bits may differ")
    before_cpu = dict(meta.get("machine", {})).get("cpu")
    if store.version >= 2 and before_cpu and before_cpu != processor() and store.sessions():
        say(f"this run began on {before_cpu} and goes on on {processor()}: bits may differ")
    recorded = dict(meta.get("sources", {}))
    for workload in workloads:
        if recorded.get(workload.name, "") in ("", workload.source_hash()):
            continue
        if workload.suite == USER_SUITE:
            raise StoreError(
                f"the task {workload.name!r} was changed after the run began",
                file=workload.target.rpartition(":")[0],
                hint="put the old file back, or start a new run: what was measured holds for the old task",
            )
        say(f"the built-in task {workload.name} is another version than at the start: numbers may differ")
    _tell_lost_generations(store, say)


def lost_generations(store: Store) -> int:
    """How many generations the log tells of that the database does not hold.

    Only a lost or foreign `run.db-wal`, or an older copy of `run.db`, can do that.
    """
    try:
        with (store.path / LOG).open(encoding="utf-8", errors="replace") as file:
            told = [int(found[1]) for line in file if (found := _GENERATION.match(line))]
    except OSError:
        return 0
    return max(0, max(told, default=0) - store.counts()[0])


_GENERATION = re.compile(r"\S+ generation (\d{1,9}): ")


def _tell_lost_generations(store: Store, say: Say) -> None:
    if lost := lost_generations(store):
        held = store.counts()[0]
        say(
            f"the log tells of {held + lost} generations and run.db holds {held}: run.db-wal was deleted, or "
            f"run.db is an older copy. The missing ones are run again, and will be the same"
        )
