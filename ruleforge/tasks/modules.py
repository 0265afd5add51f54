"""Ordinary `nn.Module` code as a task.

Knows `torch.func.functional_call` and which modules keep state that lanes cannot share; refuses
those by name. Knows nothing of data sets: rows come in as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TaskError
from .base import Batch, Params, Task
from .check import check_task, first_line, refuse
from .seeds import global_seed


def task_from_module(
    factory: Callable[[], nn.Module],
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    train_data: Sequence[Any],
    valid_data: Sequence[Any],
    batch_size: int,
    steps: int,
    *,
    name: str,
    sources: str,
) -> Task:
    """See `Task.from_module`."""
    with global_seed(0):  # so that frozen values are the same in every process
        module = _build(factory, name or "module")
    with global_seed(0):
        is_shared = _build(factory, name or "module") is module
    if is_shared:
        raise refuse(
            name or type(module).__name__,
            "the factory returns the same module every time",
            "build a new module inside the factory, so that each seed gets its own weights",
            fn=factory,
        )
    name = name or type(module).__name__
    _refuse_unfit_layers(module, name)
    train, valid = _rows(train_data, "train_data", name), _rows(valid_data, "valid_data", name)
    if len(train) != len(valid):
        raise refuse(
            name,
            f"train_data has {len(train)} arrays, valid_data has {len(valid)}",
            "give both as (inputs, …, target)",
        )
    n_rows = train[0].shape[0]
    if not 1 <= batch_size <= n_rows:
        raise refuse(
            name, f"batch_size is {batch_size}, train_data has {n_rows} rows", f"choose 1 to {n_rows}"
        )
    if steps < 1:
        raise refuse(name, f"steps is {steps}", "choose at least 1")

    module = module.float()
    # Cloned, so that whatever the caller does later with the first module changes nothing here.
    frozen = {key: value.detach().clone() for key, value in _frozen(module).items()}

    def init(generator: torch.Generator) -> Params:
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with global_seed(seed):
            built = _build(factory, name)
        return {
            key: value.detach().float().clone()
            for key, value in built.named_parameters()
            if value.requires_grad
        }

    def batch(generator: torch.Generator) -> Batch:
        rows = torch.randperm(n_rows, generator=generator)[:batch_size]
        return tuple(column[rows] for column in train)

    def forward(params: Params, inputs: Batch) -> Tensor:
        return torch.func.functional_call(module, (params, frozen), inputs)

    def loss(params: Params, batch: Batch, key: int) -> Tensor:
        return loss_fn(forward(params, batch[:-1]), batch[-1])

    def evaluate(params: Params) -> dict[str, Tensor]:
        output, target = forward(params, valid[:-1]), valid[-1]
        values = {"loss": loss_fn(output, target)}
        if not target.dtype.is_floating_point and output.ndim == target.ndim + 1:
            values["accuracy"] = (output.argmax(1) == target).float().mean()
        return values

    task = Task(name, init, batch, loss, evaluate, steps, sources)
    check_task(task)
    return task


def _build(factory: Callable[[], nn.Module], name: str) -> nn.Module:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise refuse(
            name,
            f"factory is {type(factory).__name__}, expected a function that builds the module",
            "pass `lambda: MyModule(…)` or the class itself, so that each seed gets its own weights",
        )
    try:
        module = factory()
    except TaskError:
        raise
    except Exception as error:
        raise refuse(
            name, f"the module factory raised {first_line(error)}", "make it run on its own", error=error
        ) from error
    if not isinstance(module, nn.Module):
        raise refuse(
            name, f"the factory returned {type(module).__name__}", "return a torch.nn.Module", fn=factory
        )
    return module


def _refuse_unfit_layers(module: nn.Module, name: str) -> None:
    """Layers that vmap refuses late and in its own words are refused here by name."""
    for path, layer in module.named_modules():
        kind = type(layer).__name__
        where = f"layer {path!r} ({kind})" if path else f"the module ({kind})"
        if getattr(layer, "running_mean", None) is not None and layer.training:
            raise refuse(
                name,
                f"{where} updates running batch statistics, which lanes cannot share",
                f"use nn.GroupNorm or nn.LayerNorm, or {kind}(…, track_running_stats=False)",
            )
        dropout = (
            layer.p if isinstance(layer, nn.modules.dropout._DropoutNd) else getattr(layer, "dropout", 0)
        )
        if isinstance(dropout, int | float) and dropout > 0 and layer.training:
            raise refuse(
                name,
                f"{where} drops values at random, which would differ from lane to lane",
                "set its probability to 0, or add noise to the training rows instead",
            )
        if isinstance(layer, nn.RNNBase | nn.LSTMCell):
            raise refuse(
                name,
                f"{where} has no rule for torch.func.vmap in torch",
                "write the recurrence as a loop over nn.Linear (or nn.GRUCell)",
            )
        if isinstance(layer, nn.RReLU) and layer.training:
            raise refuse(name, f"{where} draws random slopes", "use nn.LeakyReLU")
    for path, value in module.named_parameters():
        if isinstance(value, nn.parameter.UninitializedParameter):
            raise refuse(
                name, f"parameter {path!r} has no size yet", "use layers with given sizes, not Lazy…"
            )
        if not value.dtype.is_floating_point:
            raise refuse(name, f"parameter {path!r} is {value.dtype}", "use real floating-point parameters")
    if not any(value.requires_grad for value in module.parameters()):
        raise refuse(
            name, "the module has no trainable parameter", "leave requires_grad on where it should train"
        )


def _frozen(module: nn.Module) -> Params:
    fixed = {key: value for key, value in module.named_parameters() if not value.requires_grad}
    return {**fixed, **dict(module.named_buffers())}


def _rows(data: Sequence[Any], what: str, name: str) -> Batch:
    """Arrays as tensors with equally many rows: floats as float32, integers as int64."""
    if not isinstance(data, tuple | list) or len(data) < 2:
        raise refuse(name, f"{what} is {type(data).__name__}", "give (inputs, …, target), rows first")
    columns = []
    for number, column in enumerate(data):
        try:
            value = torch.as_tensor(column)
        except Exception as error:
            raise refuse(
                name, f"{what}[{number}] is no array: {first_line(error)}", "give tensors or numpy arrays"
            ) from error
        if value.is_complex():
            raise refuse(name, f"{what}[{number}] is complex", "give real and imaginary parts as two columns")
        value = value.float() if value.dtype.is_floating_point else value
        value = value if value.dtype in (torch.float32, torch.bool) else value.long()
        if value.ndim == 0 or value.shape[0] == 0:
            raise refuse(name, f"{what}[{number}] has shape {tuple(value.shape)}", "give at least one row")
        if not torch.isfinite(value).all():
            raise refuse(name, f"{what}[{number}] holds NaN or infinity", "fill or drop missing values")
        columns.append(value)
    counts = [column.shape[0] for column in columns]
    if len(set(counts)) > 1:
        raise refuse(name, f"the arrays of {what} have {counts} rows", "give equally many rows")
    return tuple(columns)
