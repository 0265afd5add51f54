"""Laws that hold bit for bit, for every input, NaN and infinities included.

A rule's identity depends on them, so a law that assumes anything (`x / x = 1`, a sum reordered)
has no place here; those live in `simplify` and name their assumption.
"""

from __future__ import annotations

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS

ONE = ex.const(1.0)
ZERO = ex.const(0.0)


def is_const(item: Expr, value: float | None = None) -> bool:
    return item.op == "const" and (value is None or item.value == value)


def _positive_or_zero(x: Expr) -> bool:
    """Whether `x` is never negative and never −0, so that `abs(x)` is `x` itself."""
    return (x.op == "mul" and x.args[0] is x.args[1]) or x.op in ("abs", "norm", "rms", "max_abs")


def apply_laws(item: Expr) -> Expr:
    """The node, or a simpler one that is equal in floating point."""
    a, b, c = (*item.args, None, None, None)[:3]
    match item.op:
        case _ if item.args and all(arg.op == "const" for arg in item.args):
            return _folded(item)
        case "mul" if b is ONE:
            return a or item
        case "mul" if a is ONE:
            return b or item
        case "div" | "pow" if b is ONE:
            return a or item
        case "pow" if b is ex.const(2.0) and a is not None:
            return ex.node("mul", a, a)
        case "sub" if b is ZERO:
            return a or item
        case "sub" if b is not None and b.op == "neg" and a is not None:
            return ex.node("add", a, b.args[0])
        case "add" if b is not None and b.op == "neg" and a is not None:
            return ex.node("sub", a, b.args[0])
        case "add" if a is not None and a.op == "neg" and b is not None:
            return ex.node("sub", b, a.args[0])
        case "neg" if a is not None and a.op == "neg":
            return a.args[0]
        case "mul" | "div" if a is not None and b is not None and a.op == b.op == "neg":
            return ex.node(item.op, a.args[0], b.args[0])
        case "abs" if a is not None and (a.op == "neg"):
            return ex.node("abs", a.args[0])
        case "abs" if a is not None and _positive_or_zero(a):
            return a
        case "sign" | "floor" if a is not None and a.op == item.op:
            return a
        case "minimum" | "maximum" if a is b and a is not None:
            return a
        case "where" if a is not None and is_const(a):
            return (c if a.value == 0 else b) or item
        case "where" if b is c and a is not None and a.op == "first":
            return b or item
        case _:
            return item


def _folded(item: Expr) -> Expr:
    """A host expression of constants as one constant, unless it is not finite."""
    row = OPS[item.op]
    if row.kind != "elementwise" or row.meaning is None:
        return item
    with np.errstate(all="ignore"):
        value = float(row.meaning(*(np.float64(arg.value) for arg in item.args)))
    return ex.const(value) if np.isfinite(value) else item
