"""What a run keeps besides its generations: finished jobs of the one under way, and rules set aside.

Knows the tables of `schema_2.sql`. Does not know what a job is: keys and texts come from outside.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

# Results wait so long for company, since each transaction waits for the disk. `flush` waits for nothing.
GATHER_S: Final = 0.5


class Rule(Protocol):
    """A rule that was set aside."""

    @property
    def text(self) -> str: ...
    @property
    def workload(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def traceback(self) -> str: ...


@dataclass(frozen=True)
class SetAsideRow:
    """A rule that was given up: on which workload ("" for the probes), why, and what it raised."""

    text: str
    workload: str
    reason: str
    traceback: str


class JobJournal:
    """Results by job, durable when `flush` returns.

    Args:
        database: the run's, open for writing.
        transaction: begins one, named for messages.
    """

    def __init__(
        self, database: sqlite3.Connection, transaction: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self._db = database
        self._transaction = transaction
        self._results: dict[str, str] = {}
        self._rules: dict[str, Rule] = {}
        self._flushed = time.monotonic()

    def get(self, key: str) -> str | None:
        """The kept result of a job, or None; what cannot be read counts as not kept."""
        try:
            row = self._db.execute("SELECT result FROM journal WHERE job = ?", (key,)).fetchone()
        except sqlite3.Error:
            return None
        return row[0] if row and isinstance(row[0], str) else None

    def put(self, key: str, text: str) -> None:
        """Keep a result, durable soon."""
        self._results[key] = text
        if time.monotonic() - self._flushed >= GATHER_S:
            self.flush()

    def set_aside(self, key: str, rule: Rule) -> None:
        """Keep which rule was given up, and why."""
        self._rules[key] = rule

    def flush(self) -> None:
        """Make it durable, in one transaction.

        Raises:
            StoreError: the disk is full or fails.
        """
        results, rules = self._results, self._rules
        self._results, self._rules = {}, {}
        self._flushed = time.monotonic()
        if not results and not rules:
            return
        with self._transaction("keep finished jobs"):
            self._db.executemany("INSERT OR REPLACE INTO journal VALUES (?, ?)", results.items())
            self._db.executemany(
                "INSERT OR IGNORE INTO set_aside VALUES (?, ?, ?, ?, ?)",
                [(key, each.workload, each.text, each.reason, each.traceback) for key, each in rules.items()],
            )
