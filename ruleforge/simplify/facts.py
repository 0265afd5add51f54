"""What is known of a term's sign and size without running it: ranges by interval arithmetic.

Laws ask it: `sign(p * x)` loses `p` only where `p` is known to be positive. Ranges come from the op
table's bounds, from constants, from the open ranges of hyperparameters, and by induction for states.
They hold wherever the term is finite; rounding and underflow are not considered, so a law that relies
on a range is measured afterwards like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Hyper

INF = math.inf


@dataclass(frozen=True, slots=True)
class Range:
    """An interval; an open end is not attained."""

    low: float = -INF
    high: float = INF
    open_low: bool = False
    open_high: bool = False

    @property
    def positive(self) -> bool:
        return self.low > 0 or (self.low == 0 and self.open_low)

    @property
    def negative(self) -> bool:
        return (-self).positive

    @property
    def not_negative(self) -> bool:
        return self.low >= 0

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low, self.open_high, self.open_low)

    def __add__(self, other: Range) -> Range:
        return Range(
            self.low + other.low, self.high + other.high,
            self.open_low or other.open_low, self.open_high or other.open_high,
        )  # fmt: skip

    def __mul__(self, other: Range) -> Range:
        if self.negative or (self.high <= 0 and self.low < 0):
            return -((-self) * other)
        if other.negative or (other.high <= 0 and other.low < 0):
            return -(self * (-other))
        if self.not_negative and other.not_negative:
            return Range(
                _times(self.low, other.low), _times(self.high, other.high),
                self.positive and other.positive if self.low * other.low == 0 else _either_open(self, other),
                self.open_high or other.open_high,
            )  # fmt: skip
        ends = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Range(min(ends), max(ends))

    def inverse(self) -> Range:
        """Of 1/x."""
        if self.negative:
            return -((-self).inverse())
        if not self.not_negative or self.high == 0:
            return ANY
        high = INF if self.low == 0 else 1 / self.low
        low = 0.0 if self.high == INF else 1 / self.high
        return Range(low, high, self.open_high or low == 0, self.open_low)

    def hull(self, other: Range) -> Range:
        """The smallest interval that holds both."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Range(
            low, high,
            all(r.open_low or r.low > low for r in (self, other)),
            all(r.open_high or r.high < high for r in (self, other)),
        )  # fmt: skip

    def lower(self, other: Range) -> Range:
        """Of the smaller of two."""
        return -((-self).upper(-other))

    def upper(self, other: Range) -> Range:
        """Of the larger of two."""
        a, b = self, other
        return Range(
            max(a.low, b.low), max(a.high, b.high),
            any(r.open_low and r.low == max(a.low, b.low) for r in (a, b)),
            all(r.open_high or r.high < max(a.high, b.high) for r in (a, b)),
        )  # fmt: skip

    def within(self, other: Range) -> bool:
        """Whether every value of this one is a value of the other."""
        low = self.low > other.low or (self.low == other.low and (self.open_low or not other.open_low))
        high = self.high < other.high or (self.high == other.high and (self.open_high or not other.open_high))
        return low and high


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _either_open(a: Range, b: Range) -> bool:
    return a.open_low or b.open_low


ANY = Range()
POSITIVE = Range(0, INF, open_low=True)
NOT_NEGATIVE = Range(0, INF)
_LEAVES = {
    "t": Range(1, INF),
    "first": Range(0, 1),
    "progress": Range(0, 1, open_low=True),
    "lr": NOT_NEGATIVE,
    "lr0": POSITIVE,
    "is_matrix": Range(0, 1),
}
RATE = Range(0, 1, open_high=True)


class Facts:
    """Ranges of the terms of one rule, found when asked for."""

    def __init__(
        self, hypers: Sequence[Hyper], starts: Mapping[int, Expr], nexts: Mapping[int, Expr]
    ) -> None:
        """Ranges of a folded rule.

        Args:
            hypers: their open ranges.
            starts: init of each explicit state, by its number.
            nexts: folded next value of each explicit state.
        """
        self.hypers = hypers
        self.states: dict[int, Range] = {}
        self.found: dict[Expr, Range] = {}
        self._induct(starts, nexts)

    def __call__(self, item: Expr) -> Range:
        pending = [item]
        while pending:  # a stack of its own: terms may be deeper than Python likes
            current = pending[-1]
            missing = [arg for arg in current.args if arg not in self.found]
            if missing and current not in self.found:
                pending += missing
                continue
            self.found.setdefault(current, self._of(current))
            pending.pop()
        return self.found[item]

    def _induct(self, starts: Mapping[int, Expr], nexts: Mapping[int, Expr]) -> None:
        """States that start at or above 0 and step from there to there, stay there."""
        for i, start in starts.items():
            here = self(start)
            self.states[i] = POSITIVE if here.positive else NOT_NEGATIVE if here.not_negative else ANY
        while True:
            self.found.clear()
            weaker = {}
            for i, assumed in self.states.items():
                after = self(nexts[i])
                if not after.within(assumed):
                    weaker[i] = NOT_NEGATIVE if assumed.positive and after.not_negative else ANY
            if not weaker:
                return
            self.states |= weaker

    def _of(self, item: Expr) -> Range:
        match item.op:
            case "const":
                value = item.number
                return Range(value, value)
            case "hyper":
                h = self.hypers[item.index]
                return Range(h.low, h.high, True, True)
            case "state":
                return self.states.get(item.index, ANY)
            case op if not item.args:
                return _LEAVES.get(op, ANY)
        return self._of_op(item, *(self.found[arg] for arg in item.args))

    def _of_op(self, item: Expr, *r: Range) -> Range:
        zero = Range(0, 0)
        match item.op:
            case "add":
                return r[0] + r[1]
            case "sub":
                return r[0] + -r[1]
            case "neg":
                return -r[0]
            case "mul" | "dot" if item.args[0] is item.args[1]:
                return POSITIVE if r[0].positive or r[0].negative else NOT_NEGATIVE
            case "mul":
                return r[0] * r[1]
            case "div":
                return r[0] * r[1].inverse()
            case "pow":
                return _power(r[0], r[1], item.args[1])
            case "abs":
                return r[0] if r[0].not_negative else -r[0] if r[0].high <= 0 else NOT_NEGATIVE
            case "sqrt" | "norm" | "rms" | "max_abs":
                return POSITIVE if r[0].positive else NOT_NEGATIVE
            case "log1p" | "expm1" | "cbrt" | "tanh" | "atan" | "sinh" | "sign" if r[0].not_negative:
                above = OPS[item.op].bounds
                return Range(0, above[1] if above else INF, open_low=r[0].positive)
            case "exp":
                return Range(math.exp(max(r[0].low, -700)) if r[0].low > -700 else 0, INF, open_low=True)
            case "minimum":
                return r[0].lower(r[1])
            case "maximum":
                return r[0].upper(r[1])
            case "clip":
                return r[0].upper(r[1]).lower(r[2])
            case "where":
                return r[1].hull(r[2])
            case "lerp" if r[2].within(Range(0, 1)):
                return r[0].hull(r[1])
            case "ema" if r[1].within(RATE):
                return POSITIVE if r[0].positive else r[0].hull(zero)
            case "ema_hat" if r[1].within(RATE) and ex.is_steady(item.args[1]):
                return r[0]
            case "mean":
                return r[0]
            case "trace" | "total" if len(r) == 1 or r[1].not_negative:
                if r[0].not_negative:
                    return POSITIVE if r[0].positive else NOT_NEGATIVE
                return -NOT_NEGATIVE if r[0].high <= 0 else ANY
            case "running_max":
                return r[0].upper(zero)
            case "prev":
                return r[0].hull(zero)
        bounds = OPS[item.op].bounds
        return Range(*bounds) if bounds else ANY


def _power(base: Range, exponent: Range, shown: Expr) -> Range:
    if shown.op == "const" and shown.number % 2 == 0:
        return NOT_NEGATIVE
    if not base.not_negative:
        return ANY
    if base.high <= 1 and exponent.low >= 1:
        return Range(0, base.high, base.positive, base.open_high)
    if base.high <= 1 and exponent.positive:
        return Range(0, 1, base.positive, base.open_high)
    return POSITIVE if base.positive else NOT_NEGATIVE
