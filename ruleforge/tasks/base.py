"""What a task is: four pure functions and a budget.

Knows torch's shapes and nothing of rules, lanes or learning rates: a task vmaps over its parameters
without knowing that lanes exist. Where the data comes from belongs to the task's own file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Task:
    """One thing to train: frozen, pure, vmappable.

    Attributes:
        name: what tables call it.
        init: generator → initial parameters, float32, drawn from that generator alone.
        batch: generator → one training batch; every batch has the same shapes and dtypes.
        loss: (params, batch, key) → scalar training loss. Pure and vmappable over params. `key` is
            the step's number, for losses that change along the way; most ignore it.
        evaluate: params → named scalars on a fixed validation set, vmappable. Always has "loss";
            classification adds "accuracy". The training loss is not among them: the training loop
            reads it from the batches for free.
        steps: optimizer steps of the full budget.
        sources: data, licence, paper.
    """

    name: str
    init: Callable[[torch.Generator], Params]
    batch: Callable[[torch.Generator], Batch]
    loss: Callable[[Params, Batch, int], Tensor]
    evaluate: Callable[[Params], dict[str, Tensor]]
    steps: int = 200
    sources: str = ""

    @staticmethod
    def from_module(
        factory: Callable[[], nn.Module],
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        train_data: Sequence[Any],
        valid_data: Sequence[Any],
        batch_size: int = 32,
        steps: int = 200,
        *,
        name: str = "",
        sources: str = "",
    ) -> Task:
        """A task from ordinary torch code: a module, a loss function and two sets of rows.

        Trainable parameters become float32 lanes; buffers and parameters that do not require a
        gradient are frozen at the values of the first module built. The module runs in the mode that
        the factory leaves it in. Batches are distinct rows drawn anew each step.

        Args:
            factory: builds the module; its weights are drawn anew for each seed.
            loss_fn: (output, target) → scalar, such as `torch.nn.functional.cross_entropy`.
            train_data: inputs and, last, the target: arrays or tensors with rows first. Floats
                become float32, integers int64. `module(*inputs)` gets all but the last.
            valid_data: the same for validation; a few hundred rows keep a loss curve cheap.
            batch_size: rows a step.
            steps: optimizer steps of the full budget.
            name: what tables call it; the module's class name if empty.
            sources: data, licence, paper.

        Returns:
            The task, tried once on two lanes. `evaluate` has "accuracy" as well where the target
            holds class numbers and the output one score per class (axis 1).

        Raises:
            TaskError: the data does not fit, or the module cannot be trained in lanes (running
                batch statistics, dropout, branches on a tensor's value, …), with the remedy.

        Example:
            >>> x, y = torch.randn(64, 3), torch.randint(2, (64,))
            >>> task = Task.from_module(
            ...     lambda: nn.Linear(3, 2), nn.functional.cross_entropy, (x, y), (x, y), batch_size=16
            ... )
            >>> sorted(task.evaluate(task.init(torch.Generator())))
            ['accuracy', 'loss']
        """
        from .modules import task_from_module

        return task_from_module(
            factory, loss_fn, train_data, valid_data, batch_size, steps, name=name, sources=sources
        )
