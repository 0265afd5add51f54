# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs
# ruff: noqa: SIM300, RUF005 (Triton's Python: chained comparisons and starred tuples it does not know)
"""The update plane's kernels in Triton: an interpreter of bytecode, and straight-line code.

`step_tiles` does one phase of any number of lanes, each by its own bytecode. An instance takes a tile of a
lane's tensor, works out where the operands of the lane's program lie, and then goes through the rows:
fetch, dispatch, store. Triton has no registers that an index could choose, so what the bytecode calls tile
registers are places in a scratch that belongs to the instance and stays in the second-level cache; the
number of instances is that of the device's slots, not of the tiles. `step_scalars` finishes reductions and
runs the rows on per-tensor scalars, one instance a lane, with the tensors side by side as elements.
`step_straight` is `step_tiles` for one program, whose rows are known when it is compiled: registers are
real ones and there is nothing to dispatch, but each program is compiled.

An address in an instance's table has its lowest bit set where elements move along with the tile; all
addresses are multiples of 4. There are no atomics, and reductions are folded in an order that depends on
the sizes of the tensors alone.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import cache
from typing import Any

import triton
import triton.language as tl

from ruleforge.backends import triton_math
from ruleforge.backends.numba_loops import FINISH, REDUCE
from ruleforge.backends.triton_math import ELEMENTWISE, FORMS
from ruleforge.core import ops
from ruleforge.core.ops import OPS

# Opcodes: elementwise ops by arity, so that each range fetches only what it needs, then `apply`.
_BY_ARITY = [[name for name in ELEMENTWISE if OPS[name].arity == n] for n in (1, 2, 3)]
OPCODE: dict[str, int] = {
    name: code for code, name in enumerate([*_BY_ARITY[0], "copy", *_BY_ARITY[1], *_BY_ARITY[2], "apply"])
}
N_ONE = tl.constexpr(len(_BY_ARITY[0]))
COPY = tl.constexpr(OPCODE["copy"])
FIRST_TWO = tl.constexpr(OPCODE["copy"] + 1)
FIRST_THREE = tl.constexpr(FIRST_TWO.value + len(_BY_ARITY[1]))
APPLY = tl.constexpr(OPCODE["apply"])
FORM_OF = tl.constexpr(tuple(ELEMENTWISE.index(name) if name in ELEMENTWISE else -1 for name in OPCODE))

REDUCE_MAX = tl.constexpr(REDUCE["max_abs"])
REDUCE_DOT = tl.constexpr(REDUCE["dot"])
FINISH_MAX = tl.constexpr(FINISH["max_abs"])
FINISH_MEAN = tl.constexpr(FINISH["mean"])
FINISH_RMS = tl.constexpr(FINISH["rms"])
FINISH_NORM = tl.constexpr(FINISH["norm"])

# Operands, as in `numba_kernels`: G, W, U, states, full registers, tile registers, scalars, rounded numbers.
G, W, U, STATES = (tl.constexpr(k) for k in range(4))
# Columns of a row of code, of the phase table (ranges of rows), of the program table and the lane table.
ROW = tl.constexpr(5)
PHASE_COLUMNS = tl.constexpr(8)
TENSOR_LO, REDUCE_LO, POST_LO = tl.constexpr(2), tl.constexpr(4), tl.constexpr(6)
PROGRAM_COLUMNS = tl.constexpr(8)
N_STATES, N_FULL, N_TILES, N_SCALARS, PHASE_AT, N_PHASES = (tl.constexpr(k) for k in range(6))
LANE_COLUMNS = tl.constexpr(6)
PROGRAM, ROUNDED_AT, SCALARS_AT, STATE_ROW, FULL_ROW, PARTIALS_AT = (tl.constexpr(k) for k in range(6))
TILE_COLUMNS = tl.constexpr(3)
TENSOR_COLUMNS = tl.constexpr(3)
FOLD = tl.constexpr(32)
"""Partial results that are folded at once."""


@triton.jit
def _pointer(address, moves, index):
    """Pointers to the elements of an operand."""
    return (address + moves * 4 * index).to(tl.pointer_type(tl.float32))


@triton.jit
def _address(table, operand):
    word = tl.load(table + operand)
    return word & -2, word & 1


@triton.jit
def _fetch(table, operand, index, inside):
    address, moves = _address(table, operand)
    return tl.load(_pointer(address, moves, index), inside, other=0.0)


@triton.jit
def _choose(op, a, b, c, LO: tl.constexpr, HI: tl.constexpr):
    """The value of an opcode in [LO, HI), by halving the range."""
    if HI - LO == 1:
        value = FORMS[FORM_OF[LO]](a, b, c)
    else:
        MIDDLE: tl.constexpr = (LO + HI) // 2
        if op < MIDDLE:
            value = _choose(op, a, b, c, LO, MIDDLE)
        else:
            value = _choose(op, a, b, c, MIDDLE, HI)
    return value


@triton.jit
def _applied(w, update, rate, decay):
    """The weights after the step; without a decay none is added, since 0 · inf is NaN."""
    return w - rate * tl.where(decay == 0.0, update, update + decay * w)


@triton.jit
def _run_rows(table, rows, lo, hi, index, inside):
    """Run rows of code on the elements of an instance."""
    for row in range(lo, hi):
        code = rows + row * ROW
        op = tl.load(code)
        out, out_moves = _address(table, tl.load(code + 1))
        x = _fetch(table, tl.load(code + 2), index, inside)
        if op < FIRST_TWO:
            if op == COPY:
                value = x
            else:
                value = _choose(op, x, x, x, 0, N_ONE)
        else:
            y = _fetch(table, tl.load(code + 3), index, inside)
            if op < FIRST_THREE:
                value = _choose(op, x, y, y, FIRST_TWO, FIRST_THREE)
            else:
                z = _fetch(table, tl.load(code + 4), index, inside)
                if op == APPLY:
                    w = tl.load(_pointer(out, out_moves, index), inside, other=0.0)
                    value = _applied(w, x, y, z)
                else:
                    value = _choose(op, x, y, z, FIRST_THREE, APPLY)
        tl.store(_pointer(out, out_moves, index), value, inside)
        tl.debug_barrier()  # a value may be fetched by another thread than the one that stored it


@triton.jit
def _partial(x, y, kind, inside):
    """What a tile adds to a reduction: a sum of products, or the largest size, NaN if there is one."""
    wide = x.to(tl.float64)
    if kind == REDUCE_MAX:
        size = tl.where(inside, tl.abs(wide), 0.0)
        unknown = tl.sum((size != size).to(tl.int32), 0)
        value = tl.where(unknown > 0, float("nan"), tl.max(tl.where(size == size, size, 0.0), 0))
    elif kind == REDUCE_DOT:
        value = tl.sum(tl.where(inside, wide * y.to(tl.float64), 0.0), 0)
    else:
        value = tl.sum(tl.where(inside, wide, 0.0), 0)
    return value


@triton.jit
def _finished(partials, first, count, most, size, code):
    """Values of a reduction over each of several tensors, from the partial results of their tiles."""
    k = tl.arange(0, FOLD)
    total = size.to(tl.float64) * 0.0
    unknown = size * 0
    for start in range(0, most, FOLD):
        there = start + k[None, :] < count[:, None]
        part = tl.load(partials + first[:, None] + start + k[None, :], there, other=0.0)
        if code == FINISH_MAX:
            unknown += tl.sum((part != part).to(tl.int32), 1)
            largest = tl.max(tl.where(part == part, part, 0.0), 1)
            total = tl.where(largest > total, largest, total)
        else:
            total += tl.sum(part, 1)
    if code == FINISH_MAX:
        total = tl.where(unknown > 0, float("nan"), total)
    if (code == FINISH_MEAN) | (code == FINISH_RMS):
        total = total / tl.where(size > 1, size, 1).to(tl.float64)
    if (code == FINISH_NORM) | (code == FINISH_RMS):
        total = tl.sqrt(total)
    return total


@triton.jit
def _reduce_rows(table, rows, lo, hi, partials, n_tiles, index, inside):
    for row in range(lo, hi):
        code = rows + row * ROW
        x = _fetch(table, tl.load(code + 2), index, inside)
        y = _fetch(table, tl.load(code + 3), index, inside)
        tl.store(partials + (row - lo) * n_tiles, _partial(x, y, tl.load(code + 4), inside))


@triton.jit
def _place(
    operand, w, g, u, states, full, scratch, scalars, rounded, program, place, lane, tensor, start,
    instance, n_tile_registers, n_weights, n_tensors, BLOCK: tl.constexpr,
):  # fmt: skip
    """Addresses of operands of a lane at a tile, with the flag of those that move."""
    full_at = STATES + tl.load(program + N_STATES)
    tile_at = full_at + tl.load(program + N_FULL)
    scalar_at = tile_at + tl.load(program + N_TILES)
    rounded_at = scalar_at + tl.load(program + N_SCALARS)
    at = (lane * n_weights + start) * 4
    k = operand.to(tl.int64)
    state = states.to(tl.int64) + ((tl.load(place + STATE_ROW) + k - STATES) * n_weights + start) * 4
    kept = full.to(tl.int64) + ((tl.load(place + FULL_ROW) + k - full_at) * n_weights + start) * 4
    tile = scratch.to(tl.int64) + (instance * n_tile_registers + k - tile_at) * BLOCK * 4
    scalar = scalars.to(tl.int64) + (tl.load(place + SCALARS_AT) + (k - scalar_at) * n_tensors + tensor) * 4
    number = rounded.to(tl.int64) + (tl.load(place + ROUNDED_AT) + k - rounded_at) * 4
    moving = tl.where(k == G, g.to(tl.int64) + at, tl.where(k == W, w.to(tl.int64) + at, u.to(tl.int64) + at))
    moving = tl.where(k < STATES, moving, tl.where(k < full_at, state, tl.where(k < tile_at, kept, tile)))
    return tl.where(k < scalar_at, moving + 1, tl.where(k < rounded_at, scalar, number))


@triton.jit(
    do_not_specialize=["n_items", "n_tiles", "n_tile_registers", "n_weights", "n_tensors", "phase", "asked"]
)
def step_tiles(
    w, g, u, states, full, scratch, tables, scalars, rounded, partials, rows, phases, programs, lanes,
    chosen, tiles, n_items, n_tiles, n_tile_registers, n_weights, n_tensors, phase, asked,
    OPERANDS: tl.constexpr, BLOCK: tl.constexpr, DIGEST: tl.constexpr,
):  # fmt: skip
    """One phase's tensor rows of the chosen lanes, and their tiles' part of its reductions."""
    instance = tl.program_id(0).to(tl.int64)
    table = tables + instance * OPERANDS
    index = tl.arange(0, BLOCK)
    for item in range(tl.program_id(0), n_items, tl.num_programs(0)):
        lane = tl.load(chosen + item // n_tiles)
        tile = item % n_tiles
        tensor = tl.load(tiles + tile * TILE_COLUMNS)
        start = tl.load(tiles + tile * TILE_COLUMNS + 1)
        inside = index < tl.load(tiles + tile * TILE_COLUMNS + 2)
        place = lanes + lane * LANE_COLUMNS
        program = programs + tl.load(place + PROGRAM) * PROGRAM_COLUMNS
        addresses = _place(
            tl.arange(0, OPERANDS), w, g, u, states, full, scratch, scalars, rounded, program, place, lane,
            tensor, start, instance, n_tile_registers, n_weights, n_tensors, BLOCK,
        )  # fmt: skip
        tl.debug_barrier()  # the item before has read its table
        tl.store(table + tl.arange(0, OPERANDS), addresses)
        tl.debug_barrier()
        plan = phases + (tl.load(program + PHASE_AT) + phase) * PHASE_COLUMNS
        hi = tl.load(plan + TENSOR_LO + 1)
        if (phase == tl.load(program + N_PHASES) - 1) & (asked == 0):
            hi -= 1  # the last row writes the updates
        _run_rows(table, rows, tl.load(plan + TENSOR_LO), hi, index, inside)
        _reduce_rows(
            table, rows, tl.load(plan + REDUCE_LO), tl.load(plan + REDUCE_LO + 1),
            partials + tl.load(place + PARTIALS_AT) + tile, n_tiles, index, inside,
        )  # fmt: skip


@triton.jit
def _read(registers, table, OPERAND: tl.constexpr, TILE_AT: tl.constexpr, index, inside):
    if OPERAND >= TILE_AT and OPERAND < TILE_AT + len(registers):
        value = registers[OPERAND - TILE_AT]
    else:
        value = _fetch(table, OPERAND, index, inside)
    return value


@triton.jit
def _straight_row(
    registers, table, CODE: tl.constexpr, K: tl.constexpr, TILE_AT: tl.constexpr, index, inside
):
    """The registers after one row; what is not a register is stored."""
    OP: tl.constexpr = CODE[K][0]
    OUT: tl.constexpr = CODE[K][1]
    x = _read(registers, table, CODE[K][2], TILE_AT, index, inside)
    y = x
    z = x
    if OP >= FIRST_TWO:
        y = _read(registers, table, CODE[K][3], TILE_AT, index, inside)
    if OP >= FIRST_THREE:
        z = _read(registers, table, CODE[K][4], TILE_AT, index, inside)
    if OP == COPY:
        value = x
    elif OP == APPLY:
        value = _applied(_fetch(table, OUT, index, inside), x, y, z)
    else:
        value = FORMS[FORM_OF[OP]](x, y, z)
    if OUT >= TILE_AT and OUT < TILE_AT + len(registers):
        registers = registers[: OUT - TILE_AT] + (value,) + registers[OUT - TILE_AT + 1 :]
    else:
        out, out_moves = _address(table, OUT)
        tl.store(_pointer(out, out_moves, index), value, inside)
        tl.debug_barrier()
    return registers


@triton.jit(do_not_specialize=["n_items", "n_tiles", "n_weights", "n_tensors"])
def step_straight(
    w, g, u, states, full, scalars, rounded, tables, partials, programs, lanes, chosen, tiles,
    n_items, n_tiles, n_weights, n_tensors, CODE: tl.constexpr, REDUCTIONS: tl.constexpr,
    TILE_AT: tl.constexpr, REGISTERS: tl.constexpr, OPERANDS: tl.constexpr, BLOCK: tl.constexpr,
    DIGEST: tl.constexpr,
):  # fmt: skip
    """`step_tiles` for lanes of one program: `CODE` are its tensor rows in this phase."""
    instance = tl.program_id(0).to(tl.int64)
    table = tables + instance * OPERANDS
    index = tl.arange(0, BLOCK)
    for item in range(tl.program_id(0), n_items, tl.num_programs(0)):
        lane = tl.load(chosen + item // n_tiles)
        tile = item % n_tiles
        tensor = tl.load(tiles + tile * TILE_COLUMNS)
        start = tl.load(tiles + tile * TILE_COLUMNS + 1)
        inside = index < tl.load(tiles + tile * TILE_COLUMNS + 2)
        place = lanes + lane * LANE_COLUMNS
        program = programs + tl.load(place + PROGRAM) * PROGRAM_COLUMNS
        addresses = _place(
            tl.arange(0, OPERANDS), w, g, u, states, full, w, scalars, rounded, program, place, lane,
            tensor, start, instance, 0, n_weights, n_tensors, BLOCK,
        )  # fmt: skip
        tl.debug_barrier()
        tl.store(table + tl.arange(0, OPERANDS), addresses)
        tl.debug_barrier()
        registers = (tl.zeros((BLOCK,), tl.float32),) * REGISTERS
        for k in tl.static_range(len(CODE)):
            registers = _straight_row(registers, table, CODE, k, TILE_AT, index, inside)
        for k in tl.static_range(len(REDUCTIONS)):
            x = _read(registers, table, REDUCTIONS[k][2], TILE_AT, index, inside)
            y = _read(registers, table, REDUCTIONS[k][3], TILE_AT, index, inside)
            part = partials + tl.load(place + PARTIALS_AT) + tile + k * n_tiles
            tl.store(part, _partial(x, y, REDUCTIONS[k][4], inside))


@triton.jit(do_not_specialize=["n_chosen", "n_tiles", "n_tensors", "phase", "most"])
def step_scalars(
    tables, scalars, rounded, partials, rows, phases, programs, lanes, chosen, tensors,
    n_chosen, n_tiles, n_tensors, phase, most,
    OPERANDS: tl.constexpr, TENSORS: tl.constexpr, DIGEST: tl.constexpr,
):  # fmt: skip
    """Between two phases: finish reductions, store scalar states after the last, run the scalar rows."""
    table = tables + tl.program_id(0).to(tl.int64) * OPERANDS
    k = tl.arange(0, OPERANDS).to(tl.int64)
    index = tl.arange(0, TENSORS)
    inside = index < n_tensors
    column = tensors + index * TENSOR_COLUMNS
    first, count = tl.load(column, inside, other=0), tl.load(column + 1, inside, other=0)
    size = tl.load(column + 2, inside, other=0)
    for item in range(tl.program_id(0), n_chosen, tl.num_programs(0)):
        place = lanes + tl.load(chosen + item) * LANE_COLUMNS
        program = programs + tl.load(place + PROGRAM) * PROGRAM_COLUMNS
        scalar_at = (
            STATES + tl.load(program + N_STATES) + tl.load(program + N_FULL) + tl.load(program + N_TILES)
        )
        rounded_at = scalar_at + tl.load(program + N_SCALARS)
        scalar = scalars.to(tl.int64) + (tl.load(place + SCALARS_AT) + (k - scalar_at) * n_tensors) * 4
        number = rounded.to(tl.int64) + (tl.load(place + ROUNDED_AT) + k - rounded_at) * 4
        tl.debug_barrier()
        tl.store(table + k, tl.where(k < rounded_at, scalar + 1, number))
        tl.debug_barrier()
        plan = phases + (tl.load(program + PHASE_AT) + phase) * PHASE_COLUMNS
        n_phases = tl.load(program + N_PHASES)
        if phase > 0:
            before = plan - PHASE_COLUMNS
            lo, hi = tl.load(before + REDUCE_LO), tl.load(before + REDUCE_LO + 1)
            for row in range(lo, hi):
                code = rows + row * ROW
                part = partials + tl.load(place + PARTIALS_AT) + (row - lo) * n_tiles
                value = _finished(part, first, count, most, size, tl.load(code))
                address, moves = _address(table, tl.load(code + 1))
                tl.store(_pointer(address, moves, index), value.to(tl.float32), inside)
            tl.debug_barrier()
            if phase == n_phases:
                lo, hi = tl.load(before + POST_LO), tl.load(before + POST_LO + 1)
                _run_rows(table, rows, lo, hi, index, inside)
        if phase < n_phases:
            _run_rows(table, rows, tl.load(plan), tl.load(plan + 1), index, inside)


@cache
def digest() -> int:
    """A number that changes with the op table and with the forms: part of the kernels' key on disk.

    Triton looks at the functions that a kernel names; it does not see those in a constant.
    """
    text = "".join(map(inspect.getsource, (ops, triton_math)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def options() -> dict[str, Any]:
    """How the kernels are compiled: a·b + c is rounded twice, as the op table says."""
    return {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
