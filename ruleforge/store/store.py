"""One run on disk: what was proposed, trained and chosen, in one SQLite database with one writer.

Knows tables, transactions and the run folder. Does not know what a rule means, how it was measured, or
how a search continues: it hands back the records that it was given. A generation exists wholly or not
at all, whatever kills the process.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ruleforge.errors import StoreError
from ruleforge.records import (
    CandidateRow,
    EvaluationRow,
    FitnessRow,
    GenerationRow,
    Json,
    ParentRow,
    TimingRow,
)
from ruleforge.store.database import (
    connect,
    create_database,
    explain_fault,
)
from ruleforge.store.files import (
    CHAMPION,
    CONFIG,
    DATABASE,
    LOG,
    WriterLock,
    append_line,
    storage_error,
    sync_folder,
    write_text_atomic,
)
from ruleforge.store.journal import JobJournal
from ruleforge.store.plain import TABLE_OF, Row, to_columns, to_json
from ruleforge.store.reader import Reader


class Store(Reader):
    """A run folder, open for reading or as its one writer. Make one with `create` or `open`."""

    def __init__(self, path: Path, database: sqlite3.Connection, lock: WriterLock | None) -> None:
        self.path = path
        self._db = database
        self._lock = lock
        self.journal = JobJournal(database, self._transaction)

    @classmethod
    def create(cls, folder: Path | str, *, config_text: str, meta: Mapping[str, Json]) -> Self:
        """Make a new run folder and open it for writing; it appears wholly or not at all.

        Args:
            folder: a path that does not exist, or an empty folder.
            config_text: the resolved config, written to `config.toml`.
            meta: facts fixed for the run, by name, such as `seed`, `config_hash`, `plan`, `versions`;
                `created_at` (UTC) is added.

        Raises:
            StoreError: the folder holds something already, or cannot be made.
        """
        folder = Path(folder)
        refuse_occupied(folder)
        facts = {"created_at": datetime.now(UTC).isoformat(timespec="seconds"), **meta}
        rows = [(key, to_json(value, what=f"meta[{key!r}]", exact=True)) for key, value in facts.items()]
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft.mkdir()
            try:
                write_text_atomic(draft / CONFIG, config_text)
                create_database(draft, rows, [(CONFIG, config_text)])
                try:
                    os.rename(draft, folder)
                except OSError:
                    refuse_occupied(folder)
                    raise
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            sync_folder(folder.parent)
        except OSError as fault:
            raise storage_error(
                "make the run folder", folder, fault, instead="choose another folder with --out"
            ) from fault
        except StoreError as error:  # the draft is gone; people know the run by its own name
            error.file = error.file and error.file.replace(str(draft), str(folder))
            raise
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path | str, *, readonly: bool = False) -> Self:
        """Open an existing run folder.

        Args:
            folder: the run folder.
            readonly: read only; works while another process writes.

        Raises:
            StoreError: not a run folder, of another format, unreadable, or written by another process.
        """
        folder = Path(folder)
        if readonly:
            return cls(folder, connect(folder, readonly=True), None)
        connect(folder, readonly=True).close()  # what is not a run folder gets no lock file
        lock = WriterLock(folder)
        try:
            return cls(folder, connect(folder, readonly=False), lock)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Close the database and give the writer's lock back; the second call does nothing."""
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Writing

    def commit_generation(
        self,
        generation: GenerationRow,
        candidates: Iterable[CandidateRow] = (),
        parents: Iterable[ParentRow] = (),
        evaluations: Iterable[EvaluationRow] = (),
        fitness: Iterable[FitnessRow] = (),
        timings: Iterable[TimingRow] = (),
    ) -> None:
        """Store one generation in one transaction: all of it or nothing.

        The rows may be about candidates of earlier generations too, such as a later rung of a survivor.

        Raises:
            StoreError: the generation is not the next one, a row breaks a law of the schema, a
                population member is unknown, or the disk is full. Nothing of it is stored then.
        """
        with self._transaction(f"store generation {generation.n}"):
            expected = self._scalar("SELECT coalesce(max(n) + 1, 0) FROM generations")
            if generation.n != expected:
                raise StoreError(
                    f"generation {generation.n} cannot be stored: the next one is {expected}",
                    file=str(self.path),
                    hint="continue from last_generation()",
                )
            # The generation first: while a reference is open, SQLite looks through whole tables for each row.
            for record, rows in (
                (GenerationRow, (generation,)),
                (CandidateRow, candidates),
                (ParentRow, parents),
                (EvaluationRow, evaluations),
                (FitnessRow, fitness),
                (TimingRow, timings),
            ):
                self._insert(record, rows)
            unknown = self._db.execute(
                "SELECT value FROM generations, json_each(population) WHERE n = ? "
                "AND value NOT IN (SELECT id FROM candidates)",
                (generation.n,),
            ).fetchone()
            if unknown:
                raise StoreError(
                    f"generation {generation.n} lists candidate {unknown[0]}, which is not stored"
                )
            self._db.execute("DELETE FROM journal")
        self._settle()

    def _settle(self) -> None:
        """Move what is committed from the log into run.db itself, so that a copy of that file is whole.

        It is durable already: a disk that is too full for this, or a reader in the way, loses nothing.
        """
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def rebuild_indexes(self) -> None:
        """Build all indexes anew from the rows."""
        self._require_writer("build the indexes")
        try:
            self._db.execute("REINDEX")
        except sqlite3.Error as fault:
            raise explain_fault("build the indexes", self.path, fault) from fault

    def begin_session(self, machine: Mapping[str, Json]) -> None:
        """Record that a process begins to work on the run, and on what kind of machine."""
        with self._transaction("record the session"):
            self._db.execute(
                "INSERT INTO sessions (began_at, generation, machine) "
                "VALUES (?, (SELECT count(*) FROM generations), ?)",
                (
                    datetime.now(UTC).isoformat(timespec="seconds"),
                    to_json(machine, what="machine", exact=True),
                ),
            )

    def _keep_file(self, name: str, text: str) -> None:
        with self._transaction(f"keep {name}"):
            self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, text))

    def add_timings(self, timings: Iterable[TimingRow]) -> None:
        """Store wall times of phases that end after the last generation."""
        with self._transaction("store timings"):
            self._insert(TimingRow, timings)

    def put_result(self, name: str, value: Json) -> None:
        """Store a final table under a name, replacing an earlier one.

        Numbers that are not finite become null. Wall times belong into `add_timings`: `dump`
        includes results.
        """
        text = to_json(value, what=f"results[{name!r}]", exact=False)
        with self._transaction(f"store result {name!r}"):
            self._db.execute(
                "INSERT INTO results VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, text),
            )

    def put_end(self, name: str, value: Json) -> None:
        """Store the last result and forget finished jobs, which nobody needs any more."""
        text = to_json(value, what=f"results[{name!r}]", exact=False)
        with self._transaction(f"store result {name!r}"):
            self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (name, text))
            self._db.execute("DELETE FROM journal")
        self._settle()

    def put_champion(self, text: str) -> None:
        """Write `champion.rule`, wholly or not at all."""
        self._require_writer("write the champion")
        self._keep_file(CHAMPION, text)
        write_text_atomic(self.path / CHAMPION, text, running=True)

    def log(self, line: str) -> None:
        """Append a line to `log.txt`, with the time in UTC before it."""
        self._require_writer("write the log")
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        append_line(self.path / LOG, f"{stamp} {line.rstrip()}")

    # Within

    def _insert(self, record: type[Any], rows: Iterable[Row]) -> None:
        names = [each.name for each in fields(record)]
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {TABLE_OF[record]} ({', '.join(names)}) VALUES ({marks})"
        self._db.executemany(statement, _columns_of(record, rows))

    def _require_writer(self, doing: str) -> None:
        if self._lock is None:
            raise StoreError(f"cannot {doing}: the run was opened for reading", file=str(self.path))

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[None]:
        self._require_writer(doing)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as fault:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(fault, sqlite3.Error):
                raise explain_fault(doing, self.path, fault, running=True) from fault
            raise


def _columns_of(record: type[Any], rows: Iterable[Row]) -> Iterator[Sequence[Any]]:
    for row in rows:
        if not isinstance(row, record):
            raise StoreError(f"expected {record.__name__} among the rows, found {type(row).__name__}")
        yield to_columns(row)


def refuse_occupied(folder: Path) -> None:
    """Nothing for a path that is free or an empty folder.

    Raises:
        StoreError: something is there already.
    """
    try:
        occupied = os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as fault:
        raise storage_error("look into it", folder, fault) from fault
    if occupied:
        go_on = f", or go on with it: ruleforge resume {folder}" if (folder / DATABASE).is_file() else ""
        raise StoreError(
            "this exists already and is not an empty folder",
            file=str(folder),
            hint=f"choose another --out{go_on}",
        )
