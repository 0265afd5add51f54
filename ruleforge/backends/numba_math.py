"""How numba spells the ops whose definition it cannot compile, or compiles to something slow.

Every form takes and returns numbers, has no branch, and so vectorizes when a loop calls it. The ops that
are missing here are compiled from the op table's own meaning. The C library's float32 functions cost
2–10 ns an element, one element after the other; the forms below compute in float64 with short series,
8 elements at a time, and round once, so they are also nearer to the true value (at most 1 ulp, and
mostly correctly rounded). The module knows neither tiles nor programs.

Source: range reductions after Cody and Waite, Software Manual for the Elementary Functions, 1980;
the series are Taylor's, long enough for a relative error of 1e-9 (a float32 ulp is 6e-8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

Form = Callable[..., Any]

HUGE_ANGLE = 2.0**28
"""Beyond this, angles need a longer reduction than `sin`, `cos` and `tan` have here."""
NEEDS_SMALL_ANGLE = frozenset({"sin", "cos", "tan"})


@intrinsic
def _select(typingctx: Any, chosen: Any, yes: Any, no: Any) -> Any:
    """`yes if chosen else no` without a branch; both sides are computed."""
    if yes != no:
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(args[0], args[1], args[2])

    return yes(types.boolean, yes, yes), lower


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """The 64 bits of a float64."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), lower


@intrinsic
def _from_bits(typingctx: Any, bits: Any) -> Any:
    """The float64 with these 64 bits."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), lower


def _inlined(form: Form) -> Form:
    return njit(form, error_model="numpy", forceinline=True)


# Exact forms, for any float type: the literals must have it too, or the loop would compute in float64.


def exact_forms(real: Any) -> dict[str, Form]:
    """Forms of ops that are exact in floating point, and of `pow` where it has to be.

    Args:
        real: np.float32 or np.float64.
    """
    one, two, minus_one, zero, nan = real(1), real(2), real(-1), real(0), real(np.nan)

    def sign(x: Any) -> Any:
        return _select(x > zero, one, _select(x < zero, minus_one, _select(x == zero, zero, x)))

    def minimum(a: Any, b: Any) -> Any:
        keeps_a = (a < b) | (a != a) | ((a == b) & np.signbit(a))  # −0 is below +0
        return _select(keeps_a, a, b)

    def maximum(a: Any, b: Any) -> Any:
        keeps_b = (b > a) | (b != b) | ((a == b) & np.signbit(a))
        return _select(keeps_b, b, a)

    lower, upper = _inlined(minimum), _inlined(maximum)

    def clip(x: Any, lo: Any, hi: Any) -> Any:
        return lower(upper(x, lo), hi)

    def pow(a: Any, b: Any) -> Any:
        return _select(b == two, a * a, _select(b == one, a, np.power(a, b)))

    def where(c: Any, a: Any, b: Any) -> Any:
        return _select(c != c, c, _select(c != zero, a, b))

    def lt(a: Any, b: Any) -> Any:
        return _select((a != a) | (b != b), nan, _select(a < b, one, zero))

    def le(a: Any, b: Any) -> Any:
        return _select((a != a) | (b != b), nan, _select(a <= b, one, zero))

    def gt(a: Any, b: Any) -> Any:
        return _select((a != a) | (b != b), nan, _select(a > b, one, zero))

    def ge(a: Any, b: Any) -> Any:
        return _select((a != a) | (b != b), nan, _select(a >= b, one, zero))

    def eq(a: Any, b: Any) -> Any:
        return _select((a != a) | (b != b), nan, _select(a == b, one, zero))

    def ne(a: Any, b: Any) -> Any:
        return _select((a != a) | (b != b), nan, _select(a != b, one, zero))

    named = (sign, minimum, maximum, clip, pow, where, lt, le, gt, ge, eq, ne)
    return {form.__name__: _inlined(form) for form in named}


# Series in float64, for float32 arguments. Literals are float64; unsigned constants keep integers integers.

_LN2 = math.log(2)
_LOG2E = 1 / _LN2
_TWO52 = 2.0**52
_ROUND = 1.5 * _TWO52  # adding it rounds to an integer, which then stands in the lowest bits
_EXPONENT = np.uint64(52)  # where a float64's exponent starts
_BIAS = np.uint64(1023)
_SIGN = np.uint64(1 << 63)
_BITS_OF_TWO52 = np.float64(_TWO52).view(np.uint64)
_ROOT_HALF_TO_ONE = np.float64(1).view(np.uint64) - np.float64(math.sqrt(0.5)).view(np.uint64)
_U1, _U2 = np.uint64(1), np.uint64(2)
_U0 = np.uint64(0)
_INF, _NAN = math.inf, math.nan
_PI, _PI_2, _PI_4 = math.pi, math.pi / 2, math.pi / 4
_PI_2_INV = 2 / math.pi
_PI_2_HIGH = 1.57079637050628662109375  # π/2 to 24 bits: times an integer below 2**28 it is exact
_PI_2_LOW = -4.371139000186242830836e-08  # the rest of π/2
_TAN_PI_8, _TAN_3PI_8 = math.tan(_PI / 8), math.tan(3 * _PI / 8)


@_inlined
def _with_sign(size: float, x: float) -> float:
    """`size`, which is not negative, with the sign of `x`."""
    return _from_bits(_bits(size) | (_bits(x) & _SIGN))


@_inlined
def _is_negative(x: float) -> bool:
    """Whether the sign bit is set: of −0 too."""
    return (_bits(x) & _SIGN) != _U0


@_inlined
def _exp(x: float) -> float:
    """eˣ; beyond ±200, where float32 has overflowed or is 0, e to the ±200."""
    bounded = _select(x > 200.0, 200.0, _select(x < -200.0, -200.0, x))
    shifted = bounded * _LOG2E + _ROUND
    r = bounded - (shifted - _ROUND) * _LN2  # |r| ≤ 0.35
    p = 1.0 / 362880
    p = p * r + 1.0 / 40320
    p = p * r + 1.0 / 5040
    p = p * r + 1.0 / 720
    p = p * r + 1.0 / 120
    p = p * r + 1.0 / 24
    p = p * r + 1.0 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return _select(x != x, x, _from_bits(_bits(p) + (_bits(shifted) << _EXPONENT)))


@_inlined
def _expm1(x: float) -> float:
    return _select(abs(x) < 1e-5, x * (1.0 + 0.5 * x), _exp(x) - 1.0)


@_inlined
def _log(x: float) -> float:
    """ln x, by x = 2ᵏ·m with m in [√½, √2) and ln m = 2·atanh((m − 1)/(m + 1))."""
    bits = _bits(x)
    biased = (bits + _ROOT_HALF_TO_ONE) >> _EXPONENT  # k + 1023
    k = _from_bits(biased | _BITS_OF_TWO52) - (_TWO52 + 1023.0)
    m = _from_bits(bits - ((biased - _BIAS) << _EXPONENT))
    f = (m - 1.0) / (m + 1.0)
    s = f * f  # ≤ 0.0295
    p = 1.0 / 15
    p = p * s + 1.0 / 13
    p = p * s + 1.0 / 11
    p = p * s + 1.0 / 9
    p = p * s + 1.0 / 7
    p = p * s + 1.0 / 5
    p = p * s + 1.0 / 3
    p = p * s + 1.0
    finite = k * _LN2 + 2.0 * f * p
    edge = _select(x == 0.0, -_INF, _select(x == _INF, _INF, _NAN))
    return _select((x > 0.0) & (x < _INF), finite, edge)


@_inlined
def _log1p(x: float) -> float:
    return _select(abs(x) < 1e-4, x * (1.0 - x * (0.5 - x * (1.0 / 3))), _log(1.0 + x))


@_inlined
def _quarter_turns(x: float) -> float:
    """x in quarter turns, rounded, plus `_ROUND`: the count stands in the lowest bits."""
    return x * _PI_2_INV + _ROUND


@_inlined
def _rest(x: float, shifted: float) -> float:
    """x less its quarter turns, in [−π/4, π/4]."""
    turns = shifted - _ROUND
    return (x - turns * _PI_2_HIGH) - turns * _PI_2_LOW


@_inlined
def _sin_near(r: float) -> float:
    s = r * r  # ≤ 0.62
    p = -1.0 / 39916800
    p = p * s + 1.0 / 362880
    p = p * s - 1.0 / 5040
    p = p * s + 1.0 / 120
    p = p * s - 1.0 / 6
    return r + r * s * p


@_inlined
def _cos_near(r: float) -> float:
    s = r * r
    p = 1.0 / 479001600
    p = p * s - 1.0 / 3628800
    p = p * s + 1.0 / 40320
    p = p * s - 1.0 / 720
    p = p * s + 1.0 / 24
    p = p * s - 0.5
    return p * s + 1.0


@_inlined
def _atan(x: float) -> float:
    """By atan a = π/4 + atan((a − 1)/(a + 1)) = π/2 − atan(1/a), so that the series gets |t| ≤ tan(π/8)."""
    a = abs(x)
    large, middle = a > _TAN_3PI_8, a > _TAN_PI_8
    t = _select(large, -1.0, _select(middle, a - 1.0, a)) / _select(large, a, _select(middle, a + 1.0, 1.0))
    s = t * t  # ≤ 0.1716
    p = -1.0 / 23
    p = p * s + 1.0 / 21
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
    return _with_sign(_select(large, _PI_2, _select(middle, _PI_4, 0.0)) + near, x)


# Forms of float32 ops. Each widens its arguments, and its caller rounds the result.


def _exp32(x: Any) -> Any:
    return _exp(np.float64(x))


def _log32(x: Any) -> Any:
    return _log(np.float64(x))


def _log1p32(x: Any) -> Any:
    return _log1p(np.float64(x))


def _expm132(x: Any) -> Any:
    return _expm1(np.float64(x))


def _sin32(x: Any) -> Any:
    wide = np.float64(x)
    shifted = _quarter_turns(wide)
    r = _rest(wide, shifted)
    size = _select((_bits(shifted) & _U1) != _U0, _cos_near(r), _sin_near(r))
    return _select(wide == 0.0, wide, _select((_bits(shifted) & _U2) != _U0, -size, size))


def _cos32(x: Any) -> Any:
    wide = np.float64(x)
    shifted = _quarter_turns(wide)
    r = _rest(wide, shifted)
    size = _select((_bits(shifted) & _U1) != _U0, _sin_near(r), _cos_near(r))
    return _select(((_bits(shifted) + _U1) & _U2) != _U0, -size, size)


def _tan32(x: Any) -> Any:
    wide = np.float64(x)
    shifted = _quarter_turns(wide)
    r = _rest(wide, shifted)
    odd = (_bits(shifted) & _U1) != _U0
    s, c = _sin_near(r), _cos_near(r)
    return _select(wide == 0.0, wide, _select(odd, -c, s) / _select(odd, s, c))


def _asin32(x: Any) -> Any:
    wide = np.float64(x)
    return _atan(wide / np.sqrt((1.0 - wide) * (1.0 + wide)))


def _acos32(x: Any) -> Any:
    wide = np.float64(x)
    return 2.0 * _atan(np.sqrt((1.0 - wide) / (1.0 + wide)))


def _atan32(x: Any) -> Any:
    return _atan(np.float64(x))


def _sinh32(x: Any) -> Any:
    wide = np.float64(x)
    grown = _expm1(abs(wide))
    return _with_sign(0.5 * (grown + grown / (grown + 1.0)), wide)


def _cosh32(x: Any) -> Any:
    grown = _exp(abs(np.float64(x)))
    return 0.5 * (grown + 1.0 / grown)


def _tanh32(x: Any) -> Any:
    wide = np.float64(x)
    size = _select(abs(wide) > 20.0, 20.0, abs(wide))
    grown = _expm1(2.0 * size)
    return _with_sign(grown / (grown + 2.0), wide)


def _cbrt32(x: Any) -> Any:
    wide = np.float64(x)
    return _with_sign(_exp(_log(abs(wide)) * (1.0 / 3)), wide)


def _atan232(a: Any, b: Any) -> Any:
    y, x = np.float64(a), np.float64(b)
    both_infinite = (abs(y) == _INF) & (abs(x) == _INF)
    steepness = _select(y == 0.0, 0.0, _select(both_infinite, 1.0, abs(y) / abs(x)))
    angle = _atan(steepness)
    angle = _select(_is_negative(x), _PI - angle, angle)
    return _select(x != x, x, _with_sign(angle, y))


def _hypot32(a: Any, b: Any) -> Any:
    x, y = np.float64(a), np.float64(b)
    return _select((abs(x) == _INF) | (abs(y) == _INF), _INF, np.sqrt(x * x + y * y))


def _pow32(a: Any, b: Any) -> Any:
    """IEEE's pow: 1 where b = 0 or a = 1, NaN where a < 0 is raised to no integer."""
    x, y = np.float64(a), np.float64(b)
    size = _select(abs(x) == 1.0, 1.0, _exp(y * _log(abs(x))))
    whole = np.floor(y) == y
    odd = whole & (np.floor(0.5 * y) * 2.0 != y)
    value = _select(_is_negative(x) & odd, -size, size)
    value = _select((x < 0.0) & (x > -_INF) & (np.floor(y) != y), _NAN, value)
    value = _select((y == 0.0) | (x == 1.0), 1.0, value)
    return _select(y == 2.0, x * x, _select(y == 1.0, x, value))


def float32_forms() -> dict[str, Form]:
    """Forms of the transcendental ops on float32; each returns the float64 value to round."""
    named: dict[str, Form] = {
        "exp": _exp32, "log": _log32, "log1p": _log1p32, "expm1": _expm132,
        "sin": _sin32, "cos": _cos32, "tan": _tan32,
        "asin": _asin32, "acos": _acos32, "atan": _atan32, "atan2": _atan232,
        "sinh": _sinh32, "cosh": _cosh32, "tanh": _tanh32,
        "cbrt": _cbrt32, "hypot": _hypot32, "pow": _pow32,
    }  # fmt: skip
    return {name: _inlined(form) for name, form in named.items()}
