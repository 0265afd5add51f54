"""Which values a host expression can take, so that Python arithmetic is used only where it is safe.

Python raises where IEEE answers with an infinity or a NaN (`1 / 0.0`, `math.exp(1e3)`). From the
open ranges of the hyperparameters and t ≥ 1 these bounds prove that it cannot happen, in the
common cases: `1 - beta ** t` is never 0. Bounds are computed in float64 by monotone operations, so
they hold for the rounded values too. What is not understood is unbounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Hyper

_INF = math.inf


@dataclass(frozen=True)
class Range:
    """A closed interval of float64, and whether NaN may come up besides."""

    low: float = -_INF
    high: float = _INF
    may_be_nan: bool = True

    @property
    def is_finite(self) -> bool:
        return not self.may_be_nan and math.isfinite(self.low) and math.isfinite(self.high)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


ANY = Range()
_MASK = Range(0.0, 1.0, False)
_LEAVES = {
    "t": Range(1.0, 2.0**53, False),
    "first": _MASK,
    "lr": Range(0.0, 1e100, False),
    "lr0": Range(0.0, 1e100, False),
    "progress": Range(2.0**-53, 1.0, False),
}


def host_ranges(roots: list[Expr], hypers: tuple[Hyper, ...]) -> dict[Expr, Range]:
    """Range of every node below the roots; nodes that are no host numbers come out as `ANY`."""
    found: dict[Expr, Range] = {}
    for item in ex.walk(roots):
        found[item] = _range(item, [found[arg] for arg in item.args], hypers)
    return found


def _range(item: Expr, args: list[Range], hypers: tuple[Hyper, ...]) -> Range:
    if item.op == "const":
        return Range(float(item.value or 0), float(item.value or 0), False)
    if item.op == "hyper":
        hyper = hypers[int(item.value or 0)]
        return Range(math.nextafter(hyper.low, _INF), math.nextafter(hyper.high, -_INF), False)
    if not item.args:
        return _LEAVES.get(item.op, ANY)
    if all(arg == ANY for arg in args):
        return ANY
    with np.errstate(all="ignore"):
        return _OPS.get(item.op, lambda *_: ANY)(*args)


def _corners(op: str, *args: Range) -> Range:
    """Bounds of an op that is monotone in each argument: its values at the corners."""
    meaning = OPS[op].meaning
    assert meaning is not None
    points: list[tuple[float, ...]] = [()]
    for arg in args:
        points = [(*point, end) for point in points for end in (arg.low, arg.high)]
    values = [float(meaning(*(np.float64(v) for v in point))) for point in points]
    if any(math.isnan(v) for v in values):
        return ANY
    return Range(min(values), max(values), any(arg.may_be_nan for arg in args))


def _monotone(op: str) -> Callable[..., Range]:
    return lambda *args: _corners(op, *args)


def _div(a: Range, b: Range) -> Range:
    return ANY if 0.0 in b else _corners("div", a, b)


def _mul(a: Range, b: Range) -> Range:
    for one, other in ((a, b), (b, a)):
        if 0.0 in one and math.inf in (other.high, -other.low):
            return ANY
    return _corners("mul", a, b)


def _pow(a: Range, b: Range) -> Range:
    return _corners("pow", a, b) if a.low > 0 or (a.low == 0 and b.low > 0) else ANY


def _sqrt(x: Range) -> Range:
    return _corners("sqrt", x) if x.low >= 0 else ANY


def _log(x: Range) -> Range:
    return _corners("log", x) if x.low >= 0 else ANY


def _abs(x: Range) -> Range:
    low = 0.0 if 0.0 in x else min(abs(x.low), abs(x.high))
    return Range(low, max(abs(x.low), abs(x.high)), x.may_be_nan)


def _mask(a: Range, b: Range) -> Range:
    return Range(0.0, 1.0, a.may_be_nan or b.may_be_nan)


def _where(c: Range, a: Range, b: Range) -> Range:
    nan = c.may_be_nan or a.may_be_nan or b.may_be_nan
    return Range(min(a.low, b.low), max(a.high, b.high), nan)


_OPS: dict[str, Callable[..., Range]] = {
    **{
        op: _monotone(op)
        for op in "add sub neg exp expm1 tanh atan floor minimum maximum sign cbrt sinh clip".split()
    },
    **{op: _mask for op in "lt le gt ge eq ne".split()},
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "sqrt": _sqrt,
    "log": _log,
    "abs": _abs,
    "where": _where,
}
