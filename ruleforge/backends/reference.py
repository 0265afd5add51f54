"""The definition: one lane, numpy, one instruction after the other.

Every other backend is tested against this one, a step at a time, states included. The dtype of
the weights is the dtype of all tensor arithmetic; host numbers are float64 and are rounded to it
where they meet a tensor. Reductions are summed in float64 and rounded once. Denormal numbers are
kept here; fast backends flush them, which the comparison allows for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruleforge.core.ops import OPS
from ruleforge.core.program import HOST_SPACES, Instr, Operand, Program
from ruleforge.core.rule import Kind

Array = NDArray[Any]


@dataclass(frozen=True)
class StepContext:
    """What a step is told besides gradient and weights.

    Attributes:
        t: step, from 1.
        lr: this step's learning rate.
        lr0: initial learning rate.
        progress: t / total steps, in (0, 1].
        hypers: hyperparameters, in the canonical rule's order.
    """

    t: int
    lr: float = 1.0
    lr0: float = 1.0
    progress: float = 1.0
    hypers: tuple[float, ...] = ()


@dataclass(frozen=True)
class RuleState:
    """States of one lane: host numbers, and for each parameter tensor its scalars and tensors."""

    host: tuple[np.float64, ...]
    scalar: tuple[tuple[Any, ...], ...]
    tensor: tuple[tuple[Array, ...], ...]


def init_state(program: Program, params: Sequence[Array], ctx: StepContext) -> RuleState:
    """States before the first step.

    Args:
        program: compiled rule.
        params: parameter tensors of any shapes, one dtype.
        ctx: its `hypers` and `lr0` are read.
    """
    host = _Registers(program, ctx, ())
    host.run(program.setup)

    def start(kind: Kind) -> list[np.float64]:
        return [host.read(slot.init) for slot in program.slots_of(kind)]

    with np.errstate(all="ignore"):
        return RuleState(
            host=tuple(start(Kind.HOST)),
            scalar=tuple(tuple(p.dtype.type(v) for v in start(Kind.SCALAR)) for p in params),
            tensor=tuple(tuple(np.full_like(p, v) for v in start(Kind.TENSOR)) for p in params),
        )


def update(
    program: Program, state: RuleState, grads: Sequence[Array], params: Sequence[Array], ctx: StepContext
) -> tuple[list[Array], RuleState]:
    """One step: the updates and the next states. Nothing is changed in place.

    Args:
        program: compiled rule.
        state: states before the step.
        grads: gradients, shapes and dtype of `params`.
        params: weights before the step.
        ctx: step number, learning rates, hyperparameters.

    Returns:
        Updates `u` to subtract times lr, in the shapes of `params`, and the states after the step.
    """
    with np.errstate(all="ignore"):
        host = _Registers(program, ctx, state.host)
        host.run(program.host)
        lanes = [
            _tensor_step(program, host, grads[i], params[i], state.scalar[i], state.tensor[i])
            for i in range(len(params))
        ]
    return [lane[0] for lane in lanes], RuleState(
        host=tuple(host.read(slot.next) for slot in program.slots_of(Kind.HOST)),
        scalar=tuple(lane[1] for lane in lanes),
        tensor=tuple(lane[2] for lane in lanes),
    )


class _Registers:
    """The host's registers, float64."""

    def __init__(self, program: Program, ctx: StepContext, states: tuple[np.float64, ...]) -> None:
        self.values: dict[Operand, np.float64] = {
            Operand("t"): np.float64(ctx.t),
            Operand("first"): np.float64(ctx.t == 1),
            Operand("lr"): np.float64(ctx.lr),
            Operand("lr0"): np.float64(ctx.lr0),
            Operand("progress"): np.float64(ctx.progress),
        }
        for space, numbers in (("const", program.consts), ("hyper", ctx.hypers), ("host_state", states)):
            self.values |= {Operand(space, i): np.float64(v) for i, v in enumerate(numbers)}  # type: ignore[arg-type]

    def run(self, code: Sequence[Instr]) -> None:
        with np.errstate(all="ignore"):
            for instr in code:
                self.values[instr.out] = np.float64(_meaning(instr)(*map(self.read, instr.args)))

    def read(self, operand: Operand) -> np.float64:
        return self.values[operand]


def _meaning(instr: Instr) -> Any:
    return OPS[instr.op].meaning


def _tensor_step(
    program: Program,
    host: _Registers,
    g: Array,
    w: Array,
    scalars: tuple[Any, ...],
    tensors: tuple[Array, ...],
) -> tuple[Array, tuple[Any, ...], tuple[Array, ...]]:
    rounded = w.dtype.type
    values: dict[Operand, Any] = {
        Operand("g"): g,
        Operand("w"): w,
        Operand("is_matrix"): rounded(w.ndim == 2),
    }
    values |= {Operand("scalar_state", i): v for i, v in enumerate(scalars)}
    values |= {Operand("tensor_state", i): v for i, v in enumerate(tensors)}

    def read(operand: Operand) -> Any:
        return rounded(host.read(operand)) if operand.space in HOST_SPACES else values[operand]

    def tensor(operand: Operand) -> Array:
        return np.array(np.broadcast_to(read(operand), w.shape), dtype=w.dtype)

    for phase in program.phases:
        for instr in (*phase.scalar, *phase.tensor, *phase.barrier):
            values[instr.out] = _meaning(instr)(*map(read, instr.args))
    return (
        tensor(program.update),
        tuple(rounded(read(slot.next)) for slot in program.slots_of(Kind.SCALAR)),
        tuple(tensor(slot.next) for slot in program.slots_of(Kind.TENSOR)),
    )


def apply_update(w: Array, u: Array, lr: float, weight_decay: float = 0.0) -> Array:
    """`w − lr · (u + weight_decay · w)`, each operation rounded to the dtype of `w`."""
    rounded = w.dtype.type
    decayed = u + rounded(weight_decay) * w if weight_decay else u
    return np.asarray(w - rounded(lr) * decayed)
