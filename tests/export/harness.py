"""Shared by the export tests: import what was exported, train with it, and train with the reference.

Both see the same gradients, which depend on the step alone. How far two correct programs may lie
apart is measured too: by the drift that changing every number they are given by one ulp causes.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core.ops import OPS
from ruleforge.core.program import Instr, compile_rule
from ruleforge.core.text import RuleText
from ruleforge.export.torch import export_torch
from ruleforge.testing import random_text

SHAPES: tuple[tuple[int, ...], ...] = ((5, 3), (4,), (), (3, 4), (2, 2, 2), (0, 3))
STEPS = 30
LR = 0.01
_counter = itertools.count()

Arrays = list[np.ndarray]


def load(source: str, folder: Path) -> Any:
    """Import exported source, which our own printer wrote, as a module of its own."""
    path = folder / f"exported_{next(_counter)}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_class(text: RuleText, folder: Path, **options: Any) -> Any:
    """The exported optimizer class of a rule."""
    module = load(export_torch(text, **options), folder)
    return getattr(module, module.__all__[0])


def weights(dtype: Any = np.float64, ulp: int | None = None) -> Arrays:
    """Weights to start from; with `ulp`, each moved by one ulp up or down, as that seed says."""
    rng = np.random.default_rng(0)
    start = [np.asarray(rng.normal(size=shape), dtype=dtype) for shape in SHAPES]
    return start if ulp is None else [_nudged(w, np.random.default_rng(ulp)) for w in start]


def _nudged(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    away = np.where(rng.random(x.shape) < 0.5, np.inf, -np.inf).astype(x.dtype)
    return np.asarray(np.where(x == 0, x, np.nextafter(x, away)), dtype=x.dtype)


def gradients(dtype: Any = np.float64, ulp: int | None = None) -> list[Arrays]:
    """Gradients of every step, some of them 0; with `ulp`, moved like the weights."""
    rng = np.random.default_rng(1)
    nudge = np.random.default_rng(ulp)
    found = []
    for _ in range(STEPS):
        step = []
        for shape in SHAPES:
            g = np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2), dtype=dtype)
            g = np.where(rng.random(shape) < 0.1, 0, g).astype(dtype)
            g = g if ulp is None else _nudged(g, nudge)
            step.append(g)
        found.append(step)
    return found


def train_reference(
    text: RuleText, grads: list[Arrays], start: Arrays, weight_decay: float = 0.0
) -> list[Arrays]:
    """Weights after each step on the reference backend."""
    program = compile_rule(text.rule)
    ctx = StepContext(t=0, lr=LR, lr0=LR, hypers=text.rule.canonical.defaults)
    params = start
    state = reference.init_state(program, params, ctx)
    after = []
    for t, g in enumerate(grads, 1):
        ctx = replace(ctx, t=t, progress=t / STEPS)
        updates, state = reference.update(program, state, g, params, ctx)
        with np.errstate(all="ignore"):
            params = [
                reference.apply_update(w, u, LR, weight_decay) for w, u in zip(params, updates, strict=True)
            ]
        after.append(params)
    return after


def train_torch(make: Callable[..., Any], grads: list[Arrays], start: Arrays) -> list[Arrays]:
    """Weights after each step of a torch optimizer, which `make(params)` builds."""
    params = [torch.nn.Parameter(torch.from_numpy(np.array(w))) for w in start]
    optimizer = make(params)
    after = []
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = torch.from_numpy(np.array(g))
        optimizer.step()
        after.append([p.detach().numpy().copy() for p in params])
    return after


def train_numpy(make: Callable[..., Any], grads: list[Arrays], start: Arrays) -> list[Arrays]:
    """Weights after each step of an exported numpy class."""
    params = [np.array(w) for w in start]
    optimizer = make(params)
    after = []
    for step in grads:
        optimizer.step([np.array(g) for g in step])
        after.append([p.copy() for p in params])
    return after


def train_optax(make: Callable[..., Any], grads: list[Arrays], start: Arrays) -> list[Arrays]:
    """Weights after each step of an exported transformation, which `make()` builds, under jit."""
    import jax
    import jax.numpy as jnp
    import optax

    with jax.enable_x64(True):
        transformation = make()
        params = [jnp.asarray(w) for w in start]
        state = transformation.init(params)

        @jax.jit
        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = transformation.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        after = []
        for row in grads:
            params, state = step(params, state, [jnp.asarray(g) for g in row])
            after.append([np.asarray(p) for p in params])
    return after


def options_for(text: RuleText) -> dict[str, Any]:
    """Constructor arguments that a rule needs besides lr."""
    return {"total_steps": STEPS} if text.rule.reads("progress") else {}


def largest(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """Largest difference relative to max(1, |w|); values that are not finite must agree in kind."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        both = np.isfinite(x) & np.isfinite(y)
        same = both | (np.isnan(x) & np.isnan(y)) | (x == y)
        if not same.all():
            return float("inf")
        if both.any():
            scale = max(1.0, float(np.abs(y[both]).max()))
            worst = max(worst, float(np.abs(x[both].astype(float) - y[both].astype(float)).max()) / scale)
    return worst


def drift(text: RuleText, dtype: Any, steps: list[Arrays], weight_decay: float = 0.0) -> list[float]:
    """At each step, the largest change so far of the reference when its inputs change by one ulp.

    Also when averages are counted from their other end, as torch's `lerp` does. Near 0 an average
    of large gradients keeps the rounding of those, which moving them alike does not show.
    """
    others = [
        train_reference(text, gradients(dtype, seed), weights(dtype, seed), weight_decay) for seed in range(3)
    ]
    with mock.patch.object(reference, "_meaning", _from_the_other_end):
        others.append(train_reference(text, gradients(dtype), weights(dtype), weight_decay))
    bound = [0.0] * STEPS
    for moved in others:
        for t in range(STEPS):
            bound[t] = max(bound[t], largest(moved[t], steps[t]), bound[t - 1] if t else 0.0)
    return bound


def _from_the_other_end(instr: Instr) -> Any:
    return (lambda a, b, x: b - (1 - x) * (b - a)) if instr.op == "lerp" else OPS[instr.op].meaning


def assert_same_training(
    text: RuleText,
    make: Callable[..., Any],
    dtype: Any,
    tolerance: float,
    weight_decay: float = 0.0,
    train: Callable[..., list[Arrays]] = train_torch,
) -> None:
    """An optimizer follows the reference, step after step.

    Allowed are `tolerance` relative to max(1, |w|), or ten times the reference's own drift.
    """
    expected = train_reference(text, gradients(dtype), weights(dtype), weight_decay)
    found = train(make, gradients(dtype), weights(dtype))
    bound: list[float] | None = None
    for t in range(STEPS):
        distance = largest(found[t], expected[t])
        if distance <= tolerance:
            continue
        bound = bound or drift(text, dtype, expected, weight_decay)
        assert distance <= 10 * bound[t] < np.inf, (
            f"step {t + 1}: {distance:.2e}, drift {bound[t]:.2e}\n{text}"
        )


@cache
def random_rules(count: int) -> tuple[RuleText, ...]:
    """Rules over the whole language that read g, are not tiny, and mostly give numbers at first."""
    found: list[RuleText] = []
    for seed in itertools.count():
        text = random_text(np.random.default_rng(seed))
        if text.rule.reads("g") and text.rule.nodes >= 8:
            first = train_reference(text, gradients()[:1], weights())[0]
            if np.mean(np.isfinite(np.concatenate([w.ravel() for w in first]))) > 0.5:
                found.append(text)
        if len(found) == count:
            break
    return tuple(found)
