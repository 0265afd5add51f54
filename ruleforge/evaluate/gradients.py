"""The gradient plane: losses and gradients of all lanes of a chunk in one call.

Compiled or eager once a task, never once a rule. Weights lie flat, (L, P); a task sees its own
named parameters and does not know that lanes exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from ruleforge.backends.base import Layout
from ruleforge.evaluate import graphs, kept_graphs
from ruleforge.tasks import Workload
from ruleforge.tasks.base import Batch, Params, Task


def layout_of(params: Params) -> Layout:
    """How a task's parameters lie in a flat vector, in their own order."""
    return Layout(tuple(params), tuple(tuple(p.shape) for p in params.values()))


def flatten(params: Params) -> Tensor:
    """Parameters as one vector, (P,)."""
    return torch.cat([p.reshape(-1) for p in params.values()])


class GradientPlane:
    """Losses, gradients and validation scores of lanes, computed op by op.

    Args:
        task: pure task.
        layout: of its parameters.
    """

    def __init__(self, task: Task, layout: Layout) -> None:
        self.layout = layout
        self._gradient: Any = vmap(grad_and_value(task.loss), in_dims=(0, None, None))
        self._evaluate: Any = vmap(task.evaluate)

    def _named(self, weights: Tensor) -> Params:
        bounds = self.layout.offsets
        return {
            name: weights[:, start:stop].view(-1, *shape)
            for name, shape, start, stop in zip(
                self.layout.names, self.layout.shapes, bounds[:-1], bounds[1:], strict=True
            )
        }

    def prepared(self, columns: Batch) -> Batch:
        """Batches as `step` wants them: columns of T of them, (T, …); once for any number of chunks."""
        return columns

    def step(self, weights: Tensor, batch: Batch, t: int) -> tuple[Tensor, Tensor]:
        """Losses before the step, (L,), and gradients, (L, P), contiguous; `batch` is a prepared one."""
        grads, losses = self._gradient(self._named(weights), batch, t)
        flat = torch.cat([grads[name].reshape(len(weights), -1) for name in self.layout.names], 1)
        return losses.detach(), flat

    def evaluate(self, weights: Tensor) -> dict[str, Tensor]:
        """Validation scores of each lane, (L,) each."""
        with torch.no_grad():
            return dict(self._evaluate(self._named(weights)))


class OneByOnePlane(GradientPlane):
    """The same for a task that cannot run in lanes: one lane after another, so nothing is shared."""

    def __init__(self, task: Task, layout: Layout) -> None:
        super().__init__(task, layout)
        gradient = grad_and_value(task.loss)

        def gradients(params: Params, batch: Batch, t: int) -> tuple[Params, Tensor]:
            found = [gradient(lane, batch, t) for lane in _lanes(params)]
            return _stacked([grads for grads, _ in found]), torch.stack([loss for _, loss in found])

        self._gradient = gradients
        self._evaluate = lambda params: _stacked([task.evaluate(lane) for lane in _lanes(params)])


def _lanes(params: Params) -> list[Params]:
    n_lanes = len(next(iter(params.values())))
    return [{name: value[lane] for name, value in params.items()} for lane in range(n_lanes)]


def _stacked(lanes: Sequence[Params]) -> Params:
    return {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}


def example(workload: Workload, n_lanes: int) -> tuple[Layout, Tensor, Batch]:
    """Layout, initial weights of equal lanes, (L, P), and a batch: what a plane is made from."""
    data = workload.data(0, 1)
    weights = flatten(data.params).repeat(n_lanes, 1)
    return layout_of(data.params), weights, tuple(column[0] for column in data.batches)


def eager_plane(workload: Workload, layout: Layout) -> GradientPlane:
    """The plane that computes a workload's gradients op by op, in lanes where the task can."""
    kind = OneByOnePlane if workload.one_by_one else GradientPlane
    return kind(workload.task, layout)


def names_on_disk(identity: str) -> tuple[str, str]:
    """What step and scores of a compiled plane are called there; "" keeps nothing."""
    return (f"{identity} step", f"{identity} scores") if identity else ("", "")


def is_on_disk(identity: str) -> bool:
    """Whether the plane of this name was compiled and kept before."""
    return bool(identity) and all(map(kept_graphs.is_kept, names_on_disk(identity)))


class CompiledPlane(GradientPlane):
    """The same in machine code, made for a fixed number of lanes.

    Args:
        task: pure task, whose loss does not read the step's number.
        layout: of its parameters.
        weights: of the shape that it is made for, (L, P).
        batch: a batch; all have its shapes.
        identity: what no other task at no other size is called, to find it compiled by; "" keeps nothing.
    """

    def __init__(self, task: Task, layout: Layout, weights: Tensor, batch: Batch, identity: str = "") -> None:
        super().__init__(task, layout)
        eager = GradientPlane(task, layout)
        self._names = list(eager.evaluate(weights[:1]))

        def gradients(weights: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
            return eager.step(weights, batch, 1)

        def scores(weights: Tensor) -> tuple[Tensor, ...]:
            return tuple(eager.evaluate(weights).values())

        step, read = names_on_disk(identity)
        self._step = graphs.CompiledFunction(gradients, weights, batch, step)
        self._scores = graphs.CompiledFunction(scores, weights, (), read)
        self._valid = self._scores.prepared(())

    def prepared(self, columns: Batch) -> Batch:
        return self._step.prepared_at_once(columns)

    def step(self, weights: Tensor, batch: Batch, t: int) -> tuple[Tensor, Tensor]:
        losses, grads = self._step(weights, batch)
        return losses, grads

    def evaluate(self, weights: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._names, self._scores(weights, self._valid), strict=True))


def refusal(task: Task, layout: Layout, weights: Tensor, batch: Batch) -> str:
    """Why this task's gradients cannot be compiled, or ""."""
    eager = GradientPlane(task, layout)
    try:
        first, later = (
            graphs.trace(lambda w, *b, t=t: eager.step(w, b, t), (weights, *batch)) for t in (1, 2)
        )
    except RuntimeError as error:
        return f"it cannot be traced ({str(error).strip().splitlines()[0][:120]})"
    return "" if graphs.is_same(first, later) else "its loss reads the step's number"
