"""Databases of every released version: read as they are, brought up to date by a writer, never changed
in what they say. The stored runs under tests/golden/runs were made by those versions."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from ruleforge.errors import StoreError
from ruleforge.records import GenerationRow
from ruleforge.store import Store, summarize_run
from ruleforge.store.database import SCHEMA_VERSION

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "runs"
STORED = sorted(each.relative_to(GOLDEN).as_posix() for each in GOLDEN.glob("format-*/*"))
# What each stored run said when its own version read it: a digest of `dump`.
SAID = {
    "format-1/finished": "086bcd258c5033e9",
    "format-1/interrupted": "4bf37cb6d4d1c242",
}


def schema_of(folder: Path) -> list[tuple[str, ...]]:
    database = sqlite3.connect(folder / "run.db")
    try:
        rows = database.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
        ).fetchall()
    finally:
        database.close()
    return [tuple(map(str, row)) for row in rows]


def digest(store: Store) -> str:
    return hashlib.sha256(store.dump().encode()).hexdigest()[:16]


def test_there_is_a_stored_run_of_every_earlier_format() -> None:
    formats = {int(name.partition("/")[0].removeprefix("format-")) for name in STORED}
    assert set(range(1, SCHEMA_VERSION)) <= formats


@pytest.mark.parametrize("name", STORED)
def test_an_old_run_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "run")
    before = (tmp_path / "run" / "run.db").read_bytes()
    with Store.open(tmp_path / "run", readonly=True) as store:
        assert store.version == int(name.partition("/")[0].removeprefix("format-"))
        assert digest(store) == SAID[name]
        assert store.check() == []
        assert store.sessions() == [] and store.set_aside() == []
        assert store.kept_file("config.toml") is None
    assert summarize_run(tmp_path / "run").status == name.rpartition("/")[2]
    assert (tmp_path / "run" / "run.db").read_bytes() == before


@pytest.mark.parametrize("name", STORED)
def test_a_writer_brings_an_old_run_up_to_date_and_keeps_what_it_says(name: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "run")
    with Store.open(tmp_path / "run") as store:
        assert store.version == SCHEMA_VERSION
        assert digest(store) == SAID[name]
        assert store.check() == []
        store.begin_session({"cpu": "x"})
        store.journal.put("a", "b")
        store.journal.flush()
        last = store.last_generation()
        assert last is not None
        store.commit_generation(GenerationRow(last.n + 1, last.population, last.rng, last.strategy))
        assert store.journal.get("a") is None
    Store.create(tmp_path / "new", config_text="", meta={}).close()
    assert schema_of(tmp_path / "run") == schema_of(tmp_path / "new")


@pytest.mark.parametrize("line", range(5))
def test_a_migration_that_breaks_off_leaves_the_old_format(
    line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ruleforge.store import database

    shutil.copytree(GOLDEN / "format-1/interrupted", tmp_path / "run")
    whole = database._script("schema_2.sql").split(";\n")
    broken = ";\n".join([*whole[: 2 + 2 * line], "SELECT nothing FROM nowhere", *whole[2 + 2 * line :]])
    with monkeypatch.context() as patch:
        patch.setattr(database, "_script", lambda name: broken)
        with pytest.raises(StoreError, match="present format"):
            Store.open(tmp_path / "run")
    with Store.open(tmp_path / "run", readonly=True) as store:
        assert store.version == 1 and digest(store) == SAID["format-1/interrupted"]
    with Store.open(tmp_path / "run") as store:
        assert store.version == SCHEMA_VERSION and digest(store) == SAID["format-1/interrupted"]
