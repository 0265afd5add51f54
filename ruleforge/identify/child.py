"""Runs a stranger's optimizer; called in a process of its own, with the names of two files.

The request is an `.npz` with the class, its arguments as JSON and the streams; the answer gets what was seen.
Both are arrays and JSON text, nothing pickled. Here, and nowhere else, the stranger's file is executed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHAPES = ((4, 3), (5,))


class NoOptimizer(Exception):
    """What the file was named for is not in it."""


def load_class(where: str) -> Any:
    """The class of `path/to/file.py:Class` or `package.module:Class`.

    Raises:
        NoOptimizer: the module has no such class.
    """
    place, _, name = where.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).resolve()
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{place} cannot be read as Python")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        there = [key for key, kind in vars(module).items() if callable(getattr(kind, "step", None))]
        raise NoOptimizer(f"it has no class {name!r}; optimizers there: {', '.join(there) or 'none'}")
    return found


def build(kind: Any, params: list[Any], kwargs: dict[str, Any]) -> Any:
    """An instance; classes that insist on lr get 1e-3."""
    try:
        return kind(params, **kwargs)
    except TypeError as error:
        if "lr" in str(error) and "lr" not in kwargs:
            return kind(params, lr=1e-3, **kwargs)
        raise


def split(flat: Any) -> list[Any]:
    """A row of P values as the parameter tensors."""
    tensor = torch.as_tensor(np.ascontiguousarray(flat))
    return [tensor[:12].reshape(4, 3).clone(), tensor[12:].clone()]


def run(where: str, kwargs: dict[str, Any], grads: Any, weights: Any, seeds: Any) -> dict[str, Any]:
    """Updates along streams, each with a fresh instance; and what the instance looked like."""
    kind = load_class(where)
    if not callable(getattr(kind, "step", None)):
        raise NoOptimizer(f"{where.rpartition(':')[2]} is no optimizer: it has no step()")
    n, steps, p = grads.shape
    updates = np.full((n, steps, p), np.nan)
    seen: dict[str, Any] = {
        "name": getattr(kind, "__name__", ""),
        "states": {},
        "groups": {},
        "closure": False,
    }
    for i in range(n):
        torch.manual_seed(int(seeds[i]))
        np.random.seed(int(seeds[i]))
        params = [torch.nn.Parameter(part) for part in split(weights[i, 0])]
        optimizer = build(kind, params, kwargs)
        group = optimizer.param_groups[0]
        lr = float(group.get("lr") or 1.0)
        seen["lr"] = lr
        for t in range(steps):
            for param, w, g in zip(params, split(weights[i, t]), split(grads[i, t]), strict=True):
                param.data.copy_(w)
                param.grad = g
            if not seen["closure"]:
                try:
                    optimizer.step()
                except Exception:
                    if i or t:
                        raise
                    seen["closure"] = True
            if seen["closure"]:
                optimizer.step(lambda: torch.ones((), requires_grad=True))
            after = torch.cat([param.detach().reshape(-1) for param in params]).double().numpy()
            updates[i, t] = (weights[i, t] - after) / lr
        if i == 0:
            seen["groups"] = {
                key: value for key, value in group.items() if isinstance(value, (int, float, str))
            }
            state = optimizer.state.get(params[0], {})
            seen["states"] = {
                str(key): list(value.shape) for key, value in state.items() if isinstance(value, torch.Tensor)
            }
    return {"updates": updates, "seen": seen}


def main(request: str, answer: str) -> None:
    """Answer a request; whatever the stranger raises becomes a message, and what it prints is dropped."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.stdout = sys.stderr = os.fdopen(nowhere, "w")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with np.load(request, allow_pickle=False) as asked:
        where, kwargs = str(asked["where"]), json.loads(str(asked["kwargs"]))
        grads, weights, seeds = asked["grads"], asked["weights"], asked["seeds"]
    try:
        made = run(where, kwargs, grads, weights, seeds)
        seen = json.dumps(made["seen"], default=str)
        np.savez(answer, updates=made["updates"], seen=seen, error="")
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())
        text = said if isinstance(error, NoOptimizer) else f"it raised {type(error).__name__}: {said}"
        if not isinstance(error, (NoOptimizer, SyntaxError)):  # which says its place itself
            text += f" ({Path(place.filename).name}, line {place.lineno})"
        np.savez(answer, updates=np.zeros(0), seen="{}", error=text[:600])
