"""The text that `ruleforge new-task FILE` writes: a task that runs as it is.

Knows text alone; a test writes it to a file, loads it and trains it.
"""

from __future__ import annotations

TEMPLATE = '''\
"""A task for ruleforge: what a search trains, again and again, thousands of times.

Name it in a search config by this file and the function below, the path counted from the config:

    [training]
    workloads = ["my_task.py:factory"]

It is trained in lanes: many copies at once through torch.func.vmap. So keep it small (a few hundred to
a few thousand weights), and free of dropout, running batch statistics, .item(), and branches on values.
"""

import torch
from sklearn.datasets import load_iris
from torch import nn

from ruleforge.tasks import Task


class Model(nn.Module):
    """Replace it with yours. Each seed builds it anew, with its own initial weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def factory(batch_size: int = 32) -> Task:
    """Iris: three kinds of flowers from four lengths."""
    # Your data: tensors or numpy arrays with rows first. Any fixed split will do; this one is seeded.
    data = load_iris()
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.data, dtype=torch.float32)[order]
    y = torch.tensor(data.target)[order]

    # Standardize with the training rows' statistics: rules are compared at shared learning rates.
    x_train, x_valid = x[:100], x[100:]
    mean, std = x_train.mean(0), x_train.std(0)
    x_train, x_valid = (x_train - mean) / std, (x_valid - mean) / std

    return Task.from_module(
        Model,
        nn.functional.cross_entropy,  # (output, target) -> scalar
        (x_train, y[:100]),
        (x_valid, y[100:]),  # a few hundred rows at most: it is evaluated often
        batch_size=batch_size,
        steps=100,  # the full budget, in optimizer steps
        name="iris",
        sources="scikit-learn load_iris: Fisher 1936, UCI, CC BY 4.0",
    )


# For full control, return Task(name, init, batch, loss, evaluate, steps, sources) instead:
#     init(generator) -> {"w": tensor, ...}         initial weights, float32
#     batch(generator) -> (tensor, ...)             one training batch
#     loss(params, batch, key) -> scalar            pure; key is the step's number
#     evaluate(params) -> {"loss": scalar, ...}     on fixed validation rows


if __name__ == "__main__":  # python my_task.py: tries the task on its own
    from ruleforge.tasks import check_task

    print(f"{check_task(factory())} weights, ready")
'''
