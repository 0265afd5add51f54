"""A chunk's programs, lanes and states as arrays on the device, and which lanes each launch steps.

Everything here is decided when a chunk is built; the module launches nothing. Array layouts are those that
`triton_kernels` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruleforge.backends import numba_kernels as nk
from ruleforge.backends import triton_kernels as tk
from ruleforge.backends.base import Layout
from ruleforge.backends.numba_code import Code, MatrixCall
from ruleforge.backends.numba_loops import OPCODE as LOOP_CODES

BLOCK = 512
"""Elements of a tile: 96 registers a thread on a recent GPU, where 1,024 take 157."""
INSTANCES_A_PROCESSOR = 8
"""Instances that a multiprocessor can hold at a time."""
_OPCODES = np.array([tk.OPCODE[name] for name, _ in LOOP_CODES], np.int32)


@dataclass(frozen=True)
class Group:
    """Lanes of one program, and where their rows start in the chunk's arrays."""

    code: Code
    first: int
    n_lanes: int
    scalars_at: int
    state_row: int
    full_row: int

    @property
    def lanes(self) -> slice:
        return slice(self.first, self.first + self.n_lanes)


@dataclass(frozen=True)
class Tiles:
    """How a lane's weights are cut: (tensor, start, size) of each tile, on the device."""

    table: Tensor
    n: int


@dataclass(frozen=True)
class Matrices:
    """One matrix op after a phase, for all lanes that run it there.

    Attributes:
        op: its name.
        out: rows of the full registers to fill.
        sources: arrays to read rows of, and which, in the order of `out`.
    """

    op: str
    out: Tensor
    sources: tuple[tuple[str, Tensor], ...]


@dataclass(frozen=True)
class Launch:
    """Tiles of lanes to step with one launch; `straight` is the program of all of them, or None."""

    tiles: Tiles
    chosen: Tensor
    n: int
    straight: Code | None


class ChunkArrays:
    """The arrays of one chunk.

    Args:
        codes: program of each group of lanes.
        counts: lanes of each group.
        layout: where each parameter tensor lies.
        rounded_at: where each lane's rounded host numbers start.
        n_rounded: how many there are.
        device: torch device.
        straight: whether each program gets launches of its own.
    """

    def __init__(
        self,
        codes: Sequence[Code],
        counts: Sequence[int],
        layout: Layout,
        rounded_at: NDArray[np.int64],
        n_rounded: int,
        device: torch.device,
        *,
        straight: bool,
    ) -> None:
        self.device, self.layout = device, layout
        self._tables(list(dict.fromkeys(codes)))
        self.groups = self._lay_out(codes, counts, rounded_at)
        self._plan(straight)
        self.rounded = self._zeros(n_rounded)

    def _zeros(self, *shape: int, dtype: Any = torch.float32) -> Tensor:
        """At least one row, so that the array has an address."""
        return torch.zeros((max(shape[0], 1), *shape[1:]), dtype=dtype, device=self.device)

    def _table(self, values: Any, dtype: Any) -> Tensor:
        array = np.ascontiguousarray(values, dtype)
        return torch.from_numpy(array if array.size else np.zeros(1, dtype)).to(self.device)

    def _tables(self, codes: Sequence[Code]) -> None:
        """One array of rows, phases and headers for all programs of the chunk."""
        self._number = {code: i for i, code in enumerate(codes)}
        columns = [nk.N_STATES, nk.N_FULL, nk.N_TILES, nk.N_SCALARS, nk.PHASE_AT, nk.N_PHASES]
        headers = np.zeros((len(codes), tk.PROGRAM_COLUMNS.value), np.int32)
        rows, phases = [np.zeros((0, 5), np.int32)], [np.zeros((0, 8), np.int32)]
        n_rows = n_phases = 0
        for header, code in zip(headers, codes, strict=True):
            header[: len(columns)] = code.header[columns]
            header[tk.PHASE_AT.value] = n_phases
            rows.append(rows_of(code))
            phases.append((code.phases + n_rows).astype(np.int32))
            n_rows, n_phases = n_rows + len(code.rows), n_phases + len(code.phases)
        self.rows, self.phases = (self._table(np.concatenate(t), np.int32) for t in (rows, phases))
        self.programs = self._table(headers, np.int32)
        counted = [nk.N_STATES, nk.N_FULL, nk.N_TILES, nk.N_SCALARS, nk.N_ROUNDED]
        most = max((nk.STATES + int(code.header[counted].sum()) for code in codes), default=1)
        self.n_operands = max(64, 1 << (most - 1).bit_length())
        self.n_tile_registers = max((int(code.header[nk.N_TILES]) for code in codes), default=0)
        self.n_phases = max((len(code.phases) for code in codes), default=0)

    def _lay_out(
        self, codes: Sequence[Code], counts: Sequence[int], rounded_at: NDArray[np.int64]
    ) -> list[Group]:
        """Give every lane its places in the chunk's arrays."""
        layout, n_tensors = self.layout, len(self.layout.sizes)
        bounds = layout.offsets
        by_tensor = [
            (k, start, min(BLOCK, stop - start))
            for k, (low, stop) in enumerate(pairwise(bounds))
            for start in range(low, stop, BLOCK)
        ]
        flat = [(0, s, min(BLOCK, layout.n_weights - s)) for s in range(0, layout.n_weights, BLOCK)]
        self.by_tensor = Tiles(self._table(by_tensor, np.int32), len(by_tensor))
        self.flat = Tiles(self._table(flat, np.int32), len(flat))
        tiles_of = [[i for i, tile in enumerate(by_tensor) if tile[0] == k] for k in range(n_tensors)]
        tensors = [(own[0] if own else 0, len(own), layout.sizes[k]) for k, own in enumerate(tiles_of)]
        self.tensors = self._table(tensors, np.int32)
        self.most_tiles = max((count for _, count, _ in tensors), default=0)

        made, lanes = [], []
        scalars = states = full = partials = first = 0
        for code, n_lanes in zip(codes, counts, strict=True):
            header = code.header
            steps = (
                int(header[nk.N_SCALARS]) * n_tensors, int(header[nk.N_STATES]), int(header[nk.N_FULL]),
                code.n_reductions * len(by_tensor),
            )  # fmt: skip
            made.append(Group(code, first, n_lanes, scalars, states, full))
            k = np.arange(n_lanes)
            place = np.zeros((n_lanes, tk.LANE_COLUMNS.value), np.int64)
            place[:, tk.PROGRAM.value] = self._number[code]
            place[:, tk.SCALARS_AT.value] = scalars + k * steps[0]
            place[:, tk.STATE_ROW.value] = states + k * steps[1]
            place[:, tk.FULL_ROW.value] = full + k * steps[2]
            place[:, tk.PARTIALS_AT.value] = partials + k * steps[3]
            lanes.append(place)
            scalars, states, full, partials = (
                at + n_lanes * step for at, step in zip((scalars, states, full, partials), steps, strict=True)
            )
            first += n_lanes
        table = np.concatenate([np.zeros((0, tk.LANE_COLUMNS.value), np.int64), *lanes])
        table[:, tk.ROUNDED_AT.value] = rounded_at
        self.lanes = self._table(table, np.int64)
        self.scalars = self._zeros(scalars)
        self.states = self._zeros(states, layout.n_weights)
        self.full = self._zeros(full, layout.n_weights)
        self.partials = self._zeros(partials, dtype=torch.float64)
        return made

    def _plan(self, straight: bool) -> None:
        """Which lanes each launch steps, and the matrix ops between."""
        tiled: list[dict[tuple[bool, Code | None], list[int]]] = [{} for _ in range(self.n_phases)]
        scalar: list[list[int]] = [[] for _ in range(self.n_phases + 1)]
        matrices: list[dict[str, list[tuple[Group, MatrixCall]]]] = [{} for _ in range(self.n_phases)]
        for group in self.groups:
            plan, lanes = group.code.phases, range(group.first, group.first + group.n_lanes)
            for phase, bounds in enumerate(plan):
                kind = (bool(group.code.header[nk.N_SCALARS] > 0), group.code if straight else None)
                tiled[phase].setdefault(kind, []).extend(lanes)
                finishing = phase > 0 and plan[phase - 1][nk.REDUCE_HI] > plan[phase - 1][nk.REDUCE_LO]
                if bounds[nk.SCALAR_HI] > bounds[nk.SCALAR_LO] or finishing:
                    scalar[phase] += lanes
                for call in group.code.matrix[phase]:
                    matrices[phase].setdefault(call.op, []).append((group, call))
            if plan[-1][nk.POST_HI] > plan[-1][nk.POST_LO]:
                scalar[len(plan)] += lanes
        self.tiled = [
            [
                Launch(self.by_tensor if cut else self.flat, self._table(lanes, np.int32), len(lanes), code)
                for (cut, code), lanes in each.items()
            ]
            for each in tiled
        ]
        self.scalar = [(self._table(lanes, np.int32), len(lanes)) for lanes in scalar]
        self.matrices = [[self._matrix_call(op, calls) for op, calls in each.items()] for each in matrices]
        instances = 1
        if self.device.type == "cuda":
            processors = torch.cuda.get_device_properties(self.device).multi_processor_count
            instances = processors * INSTANCES_A_PROCESSOR
        self.n_instances = instances
        self.scratch = self._zeros(instances * self.n_tile_registers, BLOCK)
        self.addresses = self._zeros(instances, self.n_operands, dtype=torch.int64)

    def _matrix_call(self, op: str, calls: Sequence[tuple[Group, MatrixCall]]) -> Matrices:
        by_source: dict[str, tuple[list[int], list[int]]] = {}
        for group, call in calls:
            space, index = call.arg
            outs, rows = by_source.setdefault(space, ([], []))
            n_states, n_full = int(group.code.header[nk.N_STATES]), int(group.code.header[nk.N_FULL])
            k = range(group.n_lanes)
            outs += [group.full_row + i * n_full + call.out for i in k]
            at = {"state": (group.state_row, n_states), "full": (group.full_row, n_full)}
            base, step = at.get(space, (group.first, 1))
            rows += [base + i * step + index for i in k]
        return Matrices(
            op,
            self._table([row for outs, _ in by_source.values() for row in outs], np.int64),
            tuple((space, self._table(rows, np.int64)) for space, (_, rows) in by_source.items()),
        )

    def states_of(self, group: Group) -> Tensor:
        """(n_lanes, n_states, P)"""
        n_states = int(group.code.header[nk.N_STATES])
        rows = self.states[group.state_row : group.state_row + group.n_lanes * n_states]
        return rows.view(group.n_lanes, n_states, self.layout.n_weights)

    def scalars_of(self, group: Group) -> Tensor:
        """(n_lanes, n_scalars, n_tensors)"""
        shape = (group.n_lanes, int(group.code.header[nk.N_SCALARS]), len(self.layout.sizes))
        return self.scalars[group.scalars_at : group.scalars_at + int(np.prod(shape))].view(shape)


@lru_cache(maxsize=4096)
def straight_constants(code: Code, phase: int, asked: bool) -> dict[str, Any]:
    """A phase of a program as the constants of its kernel."""
    rows, header, bounds = rows_of(code).tolist(), code.header, code.phases[phase]
    last = bounds[nk.TENSOR_HI] - (phase == len(code.phases) - 1 and not asked)
    return {
        "CODE": tuple(map(tuple, rows[bounds[nk.TENSOR_LO] : last])),
        "REDUCTIONS": tuple(map(tuple, rows[bounds[nk.REDUCE_LO] : bounds[nk.REDUCE_HI]])),
        "TILE_AT": nk.STATES + int(header[nk.N_STATES] + header[nk.N_FULL]),
        "REGISTERS": int(header[nk.N_TILES]),
    }


def rows_of(code: Code) -> NDArray[np.int32]:
    """A program's rows with the opcodes of these kernels; host rows and ends of reductions stay."""
    rows = code.rows.astype(np.int32)
    bounds = code.phases.reshape(-1, 4, 2)
    for part in (nk.SCALAR_LO, nk.TENSOR_LO, nk.POST_LO):
        for lo, hi in bounds[:, part // 2]:
            rows[lo:hi, 0] = _OPCODES[rows[lo:hi, 0]]
    return rows
