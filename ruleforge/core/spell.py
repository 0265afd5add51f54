"""How expressions are spelled: numbers, infix and brackets, and sugar where a slot is sugar's.

A speller knows which names are in force on one line. It prefers a name, then sugar, then the plain
expression. A value that needs an old state which has no name any more cannot be spelled that way,
so the next way is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ruleforge.core import expr as ex
from ruleforge.core.build import debias
from ruleforge.core.canon import Folded
from ruleforge.core.derived import Term
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE, ZERO
from ruleforge.core.ops import OPS
from ruleforge.core.rule import MAX_BYTES, MAX_DEPTH
from ruleforge.errors import RuleError

LOOSEST, SUM, PRODUCT, SIGN, POWER, ATOM = range(6)
_LEVEL = {"add": SUM, "sub": SUM, "mul": PRODUCT, "div": PRODUCT, "neg": SIGN, "pow": POWER}


class Spelled(NamedTuple):
    """Text of an expression, how tightly it binds, and how deep it nests."""

    text: str
    level: int
    height: int


class Name(NamedTuple):
    """A name in force; `prev` does not take the names of explicit states."""

    text: str
    is_state: bool


def format_number(value: float) -> str:
    """The shortest text that reads back as the same float64."""
    if value == int(value) and abs(value) < 1e15 and str(value) != "-0.0":
        return str(int(value))
    return repr(value)


def tidy(value: float) -> float:
    """The shortest decimal within 1e-12 of a computed constant, if it is short: 0.189 for 1 - 0.811."""
    for digits in range(1, 11):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= 1e-12 * abs(value):
            return short
    return value


def format_expr(item: Expr, names: Mapping[Expr, str]) -> str:
    """An expression, folded or not, as rule text; nodes in `names` are written by name.

    Raises:
        RuleError: it is too long or too deep, or needs a state that has no name.
    """
    speller = Speller()
    for value, name in names.items():
        speller.call(value, name)
    return speller.spell(item)


class Speller:
    """Spells the expressions of one rule, line after line.

    Args:
        folded: which slots are sugar, and of what; none where it is not given.
    """

    def __init__(self, folded: Folded | None = None) -> None:
        self._terms = dict(folded.terms) if folded else {}
        self._derived = folded.derived_term if folded else _no_term
        self._next = {i: folded.rule.states[i].next for i in folded.terms} if folded else {}
        self._owner = {self._next[i]: i for i, (op, _) in self._terms.items() if OPS[op].yields == "new"}
        self._names: dict[Expr, list[Name]] = {}
        self._memo: dict[Expr, Spelled | None] = {}

    def call(self, value: Expr, name: str, *, is_state: bool = False) -> None:
        """From now on the value may be written by this name; the first of several is used."""
        self._names.setdefault(value, []).append(Name(name, is_state))
        self._memo.clear()

    def forget(self, value: Expr, name: str) -> None:
        """The name no longer means the value."""
        self._names[value] = [known for known in self._names[value] if known.text != name]
        self._memo.clear()

    def spell(self, item: Expr) -> str:
        """The expression as rule text.

        Raises:
            RuleError: it is too long or too deep, or needs a state that has no name.
        """
        found = self._spell(item, 1)
        if found is None:
            raise RuleError(f"{item!r} reads the old value of a state that has no name any more")
        return found.text

    def _spell(self, item: Expr, depth: int) -> Spelled | None:
        if self._names.get(item):
            return Spelled(self._names[item][0].text, ATOM, 1)
        if item not in self._memo:
            self._memo[item] = None  # a value that is part of its own spelling has none
            self._memo[item] = self._without_name(item, depth)
        return self._memo[item]

    def _without_name(self, item: Expr, depth: int) -> Spelled | None:
        if depth > MAX_DEPTH:
            raise RuleError(f"written out, terms nest deeper than {MAX_DEPTH} levels")
        if item.op == "const":
            text = format_number(item.number)
            return Spelled(text, SIGN if text.startswith("-") else ATOM, 1)
        if not item.args and item.op not in ("state", "hyper"):
            return Spelled(item.op, ATOM, 1)
        for op, args in self._ways(item):
            spell = self._under_prev if op == "prev" else self._spell
            parts = [spell(arg, depth + 1) for arg in args]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                return _composed(op, args, known)
        return None

    def _under_prev(self, item: Expr, depth: int) -> Spelled | None:
        """As the argument of `prev`, where the name of an explicit state would be refused."""
        names = self._names.get(item, [])
        local = next((name.text for name in names if not name.is_state), None)
        if local is not None:
            return Spelled(local, ATOM, 1)
        return self._without_name(item, depth) if names else self._spell(item, depth)

    def _ways(self, item: Expr) -> Iterator[tuple[str, tuple[Expr, ...]]]:
        """The op and arguments to write, best first."""
        if item.op == "state" and item.index in self._terms:
            op, args = self._terms[item.index]
            yield "prev", args if op == "prev" else (self._next[item.index],)
        if item in self._owner:
            yield self._terms[self._owner[item]]
        yield from self._hat(item)
        if (term := self._derived(item)) is not None:
            yield term
        if item.args:
            yield item.op, item.args

    def _hat(self, item: Expr) -> Iterator[tuple[str, tuple[Expr, ...]]]:
        """`ema / (1 - beta ** t)` as `ema_hat`, and its value one step ago, unless `ema` has a name."""
        t = ex.leaf("t")
        if item.op == "div":
            slot = self._owner.get(item.args[0])
            if slot is not None and self._terms[slot][0] == "ema" and not self._names.get(item.args[0]):
                x, beta = self._terms[slot][1]
                if item.args[1] is debias(beta, t):
                    yield "ema_hat", (x, beta)
        if item.op == "where" and item.args[0].op == "first" and item.args[1] is ZERO:
            old = item.args[2]
            leaf = old.args[0] if old.op == "div" and old.args[0].op == "state" else None
            op, args = self._terms.get(leaf.index, ("", ())) if leaf is not None else ("", ())
            if leaf is None or op != "ema" or not ex.is_steady(args[1]):
                return
            if old.args[1] is debias(args[1], ex.node("sub", t, ONE)):
                yield "prev", (ex.node("div", self._next[leaf.index], debias(args[1], t)),)


def _no_term(item: Expr) -> Term | None:
    return None


def _composed(op: str, args: tuple[Expr, ...], parts: Sequence[Spelled]) -> Spelled:
    """An op applied to what its arguments are written as."""
    text, level = _infix(op, args, parts)
    height = 1 + max(part.height for part in parts)
    if height > MAX_DEPTH:
        raise RuleError(f"written out, terms nest deeper than {MAX_DEPTH} levels")
    if len(text) > MAX_BYTES:
        raise RuleError(f"written out, an expression is longer than {MAX_BYTES // 1024} KiB")
    return Spelled(text, level, height)


def _infix(op: str, args: tuple[Expr, ...], parts: Sequence[Spelled]) -> tuple[str, int]:
    if op == "mul" and args[0] is args[1] and parts[0].height > 1:
        return f"square({parts[0].text})", ATOM
    row = OPS[op]
    if row.symbol and row.arity == 2:
        level = _LEVEL.get(op, LOOSEST)
        left = _bracket(parts[0], level + (level in (POWER, LOOSEST)))
        right = _bracket(parts[1], SIGN if level == POWER else level + 1)
        return f"{left} {row.symbol} {right}", level
    if op == "neg" and args[0].op != "const":
        return f"-{_bracket(parts[0], SIGN)}", SIGN
    return f"{op}({', '.join(part.text for part in parts)})", ATOM


def _bracket(part: Spelled, level: int) -> str:
    return part.text if part.level >= level else f"({part.text})"
