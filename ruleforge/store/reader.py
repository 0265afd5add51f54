"""Looking into a run: records, lineage, counts, and the text by which two runs are compared.

Knows the tables. Writes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

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
from ruleforge.store.database import explain_fault, version_of
from ruleforge.store.files import CONFIG
from ruleforge.store.journal import SetAsideRow
from ruleforge.store.plain import TABLE_OF, from_columns

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


class Reader:
    """The questions that a run folder answers."""

    path: Path
    _db: sqlite3.Connection

    @property
    def meta(self) -> dict[str, Json]:
        """The facts fixed when the run was made, by name."""
        return {
            key: self._json("meta", value)
            for key, value in self._texts("meta", "SELECT key, value FROM meta ORDER BY key")
        }

    @property
    def config_text(self) -> str:
        """The resolved config that the run was made with."""
        path = self.path / CONFIG
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise StoreError(f"cannot read it: {fault}", file=str(path)) from fault

    @property
    def version(self) -> int:
        """The format of the database; one of an older format has no sessions, files or rules set aside."""
        return version_of(self._db)

    def kept_file(self, name: str) -> str | None:
        """What `config.toml` or `champion.rule` must say, or None where the run does not know."""
        if self.version < 2:
            return None
        found = self._texts("files", "SELECT text FROM files WHERE name = ?", name)
        return found[0][0] if found else None

    def sessions(self) -> list[tuple[str, int, Json]]:
        """Who worked on the run: when each began (UTC), at which generation, and on what."""
        if self.version < 2:
            return []
        rows = self._rows("SELECT began_at, generation, machine FROM sessions ORDER BY n")
        return [(began, generation, self._json("sessions", machine)) for began, generation, machine in rows]

    def set_aside(self) -> list[SetAsideRow]:
        """Rules that were given up while the run went on."""
        if self.version < 2:
            return []
        query = "SELECT text, workload, reason, traceback FROM set_aside ORDER BY rowid"
        return [SetAsideRow(*row) for row in self._texts("set_aside", query)]

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
        rows = self._select(ParentRow, "WHERE child = ? ORDER BY position", candidate_id)
        return tuple(row.parent for row in rows)

    def lineage(self, candidate_id: int) -> list[Ancestor]:
        """The candidate and all its ancestors, nearest first, each with how it was made."""
        self.candidate(candidate_id)
        depth_of = {candidate_id: 0}  # nobody is entered twice, so even a damaged circle comes to an end
        parents: dict[int, tuple[int, ...]] = {}
        ring, depth = [candidate_id], 0
        while ring:
            parents |= {number: self.parents(number) for number in ring}
            depth += 1
            ring = sorted({p for number in ring for p in parents[number]} - set(depth_of))
            depth_of |= dict.fromkeys(ring, depth)
        rows = [self.candidate(number) for number in sorted(depth_of, key=lambda n: (depth_of[n], n))]
        return [
            Ancestor(row.id, depth_of[row.id], row.generation, row.origin, row.text, parents[row.id])
            for row in rows
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
        return {name: self._json("results", value) for name, value in self._texts("results", query)}

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
        try:
            return [from_columns(record, row) for row in rows]
        except (ValueError, TypeError, RecursionError) as fault:
            raise self._unreadable(TABLE_OF[record], fault) from None

    def _json(self, table: str, text: Any) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as fault:
            raise self._unreadable(table, fault) from None

    def _texts(self, table: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of texts alone."""
        rows = self._rows(query, *values)
        if not all(isinstance(value, str) for row in rows for value in row):
            raise self._unreadable(table, "it is no text")
        return rows

    def _unreadable(self, table: str, fault: Exception | str) -> StoreError:
        return StoreError(
            f"a row of {table} cannot be read: {fault}",
            file=str(self.path),
            hint="the file is damaged, or was made by something else: restore it from a copy",
        )

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            rows = self._db.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeError) as fault:
            raise explain_fault("read it", self.path, fault) from fault
        if any(isinstance(value, bytes) for row in rows for value in row):
            raise self._unreadable("some table", "it holds bytes, and no column of ours does")
        return rows

    def _scalar(self, query: str) -> Any:
        return self._rows(query)[0][0]
