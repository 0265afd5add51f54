"""The states of lanes: before the first step, and between a plane's flat arrays and the reference's form."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends.base import LaneGroup, Layout, run_host
from ruleforge.backends.reference import RuleState
from ruleforge.core.program import Operand, Program
from ruleforge.core.rule import Kind
from ruleforge.errors import RunError

Counts = tuple[int, int, int]


def counts_of(program: Program) -> Counts:
    """How many host, scalar and tensor states a program has."""
    host, scalar, tensor = (len(program.slots_of(kind)) for kind in Kind)
    return host, scalar, tensor


def starts(group: LaneGroup, lr0: NDArray[np.float64]) -> list[tuple[Kind, int, Any]]:
    """Kind, position and initial value of each state: one value, or one for each lane."""
    program = group.program
    hypers = np.asarray(group.hypers, np.float64)
    values: dict[Operand, Any] = {Operand("lr0"): lr0}
    values |= {Operand("const", i): np.float64(v) for i, v in enumerate(program.consts)}
    values |= {Operand("hyper", i): row for i, row in enumerate(hypers)}
    run_host(program.setup, values)
    return [(slot.kind, slot.index, values[slot.init]) for slot in program.slots]


def lane_state(
    layout: Layout, host: Iterable[Any], scalars: NDArray[Any], tensors: NDArray[Any]
) -> RuleState:
    """One lane's states in the reference's form, copied.

    Args:
        layout: where each parameter tensor lies.
        host: host states.
        scalars: (n_tensors, n_scalar).
        tensors: (n_tensor_states, P).
    """
    pieces = zip(layout.shapes, pairwise(layout.offsets), strict=True)
    return RuleState(
        host=tuple(host),
        scalar=tuple(tuple(row) for row in scalars),
        tensor=tuple(
            tuple(state[lo:hi].reshape(shape).copy() for state in tensors) for shape, (lo, hi) in pieces
        ),
    )


def require_state(state: RuleState, counts: Counts, n_tensors: int, lane: int) -> None:
    """Refuse a state that is not one of the lane's rule.

    Raises:
        RunError: another number of states, or of parameter tensors.
    """
    if (len(state.host), *_widths(state, n_tensors)) != counts:
        raise RunError(f"the state of lane {lane} is not one of its rule")


def _widths(state: RuleState, n_tensors: int) -> tuple[int, int]:
    """Scalar and tensor states for each parameter tensor; −1 where tensors differ or are missing."""
    widths = []
    for rows in (state.scalar, state.tensor):
        found = {len(row) for row in rows}
        widths.append(found.pop() if len(rows) == n_tensors and len(found) == 1 else -1 if n_tensors else 0)
    return widths[0], widths[1]
