"""The interpreter: one compiled function that steps any number of lanes, each by its own bytecode.

Nothing is compiled for a rule. The bytecode and the layout of the arrays are those of `numba_code`, the
loops that do the work those of `numba_loops`.

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
from functools import cache
from typing import Any

from ruleforge.backends import numba_loops, numba_math
from ruleforge.backends.numba_loops import (
    ACC,
    add_products,
    add_up,
    compiled,
    finish,
    host_value,
    keep_largest,
    kept,
    merged,
    pointer_to,
    prefetch,
    run_loop,
)
from ruleforge.core import ops

TILE_MAX = 1024
CACHE_LINE = 64
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
# Columns of the phase table: ranges of rows of code.
SCALAR_LO, SCALAR_HI, TENSOR_LO, TENSOR_HI, REDUCE_LO, REDUCE_HI, POST_LO, POST_HI = range(8)
# Columns of the lane table: its program, and where its numbers start.
PROGRAM, HOST_AT, ROUNDED_AT, SCALARS_AT, STATES_AT, FULL_AT = range(6)

# The kernel.


@compiled
def _run_host(
    program: Any, at: int, rounded_at: int, code: Any, host: Any, rounds: Any, rounded: Any
) -> None:
    """Host code of one lane: float64 instructions, then rounding, then the next host states."""
    for row in range(program[HOST_LO], program[HOST_HI]):
        host[at + code[row, 1]] = host_value(
            code[row, 0], host[at + code[row, 2]], host[at + code[row, 3]], host[at + code[row, 4]]
        )
    for k in range(program[N_ROUNDED]):
        rounded[rounded_at + k] = host[at + rounds[program[ROUND_LO] + k]]
    for row in range(program[AFTER_LO], program[AFTER_HI]):
        host[at + code[row, 1]] = host[at + code[row, 2]]


@compiled
def _reduce_rows(like: Any, code: Any, lo: int, hi: int, address: Any, acc: Any, n: int) -> None:
    """Add n elements to the partial sums of each reduction."""
    for row in range(lo, hi):
        a, b = pointer_to(like, address[code[row, 2]]), pointer_to(like, address[code[row, 3]])
        if code[row, 4] == 0:
            add_up(acc[row - lo], a, b, n)
        elif code[row, 4] == 1:
            add_products(acc[row - lo], a, b, n)
        else:
            keep_largest(acc[row - lo], a, b, n)


@compiled
def _finish_rows(like: Any, code: Any, lo: int, hi: int, address: Any, acc: Any, size: int) -> None:
    """The values of the reductions over a parameter tensor of `size` elements."""
    for row in range(lo, hi):
        out = pointer_to(like, address[code[row, 1]])
        out[0] = finish(code[row, 0], acc[row - lo], size)


@merged
def _run_phase(
    w: Any, program: Any, plan: Any, code: Any, address: Any, acc: Any, size: int, tensor_hi: int, ahead: bool
) -> None:
    """One phase on one parameter tensor of `size` elements, whose operands lie at `address`.

    The rows on scalars are a first and a last pass of one element around those over the tiles, so that
    the switch is called, and compiled, in one place. `ahead` asks for the next tile before this one is
    worked on, which pays once the lanes do not fit in the cache.
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
        if ahead and 0 < number <= n_tiles:
            for k in range(n_moving):
                if k != U:  # not read, and perhaps nowhere
                    for line in range(0, n * w.itemsize, CACHE_LINE):
                        prefetch(address[k] + n * w.itemsize + line)
        for row in range(lo, hi):
            run_loop(
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


@compiled
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


@compiled
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
        scratch: Any, acc: Any, address: Any, ahead: bool,
        call: int,
    ) -> int:  # fmt: skip
        """Step all lanes, in calls 0, 1, …

        The n-th is phase n of those programs that keep tensors between phases; the others go through all of
        their phases with the first. `u` has a row for each lane, or no row where updates are not asked for;
        `decay` has no element where there is none. Returns `sources`.
        """
        for lane in range(lanes.shape[0]):
            place = lanes[lane]
            program = programs[place[PROGRAM]]
            by_phase, n_phases = program[FULL_KEPT] != 0, program[N_PHASES]
            if call > 0 and (call >= n_phases or not by_phase):
                continue
            if call == 0:
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
                for phase in range(call, call + 1 if by_phase else n_phases):
                    plan = phases[program[PHASE_AT] + phase]
                    unasked = phase == n_phases - 1 and u.shape[0] == 0
                    # The last tensor row of the last phase writes the updates.
                    _run_phase(w, program, plan, code, address, acc, size, plan[TENSOR_HI] - unasked, ahead)
        return sources

    return kept(step_lanes, "the update plane")


@cache
def digest() -> int:
    """A number that changes with the op table and with the sources that the kernel is made from."""
    text = "".join(inspect.getsource(module) for module in (ops, numba_math, numba_loops))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@cache
def kernel() -> Any:
    """The interpreter, compiled for a float type when it is first called with it."""
    return _make_kernel(digest())
