"""Opening and making `run.db`, and saying in words what SQLite says in codes.

Knows SQLite's files and pragmas. Does not know records.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ruleforge.errors import StoreError
from ruleforge.store.files import DATABASE, require_plain_files

SCHEMA_VERSION: Final = 2
OLDEST_READ: Final = 1
APPLICATION_ID: Final = 0x52756C65  # "Rule"; the same number stands in schema.sql
_NEEDED_SQLITE: Final = (3, 37, 0)  # STRICT tables


def create_database(
    folder: Path, meta: Iterable[tuple[str, str]], files: Iterable[tuple[str, str]] = ()
) -> None:
    """Make `run.db` in a folder, with the schema, the meta rows, and copies of the run's text files.

    Raises:
        StoreError: SQLite is too old, or cannot write there.
    """
    if sqlite3.sqlite_version_info < _NEEDED_SQLITE:
        raise StoreError(
            f"Python's SQLite is {sqlite3.sqlite_version}, and run folders need 3.37 or newer",
            hint="use a newer Python or system SQLite; ruleforge doctor shows the version",
        )
    try:
        database = sqlite3.connect(folder / DATABASE, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(_script("schema.sql"))
            migrate(database, 1)
            database.executemany("INSERT INTO meta VALUES (?, ?)", meta)
            database.executemany("INSERT INTO files VALUES (?, ?)", files)
        finally:
            database.close()
    except sqlite3.Error as fault:
        raise explain_fault("make run.db", folder, fault) from fault


def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def migrate(database: sqlite3.Connection, version: int, until: int = SCHEMA_VERSION) -> None:
    """Bring a database of this version to a later one: each step is a transaction of its own."""
    for step in range(version + 1, until + 1):
        try:
            database.executescript(_script(f"schema_{step}.sql"))
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


def version_of(database: sqlite3.Connection) -> int:
    """The format of a database."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def connect(folder: Path, *, readonly: bool) -> sqlite3.Connection:
    """A connection to the run's database, checked to be one of ours and of this version.

    Raises:
        StoreError: no such folder, no run in it, not a database, another format, or unreadable.
    """
    path = folder / DATABASE
    hint = "give a folder made by ruleforge search; ruleforge list shows them"
    try:
        if not folder.exists():
            raise StoreError("there is no such run folder", file=str(folder), hint=hint)
        if not folder.is_dir():
            raise StoreError("this is a file, not a run folder", file=str(folder), hint=hint)
        if not path.is_file():
            raise StoreError(f"this is not a run folder: it holds no {DATABASE}", file=str(folder), hint=hint)
        require_plain_files(folder)
        with path.open("rb") as file:
            file.read(1)
    except OSError as fault:
        raise StoreError(
            f"cannot read it: {fault.strerror or fault}", file=str(path), hint="check the permissions"
        ) from fault
    database = _connect_checked(folder, readonly=readonly)
    if readonly:
        database.execute("PRAGMA query_only = ON")
        return database
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        migrate(database, version_of(database))
    except (sqlite3.Error, UnicodeError) as fault:
        database.close()
        raise explain_fault("bring it to the present format", folder, fault) from fault
    return database


def _connect_checked(folder: Path, *, readonly: bool) -> sqlite3.Connection:
    """The first way of opening that works.

    A reader opens for writing too where it may (`query_only` then holds it back): only such a connection
    removes SQLite's two side files when it is the last one. In a folder that nobody may write, a log that
    exists is read with `mode=ro`; with none beside the database, the file alone is the whole run.
    """
    path = folder / DATABASE
    log = path.with_name(DATABASE + "-wal")
    ways = ["mode=rw"]
    if readonly:
        ways.append("mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1")
    faults: list[sqlite3.Error] = []
    for way in ways:
        database = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?{way}", uri=True, isolation_level=None, timeout=30.0
        )
        try:
            _check_format(folder, database)
        except sqlite3.OperationalError as fault:
            database.close()
            faults.append(fault)
        except (sqlite3.Error, UnicodeError) as fault:
            database.close()
            raise explain_fault("read it", folder, fault) from fault
        except BaseException:
            database.close()
            raise
        else:
            return database
    raise explain_fault("read it", folder, faults[0]) from faults[0]


def _check_format(folder: Path, database: sqlite3.Connection) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = version_of(database)
    where = str(folder / DATABASE)
    if application != APPLICATION_ID and not (folder / DATABASE).stat().st_size:
        raise StoreError(
            "run.db is empty", hint="a copy that was cut short? restore it from a copy", file=where
        )
    if application != APPLICATION_ID:
        raise StoreError(
            "run.db is a database of something else",
            file=where,
            hint="give a folder made by ruleforge search; ruleforge list shows them",
        )
    if not OLDEST_READ <= version <= SCHEMA_VERSION:
        newer = version > SCHEMA_VERSION
        raise StoreError(
            f"run.db has format {version}, and this ruleforge reads {OLDEST_READ} to {SCHEMA_VERSION}",
            file=where,
            hint="it was written by a newer ruleforge: update this one" if newer else "the file is damaged",
        )
    _require_own_schema(where, database, version)
    database.execute("SELECT count(*) FROM meta").fetchone()


def _require_own_schema(where: str, database: sqlite3.Connection, version: int) -> None:
    """Refuse tables, views, triggers and indexes that no step of ours makes.

    A view or a trigger in a stranger's file would run with every question and every row.
    """
    if others := sorted(_schema_of(database) ^ _own_schema(version)):
        kind, name, _, _ = others[0]
        raise StoreError(
            f"run.db is not made of the tables that ruleforge makes: the {kind} {name[:80]!r} differs",
            file=where,
            hint="the file is damaged, or was changed by something else: restore it from a copy",
        )


def _schema_of(database: sqlite3.Connection) -> set[tuple[str, str, str, str]]:
    rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
    return {
        (str(kind), str(name), str(table), str(sql))
        for kind, name, table, sql in rows
        if not str(name).startswith("sqlite_stat")  # what ANALYZE leaves
    }


@lru_cache(maxsize=8)
def _own_schema(version: int) -> frozenset[tuple[str, str, str, str]]:
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database.executescript(_script("schema.sql"))
        migrate(database, 1, version)
        return frozenset(_schema_of(database))
    finally:
        database.close()


def explain_fault(
    doing: str, folder: Path, fault: sqlite3.Error | UnicodeError, *, running: bool = False
) -> StoreError:
    """The error for what SQLite said, with its remedy.

    Args:
        doing: what was tried, as in "store generation 3".
        folder: the run folder.
        fault: SQLite's error.
        running: the fault came in the middle of a run, so the exit code is 1.
    """
    path = str(folder / DATABASE)
    if isinstance(fault, UnicodeError):  # SQLite quotes a damaged file in its message
        return StoreError(f"cannot {doing}: it is damaged", file=path, hint="restore it from a copy")
    code = getattr(fault, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    remedies = {
        sqlite3.SQLITE_FULL: "the disk is full: free some, then ruleforge resume; what was stored is kept",
        sqlite3.SQLITE_NOTADB: "the file is damaged or not a run: restore it from a copy",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a copy",
        sqlite3.SQLITE_READONLY: "check the permissions of the folder and the file",
        sqlite3.SQLITE_CANTOPEN: "check the permissions of the folder and the file",
        sqlite3.SQLITE_PERM: "check the permissions of the folder and the file",
        sqlite3.SQLITE_IOERR: "check the disk and its free space; what was stored before is kept",
        sqlite3.SQLITE_BUSY: "another program holds the database: close it and try again",
        sqlite3.SQLITE_CONSTRAINT: "a row breaks a law of the schema; nothing of it was stored",
    }
    hint = remedies.get(primary, "see the SQLite message above") if primary is not None else ""
    error = StoreError(f"cannot {doing}: {fault}", file=path, hint=hint)
    if running:
        error.exit_code = 1
    return error
