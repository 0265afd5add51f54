"""The interpreter: one compiled function that steps any number of lanes, each by its own bytecode.

Every elementwise op of the table is a small loop over a tile (LLVM vectorizes small loops with plain
pointers, and not one large function that holds them all); a switch made from the op table calls them.
Nothing is compiled for a rule. The bytecode and the layout of the arrays are those of `numba_code`.

The kernel is compiled at first use and kept on disk by numba (`NUMBA_CACHE_DIR`, or `__pycache__`
beside this file). The key of that cache holds numba's version and processor and, as a closure cell, a
digest of the op table and of the sources that the kernel is made from, since numba looks at no other
file than this one.

Arithmetic is IEEE's: no reassociation, no contraction of a·b + c. Denormal numbers are flushed if the
calling thread flushes them (`torch.set_flush_denormal(True)`); the kernel leaves that setting alone.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ruleforge.backends import numba_math
from ruleforge.core import ops
from ruleforge.core.ops import OPS

ACC = 64
"""Partial sums of a reduction: element i of a tile goes into sum i mod 64, in float64."""
TILE_MAX = 1024
TILE_STRIDE = TILE_MAX + 16  # elements between tiles: at 4,096 bytes stores would look like later loads
G, W, U, STATES = range(4)
"""Operands: gradient, weights, where updates are written, the first state; then come full registers,
tile registers, scalars of the parameter tensor, rounded host numbers."""

# Host numbers of a lane that the kernel sets or the plane fills; the program's own follow.
T, FIRST, LR, LR0, PROGRESS, DECAY = range(6)
N_HOST_LEAVES = 6
# Columns of the program table: ranges of rows of code, numbers of operands, and how they lie.
HOST_LO, HOST_HI, AFTER_LO, AFTER_HI, ROUND_LO, ROUND_HI, PHASE_AT, N_PHASES = range(8)
N_STATES, N_FULL, N_TILES, N_SCALARS, N_ROUNDED, TILE, FULL_STRIDE, FULL_KEPT = range(8, 16)
N_PROGRAM_COLUMNS = 16
ALL_PHASES = 1 << 30
# Columns of the phase table: ranges of rows of code.
SCALAR_LO, SCALAR_HI, TENSOR_LO, TENSOR_HI, REDUCE_LO, REDUCE_HI, POST_LO, POST_HI = range(8)
# Columns of the lane table: its program, and where its numbers start.
PROGRAM, HOST_AT, ROUNDED_AT, SCALARS_AT, STATES_AT, FULL_AT = range(6)

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


def _compiled(function: Any) -> Any:
    return njit(function, error_model="numpy")


def _merged(function: Any) -> Any:
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
def _tile_loops(real: Any) -> list[Any]:
    """The loops, by opcode."""
    loops: dict[tuple[str, str], Any] = {
        ("copy", "t"): _copy_t, ("copy", "s"): _copy_s, ("apply", "t"): _apply_t, ("apply", "s"): _apply_s,
    }  # fmt: skip
    for name, form in _forms(real).items():
        made = _loops(form, OPS[name].arity)
        if real is np.float32 and name in numba_math.NEEDS_SMALL_ANGLE:
            made["t"] = _with_large_angles(form, OPS[name].meaning)
        loops |= {(name, kind): loop for kind, loop in made.items()}
    return [_compiled(loops[name]) for name in OPCODE]


@cache
def _host_forms() -> list[Any]:
    """Forms of three float64 arguments, by host opcode."""
    forms = {**_forms(np.float64), "copy": _compiled(_copy_form)}
    return [_compiled(_of_three(forms[n], OPS[n].arity if n in OPS else 1)) for n in HOST_OPCODE]


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


@_compiled
def _sum(acc: Any, a: Any, b: Any, n: int) -> None:
    whole = n - n % ACC
    for start in range(0, whole, ACC):
        for j in range(ACC):
            acc[j] += np.float64(a[start + j])
    for j in range(n - whole):
        acc[j] += np.float64(a[whole + j])


@_compiled
def _dot(acc: Any, a: Any, b: Any, n: int) -> None:
    whole = n - n % ACC
    for start in range(0, whole, ACC):
        for j in range(ACC):
            acc[j] += np.float64(a[start + j]) * np.float64(b[start + j])
    for j in range(n - whole):
        acc[j] += np.float64(a[whole + j]) * np.float64(b[whole + j])


@_compiled
def _larger(old: float, x: Any) -> float:
    """The larger of `old` and |x|; a NaN stays."""
    size = np.float64(abs(x))
    return size if (size > old) | (size != size) else old


@_compiled
def _max_abs(acc: Any, a: Any, b: Any, n: int) -> None:
    whole = n - n % ACC
    for start in range(0, whole, ACC):
        for j in range(ACC):
            acc[j] = _larger(acc[j], a[start + j])
    for j in range(n - whole):
        acc[j] = _larger(acc[j], a[whole + j])


@_compiled
def _finish(code: int, acc: Any, n: int) -> float:
    """The value of a reduction over n elements; folds the partial results in halves."""
    width = ACC // 2
    while width > 0:
        for j in range(width):
            if code == 4:
                acc[j] = _larger(acc[j], acc[width + j])
            else:
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
def _run_loop(typingctx: Any, like: Any, code: Any, out: Any, a: Any, b: Any, c: Any, n: Any) -> Any:
    """Run the loop of an opcode on n elements at four addresses; `like` is an array of their type."""
    pointer = types.CPointer(like.dtype)
    kinds = [types.Dispatcher(loop) for loop in _tile_loops(_REALS[like.dtype])]
    signatures = [kind.get_call_type(typingctx, (pointer,) * 4 + (types.intp,), {}) for kind in kinds]

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = context.get_value_type(pointer)
        values = (*(builder.inttoptr(value, address) for value in args[2:6]), args[6])
        calls = [_caller(context, builder, *pair, values) for pair in zip(kinds, signatures, strict=True)]
        _emit_switch(context, builder, args[1], calls, builder.append_basic_block("after"))
        return context.get_dummy_value()

    return types.void(like, *_SIX), lower


@intrinsic
def _host_value(typingctx: Any, code: Any, a: Any, b: Any, c: Any) -> Any:
    """The float64 value of a host opcode."""
    kinds = [types.Dispatcher(form) for form in _host_forms()]
    real = types.float64
    signatures = [kind.get_call_type(typingctx, (real,) * 3, {}) for kind in kinds]

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = cgutils.alloca_once_value(builder, args[1])
        calls = [_caller(context, builder, *pair, args[1:]) for pair in zip(kinds, signatures, strict=True)]
        stores = [(lambda call=call: builder.store(call(), place)) for call in calls]
        _emit_switch(context, builder, args[0], stores, builder.append_basic_block("after"))
        return builder.load(place)

    return real(types.intp, real, real, real), lower


@intrinsic
def _pointer(typingctx: Any, like: Any, address: Any) -> Any:
    """An address as a pointer to elements of `like`'s type."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(like, types.intp), lower


# The kernel.


@_compiled
def _run_host(
    program: Any, at: int, rounded_at: int, code: Any, host: Any, rounds: Any, rounded: Any
) -> None:
    """Host code of one lane: float64 instructions, then rounding, then the next host states."""
    for row in range(program[HOST_LO], program[HOST_HI]):
        host[at + code[row, 1]] = _host_value(
            code[row, 0], host[at + code[row, 2]], host[at + code[row, 3]], host[at + code[row, 4]]
        )
    for k in range(program[N_ROUNDED]):
        rounded[rounded_at + k] = host[at + rounds[program[ROUND_LO] + k]]
    for row in range(program[AFTER_LO], program[AFTER_HI]):
        host[at + code[row, 1]] = host[at + code[row, 2]]


@_compiled
def _reduce_rows(like: Any, code: Any, lo: int, hi: int, address: Any, acc: Any, n: int) -> None:
    """Add n elements to the partial sums of each reduction."""
    for row in range(lo, hi):
        a, b = _pointer(like, address[code[row, 2]]), _pointer(like, address[code[row, 3]])
        if code[row, 4] == 0:
            _sum(acc[row - lo], a, b, n)
        elif code[row, 4] == 1:
            _dot(acc[row - lo], a, b, n)
        else:
            _max_abs(acc[row - lo], a, b, n)


@_compiled
def _finish_rows(like: Any, code: Any, lo: int, hi: int, address: Any, acc: Any, size: int) -> None:
    """The values of the reductions over a parameter tensor of `size` elements."""
    for row in range(lo, hi):
        out = _pointer(like, address[code[row, 1]])
        out[0] = _finish(code[row, 0], acc[row - lo], size)


@_merged
def _run_phase(
    w: Any, program: Any, plan: Any, code: Any, address: Any, acc: Any, size: int, tensor_hi: int
) -> None:
    """One phase on one parameter tensor of `size` elements, whose operands lie at `address`.

    The rows on scalars are a first and a last pass of one element around those over the tiles, so that
    the switch is called, and compiled, in one place.
    """
    n_moving = STATES + program[N_STATES] + program[N_FULL]
    n_tiles = (size + program[TILE] - 1) // program[TILE]
    tile = ((size + n_tiles - 1) // max(n_tiles, 1) + ACC - 1) // ACC * ACC
    for k in range(plan[REDUCE_HI] - plan[REDUCE_LO]):
        for j in range(ACC):
            acc[k, j] = 0.0
    start = 0
    for number in range(n_tiles + 2):
        lo, hi, n = plan[TENSOR_LO], tensor_hi, min(tile, size - start)
        if number == 0:
            lo, hi, n = plan[SCALAR_LO], plan[SCALAR_HI], 1
        elif number > n_tiles:
            _finish_rows(w, code, plan[REDUCE_LO], plan[REDUCE_HI], address, acc, size)
            lo, hi, n = plan[POST_LO], plan[POST_HI], 1
        for row in range(lo, hi):
            _run_loop(
                w, code[row, 0],
                address[code[row, 1]], address[code[row, 2]], address[code[row, 3]], address[code[row, 4]], n,
            )  # fmt: skip
        if 0 < number <= n_tiles:
            _reduce_rows(w, code, plan[REDUCE_LO], plan[REDUCE_HI], address, acc, n)
            for k in range(n_moving):
                address[k] += n * w.itemsize
            start += n
    for k in range(n_moving):
        address[k] -= size * w.itemsize


@_compiled
def _place_tensor(
    w: Any, g: Any, u: Any, states: Any, full: Any, program: Any, place: Any, lane: int, lo: int, address: Any
) -> None:
    """Addresses of the operands that move, at element `lo` of a lane."""
    item, n_weights = w.itemsize, w.shape[1]
    at = lane * n_weights + lo
    address[G] = g.ctypes.data + at * item
    address[W] = w.ctypes.data + at * item
    address[U] = u.ctypes.data + at * item
    for k in range(program[N_STATES]):
        address[STATES + k] = states.ctypes.data + (place[STATES_AT] + k * n_weights + lo) * item
    first = STATES + program[N_STATES]
    kept = lo * program[FULL_KEPT]
    for k in range(program[N_FULL]):
        address[first + k] = full.ctypes.data + (place[FULL_AT] + k * program[FULL_STRIDE] + kept) * item


@_compiled
def _place_rest(w: Any, scratch: Any, rounded: Any, program: Any, place: Any, address: Any) -> None:
    """Addresses of the tile registers and of the rounded host numbers."""
    first = STATES + program[N_STATES] + program[N_FULL]
    for k in range(program[N_TILES]):
        address[first + k] = scratch.ctypes.data + k * TILE_STRIDE * w.itemsize
    first += program[N_TILES] + program[N_SCALARS]
    for k in range(program[N_ROUNDED]):
        address[first + k] = rounded.ctypes.data + (place[ROUNDED_AT] + k) * w.itemsize


def _make_kernel(sources: int) -> Any:
    """The kernel. `sources` stands in a closure cell, and so in the key of numba's cache on disk."""

    def step_lanes(
        w: Any, g: Any, u: Any, t: float, lr: Any, progress: float, decay: Any,
        code: Any, phases: Any, programs: Any, lanes: Any, offsets: Any,
        host: Any, rounds: Any, rounded: Any, scalars: Any, states: Any, full: Any,
        scratch: Any, acc: Any, address: Any,
        first_lane: int, last_lane: int, first_phase: int, last_phase: int,
    ) -> int:  # fmt: skip
        """Step the lanes [first_lane, last_lane) through the phases [first_phase, last_phase).

        `u` has a row for each lane, or no row where updates are not asked for; `decay` has no element
        where there is none. Returns `sources`.
        """
        for lane in range(first_lane, last_lane):
            place = lanes[lane]
            program = programs[place[PROGRAM]]
            if first_phase == 0:
                at = place[HOST_AT]
                host[at + T], host[at + FIRST], host[at + PROGRESS] = t, 1.0 if t == 1.0 else 0.0, progress
                host[at + LR] = lr[lane]
                host[at + DECAY] = decay[lane] if decay.size > 0 else 0.0
                _run_host(program, at, place[ROUNDED_AT], code, host, rounds, rounded)
            _place_rest(w, scratch, rounded, program, place, address)
            n_scalars = program[N_SCALARS]
            first_scalar = STATES + program[N_STATES] + program[N_FULL] + program[N_TILES]
            n_tensors = offsets.size - 1 if n_scalars > 0 else 1
            for tensor in range(n_tensors):
                lo = offsets[tensor]
                size = offsets[tensor + 1] - lo if n_scalars > 0 else w.shape[1]
                _place_tensor(w, g, u, states, full, program, place, lane, lo, address)
                for k in range(n_scalars):
                    number = place[SCALARS_AT] + tensor * n_scalars + k
                    address[first_scalar + k] = scalars.ctypes.data + number * w.itemsize
                for phase in range(first_phase, min(last_phase, program[N_PHASES])):
                    plan = phases[program[PHASE_AT] + phase]
                    unasked = phase == program[N_PHASES] - 1 and u.shape[0] == 0
                    # The last tensor row of the last phase writes the updates.
                    _run_phase(w, program, plan, code, address, acc, size, plan[TENSOR_HI] - unasked)
        return sources

    return njit(step_lanes, error_model="numpy", cache=True)


@cache
def digest() -> int:
    """A number that changes with the op table and with the sources that the kernel is made from."""
    text = "".join(inspect.getsource(module) for module in (ops, numba_math)) + repr(list(OPCODE))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@cache
def kernel() -> Any:
    """The interpreter, compiled for a float type when it is first called with it."""
    return _make_kernel(digest())
