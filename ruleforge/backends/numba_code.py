"""From a program to the integers that the numba interpreter reads.

A program's registers become operands with addresses: tensors that live across a barrier get buffers as
long as a parameter tensor, all others get tiles that stay in the L1 cache. No instruction writes where
it reads, so that the loops vectorize; the next value of a state is computed where the state lies if
nobody reads the old value any more, and copied there at the end of the tile otherwise.

The module knows the columns of the interpreter's tables, and nothing of lanes or floats.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends import numba_kernels as nk
from ruleforge.backends.numba_loops import FINISH, HOST_OPCODE, OPCODE, REDUCE
from ruleforge.core.ops import OPS
from ruleforge.core.program import HOST_SPACES, SCALAR_SPACES, Instr, Operand, Program
from ruleforge.core.rule import Kind

Ints = NDArray[np.int64]
Place = tuple[str, int]

# Host numbers of a lane; constants, hyperparameters, registers and host states follow.
HOST_LEAVES = {"t": nk.T, "first": nk.FIRST, "lr": nk.LR, "lr0": nk.LR0, "progress": nk.PROGRESS}
CONST_AT = nk.N_HOST_LEAVES
IS_MATRIX = 0
"""First of the scalars of a parameter tensor; registers and scalar states follow."""
# A reduction: how partial sums are made, and what is made of them.
_REDUCTIONS = {
    "norm": ("dot", "norm"), "mean": ("sum", "mean"), "rms": ("dot", "rms"),
    "dot": ("dot", "dot"), "max_abs": ("max_abs", "max_abs"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MatrixCall:
    """A matrix op between two phases.

    Attributes:
        op: its name.
        out: full register to fill.
        arg: where the argument lies: ("g" | "w" | "state" | "full", index).
    """

    op: str
    out: int
    arg: Place


@dataclass(frozen=True, eq=False)
class Code:
    """One program for the interpreter.

    Attributes:
        program: what it was made from.
        rows: (n, 5) int64: opcode, out, three arguments.
        phases: (n_phases, 8) int64: ranges of rows.
        header: the program's row of the program table, but for what depends on layout and float type;
            all ranges count from 0.
        rounds: host numbers to round to the tensors' type, in the order of their operands.
        matrix: for each phase, the matrix ops that follow it.
        hyper_at, state_at, n_host: where hyperparameters and states lie among the host numbers of a lane,
            and how many numbers these are.
        scalar_state_at: where the states lie among the scalars of a parameter tensor.
        n_reductions: most reductions after one phase.
    """

    program: Program
    rows: Ints
    phases: Ints
    header: Ints
    rounds: Ints
    matrix: tuple[tuple[MatrixCall, ...], ...]
    hyper_at: int
    state_at: int
    n_host: int
    scalar_state_at: int
    n_reductions: int

    @property
    def has_matrix(self) -> bool:
        return any(self.matrix)

    @cached_property
    def calls(self) -> Ints:
        """For each phase, the call of the kernel that runs it: how many before it end in a matrix op."""
        followed = np.array([bool(ops) for ops in self.matrix])
        return np.cumsum(followed) - followed


@lru_cache(maxsize=8192)
def encode(program: Program) -> Code:
    """The integers of a program."""
    return _Encoder(program).run()


@dataclass(eq=False, slots=True)
class _Value:
    """A tensor that an instruction computes.

    Attributes:
        phase, position: where it is computed.
        last: where it is read last in that phase.
        full: whether it must outlive its tile.
        place: where it lies.
    """

    phase: int
    position: int
    last: int
    full: bool = False
    place: Place | None = None


Arg = _Value | Operand


@dataclass(slots=True)
class _Step:
    """An instruction with values in place of tensor registers."""

    instr: Instr
    args: tuple[Arg, ...]
    out: _Value | None = None


@dataclass(slots=True)
class _Body:
    tensor: list[_Step] = field(default_factory=list)
    reductions: list[_Step] = field(default_factory=list)
    matrix: list[_Step] = field(default_factory=list)


class _Encoder:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.end = len(program.phases) - 1
        self.end_position = len(program.phases[-1].tensor)
        self.in_register: dict[Operand, _Value] = {}
        self.bodies = [self._body(number) for number in range(len(program.phases))]
        self.update = self._read([program.update], self.end, self.end_position)[0]
        slots = program.slots_of(Kind.TENSOR)
        self.nexts = self._read([slot.next for slot in slots], self.end, self.end_position)
        # Values that their readers at the end would find overwritten are set aside first.
        late = [a for i, a in enumerate(self.nexts) if _is_state(a) and a != Operand("tensor_state", i)]
        if isinstance(self.update, Operand) and self.update.space in ("w", "tensor_state"):
            late.append(self.update)
        self.n_full, self.n_tiles = self._place()
        self.aside = {arg: ("tile", self.n_tiles + i) for i, arg in enumerate(dict.fromkeys(late))}
        self.n_tiles += len(self.aside)

        self.host_at = CONST_AT + len(program.consts) + program.n_hypers
        self.host_state_at = self.host_at + program.n_host
        self.n_host = self.host_state_at + len(program.slots_of(Kind.HOST))
        scalar_slots = program.slots_of(Kind.SCALAR)
        self.scalar_state_at = 1 + program.n_scalar + len(scalar_slots)
        per_tensor = any(body.reductions for body in self.bodies) or any(
            operand.space in SCALAR_SPACES for operand in _operands(program)
        )
        self.n_scalars = self.scalar_state_at + len(scalar_slots) if per_tensor else 0
        self.rounds: list[int] = [nk.LR, nk.DECAY]
        self.rows: list[tuple[int, int, int, int, int]] = []

    # tensors: values, lifetimes, places

    def _body(self, number: int) -> _Body:
        phase = self.program.phases[number]
        body = _Body()
        for position, instr in enumerate(phase.tensor):
            args = self._read(instr.args, number, position)
            body.tensor.append(_Step(instr, args, self._define(instr, number, position)))
        after = len(phase.tensor)
        for instr in phase.barrier:
            args = self._read(instr.args, number, after)
            if OPS[instr.op].kind == "reduce":
                body.reductions.append(_Step(instr, args))
                continue
            out = self._define(instr, number, after)
            for value in (out, *args):
                if isinstance(value, _Value):
                    value.full = True
            body.matrix.append(_Step(instr, args, out))
        return body

    def _define(self, instr: Instr, phase: int, position: int) -> _Value:
        self.in_register[instr.out] = _Value(phase, position, position)
        return self.in_register[instr.out]

    def _read(self, args: Iterable[Operand], phase: int, position: int) -> tuple[Arg, ...]:
        found = tuple(self.in_register[arg] if arg.space == "tensor" else arg for arg in args)
        for value in found:
            if isinstance(value, _Value):
                value.full |= value.phase != phase
                value.last = max(value.last, position)
        return found

    def _place(self) -> tuple[int, int]:
        """Give every value a place; returns how many full registers and tiles there are."""
        for index, new in enumerate(self.nexts):
            if isinstance(new, _Value) and self._fits_in_state(new, Operand("tensor_state", index)):
                new.place = ("state", index)
        n_full = n_tiles = 0
        for body in self.bodies:
            free = list(range(n_tiles))
            ends: dict[int, list[int]] = {}
            for position, step in enumerate((*body.tensor, *body.matrix)):
                value = step.out
                assert value is not None
                if value.place is None and value.full:
                    value.place = ("full", n_full)
                    n_full += 1
                elif value.place is None:
                    if not free:
                        free.append(n_tiles)
                        n_tiles += 1
                    value.place = ("tile", free.pop())
                    ends.setdefault(value.last, []).append(value.place[1])
                free += ends.pop(position, [])  # for the next instruction, not for the one that reads it
        return n_full, n_tiles

    def _fits_in_state(self, value: _Value, old: Operand) -> bool:
        """Whether a next value can be computed right where the old one lies."""
        if value.place is not None or value.full or value.phase != self.end:
            return False
        late = [arg for step in self.bodies[self.end].tensor[value.position :] for arg in step.args]
        return old not in (*late, *self.nexts, self.update)

    # operands

    def _host(self, operand: Operand) -> int:
        if operand.space in HOST_LEAVES:
            return HOST_LEAVES[operand.space]
        hyper_at = CONST_AT + len(self.program.consts)
        first = {"const": CONST_AT, "hyper": hyper_at, "host": self.host_at, "host_state": self.host_state_at}
        return first[operand.space] + operand.index

    def _at(self, place: Place) -> int:
        full_at = nk.STATES + len(self.nexts)
        tile_at = full_at + self.n_full
        scalar_at = tile_at + self.n_tiles
        first = {
            "g": nk.G, "w": nk.W, "u": nk.U, "state": nk.STATES, "full": full_at, "tile": tile_at,
            "scalar": scalar_at, "rounded": scalar_at + self.n_scalars,
        }  # fmt: skip
        return first[place[0]] + place[1]

    def _operand(self, arg: Arg) -> tuple[int, str]:
        """Number of an operand, and whether it is a tile, `t`, or one number, `s`."""
        if isinstance(arg, _Value):
            assert arg.place is not None
            return self._at(arg.place), "t"
        if arg.space in HOST_SPACES:
            host = self._host(arg)
            if host not in self.rounds:
                self.rounds.append(host)
            return self._at(("rounded", self.rounds.index(host))), "s"
        if arg.space in SCALAR_SPACES:
            first = {"is_matrix": IS_MATRIX, "scalar": 1, "scalar_state": self.scalar_state_at}
            return self._at(("scalar", first[arg.space] + arg.index)), "s"
        return self._at(_tensor_place(arg)), "t"

    # rows

    def _row(self, op: str, out: int, args: Iterable[Arg], kinds: str = "") -> None:
        """Append an instruction; `kinds` overrules what its arguments are."""
        found = [self._operand(arg) for arg in args]
        kinds = kinds or "".join(kind for _, kind in found)
        if (op, kinds) not in OPCODE and kinds == "st":
            found, kinds = found[::-1], "ts"
        self._numbers(OPCODE[op, kinds], out, [number for number, _ in found])

    def _numbers(self, code: int, out: int, args: Iterable[int]) -> None:
        a, b, c = (*args, 0, 0, 0)[:3]
        self.rows.append((code, out, a, b, c))

    def run(self) -> Code:
        program = self.program
        header = np.zeros(nk.N_PROGRAM_COLUMNS, np.int64)
        for instr in program.host:
            self._numbers(HOST_OPCODE[instr.op], self._host(instr.out), map(self._host, instr.args))
        header[nk.HOST_HI] = header[nk.AFTER_LO] = len(self.rows)
        self._host_states()
        header[nk.AFTER_HI] = len(self.rows)
        phases = np.array([self._phase(number) for number in range(len(program.phases))], np.int64)
        header[nk.ROUND_HI] = len(self.rounds)
        header[nk.N_PHASES] = len(phases)
        counts = (len(self.nexts), self.n_full, self.n_tiles, self.n_scalars, len(self.rounds))
        header[[nk.N_STATES, nk.N_FULL, nk.N_TILES, nk.N_SCALARS, nk.N_ROUNDED]] = counts
        return Code(
            program=program, rows=np.array(self.rows, np.int64).reshape(-1, nk.N_CODE_COLUMNS),
            phases=phases, header=header,
            rounds=np.array(self.rounds, np.int64), matrix=tuple(map(self._matrix, self.bodies)),
            hyper_at=CONST_AT + len(program.consts), state_at=self.host_state_at, n_host=self.n_host,
            scalar_state_at=self.scalar_state_at,
            n_reductions=max(len(body.reductions) for body in self.bodies),
        )  # fmt: skip

    def _host_states(self) -> None:
        """Copies that end the host code; a state that another one takes over is set aside first."""
        moves = [(self.host_state_at + s.index, self._host(s.next)) for s in self.program.slots_of(Kind.HOST)]
        moves = [(to, source) for to, source in moves if to != source]
        for i, (to, source) in enumerate(moves):
            if source >= self.host_state_at:
                self._numbers(0, self.n_host, [source])
                moves[i] = (to, self.n_host)
                self.n_host += 1
        for to, source in moves:
            self._numbers(0, to, [source])

    def _phase(self, number: int) -> list[int]:
        phase, body, bounds = self.program.phases[number], self.bodies[number], [len(self.rows)]
        for instr in phase.scalar:
            self._row(instr.op, self._operand(instr.out)[0], instr.args, "t" * len(instr.args))
        bounds.append(len(self.rows))
        for step in body.tensor:
            assert step.out is not None
            self._row(step.instr.op, self._operand(step.out)[0], step.args)
        if number == self.end:
            self._end_of_tile()
        bounds.append(len(self.rows))
        for step in body.reductions:
            gather, finish = _REDUCTIONS[step.instr.op]
            a, b = [self._operand(arg)[0] for arg in (step.args * 2)[:2]]
            out = self._operand(step.instr.out)[0]
            self._numbers(FINISH[finish], out, [a, b, REDUCE[gather]])
        bounds.append(len(self.rows))
        if number == self.end:
            self._scalar_states()
        bounds.append(len(self.rows))
        return [bound for pair in pairwise(bounds) for bound in pair]

    def _end_of_tile(self) -> None:
        """States, weights and, last of all, the updates."""
        for arg, place in self.aside.items():
            self._row("copy", self._at(place), [arg])
        for index, new in enumerate(self.nexts):
            to = self._at(("state", index))
            if self._operand(new)[0] == to:
                continue
            self._copy(to, new)
        lr, decay = self._at(("rounded", 0)), self._at(("rounded", 1))
        at, kind = self._final(self.update)
        self._numbers(OPCODE["apply", kind], nk.W, [at, lr, decay])
        self._copy(nk.U, self.update)

    def _final(self, arg: Arg) -> tuple[int, str]:
        if isinstance(arg, Operand) and arg in self.aside:
            return self._at(self.aside[arg]), "t"
        return self._operand(arg)

    def _copy(self, to: int, arg: Arg) -> None:
        at, kind = self._final(arg)
        self._numbers(OPCODE["copy", kind], to, [at])

    def _scalar_states(self) -> None:
        """Copies at the end of a parameter tensor, as for the host's states."""
        copy = OPCODE["copy", "t"]
        moves = []
        for slot in self.program.slots_of(Kind.SCALAR):
            to = self._at(("scalar", self.scalar_state_at + slot.index))
            source = self._operand(slot.next)[0]
            if source == to:
                continue
            if slot.next.space == "scalar_state":
                aside = self._at(("scalar", 1 + self.program.n_scalar + slot.index))
                self._numbers(copy, aside, [source])
                source = aside
            moves.append((to, source))
        for to, source in moves:
            self._numbers(copy, to, [source])

    def _matrix(self, body: _Body) -> tuple[MatrixCall, ...]:
        calls = []
        for step in body.matrix:
            assert step.out is not None and step.out.place is not None
            arg = step.args[0]
            place = arg.place if isinstance(arg, _Value) else _tensor_place(arg)
            assert place is not None
            calls.append(MatrixCall(step.instr.op, step.out.place[1], place))
        return tuple(calls)


def _is_state(arg: Arg) -> bool:
    return isinstance(arg, Operand) and arg.space == "tensor_state"


def _tensor_place(operand: Operand) -> Place:
    return ("state" if operand.space == "tensor_state" else operand.space, operand.index)


def _operands(program: Program) -> Iterable[Operand]:
    for phase in program.phases:
        for instr in (*phase.scalar, *phase.tensor, *phase.barrier):
            yield from (instr.out, *instr.args)
    yield from (program.update, *(slot.next for slot in program.slots))
