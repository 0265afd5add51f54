"""Updates of a rule along given streams, by the reference backend or with its roundings redrawn."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core import expr as ex
from ruleforge.core.ops import OPS
from ruleforge.core.program import Program, compile_rule
from ruleforge.core.rule import Hyper, Rule
from ruleforge.simplify.rounding import NoisyRun
from ruleforge.simplify.streams import LR0, Streams

Array = NDArray[np.float64]

HYPER_SETTINGS = 3


def elements_meet(rule: Rule) -> bool:
    """Whether an element's update can depend on its tensor: reductions, matrix ops, the shape."""
    return any(
        item.op == "is_matrix" or (item.args and OPS[item.op].kind in ("reduce", "matrix"))
        for item in ex.walk(rule.roots)
    )


def hyper_settings(hypers: tuple[Hyper, ...], seed: int) -> list[tuple[float, ...]]:
    """The defaults, and random settings inside the open ranges, on each one's own scale."""
    settings = [tuple(h.default for h in hypers)]
    if hypers:
        rng = np.random.default_rng(np.random.SeedSequence((seed, 2)))
        settings += [tuple(_draw(h, rng) for h in hypers) for _ in range(HYPER_SETTINGS - 1)]
    return settings


def _draw(h: Hyper, rng: np.random.Generator) -> float:
    """A value in the open range, at most tenfold away from the default on a log scale."""
    if h.scale == "linear":
        return h.low + (h.high - h.low) * float(rng.uniform(0.02, 0.98))
    sign = -1.0 if h.scale == "one_minus_log" else 1.0
    offset = 1.0 if h.scale == "one_minus_log" else 0.0
    near, far = sorted((offset + sign * h.low, offset + sign * h.high))
    default = offset + sign * h.default
    low = max(near, default / 10, 1e-300)
    high = max(low, min(far, default * 10))
    value = offset + sign * low * (high / low) ** float(rng.uniform(0.02, 0.98))
    return value if h.low < value < h.high else h.default


def compiled(rule: Rule, hypers: tuple[float, ...]) -> tuple[Program, tuple[float, ...]]:
    """The program, and hyperparameter values in the order that it reads them."""
    program, order = _compiled(rule)
    return program, tuple(hypers[i] for i in order)


@lru_cache(maxsize=64)
def _compiled(rule: Rule) -> tuple[Program, tuple[int, ...]]:
    tagged = rule.with_defaults(tuple(float(i) for i in range(len(rule.hypers))))
    return compile_rule(tagged), tuple(int(tag) for tag in tagged.canonical.defaults)


def run_rule(
    rule: Rule, hypers: tuple[float, ...], streams: Streams, noise: np.random.Generator | None = None
) -> Array:
    """Updates along the streams.

    Args:
        rule: any rule.
        hypers: values in the order of `rule.hypers`.
        streams: gradients and weights.
        noise: redraws every rounding, if given.

    Returns:
        (steps, elements of all tensors), float64.
    """
    program, values = compiled(rule, hypers)

    def context(t: int) -> StepContext:
        return StepContext(t=t, lr=streams.lr(t), lr0=LR0, progress=t / streams.steps, hypers=values)

    first = list(streams.weights[0])
    noisy = NoisyRun(program, first, context(1), noise) if noise is not None else None
    state = reference.init_state(program, first, context(1))
    rows: list[Any] = []
    for step in range(streams.steps):
        grads, weights = streams.grads[step], streams.weights[step]
        if noisy is not None:
            updates = noisy.step(grads, weights, context(step + 1))
        else:
            updates, state = reference.update(program, state, grads, weights, context(step + 1))
        rows.append(np.concatenate([u.ravel() for u in updates]))
    return np.array(rows)
