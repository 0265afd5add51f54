"""The reference as an update plane: lane by lane, for checks and for doubters. Slow by design."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruleforge.backends import reference
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.backends.reference import RuleState, StepContext


class ReferenceLanes:
    """See `base.UpdatePlane`."""

    def __init__(
        self, groups: Sequence[LaneGroup], layout: Layout, lr0: NDArray[np.float64], dtype: Any
    ) -> None:
        self._layout = layout
        self._lr0 = lr0
        self._lanes = [(g.program, tuple(g.hypers[:, k])) for g in groups for k in range(g.n_lanes)]
        zeros = torch.zeros(layout.n_weights, dtype=dtype)
        self._states = [
            reference.init_state(program, self._pieces(zeros), StepContext(1, lr0=lr0[i], hypers=hypers))
            for i, (program, hypers) in enumerate(self._lanes)
        ]

    def _pieces(self, flat: Tensor) -> list[Any]:
        bounds = self._layout.offsets
        array = flat.numpy()
        return [
            array[start:stop].reshape(shape)
            for shape, start, stop in zip(self._layout.shapes, bounds[:-1], bounds[1:], strict=True)
        ]

    def step(
        self,
        weights: Tensor,
        grads: Tensor,
        *,
        t: int,
        lr: NDArray[np.float64],
        progress: float,
        weight_decay: NDArray[np.float64] | None = None,
        updates: Tensor | None = None,
    ) -> None:
        """See `base.UpdatePlane.step`."""
        with np.errstate(all="ignore"):
            for i, (program, hypers) in enumerate(self._lanes):
                ctx = StepContext(t, lr[i], self._lr0[i], progress, hypers)
                params = self._pieces(weights[i])
                made, self._states[i] = reference.update(
                    program, self._states[i], self._pieces(grads[i]), params, ctx
                )
                decay = 0.0 if weight_decay is None else float(weight_decay[i])
                for piece, u in zip(params, made, strict=True):
                    piece[...] = reference.apply_update(piece, u, lr[i], decay)
                if updates is not None:
                    for piece, u in zip(self._pieces(updates[i]), made, strict=True):
                        piece[...] = u

    def states(self) -> list[RuleState]:
        return list(self._states)

    def load_states(self, states: Sequence[RuleState]) -> None:
        self._states = list(states)
