"""TARGET on the command line: a known rule, a `.rule` file, a run folder (its champion), or RUN:ID.

Knows where rules are found. Does not know how they are shown, trained or exported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ruleforge.app.final_record import final_record
from ruleforge.core.known import KNOWN, known
from ruleforge.core.text import RuleText, load, parse
from ruleforge.errors import InputError, StoreError
from ruleforge.store import CHAMPION, DATABASE, Store, is_being_written
from ruleforge.words import did_you_mean

RESULTS: Final = Path("results")

Origin = Literal["known", "file", "champion", "candidate"]


@dataclass(frozen=True)
class Target:
    """A rule and where it comes from.

    Attributes:
        name: short name for tables and for files made from it.
        text: the rule, its names and docstring.
        origin: kind of place it was found in.
        run: run folder, for champions and candidates.
        id: candidate id in that run; None for a champion that is not stored as a candidate.
    """

    name: str
    text: RuleText
    origin: Origin
    run: Path | None = None
    id: int | None = None


def resolve_target(text: str) -> Target:
    """The rule that a TARGET names.

    A known rule's name comes first; `./adam` means the folder or file of that name. Run folders are
    looked for as given, then under results/.

    Raises:
        InputError: nothing is called so, or it cannot be read; with the nearest names.
    """
    given = text.strip()
    if not given:
        raise InputError("the target is empty", hint=_ACCEPTED)
    if _is_known(given):
        found = known(given)
        return Target(found.name, found.rule, "known")
    if given.endswith(".rule"):
        return Target(Path(given).stem, load(given), "file")
    run, colon, number = given.rpartition(":")
    if colon and find_run(run) is not None:
        return _candidate(run, number)
    folder = find_run(given)
    if folder is not None:
        return champion_of(folder)
    path = Path(given)
    if path.is_file():
        raise InputError(
            "is neither a .rule file nor a run folder",
            file=given,
            hint=f"name it {path.stem}.rule; {_ACCEPTED}",
        )
    if path.is_dir():
        raise StoreError(f"this is not a run folder: it holds no {DATABASE}", file=given, hint=_ACCEPTED)
    hint = did_you_mean(given.lower(), [*KNOWN, *_run_names()], _ACCEPTED, most=3)
    raise InputError(f"there is no target {text!r}", hint=hint)


_ACCEPTED: Final = (
    "a target is a known rule (`ruleforge rules`), a .rule file, a run folder (`ruleforge list`), or RUN:ID"
)


def _is_known(name: str) -> bool:
    try:
        known(name)
    except InputError:
        return False
    return True


def _run_names() -> list[str]:
    """Names of the folders under results/."""
    return [each.name for each in RESULTS.iterdir() if each.is_dir()] if RESULTS.is_dir() else []


def find_run(name: str) -> Path | None:
    """The run folder of a path, or of a name under results/; None if there is none."""
    if not name:
        return None
    for folder in (Path(os.path.expanduser(name)), RESULTS / name):
        if (folder / DATABASE).is_file():
            return folder
    return None


def require_run(name: str) -> Path:
    """The run folder of a path, or of a name under results/.

    Raises:
        StoreError: it is not one; the hint names the nearest.
    """
    folder = find_run(name)
    if folder is not None:
        return folder
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        what = f"this is not a run folder: it holds no {DATABASE}"
    elif path.exists():
        what = "this is a file, not a run folder"
    else:
        what = "there is no such run folder"
    there = f" --results {name}" if any(path.glob(f"*/{DATABASE}")) else ""
    hint = did_you_mean(path.name, _run_names(), f"`ruleforge list{there}` shows the runs", cutoff=0.5)
    raise StoreError(what, file=name, hint=hint)


def champion_of(folder: Path) -> Target:
    """The recommended rule of a run.

    Raises:
        StoreError: the run has none yet, or cannot be read.
    """
    with Store.open(folder, readonly=True) as store:
        path = folder / CHAMPION
        if not path.is_file():
            busy = "it is still being written" if is_being_written(folder) else ""
            raise StoreError(
                "this run has no champion yet",
                file=str(folder),
                hint=f"{busy or f'`ruleforge resume {folder}` goes on'}; "
                f"`ruleforge list {folder}` shows its rules so far",
            )
        # It is written simplified, so its text need not be that of the candidate it was found as.
        champion = final_record(store).get("champion") or {}
        return Target(folder.resolve().name, load(str(path)), "champion", folder, champion.get("id"))


def _candidate(run: str, number: str) -> Target:
    folder = require_run(run)
    if number == "champion":
        return champion_of(folder)
    if not number.isdecimal():
        raise InputError(
            f"{number!r} is no candidate id",
            file=str(folder),
            hint=f"ids are whole numbers; `ruleforge list {folder}` shows them",
        )
    with Store.open(folder, readonly=True) as store:
        row = store.candidate(int(number))
    text = parse(row.text, file=f"{folder}:{number}")
    return Target(f"{folder.resolve().name}_{number}", text, "candidate", folder, row.id)
