# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs
"""How Triton spells each elementwise op of the table, for blocks of float32.

Pure `tl` forms, so that Triton's interpreter runs them on a machine without a GPU, and no form depends on
a vendor's library. Triton's own `/`, `sqrt` and `exp` on float32 are approximations; exact ops use the
rounded ones. The transcendental ops compute in float64 with short series, as `numba_math` does on the CPU,
and round once: at most 1 ulp from the true value. `sin`, `cos` and `tan` reduce large angles in integers.

A form takes and returns float32 blocks. The module knows neither registers nor programs.

Source: range reductions after Cody and Waite, Software Manual for the Elementary Functions, 1980, and,
from 2²⁸ on, after Payne and Hanek, Radian Reduction for Trigonometric Functions, 1983.
"""

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from ruleforge.core.ops import OPS

_LN2 = tl.constexpr(math.log(2))
_LOG2E = tl.constexpr(1 / math.log(2))
_ROUND = tl.constexpr(1.5 * 2.0**52)  # adding it rounds to an integer, which then stands in the lowest bits
_ROOT_HALF = tl.constexpr(math.sqrt(0.5))
_INF = tl.constexpr(math.inf)
_NAN = tl.constexpr(math.nan)
_PI = tl.constexpr(math.pi)
_PI_2 = tl.constexpr(math.pi / 2)
_PI_4 = tl.constexpr(math.pi / 4)
_PI_2_INV = tl.constexpr(2 / math.pi)
_PI_2_HIGH = tl.constexpr(1.57079637050628662109375)  # π/2 to 24 bits
_PI_2_LOW = tl.constexpr(-4.371139000186242830836e-08)  # the rest of π/2
_PI_2_FIXED = tl.constexpr(math.pi / 2 * 2.0**-62)
_TAN_PI_8 = tl.constexpr(math.tan(math.pi / 8))
_TAN_3PI_8 = tl.constexpr(math.tan(3 * math.pi / 8))
_HUGE_ANGLE = tl.constexpr(2.0**28)
# 2/π in words of 32 bits, after the point
_W0 = tl.constexpr(0x28BE60DB)
_W1 = tl.constexpr(0x9391054A)
_W2 = tl.constexpr(0x7F09D5F4)
_W3 = tl.constexpr(0x7D4D3770)
_W4 = tl.constexpr(0x36D8A566)
_W5 = tl.constexpr(0x4F10E410)


# Exact ops.


@triton.jit
def _add(a, b, c):
    return a + b


@triton.jit
def _sub(a, b, c):
    return a - b


@triton.jit
def _mul(a, b, c):
    return a * b


@triton.jit
def _div(a, b, c):
    return tl.div_rn(a, b)


@triton.jit
def _neg(a, b, c):
    return -a


@triton.jit
def _abs(a, b, c):
    return tl.abs(a)


@triton.jit
def _sign(a, b, c):
    # Zeros and NaN are themselves.
    return tl.where(a > 0.0, 1.0, tl.where(a < 0.0, -1.0, a))


@triton.jit
def _sqrt(a, b, c):
    return tl.sqrt_rn(a)


@triton.jit
def _floor(a, b, c):
    whole = tl.floor(a)
    return tl.where((a < 0.0) & (whole == 0.0), -1.0, whole)  # the instruction flushes denormals


@triton.jit
def _has_sign(x):
    """Whether the sign bit of a float32 is set: of −0 too."""
    return x.to(tl.int32, bitcast=True) < 0


@triton.jit
def _smaller(a, b):
    keeps_a = (a < b) | (a != a) | ((a == b) & _has_sign(a))  # −0 is below +0
    return tl.where(keeps_a, a, b)


@triton.jit
def _larger(a, b):
    keeps_b = (b > a) | (b != b) | ((a == b) & _has_sign(a))
    return tl.where(keeps_b, b, a)


@triton.jit
def _minimum(a, b, c):
    return _smaller(a, b)


@triton.jit
def _maximum(a, b, c):
    return _larger(a, b)


@triton.jit
def _clip(a, b, c):
    return _smaller(_larger(a, b), c)


@triton.jit
def _lerp(a, b, c):
    return a + c * (b - a)


@triton.jit
def _where(a, b, c):
    return tl.where(a != a, a, tl.where(a != 0.0, b, c))


@triton.jit
def _mask(holds, a, b):
    """1 or 0, and NaN where a side is NaN."""
    return tl.where((a != a) | (b != b), a + b, tl.where(holds, 1.0, 0.0))


@triton.jit
def _lt(a, b, c):
    return _mask(a < b, a, b)


@triton.jit
def _le(a, b, c):
    return _mask(a <= b, a, b)


@triton.jit
def _gt(a, b, c):
    return _mask(a > b, a, b)


@triton.jit
def _ge(a, b, c):
    return _mask(a >= b, a, b)


@triton.jit
def _eq(a, b, c):
    return _mask(a == b, a, b)


@triton.jit
def _ne(a, b, c):
    return _mask(a != b, a, b)


# Series in float64.


@triton.jit
def _bits(x):
    return x.to(tl.int64, bitcast=True)


@triton.jit
def _from_bits(x):
    return x.to(tl.float64, bitcast=True)


@triton.jit
def _with_sign(size, x):
    """`size`, which is not negative, with the sign of `x`."""
    return tl.where(_bits(x) < 0, -size, size)


@triton.jit
def _exp_of(x):
    """eˣ; beyond ±200, where float32 has overflowed or is 0, e to the ±200."""
    bounded = tl.where(x > 200.0, 200.0, tl.where(x < -200.0, -200.0, x))
    shifted = bounded * _LOG2E + _ROUND
    r = bounded - (shifted - _ROUND) * _LN2  # |r| ≤ 0.35
    p = r * (1.0 / 362880) + 1.0 / 40320
    p = p * r + 1.0 / 5040
    p = p * r + 1.0 / 720
    p = p * r + 1.0 / 120
    p = p * r + 1.0 / 24
    p = p * r + 1.0 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return tl.where(x != x, x, _from_bits(_bits(p) + (_bits(shifted) << 52)))


@triton.jit
def _expm1_of(x):
    return tl.where(tl.abs(x) < 1e-5, x * (1.0 + 0.5 * x), _exp_of(x) - 1.0)


@triton.jit
def _log_of(x):
    """ln x, by x = 2ᵏ·m with m in [√½, √2) and ln m = 2·atanh((m − 1)/(m + 1))."""
    bits = _bits(x)
    k = ((bits >> 52) & 2047) - 1022
    m = _from_bits((bits & 0xFFFFFFFFFFFFF) | 0x3FE0000000000000)  # [½, 1)
    low = m < _ROOT_HALF
    m = tl.where(low, m + m, m)
    exponent = tl.where(low, k - 1, k).to(tl.float64)
    f = (m - 1.0) / (m + 1.0)
    s = f * f  # ≤ 0.0295
    p = s * (1.0 / 15) + 1.0 / 13
    p = p * s + 1.0 / 11
    p = p * s + 1.0 / 9
    p = p * s + 1.0 / 7
    p = p * s + 1.0 / 5
    p = p * s + 1.0 / 3
    p = p * s + 1.0
    finite = exponent * _LN2 + 2.0 * f * p
    edge = tl.where(x == 0.0, -_INF, tl.where(x == _INF, x, _NAN))
    return tl.where((x > 0.0) & (x < _INF), finite, edge)


@triton.jit
def _log1p_of(x):
    return tl.where(tl.abs(x) < 1e-4, x * (1.0 - x * (0.5 - x * (1.0 / 3))), _log_of(1.0 + x))


@triton.jit
def _word(i):
    """Word i of 2/π, as an int64; the words before the point are 0."""
    zero = i * 0
    w = tl.where(i == 0, _W0, tl.where(i == 1, _W1, tl.where(i == 2, _W2, zero)))
    return tl.where(i == 3, _W3, tl.where(i == 4, _W4, tl.where(i == 5, _W5, w)))


@triton.jit
def _far_turns(x):
    """Quarter turns, mod 4, and the rest in [−π/4, π/4], of a float32 angle from 1 on.

    The mantissa times the 96 bits of 2/π that decide the angle, as a fixed-point number of 2 + 62 bits.
    """
    bits = tl.abs(x).to(tl.int32, bitcast=True).to(tl.int64)
    exponent = ((bits >> 23) & 255) - 126
    mantissa = ((bits << 8) & 0xFFFFFFFF) | 0x80000000
    i, e = (exponent >> 5) - 1, exponent & 31
    w0, w1, w2, w3 = _word(i), _word(i + 1), _word(i + 2), _word(i + 3)
    high = ((w0 << e) | (w1 >> (32 - e))) & 0xFFFFFFFF
    middle = ((w1 << e) | (w2 >> (32 - e))) & 0xFFFFFFFF
    low = ((w2 << e) | (w3 >> (32 - e))) & 0xFFFFFFFF
    # Products of 32-bit words fill 64 bits: the arithmetic is modulo 2⁶⁴, the shift that of unsigned numbers.
    p = mantissa * middle + (((mantissa * low) >> 32) & 0xFFFFFFFF)
    p = ((mantissa * high) << 32) + p
    turns = (p >> 62) & 3
    rest = p << 2 >> 2  # the lower 62 bits, signed: from half a quarter turn on, less the next one
    turns = tl.where(rest < 0, turns + 1, turns)
    r = rest.to(tl.float64) * _PI_2_FIXED
    negative = x < 0.0
    return tl.where(negative, -turns, turns), tl.where(negative, -r, r)


@triton.jit
def _turns(x):
    """Quarter turns as an integer, right mod 4, and the rest of a float32 angle, in [−π/4, π/4]."""
    wide = x.to(tl.float64)
    shifted = wide * _PI_2_INV + _ROUND
    count = shifted - _ROUND
    near = (wide - count * _PI_2_HIGH) - count * _PI_2_LOW
    far_turns, far = _far_turns(x)
    is_far = tl.abs(x) >= _HUGE_ANGLE
    turns = tl.where(is_far, far_turns, _bits(shifted))
    rest = tl.where(is_far, far, near)
    return turns, tl.where(tl.abs(x) < _INF, rest, _NAN)


@triton.jit
def _sin_near(r):
    s = r * r  # ≤ 0.62
    p = s * (-1.0 / 39916800) + 1.0 / 362880
    p = p * s - 1.0 / 5040
    p = p * s + 1.0 / 120
    p = p * s - 1.0 / 6
    return r + r * s * p


@triton.jit
def _cos_near(r):
    s = r * r
    p = s * (1.0 / 479001600) - 1.0 / 3628800
    p = p * s + 1.0 / 40320
    p = p * s - 1.0 / 720
    p = p * s + 1.0 / 24
    p = p * s - 0.5
    return p * s + 1.0


@triton.jit
def _atan_of(x):
    """By atan a = π/4 + atan((a − 1)/(a + 1)) = π/2 − atan(1/a), so that the series gets |t| ≤ tan(π/8)."""
    a = tl.abs(x)
    large, middle = a > _TAN_3PI_8, a > _TAN_PI_8
    above = tl.where(large, -1.0, tl.where(middle, a - 1.0, a))
    t = above / tl.where(large, a, tl.where(middle, a + 1.0, 1.0))
    s = t * t  # ≤ 0.1716
    p = s * (-1.0 / 23) + 1.0 / 21
    p = p * s - 1.0 / 19
    p = p * s + 1.0 / 17
    p = p * s - 1.0 / 15
    p = p * s + 1.0 / 13
    p = p * s - 1.0 / 11
    p = p * s + 1.0 / 9
    p = p * s - 1.0 / 7
    p = p * s + 1.0 / 5
    p = p * s - 1.0 / 3
    near = t + t * s * p
    return _with_sign(tl.where(large, near + _PI_2, tl.where(middle, near + _PI_4, near)), x)


# Transcendental ops.


@triton.jit
def _exp(a, b, c):
    return _exp_of(a.to(tl.float64)).to(tl.float32)


@triton.jit
def _log(a, b, c):
    return _log_of(a.to(tl.float64)).to(tl.float32)


@triton.jit
def _log1p(a, b, c):
    return _log1p_of(a.to(tl.float64)).to(tl.float32)


@triton.jit
def _expm1(a, b, c):
    return _expm1_of(a.to(tl.float64)).to(tl.float32)


@triton.jit
def _sin(a, b, c):
    turns, r = _turns(a)
    size = tl.where((turns & 1) != 0, _cos_near(r), _sin_near(r))
    return tl.where(a == 0.0, a, tl.where((turns & 2) != 0, -size, size).to(tl.float32))


@triton.jit
def _cos(a, b, c):
    turns, r = _turns(a)
    size = tl.where((turns & 1) != 0, _sin_near(r), _cos_near(r))
    return tl.where(((turns + 1) & 2) != 0, -size, size).to(tl.float32)


@triton.jit
def _tan(a, b, c):
    turns, r = _turns(a)
    odd = (turns & 1) != 0
    sine, cosine = _sin_near(r), _cos_near(r)
    ratio = tl.where(odd, -cosine, sine) / tl.where(odd, sine, cosine)
    return tl.where(a == 0.0, a, ratio.to(tl.float32))


@triton.jit
def _asin(a, b, c):
    x = a.to(tl.float64)
    return _atan_of(x / tl.sqrt((1.0 - x) * (1.0 + x))).to(tl.float32)


@triton.jit
def _acos(a, b, c):
    x = a.to(tl.float64)
    return (2.0 * _atan_of(tl.sqrt((1.0 - x) / (1.0 + x)))).to(tl.float32)


@triton.jit
def _atan(a, b, c):
    return _atan_of(a.to(tl.float64)).to(tl.float32)


@triton.jit
def _sinh(a, b, c):
    x = a.to(tl.float64)
    grown = _expm1_of(tl.abs(x))
    return _with_sign(0.5 * (grown + grown / (grown + 1.0)), x).to(tl.float32)


@triton.jit
def _cosh(a, b, c):
    grown = _exp_of(tl.abs(a.to(tl.float64)))
    return (0.5 * (grown + 1.0 / grown)).to(tl.float32)


@triton.jit
def _tanh(a, b, c):
    x = a.to(tl.float64)
    size = tl.abs(x)
    grown = _expm1_of(2.0 * tl.where(size > 20.0, 20.0, size))
    return _with_sign(grown / (grown + 2.0), x).to(tl.float32)


@triton.jit
def _cbrt(a, b, c):
    x = a.to(tl.float64)
    return _with_sign(_exp_of(_log_of(tl.abs(x)) * (1.0 / 3)), x).to(tl.float32)


@triton.jit
def _atan2(a, b, c):
    y, x = a.to(tl.float64), b.to(tl.float64)
    both_infinite = (tl.abs(y) == _INF) & (tl.abs(x) == _INF)
    steepness = tl.where(y == 0.0, y * 0.0, tl.where(both_infinite, 1.0, tl.abs(y) / tl.abs(x)))
    angle = _atan_of(tl.abs(steepness))
    angle = tl.where(_bits(x) < 0, _PI - angle, angle)
    return tl.where(x != x, x, _with_sign(angle, y)).to(tl.float32)


@triton.jit
def _hypot(a, b, c):
    x, y = a.to(tl.float64), b.to(tl.float64)
    either = (tl.abs(x) == _INF) | (tl.abs(y) == _INF)
    return tl.where(either, _INF, tl.sqrt(x * x + y * y)).to(tl.float32)


@triton.jit
def _pow(a, b, c):
    """IEEE's pow: 1 where b = 0 or a = 1, NaN where a < 0 is raised to no integer."""
    x, y = a.to(tl.float64), b.to(tl.float64)
    size = tl.where(tl.abs(x) == 1.0, 1.0, _exp_of(y * _log_of(tl.abs(x))))
    whole = tl.floor(y) == y
    odd = whole & (tl.floor(0.5 * y) * 2.0 != y)
    value = tl.where((_bits(x) < 0) & odd, -size, size)
    value = tl.where((x < 0.0) & (x > -_INF) & (tl.floor(y) != y), _NAN, value)
    value = tl.where((y == 0.0) | (x == 1.0), 1.0, value).to(tl.float32)
    return tl.where(b == 2.0, a * a, tl.where(b == 1.0, a, value))


_NAMED: dict[str, Any] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "pow": _pow, "neg": _neg, "abs": _abs, "sign": _sign,
    "sqrt": _sqrt, "cbrt": _cbrt, "exp": _exp, "log": _log, "log1p": _log1p, "expm1": _expm1,
    "sin": _sin, "cos": _cos, "tan": _tan, "asin": _asin, "acos": _acos, "atan": _atan,
    "sinh": _sinh, "cosh": _cosh, "tanh": _tanh, "floor": _floor,
    "minimum": _minimum, "maximum": _maximum, "atan2": _atan2, "hypot": _hypot,
    "clip": _clip, "lerp": _lerp, "where": _where,
    "lt": _lt, "le": _le, "gt": _gt, "ge": _ge, "eq": _eq, "ne": _ne,
}  # fmt: skip
ELEMENTWISE = tuple(name for name, row in OPS.items() if row.kind == "elementwise")
if set(ELEMENTWISE) != set(_NAMED):
    raise ImportError(f"Triton forms and the op table disagree on {sorted(set(ELEMENTWISE) ^ set(_NAMED))}")


class _Forms(tl.constexpr):
    """A constant of functions. Triton copies the constants that a kernel reads, and functions it cannot."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Forms:
        return self


FORMS = _Forms(tuple(_NAMED[name] for name in ELEMENTWISE))
"""One form for each elementwise op, in the order of the table."""
