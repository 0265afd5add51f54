"""The gradient plane: losses and gradients of all lanes of a chunk in one call.

Compiled or eager once a task, never once a rule. Weights lie flat, (L, P); a task sees its own
named parameters and does not know that lanes exist.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from ruleforge.backends.base import Layout
from ruleforge.tasks.base import Params, Task


def layout_of(params: Params) -> Layout:
    """How a task's parameters lie in a flat vector, in their own order."""
    return Layout(tuple(params), tuple(tuple(p.shape) for p in params.values()))


def flatten(params: Params) -> Tensor:
    """Parameters as one vector, (P,)."""
    return torch.cat([p.reshape(-1) for p in params.values()])


class GradientPlane:
    """Losses, gradients and validation scores of lanes.

    Args:
        task: pure task.
        layout: of its parameters.
        compiled: compile the gradient once for this number of lanes.
    """

    def __init__(self, task: Task, layout: Layout, *, compiled: bool = False) -> None:
        self.layout = layout
        self._gradient: Any = vmap(grad_and_value(task.loss), in_dims=(0, None, None))
        if compiled:
            self._gradient = torch.compile(self._gradient, dynamic=False)
        self._evaluate: Any = vmap(task.evaluate)

    def _named(self, weights: Tensor) -> Params:
        bounds = self.layout.offsets
        return {
            name: weights[:, start:stop].view(-1, *shape)
            for name, shape, start, stop in zip(
                self.layout.names, self.layout.shapes, bounds[:-1], bounds[1:], strict=True
            )
        }

    def step(self, weights: Tensor, batch: tuple[Tensor, ...], t: int, out: Tensor) -> Tensor:
        """Write gradients into `out`, (L, P), and return the losses, (L,)."""
        grads, losses = self._gradient(self._named(weights), batch, t)
        torch.cat([grads[name].reshape(len(out), -1) for name in self.layout.names], 1, out=out)
        return losses.detach()

    def evaluate(self, weights: Tensor) -> dict[str, Tensor]:
        """Validation scores of each lane, (L,) each."""
        with torch.no_grad():
            return dict(self._evaluate(self._named(weights)))
