"""What runs there are: one summary for each folder under a root, broken ones named and not hidden.

Knows how to look at many run folders without disturbing their writers. Does not know fitness.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ruleforge.errors import StoreError
from ruleforge.store.files import CHAMPION, is_being_written, storage_error
from ruleforge.store.store import Store

RunStatus = Literal["running", "finished", "interrupted", "broken"]

# The result whose presence says that the run came to its end; the driver puts it last.
FINISHED = "finished"


@dataclass(frozen=True)
class RunSummary:
    """One run folder at a glance.

    Attributes:
        name: folder name.
        path: the folder.
        status: `running` while a process writes it; `finished` when its result `finished` is stored;
            `interrupted` otherwise: it can be resumed; `broken` when it cannot be read.
        generations: generations that ended.
        candidates: candidates stored.
        trained: candidates of these that were trained.
        seed: the run's seed, or None where meta has none.
        created_at: UTC time, ISO 8601, or "".
        champion: text of `champion.rule`, or None while there is none.
        problem: why it is broken, or "".
    """

    name: str
    path: Path
    status: RunStatus
    generations: int = 0
    candidates: int = 0
    trained: int = 0
    seed: int | None = None
    created_at: str = ""
    champion: str | None = None
    problem: str = ""


def list_runs(root: Path | str) -> list[RunSummary]:
    """A summary of each folder directly under the root, by name; files and hidden folders are passed over.

    Raises:
        StoreError: the root is no folder or cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise StoreError(
            "there is no such folder to look for runs in",
            file=str(root),
            hint="runs are made by ruleforge search, under results/ unless --out says otherwise",
        )
    try:
        folders = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError as fault:
        raise storage_error("read it", root, fault) from fault
    return [summarize_run(folder) for folder in folders]


def summarize_run(folder: Path | str) -> RunSummary:
    """The summary of one run folder; one that cannot be read is `broken`, with the reason."""
    folder = Path(folder)
    try:
        with Store.open(folder, readonly=True) as store:
            generations, candidates, trained = store.counts()
            meta = store.meta
            finished = FINISHED in store.results()
    except StoreError as error:
        return RunSummary(folder.name, folder, "broken", problem=error.message)
    champion = folder / CHAMPION
    try:
        text = champion.read_text(encoding="utf-8") if champion.exists() else None
    except (OSError, UnicodeDecodeError) as fault:
        return RunSummary(folder.name, folder, "broken", problem=f"cannot read {CHAMPION}: {fault}")
    seed = meta.get("seed")
    return RunSummary(
        name=folder.name,
        path=folder,
        status="running" if is_being_written(folder) else "finished" if finished else "interrupted",
        generations=generations,
        candidates=candidates,
        trained=trained,
        seed=seed if isinstance(seed, int) else None,
        created_at=str(meta.get("created_at", "")),
        champion=text,
    )
