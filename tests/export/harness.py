"""Shared by the export tests: import what was exported, train with it, and train with the reference.

Both see the same gradients, which depend on the step alone. How far two correct programs may lie
apart is measured too: by the drift that changing every gradient by one ulp causes.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core.program import compile_rule
from ruleforge.core.text import RuleText
from ruleforge.errors import RuleTextError
from ruleforge.export.torch import export_torch

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


def weights(dtype: Any = np.float64, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape), dtype=dtype) for shape in SHAPES]


def gradients(dtype: Any = np.float64, seed: int = 1, ulp: int | None = None) -> list[Arrays]:
    """Gradients of every step; with `ulp`, each moved by one ulp up or down, as that seed says."""
    rng = np.random.default_rng(seed)
    found = []
    nudge = np.random.default_rng(ulp)
    for _ in range(STEPS):
        step = []
        for shape in SHAPES:
            g = np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2), dtype=dtype)
            g = np.where(rng.random(shape) < 0.1, 0, g).astype(dtype)
            if ulp is not None:
                away = np.where(nudge.random(shape) < 0.5, np.inf, -np.inf).astype(dtype)
                g = np.asarray(np.where(g == 0, g, np.nextafter(g, away)), dtype=dtype)
            step.append(g)
        found.append(step)
    return found


def train_reference(text: RuleText, grads: list[Arrays], start: Arrays, weight_decay: float = 0.0) -> list[Arrays]:
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
    """At each step, the largest change so far of the reference when gradients change by one ulp."""
    bound = [0.0] * STEPS
    for seed in range(3):
        moved = train_reference(text, gradients(dtype, ulp=seed), weights(dtype), weight_decay)
        for t in range(STEPS):
            bound[t] = max(bound[t], largest(moved[t], steps[t]), bound[t - 1] if t else 0.0)
    return bound


def assert_same_training(
    text: RuleText, make: Callable[..., Any], dtype: Any, tolerance: float, weight_decay: float = 0.0
) -> None:
    """A torch optimizer follows the reference, step after step.

    Allowed are `tolerance` relative to max(1, |w|), or ten times the reference's own drift.
    """
    expected = train_reference(text, gradients(dtype), weights(dtype), weight_decay)
    found = train_torch(make, gradients(dtype), weights(dtype))
    bound: list[float] | None = None
    for t in range(STEPS):
        distance = largest(found[t], expected[t])
        if distance <= tolerance:
            continue
        bound = bound or drift(text, dtype, expected, weight_decay)
        assert distance <= 10 * bound[t] < np.inf, f"step {t + 1}: {distance:.2e}, drift {bound[t]:.2e}\n{text}"


# random rules

_UNARY = "abs sign sqrt cbrt exp log log1p expm1 sin cos tan asin acos atan sinh cosh tanh floor".split()
_DERIVED = "square cube reciprocal rsqrt sigmoid softsign softplus log_scale normalize".split()
_BINARY = "minimum maximum atan2 hypot agree".split()
_INFIX = "+ - * / + - * < > <= >= == !=".split()
_REDUCE = "norm mean rms max_abs".split()


class _Random:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names = ["g", "w"]
        self.numbers = ["beta", "eps", "t", "first", "lr", "lr0", "progress", "0.5", "2", "-1", "1e-3"]

    def tensor(self, depth: int) -> str:
        pick = self.rng.random()
        if depth == 0 or pick < 0.15:
            return self.rng.choice(self.names)
        if pick < 0.25:
            return f"{self.rng.choice(_UNARY + _DERIVED)}({self.tensor(depth - 1)})"
        if pick < 0.4:
            return f"{self.rng.choice(_BINARY)}({self.tensor(depth - 1)}, {self.any(depth - 1)})"
        if pick < 0.65:
            return f"({self.tensor(depth - 1)} {self.rng.choice(_INFIX)} {self.any(depth - 1)})"
        if pick < 0.8:
            term = self.rng.choice(["ema({}, beta)", "trace({}, 0.5)", "ema_hat({}, beta)", "prev({})", "total({})"])
            return term.format(self.tensor(depth - 1))
        if pick < 0.86:
            return f"where({self.any(depth - 1)}, {self.tensor(depth - 1)}, {self.any(depth - 1)})"
        if pick < 0.92:
            return f"lerp({self.tensor(depth - 1)}, {self.any(depth - 1)}, {self.number(1)})"
        if pick < 0.96:
            return f"clip({self.tensor(depth - 1)}, {self.number(1)}, {self.any(depth - 1)})"
        return f"orthogonalize({self.tensor(depth - 1)})"

    def number(self, depth: int) -> str:
        pick = self.rng.random()
        if depth == 0 or pick < 0.3:
            return self.rng.choice(self.numbers)
        if pick < 0.5:
            return f"{self.rng.choice(_UNARY)}({self.number(depth - 1)})"
        if pick < 0.85:
            return f"({self.number(depth - 1)} {self.rng.choice([*_INFIX, '**'])} {self.number(depth - 1)})"
        return f"where({self.number(depth - 1)}, {self.number(depth - 1)}, {self.number(depth - 1)})"

    def any(self, depth: int) -> str:
        pick = self.rng.random()
        if pick < 0.5:
            return self.tensor(depth)
        if pick < 0.8:
            return self.number(depth)
        return f"{self.rng.choice(_REDUCE)}({self.tensor(max(depth - 1, 0))})"

    def text(self) -> str:
        lines = ["beta: hyper(0, 1, one_minus_log) = 0.9", "eps: hyper(-1, 2) = 0.01"]
        states = [f"s{i}" for i in range(self.rng.randint(0, 3))]
        lines += [f"{name}: state = {self.rng.choice(['0', '1', 'beta', 'lr0', '1e-3'])}" for name in states]
        self.names += states
        body = [*states, *(f"a{i}" for i in range(self.rng.randint(0, 2))), "update"]
        self.rng.shuffle(body)
        for name in body:
            # A state whose first line reads numbers alone is a host number, and so no tensor to reduce.
            lines.append(f"{name} = {self.tensor(3)}" if name != "s2" else f"{name} = {self.any(2)}")
            if name not in states:
                self.names.append(name)
        return "\n".join(lines) + "\n"


def random_rules(count: int, seed: int = 0) -> list[RuleText]:
    """Rules over the whole language that read g; refused drafts (kinds, sizes) are drawn again."""
    found: list[RuleText] = []
    for number in itertools.count(1000 * seed):
        try:
            text = RuleText.parse(_Random(number).text())
        except RuleTextError:
            continue
        if text.rule.reads("g") and text.rule.nodes >= 8:
            found.append(text)
        if len(found) == count:
            return found
    raise AssertionError("unreachable")
