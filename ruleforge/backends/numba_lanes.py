"""Lanes on the CPU: an interpreter in numba steps all lanes, each by its own program.

Nothing is compiled for a rule, and a chunk whose lanes all run different programs costs what a chunk
of one program costs. The interpreter itself is compiled at first use and kept on disk; `warm_up` does
it ahead of time and says what it waits for.

A lane's result depends on nothing but its own numbers: not on its position, on its neighbours or on how
many there are. Use one thread for a process: a plane owns its scratch. Denormal numbers cost ten times
as much as others; call `torch.set_flush_denormal(True)` in the thread that steps, as the training loop
does. The plane leaves that setting as it finds it.

Memory: for each lane the states (4 bytes a weight and tensor state, in float32); scratch of at most
17 KiB for each tile register, once; a matrix op adds its full registers for each lane.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ruleforge.backends import numba_kernels as nk
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.backends.numba_code import CONST_AT, IS_MATRIX, Code, MatrixCall, encode
from ruleforge.backends.numba_loops import ACC, aligned
from ruleforge.backends.numba_matrix import Matrices, orthogonalize_lanes, rows
from ruleforge.backends.numba_matrix import warm_up as warm_up_matrix_ops
from ruleforge.backends.reference import RuleState
from ruleforge.backends.states import counts_of, lane_state, require_state, starts
from ruleforge.core.rule import Kind
from ruleforge.errors import RunError
from ruleforge.words import said_if_slow

Lanes = NDArray[np.float64]
Array = NDArray[Any]
L1_BYTES = 24 * 1024
"""What the tiles of one program may fill, of an L1 cache of 32 KiB or more."""
CACHE_BYTES = 8 * 1024 * 1024
"""A chunk larger than this is taken not to fit in a core's cache: tiles are fetched ahead of their use."""
_REALS: dict[Any, Any] = {torch.float32: np.float32, torch.float64: np.float64}
_log = logging.getLogger(__name__)


def warm_up(report: Callable[[str], None] = _log.warning, dtype: Any = torch.float32) -> None:
    """Compile the interpreter, or load it from numba's cache on disk.

    Args:
        report: is told once, after two seconds, what is being waited for.
        dtype: torch dtype that the lanes will have.

    Raises:
        RunError: the dtype is neither float32 nor float64.
    """
    real = _real(dtype)
    kind = np.dtype(real).name
    if nk.kernel().signatures and any(s[0].dtype.name == kind for s in nk.kernel().signatures):
        return
    message = f"preparing the update plane, {kind}: compiled once a machine (10 to 40 s), later loaded"
    with said_if_slow(report, message):
        no_lanes, nothing = np.zeros(nk.N_CHUNK_COLUMNS, np.int64), np.zeros(0)
        made = nk.kernel()(np.zeros(0, real), 0, 0, 0, 1.0, nothing, 1.0, nothing, no_lanes, 0)
        warm_up_matrix_ops(real)
    if made != nk.digest():
        raise RunError(
            "numba's cache holds an interpreter of another op table", hint="delete its cache folder"
        )


def _real(dtype: Any) -> Any:
    if dtype not in _REALS:
        raise RunError(f"lanes of {dtype} are not supported", hint="use torch.float32 or torch.float64")
    return _REALS[dtype]


@dataclass(frozen=True)
class _Group:
    """Lanes of one program, and where their numbers start in the chunk's arrays."""

    code: Code
    first: int
    n_lanes: int
    host_at: int
    rounded_at: int
    scalars_at: int
    states_at: int
    full_at: int


@dataclass(frozen=True)
class _MatrixOp:
    """A matrix op after a phase, for all lanes that have it there; addresses in bytes, one a lane.

    Attributes:
        op: its name.
        base: where `source` is counted from: 0 from nothing, 1 from the gradients, 2 from the weights.
        source, target: what is read and written.
    """

    op: str
    base: Array
    source: Array
    target: Array


class NumbaLanes:
    """The update plane of one chunk; see `base.UpdatePlane`."""

    def __init__(
        self, groups: Sequence[LaneGroup], layout: Layout, lr0: Lanes, dtype: Any = torch.float32
    ) -> None:
        warm_up(lambda message: None, dtype)  # whoever leads a run has told of it
        self._real = _real(dtype)
        self._dtype = dtype
        self._layout = layout
        self._offsets = np.array(layout.offsets, np.int64)
        self._kernel = nk.kernel()
        self._no_decay, self._like = np.zeros(0), np.zeros(0, self._real)
        lr0 = np.asarray(lr0, np.float64)
        codes = [encode(group.program) for group in groups]
        self._tables(list(dict.fromkeys(codes)))
        self._groups = self._lay_out(groups, codes)
        self._n_lanes = sum(group.n_lanes for group in groups)
        if lr0.shape != (self._n_lanes,):
            raise RunError(f"lr0 has shape {lr0.shape}, expected ({self._n_lanes},)")
        for group, made in zip(groups, self._groups, strict=True):
            self._start(group, made, lr0[made.first : made.first + made.n_lanes])
        self._after = self._matrix_ops()
        self._chunk = self._chunk_table()

    # building

    def _tables(self, codes: Sequence[Code]) -> None:
        """One array of rows, phases and rounded numbers for all programs of the chunk."""
        n_rows = n_phases = n_rounds = 0
        self._programs = np.zeros((len(codes), nk.N_PROGRAM_COLUMNS), np.int64)
        phases = []
        largest = max(self._layout.sizes, default=0)
        for header, code in zip(self._programs, codes, strict=True):
            header[:] = code.header
            header[[nk.HOST_LO, nk.HOST_HI, nk.AFTER_LO, nk.AFTER_HI]] += n_rows
            header[[nk.ROUND_LO, nk.ROUND_HI]] += n_rounds
            header[nk.PHASE_AT] = n_phases
            n_operands = nk.STATES + header[nk.N_STATES] + header[nk.N_FULL] + header[nk.N_TILES]
            fitting = L1_BYTES // (np.dtype(self._real).itemsize * int(n_operands)) // ACC * ACC
            header[nk.TILE] = min(max(fitting, ACC), nk.TILE_MAX)
            header[nk.N_CALLS] = code.calls[-1] + 1
            header[nk.FULL_STRIDE] = self._layout.n_weights if code.has_matrix else largest
            phases.append(np.column_stack([code.phases + n_rows, code.calls]))
            n_rows, n_phases, n_rounds = (
                n_rows + len(code.rows),
                n_phases + len(code.phases),
                n_rounds + len(code.rounds),
            )
        self._rows = np.concatenate(
            [np.zeros((0, nk.N_CODE_COLUMNS), np.int64), *(code.rows for code in codes)]
        )
        self._phases = np.concatenate([np.zeros((0, nk.N_PHASE_COLUMNS), np.int64), *phases])
        self._rounds = np.concatenate([np.zeros(0, np.int64), *(code.rounds for code in codes)])
        n_tiles = max((int(c.header[nk.N_TILES]) for c in codes), default=0)
        self._scratch = aligned(n_tiles * nk.TILE_STRIDE, self._real)
        self._sums = np.zeros((max((code.n_reductions for code in codes), default=0), ACC))
        counted = [nk.N_STATES, nk.N_FULL, nk.N_TILES, nk.N_SCALARS, nk.N_ROUNDED]
        self._address = np.zeros(
            nk.STATES + int(self._programs[:, counted].sum(axis=1).max(initial=0)), np.int64
        )

    def _lay_out(self, groups: Sequence[LaneGroup], codes: Sequence[Code]) -> list[_Group]:
        """Give every lane its places in the chunk's arrays."""
        number = {code: i for i, code in enumerate(dict.fromkeys(codes))}
        n_weights, n_tensors = self._layout.n_weights, len(self._layout.sizes)
        made, lanes = [], []
        host = rounded = scalars = states = first = 0
        shared = max(
            (int(p[nk.N_FULL] * p[nk.FULL_STRIDE]) for p in self._programs if p[nk.N_CALLS] == 1), default=0
        )
        full = shared
        for group, code in zip(groups, codes, strict=True):
            header = self._programs[number[code]]
            made.append(_Group(code, first, group.n_lanes, host, rounded, scalars, states, full))
            n_scalars, n_states = int(header[nk.N_SCALARS]) * n_tensors, int(header[nk.N_STATES]) * n_weights
            n_full = int(header[nk.N_FULL]) * n_weights if code.has_matrix else 0
            for _ in range(group.n_lanes):
                lanes.append((number[code], host, rounded, scalars, states, full if code.has_matrix else 0))
                host, rounded = host + code.n_host, rounded + len(code.rounds)
                scalars, states, full = scalars + n_scalars, states + n_states, full + n_full
            first += group.n_lanes
        self._lanes = np.array(lanes, np.int64).reshape(-1, nk.N_LANE_COLUMNS)
        self._host = np.zeros(host)
        self._rounded = np.zeros(rounded, self._real)
        self._scalars = np.zeros(scalars, self._real)
        self._states = aligned(states, self._real)
        self._full = aligned(full, self._real)
        return made

    def _matrix_ops(self) -> list[list[_MatrixOp]]:
        """The matrix ops after each call of the kernel, each for all lanes that have it there."""
        found: list[list[_MatrixOp]] = []
        groups = [group for group in self._groups if group.code.has_matrix]
        followed = [[ops for ops in group.code.matrix if ops] for group in groups]
        for after in zip_longest(*followed, fillvalue=()):
            calls: dict[str, list[tuple[_Group, MatrixCall]]] = {}
            for group, of_group in zip(groups, after, strict=True):
                for call in of_group:
                    calls.setdefault(call.op, []).append((group, call))
            found.append([self._matrix_op(op, each) for op, each in calls.items()])
        return [*found, []]

    def _matrix_op(self, op: str, calls: Sequence[tuple[_Group, MatrixCall]]) -> _MatrixOp:
        bases, sources, targets = [], [], []
        for group, call in calls:
            space, index = call.arg
            full = self._full_of(group)
            kept = {"state": self._states_of(group), "full": full}
            if space in kept:
                bases += [0] * group.n_lanes
                sources.append(rows(kept[space][:, index]))
            else:
                bases += [1 + ("g", "w").index(space)] * group.n_lanes
                width = self._layout.n_weights * self._full.itemsize
                sources.append(np.arange(group.first, group.first + group.n_lanes) * width)
            targets.append(rows(full[:, call.out]))
        return _MatrixOp(op, np.array(bases), np.concatenate(sources), np.concatenate(targets))

    def _start(self, group: LaneGroup, made: _Group, lr0: Lanes) -> None:
        """Constants, hyperparameters and the states before the first step."""
        code, program = made.code, made.code.program
        hypers = np.asarray(group.hypers, np.float64)
        if hypers.shape != (program.n_hypers, made.n_lanes):
            raise RunError(
                f"hypers of a group have shape {hypers.shape}, expected ({program.n_hypers}, {made.n_lanes})"
            )
        host = self._host_of(made)
        host[:, CONST_AT : code.hyper_at] = program.consts
        host[:, code.hyper_at : code.hyper_at + program.n_hypers] = hypers.T
        host[:, nk.LR0] = lr0
        with np.errstate(all="ignore"):
            for kind, index, value in starts(group, lr0):
                column = np.reshape(value, (-1, 1))  # of one number, or of one for each lane
                if kind is Kind.HOST:
                    host[:, code.state_at + index] = value
                elif kind is Kind.SCALAR:
                    self._scalars_of(made)[:, :, code.scalar_state_at + index] = column
                else:
                    self._states_of(made)[:, index] = column
        scalars = self._scalars_of(made)
        if scalars.shape[2]:
            scalars[:, :, IS_MATRIX] = [len(shape) == 2 for shape in self._layout.shapes]

    def _chunk_table(self) -> Array:
        """What the kernel needs to know of the chunk; the arrays stay where they are."""
        arrays = (
            self._rows, self._phases, self._programs, self._lanes, self._offsets, self._host, self._rounds,
            self._rounded, self._scalars, self._states, self._full, self._scratch, self._sums, self._address,
        )  # fmt: skip
        n_weights = self._layout.n_weights
        n_bytes = (2 * self._n_lanes * n_weights + self._states.size) * self._states.itemsize
        numbers = (self._n_lanes, len(self._layout.sizes), n_weights, n_bytes > CACHE_BYTES)
        return np.array([*(array.ctypes.data for array in arrays), *numbers], np.int64)

    # views of a group's numbers

    def _host_of(self, group: _Group) -> Array:
        """(n_lanes, n_host)"""
        n = group.n_lanes * group.code.n_host
        return self._host[group.host_at : group.host_at + n].reshape(group.n_lanes, group.code.n_host)

    def _scalars_of(self, group: _Group) -> Array:
        """(n_lanes, n_tensors, n_scalars)"""
        shape = (group.n_lanes, len(self._layout.sizes), int(group.code.header[nk.N_SCALARS]))
        return self._scalars[group.scalars_at : group.scalars_at + prod(shape)].reshape(shape)

    def _states_of(self, group: _Group) -> Array:
        """(n_lanes, n_states, P)"""
        shape = (group.n_lanes, int(group.code.header[nk.N_STATES]), self._layout.n_weights)
        return self._states[group.states_at : group.states_at + prod(shape)].reshape(shape)

    def _full_of(self, group: _Group) -> Array:
        """(n_lanes, n_full, P), of a group with matrix ops."""
        shape = (group.n_lanes, int(group.code.header[nk.N_FULL]), self._layout.n_weights)
        return self._full[group.full_at : group.full_at + prod(shape)].reshape(shape)

    # stepping

    def step(
        self,
        weights: torch.Tensor,
        grads: torch.Tensor,
        *,
        t: int,
        lr: Lanes,
        progress: float,
        weight_decay: Lanes | None = None,
        updates: torch.Tensor | None = None,
    ) -> None:
        """See `base.UpdatePlane.step`.

        Raises:
            RunError: a tensor is not a contiguous (L, P) CPU tensor of the plane's dtype, or two are one.
        """
        w, g = self._address_of("weights", weights), self._address_of("grads", grads)
        u = 0 if updates is None else self._address_of("updates", updates)
        if w and len({w, g, u}) < 3:
            raise RunError("weights, grads and updates share memory", hint="give each its own tensor")
        rates = self._per_lane("lr", lr)
        decay = self._no_decay if weight_decay is None else self._per_lane("weight_decay", weight_decay)

        for call, matrix_ops in enumerate(self._after):
            self._kernel(self._like, w, g, u, float(t), rates, float(progress), decay, self._chunk, call)
            for each in matrix_ops:
                _MATRIX_OPS[each.op](
                    np.array((0, g, w))[each.base] + each.source, each.target, self._matrices
                )

    def _address_of(self, name: str, tensor: torch.Tensor) -> int:
        shape = (self._n_lanes, self._layout.n_weights)
        is_ours = tensor.dtype is self._dtype and tensor.is_cpu and tensor.is_contiguous()
        if not is_ours or tensor.shape != shape:
            loose = "" if tensor.is_contiguous() else ", not contiguous"
            raise RunError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device.type}{loose}; "
                f"expected contiguous {self._dtype} {shape} on cpu"
            )
        return tensor.data_ptr()

    def _per_lane(self, name: str, values: Lanes) -> Lanes:
        array = np.array(values, np.float64)  # a copy: the kernel is compiled for writable arrays alone
        if array.shape != (self._n_lanes,):
            raise RunError(f"{name} has shape {array.shape}, expected ({self._n_lanes},)")
        return array

    @cached_property
    def _matrices(self) -> Matrices:
        return Matrices(self._layout.shapes, self._offsets, self._real)

    # states

    def states(self) -> list[RuleState]:
        """See `base.UpdatePlane.states`."""
        found = []
        for group in self._groups:
            code, (n_host, n_scalar, _) = group.code, counts_of(group.code.program)
            hosts, scalars, tensors = self._host_of(group), self._scalars_of(group), self._states_of(group)
            hosts = hosts[:, code.state_at : code.state_at + n_host]
            scalars = scalars[:, :, code.scalar_state_at : code.scalar_state_at + n_scalar]
            found += [lane_state(self._layout, *lane) for lane in zip(hosts, scalars, tensors, strict=True)]
        return found

    def load_states(self, states: Sequence[RuleState]) -> None:
        """See `base.UpdatePlane.load_states`.

        Raises:
            RunError: their number or shapes are not those of this plane.
        """
        if len(states) != self._n_lanes:
            raise RunError(f"states of {len(states)} lanes were given, the plane has {self._n_lanes}")
        for group in self._groups:
            code, counts = group.code, counts_of(group.code.program)
            hosts, scalars, tensors = self._host_of(group), self._scalars_of(group), self._states_of(group)
            for k in range(group.n_lanes):
                state = states[group.first + k]
                require_state(state, counts, len(self._layout.sizes), group.first + k)
                hosts[k, code.state_at : code.state_at + counts[0]] = state.host
                for i, (lo, hi) in enumerate(zip(self._offsets[:-1], self._offsets[1:], strict=True)):
                    for j, value in enumerate(state.scalar[i]):
                        scalars[k, i, code.scalar_state_at + j] = value
                    for j, piece in enumerate(state.tensor[i]):
                        tensors[k, j, lo:hi] = np.asarray(piece).reshape(-1)


_MATRIX_OPS: dict[str, Callable[..., None]] = {"orthogonalize": orthogonalize_lanes}
