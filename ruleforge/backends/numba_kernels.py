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

from ruleforge.backends import numba_loops, numba_math, numba_pointers
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
    run_loop,
)
from ruleforge.backends.numba_pointers import moved, pointer_to, prefetch, start_of
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
N_STATES, N_FULL, N_TILES, N_SCALARS, N_ROUNDED, TILE, FULL_STRIDE, N_CALLS = range(8, 16)
N_PROGRAM_COLUMNS = 16
# Columns of the phase table: ranges of rows of code, and in which call of the kernel the phase is run.
SCALAR_LO, SCALAR_HI, TENSOR_LO, TENSOR_HI, REDUCE_LO, REDUCE_HI, POST_LO, POST_HI, CALL = range(9)
N_PHASE_COLUMNS = 9
# Columns of the lane table: its program, and where its numbers start.
PROGRAM, HOST_AT, ROUNDED_AT, SCALARS_AT, STATES_AT, FULL_AT = range(6)
N_LANE_COLUMNS = 6
N_CODE_COLUMNS = 5
# The chunk's table: addresses of its arrays, numbers of what it has, and whether it is too large for a cache.
CODE_0, PHASES_0, PROGRAMS_0, LANES_0, OFFSETS_0, HOST_0, ROUNDS_0 = range(7)
ROUNDED_0, SCALARS_0, STATES_0, FULL_0, SCRATCH_0, SUMS_0, ADDRESS_0 = range(7, 14)
N_LANES, N_TENSORS, N_WEIGHTS, AHEAD = range(14, 18)
N_CHUNK_COLUMNS = 18

# The kernel. Tables are pointers to their first elements.


@compiled
def _run_host(program: Any, code: Any, host: Any, rounds: Any, rounded: Any) -> None:
    """Host code of one lane: float64 instructions, then rounding, then the next host states."""
    for row in range(program[HOST_LO], program[HOST_HI]):
        each = moved(code, row * N_CODE_COLUMNS)
        host[each[1]] = host_value(each[0], host[each[2]], host[each[3]], host[each[4]])
    for k in range(program[N_ROUNDED]):
        rounded[k] = host[rounds[k]]
    for row in range(program[AFTER_LO], program[AFTER_HI]):
        each = moved(code, row * N_CODE_COLUMNS)
        host[each[1]] = host[each[2]]


@compiled
def _reduce_rows(like: Any, code: Any, lo: int, hi: int, address: Any, acc: Any, n: int) -> None:
    """Add n elements to the partial sums of each reduction."""
    for row in range(lo, hi):
        each, sums = moved(code, row * N_CODE_COLUMNS), moved(acc, (row - lo) * ACC)
        a, b = pointer_to(like, address[each[2]]), pointer_to(like, address[each[3]])
        if each[4] == 0:
            add_up(sums, a, b, n)
        elif each[4] == 1:
            add_products(sums, a, b, n)
        else:
            keep_largest(sums, a, b, n)


@compiled
def _finish_rows(like: Any, code: Any, lo: int, hi: int, address: Any, acc: Any, size: int) -> None:
    """The values of the reductions over a parameter tensor of `size` elements."""
    for row in range(lo, hi):
        each = moved(code, row * N_CODE_COLUMNS)
        out = pointer_to(like, address[each[1]])
        out[0] = finish(each[0], moved(acc, (row - lo) * ACC), size)


@merged
def _tiles(size: int, most: int) -> tuple[int, int]:
    """How many tiles a parameter tensor is cut into, and their size: equal but for rounding to `ACC`."""
    if size <= most:
        return min(size, 1), size
    n_tiles = (size + most - 1) // most
    return n_tiles, ((size + n_tiles - 1) // n_tiles + ACC - 1) // ACC * ACC


@merged
def _run_phase(
    like: Any, item: int, program: Any, plan: Any, code: Any, address: Any, acc: Any, size: int,
    tensor_hi: int, ahead: bool,
) -> None:  # fmt: skip
    """One phase on one parameter tensor of `size` elements of `item` bytes, whose operands lie at `address`.

    The rows on scalars are a first and a last pass of one element around those over the tiles, so that
    the switch is called, and compiled, in one place. `ahead` asks for the next tile before this one is
    worked on, which pays once the lanes do not fit in the cache.
    """
    n_moving = STATES + program[N_STATES] + program[N_FULL]
    n_tiles, tile = _tiles(size, program[TILE])
    for k in range(plan[REDUCE_HI] - plan[REDUCE_LO]):
        sums = moved(acc, k * ACC)
        for j in range(ACC):
            sums[j] = 0.0
    start = 0
    for number in range(n_tiles + 2):
        lo, hi, n = plan[TENSOR_LO], tensor_hi, min(tile, size - start)
        if number == 0:
            lo, hi, n = plan[SCALAR_LO], plan[SCALAR_HI], 1
        elif number > n_tiles:
            _finish_rows(like, code, plan[REDUCE_LO], plan[REDUCE_HI], address, acc, size)
            lo, hi, n = plan[POST_LO], plan[POST_HI], 1
        if ahead and 0 < number <= n_tiles:
            for k in range(n_moving):
                if k != U:  # not read, and perhaps nowhere
                    for line in range(0, n * item, CACHE_LINE):
                        prefetch(address[k] + n * item + line)
        for row in range(lo, hi):
            each = moved(code, row * N_CODE_COLUMNS)
            run_loop(like, each[0], address[each[1]], address[each[2]], address[each[3]], address[each[4]], n)
        if 0 < number <= n_tiles:
            _reduce_rows(like, code, plan[REDUCE_LO], plan[REDUCE_HI], address, acc, n)
            start += n
            if n_tiles > 1:
                for k in range(n_moving):
                    address[k] += n * item
    if n_tiles > 1:
        for k in range(n_moving):
            address[k] -= size * item


def _make_kernel(sources: int) -> Any:
    """The kernel. `sources` stands in a closure cell, and so in the key of numba's cache on disk."""

    def step_lanes(
        like: Any, w: int, g: int, u: int, t: float, lr: Any, progress: float, decay: Any, table: Any,
        call: int,
    ) -> int:  # fmt: skip
        """Step all lanes, in calls 0, 1, …

        A program's phases up to its n-th matrix op are run by call n: all of them by the first where it has
        none. `w`, `g` and `u` are addresses of numbers of the type of `like`; `u` is 0 where updates are not
        asked for, and `decay` has no element where there is none. Returns `sources`.
        """
        chunk, rates = start_of(table), start_of(lr)
        item, reals = like.itemsize, start_of(like)
        code, phases = pointer_to(chunk, chunk[CODE_0]), pointer_to(chunk, chunk[PHASES_0])
        offsets, at = pointer_to(chunk, chunk[OFFSETS_0]), pointer_to(chunk, chunk[ADDRESS_0])
        rounds, rounded = pointer_to(chunk, chunk[ROUNDS_0]), pointer_to(reals, chunk[ROUNDED_0])
        sums, n_weights, ahead = pointer_to(rates, chunk[SUMS_0]), chunk[N_WEIGHTS], chunk[AHEAD] != 0
        for lane in range(chunk[N_LANES]):
            place = moved(pointer_to(chunk, chunk[LANES_0]), lane * N_LANE_COLUMNS)
            program = moved(pointer_to(chunk, chunk[PROGRAMS_0]), place[PROGRAM] * N_PROGRAM_COLUMNS)
            if call >= program[N_CALLS]:
                continue
            if call == 0:
                numbers = moved(pointer_to(rates, chunk[HOST_0]), place[HOST_AT])
                numbers[T], numbers[FIRST], numbers[PROGRESS] = t, 1.0 if t == 1.0 else 0.0, progress
                numbers[LR] = rates[lane]
                numbers[DECAY] = decay[lane] if decay.size > 0 else 0.0
                _run_host(
                    program, code, numbers, moved(rounds, program[ROUND_LO]),
                    moved(rounded, place[ROUNDED_AT]),
                )  # fmt: skip
            n_states, n_full, n_scalars = program[N_STATES], program[N_FULL], program[N_SCALARS]
            full_at = STATES + n_states
            tile_at = full_at + n_full
            scalar_at = tile_at + program[N_TILES]
            rounded_at = scalar_at + n_scalars
            for k in range(program[N_TILES]):
                at[tile_at + k] = chunk[SCRATCH_0] + k * TILE_STRIDE * item
            for k in range(program[N_ROUNDED]):
                at[rounded_at + k] = chunk[ROUNDED_0] + (place[ROUNDED_AT] + k) * item
            for tensor in range(chunk[N_TENSORS] if n_scalars > 0 else 1):
                lo = offsets[tensor]
                size = offsets[tensor + 1] - lo if n_scalars > 0 else n_weights
                in_lanes = (lane * n_weights + lo) * item
                at[G], at[W], at[U] = g + in_lanes, w + in_lanes, u + in_lanes
                for k in range(n_states):
                    at[STATES + k] = chunk[STATES_0] + (place[STATES_AT] + k * n_weights + lo) * item
                kept_from = place[FULL_AT] + (lo if program[N_CALLS] > 1 else 0)
                for k in range(n_full):
                    at[full_at + k] = chunk[FULL_0] + (kept_from + k * program[FULL_STRIDE]) * item
                own = place[SCALARS_AT] + tensor * n_scalars
                for k in range(n_scalars):
                    at[scalar_at + k] = chunk[SCALARS_0] + (own + k) * item
                for number in range(program[N_PHASES]):
                    plan = moved(phases, (program[PHASE_AT] + number) * N_PHASE_COLUMNS)
                    if plan[CALL] != call:
                        continue
                    unasked = number == program[N_PHASES] - 1 and u == 0
                    # The last tensor row of the last phase writes the updates.
                    _run_phase(
                        reals, item, program, plan, code, at, sums, size, plan[TENSOR_HI] - unasked, ahead
                    )
        return sources

    return kept(step_lanes, "the update plane")


@cache
def digest() -> int:
    """A number that changes with the op table and with the sources that the kernel is made from."""
    text = "".join(inspect.getsource(module) for module in (ops, numba_math, numba_loops, numba_pointers))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@cache
def kernel() -> Any:
    """The interpreter, compiled for a float type when it is first called with it."""
    return _make_kernel(digest())
