"""Scalar algebra by sympy, at arm's length: in a process of its own, under a time limit.

Takes the largest subterms made of + − * / ** sqrt abs exp log alone, sends them as trees with what is
known of the signs of their leaves, and gets back other forms of them. The worker process is started
when first needed, kept, and ended when it does not answer in time; simplification then goes on without
it and says so. Which forms come back does not depend on time unless the limit strikes.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.spell import tidy
from ruleforge.simplify.facts import Facts
from ruleforge.simplify.view import View, make

SCALAR = frozenset("add sub mul div neg pow sqrt abs exp log lerp".split())
MIN_OPS = 4  # smaller terms are covered by our own laws
MAX_NODES = 60
MAX_EXPONENT = 8.0  # beyond, an expansion has too many terms
CALL_LIMIT_S = 4.0
_WORKER = Path(__file__).with_name("sympy_worker.py")


def scalar_terms(view: View) -> list[Expr]:
    """Largest subterms of scalar ops, those worth asking about."""
    inner = {arg for item in view.nodes if is_scalar(item) for arg in item.args}
    roots = [item for item in view.nodes if is_scalar(item) and (item not in inner or _is_root(view, item))]
    return [item for item in roots if _count_ops(item) >= MIN_OPS and len(ex.walk([item])) <= MAX_NODES]


def is_scalar(item: Expr) -> bool:
    """Whether sympy is shown a node, rather than a symbol in its place."""
    if item.op == "pow" and item.args[1].op == "const" and abs(item.args[1].number) > MAX_EXPONENT:
        return False
    return item.op in SCALAR


def _is_root(view: View, item: Expr) -> bool:
    return any(root is item for root in view.roots)


def _count_ops(item: Expr) -> int:
    pending, seen = [item], {item}
    while pending:
        for arg in pending.pop().args:
            if is_scalar(arg) and arg not in seen:
                seen.add(arg)
                pending.append(arg)
    return len(seen)


class ScalarAlgebra:
    """Asks sympy for other forms of terms; remembers its answers and its failures.

    Attributes:
        notes: what a reader should know about how it went, said again whenever a failure is met again.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._worker: subprocess.Popen[str] | None = None
        self._answers: dict[str, list[Any]] = {}
        self._failures: dict[str, str] = {}
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the worker; it loads sympy while we go on."""
        if self._owner != os.getpid():  # after a fork the pipe belongs to the parent
            self._worker, self._owner = None, os.getpid()
        if self._worker is not None and self._worker.poll() is not None:
            self.close()  # it died; its pipes are still ours
        if self._worker is None:
            self._worker = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, start_new_session=True,
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )  # fmt: skip

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None and self._owner == os.getpid():
            self._worker.kill()
            self._worker.wait()
            for pipe in (self._worker.stdin, self._worker.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what it never read
                        pipe.close()
        self._worker = None

    def variants(self, term: Expr, facts: Facts, limit_s: float) -> Iterator[Expr]:
        """Other forms of a term, most promising first.

        Args:
            term: a folded term of scalar ops over anything.
            facts: ranges of the terms of the rule.
            limit_s: seconds left.
        """
        atoms: dict[Expr, int] = {}
        tree = _encoded(term, atoms)
        signs = {number: _sign(atom, facts) for atom, number in atoms.items()}
        request = json.dumps({"term": tree, "signs": signs})
        if request not in self._answers:
            self._answers[request] = self._ask(request, min(limit_s, CALL_LIMIT_S))
        if request in self._failures:
            self.notes.append(self._failures[request])
        back = list(atoms)
        made = [_decoded(answer, back) for answer in self._answers[request]]
        unique = [form for form in dict.fromkeys(made) if form is not term]
        yield from sorted(unique, key=lambda form: len(ex.walk([form])))

    def _ask(self, request: str, limit_s: float) -> list[Any]:
        self.start()
        worker = self._worker
        assert worker is not None and worker.stdin is not None and worker.stdout is not None
        deadline = time.monotonic() + limit_s
        try:
            worker.stdin.write(request + "\n")
            worker.stdin.flush()
            ready, _, _ = select.select([worker.stdout], [], [], max(0.0, deadline - time.monotonic()))
            line = worker.stdout.readline() if ready else ""
        except OSError:
            line = ""
            ready = [worker.stdout]
        if line:
            return list(json.loads(line)["terms"])
        why = "could not be run" if ready else f"did not answer within {limit_s:.1f} s"
        self._failures[request] = f"sympy {why}; simplified without it"
        self.close()
        return []


def _encoded(item: Expr, atoms: dict[Expr, int]) -> list[Any]:
    if item.op == "const":
        return ["c", repr(tidy(item.number))]
    if is_scalar(item):
        return [item.op, *(_encoded(arg, atoms) for arg in item.args)]
    return ["x", atoms.setdefault(item, len(atoms))]


def _decoded(tree: list[Any], atoms: list[Expr]) -> Expr:
    if tree[0] == "x":
        return atoms[tree[1]]
    if tree[0] == "c":
        return ex.const(tidy(float(tree[1])))
    return make(tree[0], *(_decoded(arg, atoms) for arg in tree[1:]))


def _sign(atom: Expr, facts: Facts) -> str:
    here = facts(atom)
    return "positive" if here.positive else "nonnegative" if here.not_negative else "real"


_SHARED: list[ScalarAlgebra] = []


def shared_engine() -> ScalarAlgebra:
    """The engine of this process: one worker for all simplifications, ended at exit."""
    if not _SHARED:
        _SHARED.append(ScalarAlgebra())
        atexit.register(_SHARED[0].close)
    return _SHARED[0]
