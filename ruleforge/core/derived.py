"""Recognising derived ops: the terms that `cautious(x, y)` or `equalize(x)` expand to.

Rules hold core ops alone, so `equalize(a)` becomes seven nodes as it is read. Who shows or counts a rule
takes them for one again: a term is recognised where it is the expansion, up to the order of commutative
arguments and to what exact laws made of it. Ops that fold have `folds` set in the op table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ruleforge.core import expr as ex
from ruleforge.core.build import RuleBuilder
from ruleforge.core.expr import Expr
from ruleforge.core.laws import lawful
from ruleforge.core.ops import COMMUTATIVE, OPS, Op
from ruleforge.core.rule import Kind

Bound = Mapping[Expr, Expr]
Term = tuple[str, tuple[Expr, ...]]

_LETTERS = tuple(ex.state(-2 - i) for i in range(3))  # stand for arguments; -1 is a slot without a number


def expanded(op: str, args: tuple[Expr, ...]) -> Expr:
    """What a derived op without states stands for."""
    return RuleBuilder().apply(op, *args)


def _patterns() -> dict[str, list[tuple[Op, Expr]]]:
    """Expansions by their outermost op: the longest first, of equally long ones the most special."""
    pairs = []
    for row in OPS.values():
        builder = RuleBuilder()
        if row.folds:
            pattern = builder.apply(row.name, *_LETTERS[: row.arity])
            if not builder.n_slots:  # `canon` folds what has slots, with them
                pairs.append((row, pattern))
    found: dict[str, list[tuple[Op, Expr]]] = {}
    for row, pattern in sorted(pairs, key=lambda pair: (-len(ex.walk([pair[1]])), pair[0].arity)):
        found.setdefault(pattern.op, []).append((row, pattern))
    return found


_PATTERNS = _patterns()
RECOGNISED = frozenset(row.name for pairs in _PATTERNS.values() for row, _ in pairs)


def recognised(item: Expr, kinds: Mapping[Expr, Kind]) -> Term | None:
    """The derived op that a term is the expansion of, and its arguments; None for any other term.

    Args:
        item: a term over core ops.
        kinds: of the terms of its rule; what is not among them is not recognised.
    """
    for row, pattern in _PATTERNS.get(item.op, ()):
        for bound in _readings(pattern, item, {}):
            args = tuple(bound[letter] for letter in _LETTERS[: row.arity])
            if all(_may_be(param, kinds.get(arg)) for param, arg in zip(row.params, args, strict=True)):
                return row.name, args
    return None


def _may_be(param: str, kind: Kind | None) -> bool:
    if kind is None:
        return False
    return {"!": kind is Kind.TENSOR, "#": kind is not Kind.TENSOR}.get(param[-1], True)


def _readings(pattern: Expr, item: Expr, bound: Bound) -> Iterator[Bound]:
    """Ways to put terms for the letters so that the pattern becomes the item."""
    if pattern in _LETTERS:
        known = bound.get(pattern)
        if known is None:
            yield {**bound, pattern: item}
        elif known is item:
            yield bound
    elif not pattern.args:
        if pattern is item:
            yield bound
    elif len(pattern.args) == 1 and pattern.args[0] in bound:  # `abs` of a square is gone, by a law
        value = bound[pattern.args[0]]
        if item in (ex.node(pattern.op, value), lawful(pattern.op, value)):
            yield bound
    elif pattern.op == item.op:
        yield from _readings_of_all(pattern.args, item.args, bound)
        if pattern.op in COMMUTATIVE and item.args[0] is not item.args[1]:
            yield from _readings_of_all(pattern.args, item.args[::-1], bound)


def _readings_of_all(patterns: tuple[Expr, ...], args: tuple[Expr, ...], bound: Bound) -> Iterator[Bound]:
    if not patterns:
        yield bound
        return
    for found in _readings(patterns[0], args[0], bound):
        yield from _readings_of_all(patterns[1:], args[1:], found)
