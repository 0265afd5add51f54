"""The states of a lane between a plane's flat arrays and the reference's form."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from ruleforge.backends.base import Layout
from ruleforge.backends.reference import RuleState
from ruleforge.core.program import Program
from ruleforge.core.rule import Kind
from ruleforge.errors import RunError

Counts = tuple[int, int, int]


def counts_of(program: Program) -> Counts:
    """How many host, scalar and tensor states a program has."""
    host, scalar, tensor = (len(program.slots_of(kind)) for kind in Kind)
    return host, scalar, tensor


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
