"""Laws that hold bit for bit, for every input, NaN, infinities and signed zeros included.

A rule's identity depends on them, so a law that assumes anything (`x / x = 1`, a sum reordered)
has no place here; those live in `simplify` and name their assumption. Nor does a law that could
turn a tensor into a number, such as dropping a branch of `where`: host arithmetic is float64, so
a changed kind is a changed rounding.
"""

from __future__ import annotations

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import COMMUTATIVE, OPS

ONE = ex.const(1.0)
TWO = ex.const(2.0)
ZERO = ex.const(0.0)


def is_const(item: Expr, value: float | None = None) -> bool:
    return item.op == "const" and (value is None or item.value == value)


def lawful(op: str, *args: Expr) -> Expr:
    """`op(args)` in lawful form: commutative arguments in order of `key`, laws applied.

    Args:
        op: a core op.
        args: nodes in lawful form themselves, so that one pass over a graph suffices.
    """
    if op in COMMUTATIVE and args[1].key < args[0].key:
        args = args[::-1]
    if all(arg.op == "const" for arg in args):
        return _folded(ex.node(op, *args))
    better = _unary(op, *args) if len(args) == 1 else _binary(op, *args) if len(args) == 2 else None
    if better is None and op == "where" and args[0].op == "first" and args[1] is args[2]:
        better = args[1]  # `first` is never NaN
    return ex.node(op, *args) if better is None else better


def _unary(op: str, a: Expr) -> Expr | None:
    match op:
        case "neg" if a.op == "neg":
            return a.args[0]
        case "abs" if a.op == "neg":
            return lawful("abs", a.args[0])
        case "abs" if _positive_or_zero(a):
            return a
        case "sign" | "floor" if a.op == op:
            return a
    return None


def _binary(op: str, a: Expr, b: Expr) -> Expr | None:
    match op:
        case "mul" if b is ONE:
            return a
        case "mul" if a is ONE:
            return b
        case "div" | "pow" if b is ONE:
            return a
        case "pow" if b is TWO:
            return lawful("mul", a, a)
        case "mul" | "div" if a.op == b.op == "neg":
            return lawful(op, a.args[0], b.args[0])
        case "sub" if b is ZERO:
            return a
        case "sub" if b.op == "neg":
            return lawful("add", a, b.args[0])
        # (−a) + (−b) stays: −a − b and −b − a would be two forms of it
        case "add" if b.op == "neg" and a.op != "neg":
            return lawful("sub", a, b.args[0])
        case "add" if a.op == "neg" and b.op != "neg":
            return lawful("sub", b, a.args[0])
        case "minimum" | "maximum" if a is b:
            return a
    return None


def _positive_or_zero(x: Expr) -> bool:
    """Whether `x` is never negative and never −0, so that `abs(x)` is `x` itself."""
    return (x.op == "mul" and x.args[0] is x.args[1]) or x.op in ("abs", "norm", "rms", "max_abs")


def _folded(item: Expr) -> Expr:
    """A host expression of constants as one constant, unless it is not finite."""
    row = OPS[item.op]
    if row.kind != "elementwise" or row.meaning is None:
        return item
    with np.errstate(all="ignore"):
        value = float(row.meaning(*(np.float64(arg.value) for arg in item.args)))
    return ex.const(value) if np.isfinite(value) else item
