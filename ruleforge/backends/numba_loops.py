"""Loops and switches of the interpreter, generated from the op table.

Every elementwise op is a small loop over a tile: LLVM vectorizes small loops over plain pointers, and
not one large function that holds them all. A switch on the opcode calls them. One element of an op is
computed by a form of `numba_math`, or else by the table's own meaning, which numba compiles; so a new op
whose meaning is a numpy ufunc needs nothing here. The module knows opcodes, and no program.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ruleforge.backends import numba_math
from ruleforge.core.ops import OPS

_log = logging.getLogger(__name__)
ACC = 64
"""Partial results of a reduction: element i of a tile goes into number i mod 64, in float64."""
_KINDS = {1: ("t",), 2: ("tt", "ts", "st"), 3: ("ttt", "tts", "tst", "tss", "stt", "sts", "sst")}
ELEMENTWISE = tuple(name for name, row in OPS.items() if row.kind == "elementwise")
REDUCE = {"sum": 0, "dot": 1, "max_abs": 2}
FINISH = {"norm": 0, "mean": 1, "rms": 2, "dot": 3, "max_abs": 4}


def _opcodes() -> dict[tuple[str, str], int]:
    names = [
        (name, kind)
        for name in ELEMENTWISE
        for kind in _KINDS[OPS[name].arity]
        if not (OPS[name].commutative and kind == "st")
    ]
    names += [("copy", "t"), ("copy", "s"), ("apply", "t"), ("apply", "s")]
    return {name: code for code, name in enumerate(names)}


OPCODE: dict[tuple[str, str], int] = _opcodes()
"""Code of an op for each kind of its arguments: `t` a tile, `s` one number. Besides the table's ops:
`copy`, and `apply(u, lr, decay)`, which moves the weights."""
HOST_OPCODE: dict[str, int] = {name: code for code, name in enumerate((*ELEMENTWISE, "copy"))}


# Loops over a tile. `out` overlaps no argument, except `apply`, which moves the weights where they lie.


def _loops(form: Any, arity: int) -> dict[str, Any]:
    """The loop for each kind of arguments."""

    def t(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        for i in range(n):
            out[i] = form(a[i])

    def tt(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        for i in range(n):
            out[i] = form(a[i], b[i])

    def ts(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        y = b[0]
        for i in range(n):
            out[i] = form(a[i], y)

    def st(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        x = a[0]
        for i in range(n):
            out[i] = form(x, b[i])

    def ttt(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        for i in range(n):
            out[i] = form(a[i], b[i], c[i])

    def tts(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        z = c[0]
        for i in range(n):
            out[i] = form(a[i], b[i], z)

    def tst(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        y = b[0]
        for i in range(n):
            out[i] = form(a[i], y, c[i])

    def tss(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        y, z = b[0], c[0]
        for i in range(n):
            out[i] = form(a[i], y, z)

    def stt(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        x = a[0]
        for i in range(n):
            out[i] = form(x, b[i], c[i])

    def sts(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        x, z = a[0], c[0]
        for i in range(n):
            out[i] = form(x, b[i], z)

    def sst(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        x, y = a[0], b[0]
        for i in range(n):
            out[i] = form(x, y, c[i])

    every = (t, tt, ts, st, ttt, tts, tst, tss, stt, sts, sst)
    return {loop.__name__: loop for loop in every if len(loop.__name__) == arity}


def _with_large_angles(near: Any, any_angle: Any) -> Any:
    """The loop over `near`, then a second one over the elements that it cannot reduce, if there are any."""
    limit = np.float32(numba_math.HUGE_ANGLE)

    def t(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
        n_far = 0
        for i in range(n):
            out[i] = near(a[i])
            n_far += abs(a[i]) >= limit
        if n_far > 0:
            for i in range(n):
                if abs(a[i]) >= limit:
                    out[i] = any_angle(a[i])

    return t


def _copy_t(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
    for i in range(n):
        out[i] = a[i]


def _copy_s(out: Any, a: Any, b: Any, c: Any, n: int) -> None:
    x = a[0]
    for i in range(n):
        out[i] = x


def _apply_t(w: Any, u: Any, lr: Any, decay: Any, n: int) -> None:
    rate, fade = lr[0], decay[0]
    if fade == 0:
        for i in range(n):
            w[i] = w[i] - rate * u[i]
    else:
        for i in range(n):
            w[i] = w[i] - rate * (u[i] + fade * w[i])


def _apply_s(w: Any, u: Any, lr: Any, decay: Any, n: int) -> None:
    x, rate, fade = u[0], lr[0], decay[0]
    if fade == 0:
        step = rate * x
        for i in range(n):
            w[i] = w[i] - step
    else:
        for i in range(n):
            w[i] = w[i] - rate * (x + fade * w[i])


def _copy_form(x: Any) -> Any:
    return x


def aligned(n: int, real: Any) -> Any:
    """n zeros that start at a cache line."""
    item = np.dtype(real).itemsize
    raw = np.zeros(n + 64 // item, real)
    skipped = -raw.ctypes.data % 64 // item
    return raw[skipped : skipped + n]


def compiled(function: Any) -> Any:
    return njit(function, error_model="numpy")


def kept(function: Any, what: str, **options: Any) -> Any:
    """Compiled to be called from Python, and kept on disk where numba finds a folder that it may write to.

    Args:
        function: to compile; numba's cache looks at its own file and at its closure.
        what: it is, for the warning.
        options: of `njit`.
    """
    try:
        return njit(function, cache=True, error_model="numpy", **options)
    except RuntimeError as error:
        _log.warning("%s will be compiled in every process (set NUMBA_CACHE_DIR): %s", what, error)
        return njit(function, error_model="numpy", **options)


def merged(function: Any) -> Any:
    """Compiled as a part of its caller: each compiled function optimizes anew all those that it calls."""
    return njit(function, error_model="numpy", inline="always")


@cache
def _forms(real: Any) -> dict[str, Any]:
    """What one element of each op computes: our form, or else the table's meaning."""
    forms = numba_math.exact_forms(real)
    if real is np.float32:
        forms |= numba_math.float32_forms()
    return {name: forms.get(name) or _meaning(name) for name in ELEMENTWISE}


def _meaning(name: str) -> Any:
    meaning = OPS[name].meaning
    return meaning if isinstance(meaning, np.ufunc) else njit(meaning, error_model="numpy", forceinline=True)


@cache
def tile_loops(real: Any) -> list[Any]:
    """The loops, by opcode."""
    loops: dict[tuple[str, str], Any] = {
        ("copy", "t"): _copy_t, ("copy", "s"): _copy_s, ("apply", "t"): _apply_t, ("apply", "s"): _apply_s,
    }  # fmt: skip
    for name, form in _forms(real).items():
        made = _loops(form, OPS[name].arity)
        if real is np.float32 and name in numba_math.NEEDS_SMALL_ANGLE:
            made["t"] = _with_large_angles(form, OPS[name].meaning)
        loops |= {(name, kind): loop for kind, loop in made.items()}
    return [compiled(loops[name]) for name in OPCODE]


@cache
def host_forms() -> list[Any]:
    """Forms of three float64 arguments, by host opcode."""
    forms = {**_forms(np.float64), "copy": compiled(_copy_form)}
    return [compiled(_of_three(forms[n], OPS[n].arity if n in OPS else 1)) for n in HOST_OPCODE]


def _of_three(form: Any, arity: int) -> Any:
    def one(a: float, b: float, c: float) -> float:
        return form(a)

    def two(a: float, b: float, c: float) -> float:
        return form(a, b)

    def three(a: float, b: float, c: float) -> float:
        return form(a, b, c)

    return (one, two, three)[arity - 1]


# Reductions: partial results in float64, whose order depends on the layout alone. Whole blocks of `ACC`
# elements, and then the rest, since LLVM vectorizes loops of a known length best.


@compiled
def add_up(acc: Any, a: Any, b: Any, n: int) -> None:
    whole = n - n % ACC
    for start in range(0, whole, ACC):
        for j in range(ACC):
            acc[j] += np.float64(a[start + j])
    for j in range(n - whole):
        acc[j] += np.float64(a[whole + j])


@compiled
def add_products(acc: Any, a: Any, b: Any, n: int) -> None:
    whole = n - n % ACC
    for start in range(0, whole, ACC):
        for j in range(ACC):
            acc[j] += np.float64(a[start + j]) * np.float64(b[start + j])
    for j in range(n - whole):
        acc[j] += np.float64(a[whole + j]) * np.float64(b[whole + j])


@compiled
def _larger(old: float, x: Any) -> float:
    """The larger of `old` and |x|; a NaN stays."""
    size = np.float64(abs(x))
    return size if (size > old) | (size != size) else old


@compiled
def keep_largest(acc: Any, a: Any, b: Any, n: int) -> None:
    whole = n - n % ACC
    for start in range(0, whole, ACC):
        for j in range(ACC):
            acc[j] = _larger(acc[j], a[start + j])
    for j in range(n - whole):
        acc[j] = _larger(acc[j], a[whole + j])


@compiled
def finish(code: int, acc: Any, n: int) -> float:
    """The value of a reduction over n elements; folds the partial results in halves.

    Where n is small the upper ones are zeros, and are not added.
    """
    width = ACC // 2
    while width >= n and width > 0:
        width //= 2
    while width > 0:
        if code == 4:
            for j in range(width):
                acc[j] = _larger(acc[j], acc[width + j])
        else:
            for j in range(width):
                acc[j] += acc[width + j]
        width //= 2
    total = acc[0]
    if code == 1 or code == 2:
        total = total / max(n, 1)
    if code == 0 or code == 2:
        total = np.sqrt(total)
    return total


# Switches. An intrinsic sees the float type of its array argument and calls the loops made for it.


def _emit_switch(context: Any, builder: Any, code: Any, calls: Any, after: Any) -> None:
    """`switch (code)` with one call a case; an unknown code does nothing."""
    switch = builder.switch(code, after)
    for number, call in enumerate(calls):
        block = builder.append_basic_block(f"op.{number}")
        switch.add_case(context.get_constant(types.intp, number), block)
        builder.position_at_end(block)
        call()
        builder.branch(after)
    builder.position_at_end(after)


def _caller(context: Any, builder: Any, kind: Any, signature: Any, args: Any) -> Callable[[], Any]:
    def call() -> Any:
        function = context.get_function(kind, signature)
        context.add_linking_libs(getattr(function, "libs", ()))
        return function(builder, args)

    return call


_REALS = {types.float32: np.float32, types.float64: np.float64}
_SIX = (types.intp,) * 6


@intrinsic
def run_loop(typingctx: Any, like: Any, code: Any, out: Any, a: Any, b: Any, c: Any, n: Any) -> Any:
    """Run the loop of an opcode on n elements at four addresses; `like` points to elements of their type."""
    pointer = types.CPointer(like.dtype)
    kinds = [types.Dispatcher(loop) for loop in tile_loops(_REALS[like.dtype])]
    signatures = [kind.get_call_type(typingctx, (pointer,) * 4 + (types.intp,), {}) for kind in kinds]

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = context.get_value_type(pointer)
        values = (*(builder.inttoptr(value, address) for value in args[2:6]), args[6])
        calls = [_caller(context, builder, *pair, values) for pair in zip(kinds, signatures, strict=True)]
        _emit_switch(context, builder, args[1], calls, builder.append_basic_block("after"))
        return context.get_dummy_value()

    return types.void(like, *_SIX), lower


@intrinsic
def host_value(typingctx: Any, code: Any, a: Any, b: Any, c: Any) -> Any:
    """The float64 value of a host opcode."""
    kinds = [types.Dispatcher(form) for form in host_forms()]
    real = types.float64
    signatures = [kind.get_call_type(typingctx, (real,) * 3, {}) for kind in kinds]

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = cgutils.alloca_once_value(builder, args[1])
        calls = [_caller(context, builder, *pair, args[1:]) for pair in zip(kinds, signatures, strict=True)]
        stores = [(lambda call=call: builder.store(call(), place)) for call in calls]
        _emit_switch(context, builder, args[0], stores, builder.append_basic_block("after"))
        return builder.load(place)

    return real(types.intp, real, real, real), lower
