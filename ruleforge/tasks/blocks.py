"""Layers, losses and row sets that the built-in tasks are made of.

Plain functions over dicts of tensors, chosen by measuring under `torch.func.vmap`: weights are stored
as torch stores them (out, in), and the cross-entropy selects with a one-hot product, since an indexed
gather makes the backward pass a scatter. Knows no data set and no workload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TaskError
from .base import Batch, Params, Task

Forward = Callable[[Params, Tensor], Tensor]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """Training and validation rows: x float32 (or int64 indices), y float32 or int64 class numbers."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor


def knobs_within(name: str, **knobs: tuple[float, float, float]) -> None:
    """Refuse knobs outside their documented ranges; each is (value, lowest, highest), ends included.

    Raises:
        TaskError: naming the first one that is out of range.
    """
    for knob, (value, low, high) in knobs.items():
        if not low <= value <= high:
            raise TaskError(f"task {name!r}: {knob} is {value}", hint=f"choose {low:g} to {high:g}")


def uniform(generator: torch.Generator, *shape: int, bound: float) -> Tensor:
    """Uniform on [-bound, bound), float32."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def linear_init(generator: torch.Generator, name: str, n_in: int, n_out: int) -> Params:
    """`{name}.weight` (n_out, n_in) and `{name}.bias` (n_out,), as `nn.Linear` draws them.

    Kaiming uniform with a = sqrt(5) comes to U(±1/sqrt(n_in)) for both.
    """
    bound = n_in**-0.5
    return {
        f"{name}.weight": uniform(generator, n_out, n_in, bound=bound),
        f"{name}.bias": uniform(generator, n_out, bound=bound),
    }


def linear(params: Params, name: str, x: Tensor) -> Tensor:
    """(…, n_in) → (…, n_out); in two dimensions, since vmap makes many small products of more."""
    flat = F.linear(x.reshape(-1, x.shape[-1]), params[f"{name}.weight"], params[f"{name}.bias"])
    return flat.reshape(*x.shape[:-1], flat.shape[-1])


def mlp_init(generator: torch.Generator, *sizes: int) -> Params:
    """Layers `0`, `1`, … of an MLP with the given widths."""
    params: Params = {}
    for i in range(len(sizes) - 1):
        params |= linear_init(generator, str(i), sizes[i], sizes[i + 1])
    return params


def mlp(params: Params, x: Tensor, activation: Activation, n_layers: int) -> Tensor:
    """Layers `0` … `n_layers - 1` with the activation between them."""
    for i in range(n_layers):
        x = linear(params, str(i), x)
        if i < n_layers - 1:
            x = activation(x)
    return x


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats; logits (B, K), labels (B,) int64."""
    is_label = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    chosen = (logits * is_label).sum(-1)
    return (torch.logsumexp(logits, -1) - chosen).mean()


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean over all elements of (output - target)²; equal shapes."""
    return (output - target).square().mean()


def row_batch(x: Tensor, y: Tensor, batch_size: int) -> Callable[[torch.Generator], Batch]:
    """Batches of `batch_size` distinct rows, drawn anew each time."""

    def batch(generator: torch.Generator) -> Batch:
        rows = torch.randperm(x.shape[0], generator=generator)[:batch_size]
        return x[rows], y[rows]

    return batch


def supervised(
    name: str,
    init: Callable[[torch.Generator], Params],
    forward: Forward,
    rows: Rows,
    *,
    batch_size: int,
    steps: int,
    sources: str,
    batch: Callable[[torch.Generator], Batch] | None = None,
    measure: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Task:
    """Classification where y holds integers, else regression with squared error.

    Args:
        name: what tables call it.
        init: generator → params.
        forward: (params, x) → logits (B, K), or predictions shaped as y.
        rows: where batches and the fixed validation set come from.
        batch_size: distinct rows a batch.
        steps: optimizer steps of the full budget.
        sources: data, licence, paper.
        batch: draws batches where they are not rows of `rows.x` (endless generated data).
        measure: (output, target) → scalar loss, where it is another.
    """
    is_classes = not rows.y_valid.dtype.is_floating_point
    measured = measure or (cross_entropy if is_classes else squared_error)

    def loss(params: Params, batch: Batch, key: int) -> Tensor:
        return measured(forward(params, batch[0]), batch[1])

    def evaluate(params: Params) -> dict[str, Tensor]:
        output = forward(params, rows.x_valid)
        values = {"loss": measured(output, rows.y_valid)}
        if is_classes:
            values["accuracy"] = (output.argmax(-1) == rows.y_valid).float().mean()
        return values

    return Task(name, init, batch or row_batch(rows.x, rows.y, batch_size), loss, evaluate, steps, sources)


def endless(
    name: str,
    init: Callable[[torch.Generator], Params],
    forward: Forward,
    draw: Callable[[torch.Generator, int], Batch],
    valid: Batch,
    *,
    batch_size: int,
    steps: int,
    sources: str,
    measure: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Task:
    """`supervised` on rows drawn anew for each batch: `draw` is (generator, n) → x, y; `valid` is fixed."""
    return supervised(
        name, init, forward, Rows(*valid, *valid), batch_size=batch_size, steps=steps, sources=sources,
        batch=lambda generator: draw(generator, batch_size), measure=measure,
    )  # fmt: skip


def split_rows(x: Any, y: Any, n_valid: int, generator: torch.Generator) -> Rows:
    """Shuffle rows once and set the last `n_valid` aside; x becomes float32, y float32 or int64.

    Args:
        x: features, (n, …), an array or tensor.
        y: targets, (n,) or (n, k).
        n_valid: rows of the validation set.
        generator: decides the shuffle.
    """
    features, targets = torch.as_tensor(x).float(), torch.as_tensor(y)
    targets = targets.float() if targets.dtype.is_floating_point else targets.long()
    order = torch.randperm(features.shape[0], generator=generator)
    train, valid = order[:-n_valid], order[-n_valid:]
    return Rows(features[train], targets[train], features[valid], targets[valid])


def standardized(rows: Rows, *, shared_scale: bool = False) -> Rows:
    """Features less the training mean over the training standard deviation; float targets too.

    Args:
        rows: as split; only the training rows give the statistics.
        shared_scale: one scale for all columns, for pixels, whose rare ones would else explode.
    """

    def by_train(train: Tensor, valid: Tensor, *, shared: bool) -> tuple[Tensor, Tensor]:
        centre = train.mean(0)
        scale = (train - centre).square().mean() if shared else (train - centre).square().mean(0)
        scale = scale.sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a constant column stays at zero
        return (train - centre) / scale, (valid - centre) / scale

    x, x_valid = by_train(rows.x, rows.x_valid, shared=shared_scale)
    y, y_valid = rows.y, rows.y_valid
    if y.dtype.is_floating_point:
        y, y_valid = by_train(y, y_valid, shared=False)
    return Rows(x, y, x_valid, y_valid)


def rotation(n: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix, (n, n)."""
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator))
    return q * torch.sign(torch.diagonal(r))


def log_spectrum(n: int, ratio: float) -> Tensor:
    """n scales from 1 down to 1/ratio, evenly spaced in the logarithm, with mean square 1, (n,)."""
    scales = torch.tensor(float(ratio)) ** (-torch.arange(n) / max(n - 1, 1))
    return scales / scales.square().mean().sqrt()
