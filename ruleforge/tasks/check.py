"""Tries a task once, small and on purpose, before a search spends hours on it.

Knows what training in lanes asks of a task (pure, vmappable, finite at the start, the same again from
the same seed) and says which part breaks it, where, and what to do. It does not judge whether the
task is any good to learn from.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import TaskError
from .base import Batch, Params, Task

_LIBRARY = str(Path(__file__).resolve().parent)
_TORCH = str(Path(torch.__file__).resolve().parent)
_STDLIB = sysconfig.get_paths()["stdlib"]

_RANDOM_HINT = "make the noise part of the batch, or set dropout to 0: every lane must see the same data"
_BRANCH_HINT = "use torch.where in place of if/while on tensors, and no .item(), .tolist(), float() or bool()"
_SHAPE_HINT = "keep shapes fixed: multiply by a mask in place of indexing with one"
_INPLACE_HINT = "write out of place (x = x + y, torch.where, torch.cat), since lanes share that tensor"

# Piece of torch's message → what the task does, and the remedy.
_VMAP_REASONS = (
    ("randomness", "draws random numbers", _RANDOM_HINT),
    ("random operation", "draws random numbers", _RANDOM_HINT),
    ("data-dependent control flow", "branches on the value of a tensor", _BRANCH_HINT),
    (".item()", "reads a tensor's value as a Python number", _BRANCH_HINT),
    ("dynamic shape", "makes a tensor whose shape depends on values", _SHAPE_HINT),
    ("output shape", "makes a tensor whose shape depends on values", _SHAPE_HINT),
    ("inplace", "changes a shared tensor in place", _INPLACE_HINT),
    ("in-place", "changes a shared tensor in place", _INPLACE_HINT),
)


def place_of(error: BaseException | None, fn: Callable[..., Any] | None) -> tuple[str | None, int | None]:
    """File and line to blame: the innermost frame that is neither torch's nor ours, else `fn`'s own."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    if error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if not _is_library(frame.filename):
                return frame.filename, frame.lineno
    code = getattr(fn, "__code__", None)
    if code is not None and not _is_library(code.co_filename):
        return code.co_filename, code.co_firstlineno
    return None, None


def _is_library(filename: str) -> bool:
    inside = ("site-packages", "dist-packages", "<frozen")
    return filename.startswith((_LIBRARY, _TORCH, _STDLIB)) or any(word in filename for word in inside)


def first_line(error: BaseException) -> str:
    """The error as one short line: its class and the first line of its message."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = text.strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def refuse(
    task: str,
    why: str,
    hint: str,
    *,
    error: BaseException | None = None,
    fn: Callable[..., Any] | None = None,
) -> TaskError:
    """The error for task `task`, placed in the user's file where one can be found."""
    file, line = place_of(error, fn)
    return TaskError(f"task {task!r}: {why}", file=file, line=line, hint=hint)


def check_task(task: Task) -> int:
    """Try every part of a task once, on one lane and on two.

    Returns:
        The number of weights of one lane.

    Raises:
        TaskError: naming the part at fault, with file and line where they can be known.
    """
    n_weights, trouble = check_task_alone(task)
    if trouble is not None:
        raise trouble
    return n_weights


def check_task_alone(task: Task) -> tuple[int, TaskError | None]:
    """As `check_task`, for a task that need not run in lanes.

    Returns:
        The number of weights of one lane, and why the task cannot run in lanes, if it cannot.

    Raises:
        TaskError: it cannot be trained at all.
    """
    params = _check_init(task)
    batch = _check_batch(task)
    single = _check_loss(task, params, batch)
    alone = _check_scores(task, params)
    trouble = _in_lanes(task, params, batch, single) or _scores_in_lanes(task, params, alone)
    return sum(value.numel() for value in params.values()), trouble


def _call(task: Task, part: str, *args: Any) -> Any:
    """Call one of the task's functions; its exception becomes a TaskError with its place."""
    fn = getattr(task, part)
    try:
        return fn(*args)
    except TaskError:
        raise
    except Exception as error:
        raise refuse(
            task.name,
            f"{part} raised {first_line(error)}",
            f"make {part} run on its own first",
            error=error,
            fn=fn,
        ) from error


def _check_init(task: Task) -> Params:
    def is_fit(value: Any) -> bool:
        return isinstance(value, Tensor) and value.dtype == torch.float32 and value.numel() > 0

    params = _call(task, "init", torch.Generator().manual_seed(7))
    if not isinstance(params, dict) or not params or not all(isinstance(key, str) for key in params):
        found = "an empty dict" if params == {} else f"a {type(params).__name__}"
        raise refuse(task.name, f"init returned {found}", "return a dict of name → tensor", fn=task.init)
    for name, value in params.items():
        if not is_fit(value):
            found = (
                f"{value.dtype}, shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
            )
            raise refuse(
                task.name,
                f"init returned {found} for {name!r}, expected a float32 tensor with at least one element",
                "convert with .float()",
                fn=task.init,
            )
        if not torch.isfinite(value).all():
            raise refuse(
                task.name,
                f"init returned a non-finite value in {name!r}",
                "draw every weight from the generator",
                fn=task.init,
            )
    again = _call(task, "init", torch.Generator().manual_seed(7))
    if not _equal(list(params.values()), [again.get(name) for name in params]):
        raise refuse(
            task.name,
            "init gave other weights for the same generator",
            "draw from the given torch.Generator alone (not numpy, random, or torch's global one)",
            fn=task.init,
        )
    return {name: value.detach() for name, value in params.items()}


def _check_batch(task: Task) -> Batch:
    generator = torch.Generator().manual_seed(7)
    first, second = _call(task, "batch", generator), _call(task, "batch", generator)
    if not isinstance(first, tuple) or not first or not all(isinstance(value, Tensor) for value in first):
        raise refuse(
            task.name,
            f"batch returned a {type(first).__name__}, expected a tuple of tensors",
            "return (x, y); with one tensor, return (x,)",
            fn=task.batch,
        )
    if [(x.shape, x.dtype) for x in first] != [(x.shape, x.dtype) for x in second]:
        shapes = [tuple(x.shape) for x in first], [tuple(x.shape) for x in second]
        raise refuse(
            task.name,
            f"batches differ in shape or dtype: {shapes[0]} then {shapes[1]}",
            "draw the same number of rows every time: batches of all steps are stacked",
            fn=task.batch,
        )
    if any(x.dtype.is_floating_point and torch.isnan(x).any() for x in first):
        raise refuse(
            task.name,
            "a batch holds nan",
            "look for missing values in the training rows, and for columns divided by a spread of zero",
            fn=task.batch,
        )
    again = _call(task, "batch", torch.Generator().manual_seed(7))
    if not _equal(list(first), list(again)):
        raise refuse(
            task.name,
            "batch gave other rows for the same generator",
            "draw from the given torch.Generator alone (not numpy, random, or torch's global one)",
            fn=task.batch,
        )
    return first


def _check_loss(task: Task, params: Params, batch: Batch) -> tuple[Params, Tensor]:
    """Gradient and loss of one lane, without vmap, so that a plain mistake gets a plain message."""
    loss = _call(task, "loss", params, batch, 1)
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.dtype.is_floating_point:
        found = f"shape {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else f"{loss!r}"
        raise refuse(
            task.name,
            f"loss returned {found}, expected a scalar tensor",
            "end the loss with .mean(): reduction='none' leaves one value a row",
            fn=task.loss,
        )
    if not torch.isfinite(loss):
        raise refuse(
            task.name,
            f"loss is {loss.item()} at the initial weights",
            "standardize the inputs, and guard log, sqrt and division",
            fn=task.loss,
        )
    before = {name: value.clone() for name, value in params.items()}
    again = _call(task, "loss", params, batch, 1)
    if not torch.allclose(loss, again, rtol=1e-5) or not _equal(list(before.values()), list(params.values())):
        raise refuse(
            task.name,
            "loss gave another value when called again",
            "keep the loss pure: no random numbers (dropout, noise), no counters, no change of params",
            fn=task.loss,
        )
    try:
        grads, value = torch.func.grad_and_value(task.loss)(params, batch, 1)
    except Exception as error:
        raise lanes_refused(task.name, "loss", error, task.loss) from error
    bad = [name for name, grad in grads.items() if not torch.isfinite(grad).all()]
    if bad:
        raise refuse(
            task.name,
            f"non-finite gradient at the initial weights, in {bad[0]!r}",
            "guard sqrt, norm, log and division: their slopes are infinite at zero",
            fn=task.loss,
        )
    if not any(grad.any() for grad in grads.values()):
        raise refuse(
            task.name,
            "the gradient is zero in every weight",
            "use `params` in the loss, and start off any saddle (not all weights at zero)",
            fn=task.loss,
        )
    return grads, value


def _in_lanes(task: Task, params: Params, batch: Batch, single: tuple[Params, Tensor]) -> TaskError | None:
    """Two lanes with different weights: the first must come out as it does alone."""
    lanes = _two_lanes(params)
    try:
        step = torch.func.vmap(torch.func.grad_and_value(task.loss), in_dims=(0, None, None))
        grads, losses = step(lanes, batch, 1)
    except Exception as error:
        return lanes_refused(task.name, "loss", error, task.loss)
    alone = [single[1], *single[0].values()]
    together = [losses[0], *(grads[name][0] for name in single[0])]
    if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(alone, together, strict=True)):
        raise refuse(
            task.name,
            "a lane trained beside another differs from the same lane alone",
            "look for reductions over more than a lane's own rows, and for hidden state",
            fn=task.loss,
        )
    return None


def _check_scores(task: Task, params: Params) -> dict[str, Tensor]:
    """What evaluate gives for one lane."""
    alone = _call(task, "evaluate", params)
    if not isinstance(alone, dict) or "loss" not in alone:
        found = f"keys {sorted(alone)}" if isinstance(alone, dict) else f"a {type(alone).__name__}"
        raise refuse(task.name, f"evaluate returned {found}", 'return {"loss": …, …}', fn=task.evaluate)
    for name, value in alone.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
            raise refuse(
                task.name,
                f"evaluate returned {found} for {name!r}, expected a scalar tensor",
                "average over the validation rows with .mean()",
                fn=task.evaluate,
            )
    if not torch.isfinite(alone["loss"]):
        raise refuse(
            task.name,
            f"the validation loss is {alone['loss'].item()} at the initial weights",
            "look for missing values in the validation rows",
            fn=task.evaluate,
        )
    return alone


def _scores_in_lanes(task: Task, params: Params, alone: dict[str, Tensor]) -> TaskError | None:
    """The scores of two lanes: the first must come out as it does alone."""
    try:
        together = torch.func.vmap(task.evaluate)(_two_lanes(params))
    except Exception as error:
        return lanes_refused(task.name, "evaluate", error, task.evaluate)
    if not torch.allclose(together["loss"][0], alone["loss"], rtol=1e-3, atol=1e-5):
        raise refuse(
            task.name,
            "evaluate gives another loss beside a second lane than alone",
            "keep evaluate pure, on fixed rows",
            fn=task.evaluate,
        )
    return None


def lanes_refused(task: str, part: str, error: BaseException, fn: Callable[..., Any]) -> TaskError:
    """torch's complaint under grad or vmap, in the words of whoever wrote the task."""
    text = str(error)
    for piece, what, hint in _VMAP_REASONS:
        if piece in text:
            return refuse(task, f"{part} {what}, so it cannot be trained in lanes", hint, error=error, fn=fn)
    return refuse(
        task,
        f"{part} cannot run in lanes: {first_line(error)}",
        "keep to differentiable torch ops, no numpy; torch's documentation lists the limits of torch.func",
        error=error,
        fn=fn,
    )


def _two_lanes(params: Params) -> Params:
    """The lane itself and a shifted neighbour, (2, …) each."""
    return {name: torch.stack([value, value * 0.5 + 0.01]) for name, value in params.items()}


def _equal(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        isinstance(y, Tensor) and x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True)
    )
