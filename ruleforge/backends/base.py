"""What a lane backend is: the update plane of a chunk of lanes.

A chunk holds L lanes, each an independent training of one model with P weights flattened in a
fixed layout. Lanes that run the same program lie side by side as a group. A plane keeps the
states of all lanes and moves the weights by one step; it knows nothing of losses or data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ruleforge.core.ops import OPS
from ruleforge.core.program import Instr, Operand, Program

if TYPE_CHECKING:
    import torch

    from ruleforge.backends.reference import RuleState


@dataclass(frozen=True)
class Layout:
    """How the parameter tensors of one model lie in a flat vector of P weights."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each tensor, and the end of the last."""
        return tuple(int(v) for v in np.cumsum((0, *self.sizes)))

    @cached_property
    def n_weights(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class LaneGroup:
    """Consecutive lanes that run one program.

    Attributes:
        program: compiled rule.
        n_lanes: how many lanes.
        hypers: hyperparameters of each lane in the canonical rule's order, (n_hypers, n_lanes) float64.
    """

    program: Program
    n_lanes: int
    hypers: NDArray[np.float64]


def run_host(code: Sequence[Instr], values: dict[Operand, Any]) -> None:
    """Run host code in place, by the op table's own meanings.

    Args:
        code: host instructions.
        values: what the code reads, and then also what it wrote; float64 numbers, or one a lane.
    """
    with np.errstate(all="ignore"):
        for instr in code:
            meaning: Any = OPS[instr.op].meaning
            values[instr.out] = meaning(*(values[arg] for arg in instr.args))


class UpdatePlane(Protocol):
    """The update plane of one chunk. Built once a chunk, stepped once a training step."""

    def __init__(
        self, groups: Sequence[LaneGroup], layout: Layout, lr0: NDArray[np.float64], dtype: Any
    ) -> None:
        """States at their inits.

        Args:
            groups: programs of the lanes, in lane order.
            layout: where each parameter tensor lies.
            lr0: initial learning rate of each lane, (L,) float64.
            dtype: torch dtype of weights, gradients and tensor states.
        """

    def step(
        self,
        weights: torch.Tensor,
        grads: torch.Tensor,
        *,
        t: int,
        lr: NDArray[np.float64],
        progress: float,
        weight_decay: NDArray[np.float64] | None = None,
        updates: torch.Tensor | None = None,
    ) -> None:
        """Advance all states and move `weights` in place: `w ← w − lr · (u + weight_decay · w)`.

        Args:
            weights: (L, P), contiguous, changed in place.
            grads: (L, P), contiguous.
            t: step, from 1.
            lr: this step's learning rate of each lane, (L,) float64.
            progress: t / total steps.
            weight_decay: of each lane, (L,) float64, or None for none.
            updates: where to write `u` besides, (L, P), or None.
        """

    def states(self) -> list[RuleState]:
        """The states of every lane in the reference's form, copied."""

    def load_states(self, states: Sequence[RuleState]) -> None:
        """Set the states of every lane."""
