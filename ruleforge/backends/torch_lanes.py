"""Lanes on torch tensors: each group of lanes runs its program over an (n, P) block at once.

Works on any device and in float32 and float64. The cost of a step is one torch call an
instruction and group, so it is at its best when groups are large; `numba_lanes` has no such cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruleforge.backends.base import LaneGroup, Layout, run_host
from ruleforge.backends.reference import RuleState
from ruleforge.backends.torch_ops import REDUCTIONS, TORCH_OPS, orthogonalize
from ruleforge.core.ops import HOST_LEAVES
from ruleforge.core.program import HOST_SPACES, SCALAR_SPACES, Operand, Phase, Program
from ruleforge.core.rule import Kind

Lanes = NDArray[np.float64]


class TorchLanes:
    """The update plane of one chunk; see `base.UpdatePlane`."""

    def __init__(
        self, groups: Sequence[LaneGroup], layout: Layout, lr0: Lanes, dtype: Any, device: str = "cpu"
    ) -> None:
        self._dtype = dtype
        self._groups: list[_Group] = []
        start = 0
        for group in groups:
            stop = start + group.n_lanes
            rows = slice(start, stop)
            self._groups.append(_Group(group, layout, np.asarray(lr0[rows]), rows, dtype, device))
            start = stop
        self._updates: Tensor | None = None

    def step(
        self,
        weights: Tensor,
        grads: Tensor,
        *,
        t: int,
        lr: Lanes,
        progress: float,
        weight_decay: Lanes | None = None,
        updates: Tensor | None = None,
    ) -> None:
        """See `base.UpdatePlane.step`."""
        if updates is None:
            if self._updates is None:
                self._updates = torch.empty_like(weights)
            updates = self._updates
        for group in self._groups:
            rows = group.rows
            group.step(weights[rows], grads[rows], t, lr[rows], progress, updates[rows])
        change = updates
        if weight_decay is not None:
            change = updates + self._column(weight_decay, weights) * weights
        weights.sub_(self._column(lr, weights) * change)

    def _column(self, values: Lanes, like: Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=self._dtype, device=like.device)[:, None]

    def states(self) -> list[RuleState]:
        return [state for group in self._groups for state in group.states()]

    def load_states(self, states: Sequence[RuleState]) -> None:
        for group in self._groups:
            group.load(states[group.rows])


class _Group:
    """States and one step of the lanes that share a program."""

    def __init__(
        self, group: LaneGroup, layout: Layout, lr0: Lanes, rows: slice, dtype: Any, device: str
    ) -> None:
        self.program: Program = group.program
        self.layout, self.rows, self.dtype, self.device = layout, rows, dtype, device
        self.n = group.n_lanes
        sizes = torch.tensor(layout.sizes)
        self.segment = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(device)
        self.fixed: dict[Operand, Any] = {Operand("lr0"): lr0}
        self.fixed |= {Operand("const", i): np.float64(v) for i, v in enumerate(self.program.consts)}
        self.fixed |= {Operand("hyper", i): np.asarray(v) for i, v in enumerate(group.hypers)}
        matrix = [float(len(shape) == 2) for shape in layout.shapes]
        self.is_matrix = torch.tensor(matrix, dtype=dtype, device=device).expand(self.n, -1)
        host = dict(self.fixed)
        run_host(self.program.setup, host)
        self.memory: dict[Operand, Any] = {}
        for slot in self.program.slots:
            value = np.broadcast_to(host[slot.init], (self.n,))
            self.memory[slot.old] = self._filled(slot.kind, value)

    def _filled(self, kind: Kind, value: Lanes) -> Any:
        if kind is Kind.HOST:
            return value.copy()
        width = self.layout.n_weights if kind is Kind.TENSOR else len(self.layout.sizes)
        column = torch.as_tensor(value.copy(), dtype=self.dtype, device=self.device)[:, None]
        return column.expand(self.n, width).clone()

    def step(self, w: Tensor, g: Tensor, t: int, lr: Lanes, progress: float, out: Tensor) -> None:
        told = dict(zip(HOST_LEAVES, (t, t == 1, lr, self.fixed[Operand("lr0")], progress), strict=True))
        host = dict(self.fixed)
        host |= {Operand(name): np.float64(v) for name, v in told.items()}  # type: ignore[arg-type]
        host |= {place: v for place, v in self.memory.items() if place.space == "host_state"}
        run_host(self.program.host, host)
        values: dict[Operand, Any] = {Operand("g"): g, Operand("w"): w, Operand("is_matrix"): self.is_matrix}
        values |= {place: v for place, v in self.memory.items() if place.space != "host_state"}
        reader = _Reader(host, values, self.segment, self.dtype, self.device)
        for phase in self.program.phases:
            self._run_phase(phase, reader)
        out.copy_(self._broadcast(reader.tensor(self.program.update), Kind.TENSOR))
        self.memory = {slot.old: self._next(slot.kind, slot.next, reader) for slot in self.program.slots}

    def _run_phase(self, phase: Phase, reader: _Reader) -> None:
        for instr in phase.scalar:
            reader.values[instr.out] = TORCH_OPS[instr.op](*map(reader.scalar, instr.args))
        for instr in phase.tensor:
            reader.values[instr.out] = TORCH_OPS[instr.op](*map(reader.tensor, instr.args))
        for instr in phase.barrier:
            args = [reader.tensor(arg) for arg in instr.args]
            run = self._orthogonalize if instr.op == "orthogonalize" else self._reduce
            reader.values[instr.out] = run(instr.op, args)

    def _reduce(self, op: str, args: list[Tensor]) -> Tensor:
        columns = []
        bounds = self.layout.offsets
        for start, stop in pairwise(bounds):
            parts = [arg[:, start:stop].double() for arg in args]
            empty = start == stop
            columns.append(parts[0].new_zeros(self.n) if empty else REDUCTIONS[op](*parts))
        return torch.stack(columns, 1).to(self.dtype)

    def _orthogonalize(self, op: str, args: list[Tensor]) -> Tensor:
        out = args[0].clone()
        bounds = self.layout.offsets
        for shape, start, stop in zip(self.layout.shapes, bounds[:-1], bounds[1:], strict=True):
            if len(shape) == 2 and stop > start:
                block = args[0][:, start:stop].reshape(self.n, *shape)
                out[:, start:stop] = orthogonalize(block).reshape(self.n, -1)
        return out

    def _next(self, kind: Kind, operand: Operand, reader: _Reader) -> Any:
        if kind is Kind.HOST:
            return np.array(np.broadcast_to(reader.host[operand], (self.n,)))
        value = reader.scalar(operand) if kind is Kind.SCALAR else reader.tensor(operand)
        return self._broadcast(value, kind)

    def _broadcast(self, value: Any, kind: Kind) -> Tensor:
        width = self.layout.n_weights if kind is Kind.TENSOR else len(self.layout.sizes)
        made = torch.as_tensor(value, dtype=self.dtype, device=self.device)
        return made if made.shape == (self.n, width) else made.expand(self.n, width).clone()

    def states(self) -> list[RuleState]:
        bounds = self.layout.offsets
        pieces = list(zip(self.layout.shapes, bounds[:-1], bounds[1:], strict=True))
        hosts, scalars, tensors = (self._memory(kind) for kind in Kind)
        return [
            RuleState(
                host=tuple(np.float64(v[i]) for v in hosts),
                scalar=tuple(tuple(v[i, k].cpu().numpy()[()] for v in scalars) for k in range(len(pieces))),
                tensor=tuple(
                    tuple(v[i, start:stop].reshape(shape).cpu().numpy().copy() for v in tensors)
                    for shape, start, stop in pieces
                ),
            )
            for i in range(self.n)
        ]

    def load(self, states: Sequence[RuleState]) -> None:
        hosts, scalars, tensors = (self._memory(kind) for kind in Kind)
        for i, state in enumerate(states):
            for k, value in enumerate(hosts):
                value[i] = state.host[k]
            for k, value in enumerate(scalars):
                value[i] = torch.tensor([part[k] for part in state.scalar], dtype=self.dtype)
            for k, value in enumerate(tensors):
                flat = [torch.as_tensor(np.asarray(part[k])).reshape(-1) for part in state.tensor]
                value[i] = torch.cat(flat).to(self.dtype)

    def _memory(self, kind: Kind) -> list[Any]:
        return [self.memory[slot.old] for slot in self.program.slots_of(kind)]


class _Reader:
    """Reads operands as (n, T) scalars or (n, P) tensors; numbers stay numbers where all lanes agree."""

    def __init__(
        self, host: dict[Operand, Any], values: dict[Operand, Any], segment: Tensor, dtype: Any, device: str
    ) -> None:
        self.host, self.values, self.segment, self.dtype, self.device = host, values, segment, dtype, device

    def number(self, operand: Operand) -> Any:
        value = self.host[operand]
        if value.ndim == 0:
            return float(value)
        return torch.as_tensor(value, dtype=self.dtype, device=self.device)[:, None]

    def scalar(self, operand: Operand) -> Any:
        return self.number(operand) if operand.space in HOST_SPACES else self.values[operand]

    def tensor(self, operand: Operand) -> Any:
        value = self.scalar(operand)
        return value[:, self.segment] if operand.space in SCALAR_SPACES else value
