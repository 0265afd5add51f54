"""Runs on disk: one folder each, one SQLite database in it, one writer."""

from ruleforge.store.files import CHAMPION, CONFIG, DATABASE, LOG, is_being_written, write_text_atomic
from ruleforge.store.journal import SetAsideRow
from ruleforge.store.reader import Ancestor
from ruleforge.store.runs import FINISHED, RunSummary, list_runs, summarize_run
from ruleforge.store.store import Store

__all__ = [
    "Store",
    "Ancestor",
    "SetAsideRow",
    "RunSummary",
    "list_runs",
    "summarize_run",
    "is_being_written",
    "write_text_atomic",
    "DATABASE",
    "CONFIG",
    "CHAMPION",
    "LOG",
    "FINISHED",
]
