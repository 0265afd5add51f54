"""The laws of algebra that simplification uses, one a line: pattern → result, then what it assumes.

None of them is exact in floating point, or it would stand in `core.laws`; each assumes something, in the
words after the bar, and is accepted only after `verify` has measured agreement. The letters are explained
in `patterns`. All laws assume that numbers are finite and real; where the rule itself is not finite, it
has diverged, and nothing is promised.

`TERM` laws hold for any term, `UPDATE` laws for the update as a whole, since lr is tuned and takes up a
constant factor, `STATE` laws for the next value of a state that starts at 0. `MOVES` make nothing shorter
by themselves: they carry factors and signs outwards, to where another law absorbs them. `DETOURS` make a
rule longer first; they are tried when nothing else helps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ruleforge.core.ops import OPS
from ruleforge.simplify.patterns import Pattern, read


@dataclass(frozen=True)
class Law:
    """A rewrite.

    Attributes:
        text: as written in the table, `pattern -> result`.
        assumption: under which it holds.
        pattern, result: what the text spells.
    """

    text: str
    assumption: str
    pattern: Pattern
    result: Pattern


def read_laws(lines: str) -> tuple[Law, ...]:
    """Laws of a text, one a line: `pattern -> result | assumption`."""
    made = []
    for line in lines.strip().splitlines():
        if not line.strip():
            continue
        spelled, assumption = line.split("|")
        pattern, result = spelled.split("->")
        text = f"{pattern.strip()} -> {result.strip()}"
        made.append(Law(text, assumption.strip(), read(pattern.strip()), read(result.strip())))
    return tuple(made)


def _family(names: Iterable[str], lines: str) -> tuple[Law, ...]:
    """Laws for each op of a family; `f(` is replaced by its name."""
    return tuple(law for name in names for law in read_laws(re.sub(r"\bf\(", f"{name}(", lines)))


def _linear(templates: Iterable[str], lines: str) -> tuple[Law, ...]:
    """Laws for each linear term; `L(x)` is replaced by the term with `x` as its argument."""
    made: list[Law] = []
    for template in templates:
        before, after = template.split("@")
        made += read_laws(re.sub(r"\bL\(((?:[^()]|\([^()]*\))*)\)", rf"{before}\1{after}", lines))
    return tuple(made)


# Ops by what the op table says of them.
ODD = tuple(op.name for op in OPS.values() if op.parity == "odd" and op.name not in ("neg", "mean"))
ODD_INCREASING = tuple(
    n for n in ODD if OPS[n].monotone == 1 and OPS[n].kind == "elementwise" and n != "sign"
)
EVEN = tuple(op.name for op in OPS.values() if op.parity == "even")
NORMS = ("norm", "rms", "max_abs")
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
LINEAR = ("ema(@, b)", "ema_hat(@, b)", "trace(@, b)", "total(@)", "prev(@)", "mean(@)")

_SYMBOL = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_TURNED = {"lt": ">", "le": ">=", "gt": "<", "ge": "<=", "eq": "==", "ne": "!="}


def _comparisons(lines: str) -> tuple[Law, ...]:
    """Laws for each comparison; `~` stands for it, `≁` for the one with its sides exchanged."""
    return tuple(
        law for n in COMPARISONS for law in read_laws(lines.replace("≁", _TURNED[n]).replace("~", _SYMBOL[n]))
    )


TERM: tuple[Law, ...] = (
    *read_laws("""
    x - x -> 0                               | x is finite
    x + 0 -> x                               | the sign of a zero does not matter
    0 - x -> -x                              | the sign of a zero does not matter
    x * 0 -> 0                               | x is finite
    0 / x -> 0                               | x is not 0
    x / x -> 1                               | x is not 0
    x ** 0 -> 1                              | any x
    -1 * x -> -x                             | any x
    x / -1 -> -x                             | any x
    -(x - y) -> y - x                        | the sign of a zero does not matter
    c * -x -> -c * x                         | any x
    -(c * x) -> -c * x                       | any x
    -(x / c) -> x / -c                       | any x
    -(c / x) -> -c / x                       | any x
    -x / c -> x / -c                         | any x
    c / -x -> -c / x                         | any x

    x / sqrt(x * x) -> sign(x)               | x is not 0
    x / abs(x) -> sign(x)                    | x is not 0
    abs(x) / x -> sign(x)                    | x is not 0
    abs(x) * sign(x) -> x                    | any x
    x * sign(x) -> abs(x)                    | any x
    abs(sign(x)) * sign(x) -> sign(x)        | any x
    x / sign(x) -> abs(x)                    | x is not 0
    abs(x) / sign(x) -> x                    | x is not 0
    sqrt(x * x) -> abs(x)                    | x * x does not underflow
    abs(x) * abs(x) -> x * x                 | any x
    abs(x) * abs(y) -> abs(x * y)            | any x
    abs(x) / abs(y) -> abs(x / y)            | any x
    maximum(x, -x) -> abs(x)                 | any x
    hypot(x, 0) -> abs(x)                    | any x
    sqrt(x * x + y * y) -> hypot(x, y)       | squares do not overflow

    sign(p * x) -> sign(x)                   | a positive factor does not change a sign
    sign(x / p) -> sign(x)                   | a positive factor does not change a sign
    sign(p / x) -> sign(x)                   | x is not 0
    sign(j * x) -> -sign(x)                  | a negative factor turns a sign
    sign(x / j) -> -sign(x)                  | a negative factor turns a sign
    sign(x * (x * x)) -> sign(x)             | the cube does not underflow
    sign(x * abs(x)) -> sign(x)              | the square does not underflow
    sign(sign(x) * sqrt(abs(x))) -> sign(x)  | any x
    sign(sign(x) * log1p(abs(x))) -> sign(x) | any x
    sign(ema_hat(x, r)) -> sign(ema(x, r))   | 1 - r ** t > 0: a bias correction does not change a sign
    sign(prev(ema_hat(x, r))) -> sign(prev(ema(x, r)))  | 1 - r ** t > 0

    x ** 0.5 -> sqrt(x)                      | x >= 0
    sqrt(x) * sqrt(x) -> x                   | x >= 0
    sqrt(x) * sqrt(y) -> sqrt(x * y)         | x >= 0 and y >= 0
    sqrt(x) / sqrt(y) -> sqrt(x / y)         | x >= 0 and y > 0
    x / sqrt(x) -> sqrt(x)                   | x > 0
    (x ** c) ** d -> x ** (c * d)            | x > 0
    x ** c * x ** d -> x ** (c + d)          | x > 0
    x ** c * x -> x ** (c + 1)               | x > 0
    x ** c / x -> x ** (c - 1)               | x > 0
    sqrt(x ** c) -> x ** (c / 2)             | x > 0
    sqrt(x) ** c -> x ** (c / 2)             | x > 0
    exp(log(x)) -> x                         | x > 0
    log(exp(x)) -> x                         | exp(x) is finite
    exp(c * log(x)) -> x ** c                | x > 0
    exp(x) * exp(y) -> exp(x + y)            | any x
    exp(x) / exp(y) -> exp(x - y)            | any x
    1 / exp(x) -> exp(-x)                    | any x
    log(x) + log(y) -> log(x * y)            | x > 0 and y > 0
    log(x) - log(y) -> log(x / y)            | x > 0 and y > 0
    log1p(expm1(x)) -> x                     | expm1(x) is finite
    expm1(log1p(x)) -> x                     | x > -1
    log(1 + x) -> log1p(x)                   | x > -1
    exp(x) - 1 -> expm1(x)                   | any x
    sin(asin(x)) -> x                        | -1 <= x <= 1
    tan(atan(x)) -> x                        | any x
    sin(x) * sin(x) + cos(x) * cos(x) -> 1   | x is finite
    sin(x) / cos(x) -> tan(x)                | any x
    sinh(x) / cosh(x) -> tanh(x)             | cosh(x) is finite

    x * y + x * z -> x * (y + z)             | sums distribute
    x * y - x * z -> x * (y - z)             | sums distribute
    x / z + y / z -> (x + y) / z             | sums distribute
    x / z - y / z -> (x - y) / z             | sums distribute

    x + b * (y - x) -> lerp(x, y, b)         | any x
    x - b * (x - y) -> lerp(x, y, b)         | any x
    (1 - b) * x + b * y -> lerp(x, y, b)     | any x
    lerp(x, y, 0) -> x                       | y is finite
    lerp(x, y, 1) -> y                       | x is finite
    lerp(x, x, b) -> x                       | any x
    lerp(0, x, b) -> b * x                   | any x
    lerp(x, 0, c) -> (1 - c) * x             | any x
    lerp(x, y, 1 - b) -> lerp(y, x, b)       | any x
    lerp(x, lerp(x, y, c), d) -> lerp(x, y, c * d)                  | any x
    lerp(lerp(x, y, c), y, d) -> lerp(x, y, 1 - (1 - c) * (1 - d))  | any x
    lerp(q * x, q * y, b) -> q * lerp(x, y, b)                      | any x

    minimum(x, minimum(x, y)) -> minimum(x, y)                | any x
    maximum(x, maximum(x, y)) -> maximum(x, y)                | any x
    minimum(x, maximum(x, y)) -> x                            | y is finite
    maximum(x, minimum(x, y)) -> x                            | y is finite
    minimum(c, minimum(d, x)) -> minimum(minimum(c, d), x)    | any x
    maximum(c, maximum(d, x)) -> maximum(maximum(c, d), x)    | any x
    maximum(x, y) + minimum(x, y) -> x + y                    | any x
    minimum(maximum(x, c), d) -> clip(x, c, d)                | any x
    maximum(minimum(x, d), c) -> clip(x, c, d)                | c <= d
    clip(clip(x, y, z), y, z) -> clip(x, y, z)                | y <= z
    clip(clip(x, c, d), c2, d2) -> clip(x, maximum(c, c2), minimum(d, d2))  | the ranges overlap
    minimum(k * x, k * y) -> k * minimum(x, y)                | k > 0
    maximum(k * x, k * y) -> k * maximum(x, y)                | k > 0
    minimum(-x, -y) -> -maximum(x, y)                         | any x
    maximum(-x, -y) -> -minimum(x, y)                         | any x
    atan2(p * x, p * y) -> atan2(x, y)                        | p > 0

    where(x, y, y) -> y                      | x is finite
    where(c, x, y) -> x                      | a constant condition
    where(0, x, y) -> y                      | a constant condition
    where(p, x, y) -> x                      | p > 0
    where(u, 1, 0) -> u                      | a comparison is 1 or 0
    where(u, x, 0) -> u * x                  | x is finite
    u * u -> u                               | a comparison is 1 or 0
    where(x != 0, y, z) -> where(x, y, z)    | any x
    where(x == 0, y, z) -> where(x, z, y)    | any x
    where(-x, y, z) -> where(x, y, z)        | any x
    where(p * x, y, z) -> where(x, y, z)     | p > 0
    where(x > y, x, y) -> maximum(x, y)      | any x
    where(x >= y, x, y) -> maximum(x, y)     | any x
    where(x < y, x, y) -> minimum(x, y)      | any x
    where(x <= y, x, y) -> minimum(x, y)     | any x
    where(x > 0, x, -x) -> abs(x)            | any x
    where(x >= 0, x, -x) -> abs(x)           | any x
    where(x < 0, -x, x) -> abs(x)            | any x
    where(x, q * y, q * z) -> q * where(x, y, z)  | any x

    ema(0, b) -> 0                           | a state that starts at 0
    trace(0, b) -> 0                         | a state that starts at 0
    total(0) -> 0                            | a state that starts at 0
    prev(0) -> 0                             | a state that starts at 0
    total(1) -> t                            | steps are counted from 1
    ema(x, 0) -> x                           | any x
    trace(x, 0) -> x                         | any x
    trace(x, 1) -> total(x)                  | any x
    ema_hat(q, q2) -> q                      | 0 < b < 1: the average of a constant
    ema_hat(x, b) * (1 - b ** t) -> ema(x, b)           | 0 < b < 1
    lerp(x, prev(ema(x, b)), b) -> ema(x, b)            | any x
    total(x) - prev(total(x)) -> x                      | any x
    running_max(running_max(x)) -> running_max(x)       | any x
    maximum(x, running_max(x)) -> running_max(x)        | any x
    running_max(maximum(x, 0)) -> running_max(x)        | the state starts at 0
    """),
    *_family(EVEN, "f(-x) -> f(x) | an even function\n f(abs(x)) -> f(x) | an even function"),
    *_family(ODD_INCREASING, "sign(f(x)) -> sign(x) | an odd, increasing function keeps the sign"),
    *_family(NORMS, "ema_hat(x, r) / f(ema_hat(x, r)) -> ema(x, r) / f(ema(x, r)) | 1 - r ** t > 0"),
    *read_laws("""
    norm(graft(x, y)) -> norm(y)             | x is 0 only where y is
    graft(graft(x, y), z) -> graft(x, z)     | y is 0 only where x or z is
    """),
    *_comparisons("""
    p * x ~ 0 -> x ~ 0                       | a positive factor does not change a sign
    x / p ~ 0 -> x ~ 0                       | a positive factor does not change a sign
    j * x ~ 0 -> x ≁ 0                       | a negative factor turns a sign
    -x ~ 0 -> x ≁ 0                          | any x
    -x ~ -y -> x ≁ y                         | any x
    x - y ~ 0 -> x ~ y                       | the difference does not underflow
    p * x ~ p * y -> x ~ y                   | p > 0
    x / p ~ y / p -> x ~ y                   | p > 0
    x + z ~ y + z -> x ~ y                   | any x
    sign(x) ~ 0 -> x ~ 0                     | any x
    ema_hat(x, r) ~ 0 -> ema(x, r) ~ 0       | 1 - r ** t > 0
    x * ema_hat(y, r) ~ 0 -> x * ema(y, r) ~ 0  | 1 - r ** t > 0
    """),
    *_linear(LINEAR, """
    L(x) + L(y) -> L(x + y)                  | averages and sums over time are linear
    L(x) - L(y) -> L(x - y)                  | averages and sums over time are linear
    lerp(L(x), L(y), q) -> L(lerp(x, y, q))  | averages and sums over time are linear
    L(x) + q * L(y) -> L(x + q * y)          | averages and sums over time are linear
    L(x) - q * L(y) -> L(x - q * y)          | averages and sums over time are linear
    q * L(x) - L(y) -> L(q * x - y)          | averages and sums over time are linear
    c * L(x) + d * L(y) -> L(c * x + d * y)  | averages and sums over time are linear
    c * L(x) - d * L(y) -> L(c * x - d * y)  | averages and sums over time are linear
    """),
)  # fmt: skip

MOVES: tuple[Law, ...] = (
    *read_laws("""
    -x * y -> -(x * y)                       | any x
    -x / y -> -(x / y)                       | any x
    x / -y -> -(x / y)                       | any x
    -x - y -> -(x + y)                       | any x
    lerp(-x, -y, b) -> -lerp(x, y, b)        | any x
    where(x, -y, -z) -> -where(x, y, z)      | any x
    (x * q) * y -> (x * y) * q               | products may be reordered
    (x * q) / y -> (x / y) * q               | products may be reordered
    (x / q) * y -> (x * y) / q               | products may be reordered
    (x / q) / y -> (x / y) / q               | products may be reordered
    x / (y * q) -> (x / y) / q               | products may be reordered
    x / (y / q) -> (x / y) * q               | products may be reordered
    x + x -> 2 * x                           | any x
    abs(c * x) -> abs(c) * abs(x)            | any x
    abs(p * x) -> p * abs(x)                 | p > 0
    abs(x / p) -> abs(x) / p                 | p > 0
    sqrt(e * x) -> sqrt(e) * sqrt(x)         | x >= 0
    sqrt(x / e) -> sqrt(x) / sqrt(e)         | x >= 0
    cbrt(e * x) -> cbrt(e) * cbrt(x)         | any x
    (e * x) ** c -> e ** c * x ** c          | x > 0
    clip(e * x, c, d) -> e * clip(x, c / e, d / e)     | e > 0
    clip(-x, c, d) -> -clip(x, -d, -c)       | any x
    minimum(e * x, c) -> e * minimum(x, c / e)         | e > 0
    maximum(e * x, c) -> e * maximum(x, c / e)         | e > 0
    hypot(k * x, k * y) -> k * hypot(x, y)   | k > 0
    running_max(k * x) -> k * running_max(x) | k > 0
    dot(q * x, y) -> q * dot(x, y)           | sums distribute
    ema(prev(x), q) -> prev(ema(x, q))       | both start at 0
    trace(prev(x), q) -> prev(trace(x, q))   | both start at 0
    total(prev(x)) -> prev(total(x))         | both start at 0
    """),
    *_family(ODD, "f(-x) -> -f(x) | an odd function"),
    *_family(NORMS, """
    f(k * x) -> k * f(x)                     | k > 0
    f(c * x) -> abs(c) * f(x)                | any x
    f(x / k) -> f(x) / k                     | k > 0
    """),
    *_linear(LINEAR, """
    L(-x) -> -L(x)                           | averages and sums over time are linear
    L(q * x) -> q * L(x)                     | averages and sums over time are linear
    L(x / q) -> L(x) / q                     | averages and sums over time are linear
    """),
)  # fmt: skip

DETOURS: tuple[Law, ...] = read_laws("""
    x * (y + z) -> x * y + x * z             | sums distribute
    x * (y - z) -> x * y - x * z             | sums distribute
    (x + y) / z -> x / z + y / z             | sums distribute
    (x - y) / z -> x / z - y / z             | sums distribute
    lerp(x, y, b) -> (1 - b) * x + b * y     | any x
    ema(x + y, b) -> ema(x, b) + ema(y, b)   | averages over time are linear
    ema(x - y, b) -> ema(x, b) - ema(y, b)   | averages over time are linear
    trace(x, q) -> ema(x, q) / (1 - q)       | q < 1
    ema(x, q) -> (1 - q) * trace(x, q)       | q < 1
""")

UPDATE: tuple[Law, ...] = read_laws("""
    k * x -> x                               | lr is tuned: a positive constant factor is free
    x / k -> x                               | lr is tuned: a positive constant factor is free
    j * x -> -x                              | lr is tuned: a positive constant factor is free
    x / j -> -x                              | lr is tuned: a positive constant factor is free
    -(k * x) -> -x                           | lr is tuned: a positive constant factor is free
    -(x / k) -> -x                           | lr is tuned: a positive constant factor is free
""")

STATE: tuple[Law, ...] = read_laws("""
    lerp(x, s, b) -> ema(x, b)               | the state starts at 0
    lerp(s, x, b) -> ema(x, 1 - b)           | the state starts at 0
    b * s + (1 - b) * x -> ema(x, b)         | the state starts at 0
    maximum(x, s) -> running_max(x)          | the state starts at 0
""")
