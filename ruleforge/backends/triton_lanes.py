"""Lanes on a GPU: the kernels of `triton_kernels` step all lanes, each by its own program.

One launch a phase serves the whole population; nothing is compiled for a rule. (Lanes whose rules read
per-tensor numbers are tiled tensor by tensor, the others as one vector, in a launch of their own.) The
kernels are compiled at first use and kept on disk by Triton.

A lane's result depends on nothing but its own numbers. Bits agree between runs on one device; other
devices and backends agree within tolerance. Denormal numbers are kept: a GPU pays nothing for them.

On a machine without a GPU, the environment variable `TRITON_INTERPRET=1`, set before this module is
imported, runs the same kernels in Triton's interpreter, in numpy, for tests: slow, but the same code.

Memory: for each lane 4 bytes a weight for each tensor state, and for each tensor that lives across a
barrier; some numbers a parameter tensor. Scratch depends on the device, not on the lanes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime import JITFunction

from ruleforge.backends import numba_kernels as nk
from ruleforge.backends import triton_kernels as tk
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.backends.host_lanes import HostLanes
from ruleforge.backends.numba_code import IS_MATRIX, encode
from ruleforge.backends.reference import RuleState
from ruleforge.backends.states import counts_of, lane_state, require_state, starts
from ruleforge.backends.torch_ops import orthogonalize
from ruleforge.backends.triton_plan import BLOCK, ChunkArrays, Group, Launch, Matrices, straight_constants
from ruleforge.core.rule import Kind
from ruleforge.errors import InputError, RunError
from ruleforge.words import said_if_slow

Lanes = NDArray[np.float64]
MATRIX_BATCH = 128
"""Matrices of one batched product, always: another number could mean another kernel, and other bits."""
_MATRIX_OPS: dict[str, Callable[[Tensor], Tensor]] = {"orthogonalize": orthogonalize}
_log = logging.getLogger(__name__)


def interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter; decided when they were imported."""
    return not isinstance(tk.step_tiles, JITFunction)


def default_device() -> str:
    """Where lanes run unless told otherwise.

    Raises:
        InputError: there is no GPU.
    """
    if interpreted():
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError(
            "the triton plane needs a GPU, and torch sees no CUDA device here",
            hint="use --backend numba, or see `ruleforge doctor`",
        )
    return "cuda"


def warm_up(report: Callable[[str], None] = _log.warning, device: str | None = None) -> None:
    """Compile the kernels, or load them from Triton's cache on disk.

    Args:
        report: is told once, after two seconds, what is being waited for.
        device: torch device.

    Raises:
        InputError: there is no GPU.
    """
    from ruleforge.core.known import known
    from ruleforge.core.program import compile_rule

    where = device or default_device()
    rule = known("lamb").rule.rule
    hypers = np.array(rule.canonical.defaults).reshape(-1, 1)
    message = "preparing the update plane for the GPU: compiled once a machine, later loaded from disk"
    with said_if_slow(report, message):
        layout = Layout(("w",), ((2, 2),))
        plane = TritonLanes([LaneGroup(compile_rule(rule), 1, hypers)], layout, np.ones(1), device=where)
        zeros = torch.zeros(1, 4, device=where)
        plane.step(zeros, zeros.clone(), t=1, lr=np.ones(1), progress=1.0)


class TritonLanes:
    """The update plane of one chunk; see `base.UpdatePlane`.

    `prepare` and `launch` are the two halves of `step`: numbers computed on the host, and kernels whose
    arguments stay the same from step to step, so that a CUDA graph can hold them.
    """

    straight = False
    """Whether each program is compiled, rather than interpreted."""

    def __init__(
        self,
        groups: Sequence[LaneGroup],
        layout: Layout,
        lr0: Lanes,
        dtype: Any = torch.float32,
        device: str | None = None,
    ) -> None:
        if dtype is not torch.float32:
            raise RunError(
                f"lanes of {dtype} are not supported on the triton plane",
                hint="use torch.float32, or the torch plane",
            )
        self._device = torch.device(device or default_device())
        self._layout = layout
        self._n_lanes = sum(group.n_lanes for group in groups)
        lr0 = np.asarray(lr0, np.float64)
        if lr0.shape != (self._n_lanes,):
            raise RunError(f"lr0 has shape {lr0.shape}, expected ({self._n_lanes},)")
        for group in groups:
            shape, expected = np.shape(group.hypers), (group.program.n_hypers, group.n_lanes)
            if shape != expected:
                raise RunError(f"hypers of a group have shape {shape}, expected {expected}")
        codes = [encode(group.program) for group in groups]
        self._host = HostLanes(groups, codes, lr0)
        self._chunk = ChunkArrays(
            codes, [group.n_lanes for group in groups], layout, self._host.rounded_at, self._host.n_rounded,
            self._device, straight=self.straight,
        )  # fmt: skip
        for group, made in zip(groups, self._chunk.groups, strict=True):
            self._start(group, made, lr0[made.lanes])

    def _start(self, group: LaneGroup, made: Group, lr0: Lanes) -> None:
        """The states before the first step."""
        code = made.code
        for kind, index, value in starts(group, lr0):
            column = np.broadcast_to(np.asarray(value, np.float64), (made.n_lanes,))
            if kind is Kind.HOST:
                at = code.state_at + index
                self._host.write(made.lanes, slice(at, at + 1), column[:, None])
            elif column.any() or np.signbit(column).any():
                with np.errstate(all="ignore"):
                    rounded = torch.from_numpy(column.astype(np.float32)).to(self._device)
                view = self._chunk.states_of(made) if kind is Kind.TENSOR else self._chunk.scalars_of(made)
                at = index if kind is Kind.TENSOR else code.scalar_state_at + index
                view[:, at] = rounded[:, None]
        if int(code.header[nk.N_SCALARS]):
            matrix = [float(len(shape) == 2) for shape in self._layout.shapes]
            self._chunk.scalars_of(made)[:, IS_MATRIX] = torch.tensor(matrix, device=self._device)

    @property
    def device(self) -> torch.device:
        """Where weights, gradients and states lie."""
        return self._device

    # stepping

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
        """See `base.UpdatePlane.step`.

        Raises:
            RunError: a tensor is not a contiguous (L, P) tensor of the plane's dtype and device, or two
                are one.
        """
        self._check(weights, grads, updates)
        self.prepare(t=t, lr=lr, progress=progress, weight_decay=weight_decay)
        self.launch(weights, grads, updates)

    def _check(self, weights: Tensor, grads: Tensor, updates: Tensor | None) -> None:
        shape = (self._n_lanes, self._layout.n_weights)
        named = {"weights": weights, "grads": grads} | ({} if updates is None else {"updates": updates})
        for name, tensor in named.items():
            given = (tuple(tensor.shape), tensor.dtype, tensor.device.type, tensor.is_contiguous())
            if given != (shape, torch.float32, self._device.type, True):
                raise RunError(
                    f"{name} is {given[1]} {given[0]} on {given[2]}{'' if given[3] else ', not contiguous'}; "
                    f"expected contiguous torch.float32 {shape} on {self._device.type}"
                )
        if weights.numel() and len({tensor.data_ptr() for tensor in named.values()}) < len(named):
            raise RunError("weights, grads and updates share memory", hint="give each its own tensor")

    def prepare(self, *, t: int, lr: Lanes, progress: float, weight_decay: Lanes | None = None) -> None:
        """Compute the host's numbers of a step and send them to the device."""
        rates = self._per_lane("lr", lr)
        decay: Lanes | float = 0.0 if weight_decay is None else self._per_lane("weight_decay", weight_decay)
        rounded = torch.from_numpy(self._host.step(t, rates, progress, decay))
        if rounded.numel():
            if self._device.type == "cuda":
                rounded = rounded.pin_memory()
            self._chunk.rounded[: rounded.numel()].copy_(rounded, non_blocking=True)

    def _per_lane(self, name: str, values: Lanes) -> Lanes:
        array = np.asarray(values, np.float64)
        if array.shape != (self._n_lanes,):
            raise RunError(f"{name} has shape {array.shape}, expected ({self._n_lanes},)")
        return array

    def launch(self, weights: Tensor, grads: Tensor, updates: Tensor | None = None) -> None:
        """Run the kernels of a step on what `prepare` sent."""
        w, g = weights.detach(), grads.detach()
        u = w if updates is None else updates.detach()
        with np.errstate(all="ignore"):  # for the interpreter, which is numpy
            for phase in range(self._chunk.n_phases + 1):
                self._run_scalars(phase)
                if phase < self._chunk.n_phases:
                    for launch in self._chunk.tiled[phase]:
                        self._run_tiles(launch, w, g, u, phase, updates is not None)
                    for call in self._chunk.matrices[phase]:
                        self._run_matrix(call, w, g)

    def _run_scalars(self, phase: int) -> None:
        c = self._chunk
        chosen, n = c.scalar[phase]
        n_tensors = len(self._layout.sizes)
        if n == 0 or n_tensors == 0:
            return
        tk.step_scalars[(min(n, c.n_instances),)](
            c.addresses, c.scalars, c.rounded, c.partials, c.rows, c.phases,
            c.programs, c.lanes, chosen, c.tensors, n, c.by_tensor.n, n_tensors, phase,
            c.most_tiles, OPERANDS=c.n_operands, TENSORS=max(32, 1 << (n_tensors - 1).bit_length()),
            DIGEST=tk.digest(), **tk.options(),
        )  # fmt: skip

    def _run_tiles(self, launch: Launch, w: Tensor, g: Tensor, u: Tensor, phase: int, asked: bool) -> None:
        c, tiles, chosen = self._chunk, launch.tiles, launch.chosen
        n_items, n_tensors, n_weights = launch.n * tiles.n, len(self._layout.sizes), self._layout.n_weights
        if n_items == 0:
            return
        grid = (min(n_items, c.n_instances),)
        if launch.straight is not None:
            tk.step_straight[grid](
                w, g, u, c.states, c.full, c.scalars, c.rounded, c.addresses, c.partials, c.programs,
                c.lanes, chosen, tiles.table, n_items, tiles.n, n_weights, n_tensors,
                **straight_constants(launch.straight, phase, asked), OPERANDS=c.n_operands, BLOCK=BLOCK,
                DIGEST=tk.digest(), **tk.options(),
            )  # fmt: skip
            return
        tk.step_tiles[grid](
            w, g, u, c.states, c.full, c.scratch, c.addresses, c.scalars, c.rounded,
            c.partials, c.rows, c.phases, c.programs, c.lanes, chosen, tiles.table,
            n_items, tiles.n, c.n_tile_registers, n_weights, n_tensors, phase, int(asked),
            OPERANDS=c.n_operands, BLOCK=BLOCK, DIGEST=tk.digest(), **tk.options(),
        )  # fmt: skip

    def _run_matrix(self, call: Matrices, w: Tensor, g: Tensor) -> None:
        """Apply a matrix op to the 2-D parameter tensors of all lanes that run it; copy the others."""
        c = self._chunk
        arrays = {"w": w, "g": g, "state": c.states, "full": c.full}
        given = torch.cat([arrays[space].index_select(0, rows) for space, rows in call.sources])
        bounds = self._layout.offsets
        for shape, lo, hi in zip(self._layout.shapes, bounds[:-1], bounds[1:], strict=True):
            if len(shape) == 2 and hi > lo:
                for part in given[:, lo:hi].split(MATRIX_BATCH):
                    batch = part.new_zeros(MATRIX_BATCH, *shape)
                    batch[: len(part)] = part.view(-1, *shape)
                    part.copy_(_MATRIX_OPS[call.op](batch)[: len(part)].reshape(part.shape))
        c.full.index_copy_(0, call.out, given)

    # states

    def states(self) -> list[RuleState]:
        """See `base.UpdatePlane.states`."""
        found = []
        for group in self._chunk.groups:
            code, (n_host, n_scalar, _) = group.code, counts_of(group.code.program)
            hosts = self._host.read(group.lanes, slice(code.state_at, code.state_at + n_host))
            tensors = self._chunk.states_of(group).cpu().numpy()
            scalars = self._chunk.scalars_of(group).cpu().numpy()
            scalars = scalars[:, code.scalar_state_at : code.scalar_state_at + n_scalar].swapaxes(1, 2)
            found += [lane_state(self._layout, *lane) for lane in zip(hosts, scalars, tensors, strict=True)]
        return found

    def load_states(self, states: Sequence[RuleState]) -> None:
        """See `base.UpdatePlane.load_states`.

        Raises:
            RunError: their number or shapes are not those of this plane.
        """
        if len(states) != self._n_lanes:
            raise RunError(f"states of {len(states)} lanes were given, the plane has {self._n_lanes}")
        n_tensors = len(self._layout.sizes)
        for group in self._chunk.groups:
            code, counts = group.code, counts_of(group.code.program)
            own = states[group.lanes]
            for k, state in enumerate(own):
                require_state(state, counts, n_tensors, group.first + k)
            hosts = np.array([state.host for state in own]).reshape(len(own), counts[0])
            self._host.write(group.lanes, slice(code.state_at, code.state_at + counts[0]), hosts)
            for j in range(counts[1]):
                column = np.array([[row[j] for row in state.scalar] for state in own], np.float32)
                view = self._chunk.scalars_of(group)[:, code.scalar_state_at + j]
                view.copy_(torch.from_numpy(column.reshape(view.shape)))
            for j in range(counts[2]):
                flat = [[np.asarray(row[j], np.float32).reshape(-1) for row in state.tensor] for state in own]
                rows = np.stack(
                    [np.concatenate(parts) if parts else np.zeros(0, np.float32) for parts in flat]
                )
                self._chunk.states_of(group)[:, j].copy_(torch.from_numpy(rows))


class StraightLanes(TritonLanes):
    """The same, with a kernel compiled for each program and launched for its lanes alone.

    Worth it for one rule on many lanes and steps; a search would spend its time on the compiler.
    """

    straight = True
