"""One run on disk: what was proposed, trained and chosen, in one SQLite database with one writer.

Knows tables, transactions and the run folder. Does not know what a rule means, how it was measured, or
how a search continues: it hands back the records that it was given. A generation exists wholly or not
at all, whatever kills the process.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ruleforge.errors import StoreError
from ruleforge.records import (
    CandidateRow,
    CandidateStatus,
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
    storage_error,
    sync_folder,
    write_text_atomic,
)
from ruleforge.store.plain import TABLE_OF, Row, from_columns, to_columns, to_json

# Meta that two equal runs may differ in; `dump` leaves it out.
VOLATILE_META: Final = frozenset({"created_at", "machine"})


@dataclass(frozen=True)
class Ancestor:
    """One line of a lineage: the candidate, how it was made, and its parents in order."""

    id: int
    depth: int  # 0 the candidate itself, 1 its parents, …; the shortest way counts
    generation: int
    origin: str
    text: str
    parents: tuple[int, ...]


class Store:
    """A run folder, open for reading or as its one writer. Make one with `create` or `open`."""

    def __init__(self, path: Path, database: sqlite3.Connection, lock: WriterLock | None) -> None:
        self.path = path
        self._db = database
        self._lock = lock

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
                create_database(draft, rows)
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
            for record, rows in (
                (CandidateRow, candidates),
                (ParentRow, parents),
                (EvaluationRow, evaluations),
                (FitnessRow, fitness),
                (TimingRow, timings),
                (GenerationRow, (generation,)),
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

    def put_champion(self, text: str) -> None:
        """Write `champion.rule`, wholly or not at all."""
        self._require_writer("write the champion")
        write_text_atomic(self.path / CHAMPION, text, running=True)

    def log(self, line: str) -> None:
        """Append a line to `log.txt`, with the time in UTC before it."""
        self._require_writer("write the log")
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        path = self.path / LOG
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{stamp} {line.rstrip()}\n")
        except OSError as fault:
            raise storage_error("write it", path, fault, running=True) from fault

    # Reading

    @property
    def meta(self) -> dict[str, Json]:
        """The facts fixed when the run was made, by name."""
        return {
            key: json.loads(value) for key, value in self._rows("SELECT key, value FROM meta ORDER BY key")
        }

    @property
    def config_text(self) -> str:
        """The resolved config that the run was made with."""
        path = self.path / CONFIG
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise StoreError(f"cannot read it: {fault}", file=str(path)) from fault

    def last_generation(self) -> GenerationRow | None:
        """The generation to resume from, or None when none has ended yet."""
        found = self._select(GenerationRow, "ORDER BY n DESC LIMIT 1")
        return found[0] if found else None

    def generations(self) -> list[GenerationRow]:
        """All generations that ended, in order."""
        return self._select(GenerationRow, "ORDER BY n")

    def candidate(self, candidate_id: int) -> CandidateRow:
        """The candidate with this id.

        Raises:
            StoreError: the run has none.
        """
        found = self._select(CandidateRow, "WHERE id = ?", candidate_id)
        if not found:
            count, last = self._rows("SELECT count(*), max(id) FROM candidates")[0]
            raise StoreError(
                f"this run has no candidate {candidate_id!r}",
                file=str(self.path),
                hint=f"it holds {count} candidates, the last is {last}" if count else "it holds none yet",
            )
        return found[0]

    def candidate_by_key(self, key: str) -> CandidateRow | None:
        """The first candidate of this canonical form whatever its hyper defaults, or None."""
        found = self._select(CandidateRow, "WHERE key = ? ORDER BY id LIMIT 1", key)
        return found[0] if found else None

    def candidate_by_full_key(self, full_key: str) -> CandidateRow | None:
        """The candidate of this canonical form and these hyper defaults, or None."""
        found = self._select(CandidateRow, "WHERE full_key = ?", full_key)
        return found[0] if found else None

    def candidates(self, status: CandidateStatus | None = None) -> list[CandidateRow]:
        """Candidates in proposal order, all or those with one status."""
        return self._select(CandidateRow, "WHERE (?1 IS NULL OR status = ?1) ORDER BY id", status)

    def parents(self, candidate_id: int) -> tuple[int, ...]:
        """Ids of the candidate's parents, in order; () for a seed or a fresh draw."""
        query = "SELECT parent FROM parents WHERE child = ? ORDER BY position"
        return tuple(row[0] for row in self._rows(query, candidate_id))

    def lineage(self, candidate_id: int) -> list[Ancestor]:
        """The candidate and all its ancestors, nearest first, each with how it was made."""
        self.candidate(candidate_id)
        rows = self._rows(
            """
            WITH RECURSIVE line(id, depth) AS (
                VALUES (?, 0)
                UNION
                SELECT parent, depth + 1 FROM parents JOIN line ON child = line.id
            )
            SELECT c.id, min(depth), c.generation, c.origin, c.text
            FROM line JOIN candidates c ON c.id = line.id
            GROUP BY c.id ORDER BY min(depth), c.id
            """,
            candidate_id,
        )
        return [
            Ancestor(number, depth, generation, origin, text, self.parents(number))
            for number, depth, generation, origin, text in rows
        ]

    def evaluations(
        self, candidate: int | None = None, rung: int | None = None, workload: str | None = None
    ) -> list[EvaluationRow]:
        """Evaluations, narrowed by what is given, ordered by candidate, rung and workload."""
        return self._select(
            EvaluationRow,
            "WHERE (?1 IS NULL OR candidate = ?1) AND (?2 IS NULL OR rung = ?2) "
            "AND (?3 IS NULL OR workload = ?3) ORDER BY candidate, rung, workload",
            candidate,
            rung,
            workload,
        )

    def fitness(
        self, candidate: int | None = None, rung: int | None = None, objective: str | None = None
    ) -> list[FitnessRow]:
        """Objectives, narrowed by what is given, ordered by candidate, rung and name."""
        return self._select(
            FitnessRow,
            "WHERE (?1 IS NULL OR candidate = ?1) AND (?2 IS NULL OR rung = ?2) "
            "AND (?3 IS NULL OR objective = ?3) ORDER BY candidate, rung, objective",
            candidate,
            rung,
            objective,
        )

    def timings(self) -> list[TimingRow]:
        """Wall times in the order in which they were stored."""
        return self._select(TimingRow, "ORDER BY rowid")

    def counts(self) -> tuple[int, int, int]:
        """Numbers of generations, candidates, and trained candidates."""
        query = (
            "SELECT (SELECT count(*) FROM generations), count(*), "
            "count(*) FILTER (WHERE status = 'trained') FROM candidates"
        )
        generations, candidates, trained = self._rows(query)[0]
        return generations, candidates, trained

    def results(self) -> dict[str, Json]:
        """The final tables by name; empty while the run goes on."""
        query = "SELECT name, value FROM results ORDER BY name"
        return {name: json.loads(value) for name, value in self._rows(query)}

    def dump(self) -> str:
        """All that must repeat, as text: every table but `timings`, each row a JSON list, in key order.

        Two runs of one config and seed have equal dumps. Floats are spelled exactly. Left out besides
        wall times: `created_at` and `machine` of meta.
        """
        order = {
            "meta": "key",
            "generations": "n",
            "candidates": "id",
            "parents": "child, position",
            "evaluations": "candidate, rung, workload",
            "fitness": "candidate, rung, objective",
            "results": "name",
        }
        lines = []
        for table, key in order.items():
            lines.append(f"== {table}")
            for row in self._rows(f"SELECT * FROM {table} ORDER BY {key}"):
                if table != "meta" or row[0] not in VOLATILE_META:
                    lines.append(json.dumps(row, ensure_ascii=False))
        return "\n".join(lines) + "\n"

    def check(self) -> list[str]:
        """What is wrong with the database, in words; empty when nothing is."""
        found = [row[0] for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
        for table, rowid, parent, _ in self._rows("PRAGMA foreign_key_check"):
            found.append(f"{table} row {rowid} points to a row of {parent} that does not exist")
        numbers = [row[0] for row in self._rows("SELECT n FROM generations ORDER BY n")]
        if numbers != list(range(len(numbers))):
            found.append(f"generations have gaps: {numbers}")
        return found

    # Within

    def _select(self, record: type[Any], tail: str, *values: Any) -> list[Any]:
        columns = ", ".join(each.name for each in fields(record))
        rows = self._rows(f"SELECT {columns} FROM {TABLE_OF[record]} {tail}", *values)
        return [from_columns(record, row) for row in rows]

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as fault:
            raise explain_fault("read it", self.path, fault) from fault

    def _scalar(self, query: str) -> Any:
        return self._rows(query)[0][0]

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
