"""Expression nodes: frozen, interned, with a content key.

Two nodes built alike are one object, so equality is `is` and a shared subterm is one node. The
module knows structure only: what an op means is the table's business, what a slot or a
hyperparameter is belongs to `rule`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from weakref import WeakValueDictionary

from ruleforge.core.ops import OPS, TERMINALS
from ruleforge.errors import RuleError


class Expr:
    """One node of an expression graph. Make nodes with `node`, `const`, `hyper`, `state`, `leaf`.

    Attributes:
        op: an op of the table, a terminal, or "const", "hyper", "state".
        args: child nodes.
        value: a float for "const", an index for "hyper" and "state", else None.
        key: hex digest of the content; equal in every process.
        height: nodes on the longest path down to a leaf.
    """

    __slots__ = ("__weakref__", "args", "height", "key", "op", "value")

    op: str
    args: tuple[Expr, ...]
    value: float | int | None
    key: str
    height: int

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("expression nodes are frozen")

    def __reduce__(self) -> tuple[Callable[..., Expr], tuple[object, ...]]:
        return _revived, (flat([self]),)

    def __repr__(self) -> str:
        return self._shown(8)

    def _shown(self, levels: int) -> str:
        if self.op == "const":
            return repr(self.value)
        if self.value is not None:
            return f"{self.op}{self.value}"
        if not self.args:
            return self.op
        args = (arg._shown(levels - 1) for arg in self.args) if levels else ("…",)
        return f"{self.op}({', '.join(args)})"

    @property
    def is_leaf(self) -> bool:
        return not self.args

    @property
    def number(self) -> float:
        """The value of a "const"."""
        assert self.value is not None
        return float(self.value)

    @property
    def index(self) -> int:
        """The index of a "hyper" or "state"."""
        assert self.value is not None
        return int(self.value)


_TABLE: WeakValueDictionary[tuple[object, ...], Expr] = WeakValueDictionary()
_LOCK = threading.RLock()


def digest(*parts: str) -> str:
    """16 bytes of blake2b over the parts, as hex."""
    return blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def _intern(op: str, args: tuple[Expr, ...], value: float | int | None) -> Expr:
    index = (op, value.hex() if isinstance(value, float) else value, args)
    found = _TABLE.get(index)
    if found is not None:
        return found
    with _LOCK:  # two threads that make one node at once must get one object
        return _TABLE.get(index) or _made(index, op, args, value)


_set = object.__setattr__


def _made(index: tuple[object, ...], op: str, args: tuple[Expr, ...], value: float | int | None) -> Expr:
    made = object.__new__(Expr)
    _set(made, "op", op)
    _set(made, "args", args)
    _set(made, "value", value)
    _set(made, "key", digest(op, str(index[1]), *[arg.key for arg in args]))
    _set(made, "height", 1 + max([arg.height for arg in args], default=0))
    _TABLE[index] = made
    return made


def node(op: str, *args: Expr) -> Expr:
    """An op of the core table applied to nodes.

    Raises:
        RuleError: the op is unknown, derived or sugar, or takes another number of arguments.
    """
    row = OPS.get(op)
    if row is None or row.meaning is None:
        raise RuleError(f"{op!r} is no core op")
    if len(args) != row.arity:
        raise RuleError(f"{row.signature} was given {len(args)} of {row.arity} arguments")
    return _intern(op, args, None)


def sugar(op: str, *args: Expr) -> Expr:
    """A folded term such as `ema(x, beta)`: for reading and counting, never inside a rule."""
    return _intern(op, args, None)


def leaf(name: str) -> Expr:
    """A terminal such as `g` or `t`."""
    if name not in TERMINALS:
        raise RuleError(f"{name!r} is no terminal")
    return _intern(name, (), None)


def const(value: float) -> Expr:
    """A finite number."""
    number = float(value)
    if not math.isfinite(number):
        raise RuleError(f"constants are finite numbers, got {number!r}")
    return _intern("const", (), number)


def hyper(index: int) -> Expr:
    """Hyperparameter number `index` of the rule."""
    return _intern("hyper", (), index)


def state(index: int) -> Expr:
    """Old value of state number `index` of the rule."""
    return _intern("state", (), index)


RECURSED = 200
"""Graphs up to this height are walked by recursion, twice as fast as with a stack of our own."""


def walk(roots: Iterable[Expr]) -> list[Expr]:
    """Distinct nodes below the roots, arguments before the nodes that use them."""
    done: dict[Expr, None] = {}
    for root in roots:
        if root not in done:
            (_visit if root.height <= RECURSED else _visit_deep)(root, done)
    return list(done)


def _visit(item: Expr, done: dict[Expr, None]) -> None:
    for arg in item.args:
        if arg not in done:
            _visit(arg, done)
    done[item] = None


def _visit_deep(root: Expr, done: dict[Expr, None]) -> None:
    """`_visit` without recursion."""
    stack = [(root, iter(root.args))]
    while stack:
        current, pending = stack[-1]
        child = next(pending, None)
        if child is None:
            stack.pop()
            done[current] = None
        elif child not in done:
            stack.append((child, iter(child.args)))


Row = tuple[str, tuple[int, ...], float | int | None]


def flat(roots: Iterable[Expr]) -> list[Row]:
    """Nodes below the roots as rows `(op, rows of the arguments, value)`, as deep as they may be."""
    order = walk(roots)
    at = {item: i for i, item in enumerate(order)}
    return [(item.op, tuple(at[arg] for arg in item.args), item.value) for item in order]


def revive(rows: Iterable[Row]) -> list[Expr]:
    """The nodes of `flat`, row by row."""
    made: list[Expr] = []
    for op, args, value in rows:
        made.append(_intern(op, tuple(made[i] for i in args), value))
    return made


def _revived(rows: list[Row]) -> Expr:
    return revive(rows)[-1]


def depth(roots: Iterable[Expr]) -> int:
    """Nodes on the longest path from a root to a leaf."""
    return max((root.height for root in roots), default=0)


def rebuild(roots: Iterable[Expr], replace: Callable[[Expr, tuple[Expr, ...]], Expr]) -> dict[Expr, Expr]:
    """Map each node below the roots, bottom up, through `replace(node, mapped arguments)`."""
    mapped: dict[Expr, Expr] = {}
    for item in walk(roots):
        mapped[item] = replace(item, tuple([mapped[arg] for arg in item.args]))
    return mapped


def with_args(item: Expr, args: tuple[Expr, ...]) -> Expr:
    """The node itself with other arguments."""
    return item if args == item.args else _intern(item.op, args, item.value)


def is_steady(item: Expr) -> bool:
    """Whether a value stays the same through a run, because nothing below it moves."""
    return all(below.args or below.op in ("const", "hyper", "lr0") for below in walk([item]))


def leaves(roots: Iterable[Expr], op: str) -> Iterator[Expr]:
    """Distinct leaves of one kind in order of first occurrence, reading left to right."""
    return (item for item in walk(roots) if item.op == op)
