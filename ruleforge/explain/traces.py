"""What a rule or a black box answers to fixed gradient streams, and many settings of a rule at once.

The streams do not react to the updates, so two optimizers see the same inputs for ever. They are made
to tell hyperparameters apart: scales from 1e-10 to 10 side by side show an eps, a gradient that stops
shows the memory, runs of one sign with flips show the betas under a sign.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ruleforge.backends import fastest_plane, load_plane, prepare_plane
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.core.program import Program, compile_rule
from ruleforge.core.rule import Rule
from ruleforge.errors import InputError

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]

LAYOUT = Layout(("matrix", "vector"), ((4, 3), (5,)))
STEPS = 48
LR = 1e-3
_TAG = 0x6E616D65


@dataclass(frozen=True)
class Inputs:
    """Streams for one model of one matrix and one vector.

    Attributes:
        names: of the streams, S of them.
        grads: (S, T, P).
        weights: before each step, (S, T, P).
        lr: learning rate that the rule is told.
    """

    names: tuple[str, ...]
    grads: Array
    weights: Array
    lr: float = LR

    @property
    def steps(self) -> int:
        return self.grads.shape[1]


@lru_cache(maxsize=8)
def make_inputs(seed: int = 0, *, steps: int = STEPS, lr: float = LR) -> Inputs:
    """The streams of one seed."""
    rng = np.random.default_rng(np.random.SeedSequence((_TAG, seed)))
    p = LAYOUT.n_weights
    noise = rng.standard_normal((6, steps, p))
    kinds: dict[str, Array] = {
        "noise": noise[0],
        "scales": noise[1] * 10.0 ** rng.permutation(np.linspace(-10, 1, p)),
        "drift": _drift(rng, noise[2]),
        "sparse": noise[3] * np.exp(1.5 * rng.standard_normal(p)) * (rng.random((steps, p)) < 0.5),
        "stops": noise[4] * (np.arange(steps) % 24 < 10)[:, None],
        "outliers": 0.3 * noise[5] * np.where(rng.random((steps, p)) < 0.04, 100.0, 1.0),
    }
    start = rng.standard_normal((len(kinds), 1, p)) * 10.0 ** rng.uniform(-1, 0.5, p)
    weights = start + np.cumsum(0.02 * rng.standard_normal((len(kinds), steps, p)), axis=1)
    return Inputs(tuple(kinds), np.stack(list(kinds.values())), weights, lr)


def _drift(rng: np.random.Generator, noise: Array) -> Array:
    """A mean that keeps its sign for a while, then turns."""
    steps, p = noise.shape
    period = rng.integers(6, 20, p)
    turn = np.where((np.arange(steps)[:, None] // period) % 2, -1.0, 1.0)
    return np.asarray(0.5 * noise + turn * np.exp(0.5 * rng.standard_normal(p)))


@lru_cache(maxsize=128)
def canonical_order(rule: Rule) -> tuple[Rule, list[int]]:
    """A rule whose canonical hyperparameters are numbered, and which of the rule's each one is."""
    tagged = rule.with_defaults(tuple(float(i) for i in range(len(rule.hypers))))
    return tagged, [int(tag) for tag in tagged.canonical.defaults]


@lru_cache(maxsize=128)
def _program(rule: Rule) -> tuple[Program, list[int]]:
    tagged, order = canonical_order(rule)
    return compile_rule(tagged), order


@lru_cache(maxsize=1)
def _plane() -> Any:
    name = fastest_plane()
    prepare_plane(name, _log.warning, dtype="float64")
    return load_plane(name)


@lru_cache(maxsize=32)
def _side_by_side(layout: Layout, n: int) -> Layout:
    """One lane that holds `n` models: a rule never looks beyond a tensor."""
    names = tuple(f"{name}{k}" for k in range(n) for name in layout.names)
    return Layout(names, layout.shapes * n)


def run_settings(rule: Rule, settings: Array, inputs: Inputs, *, layout: Layout = LAYOUT) -> Array:
    """Updates of one rule at many settings of its hyperparameters: a lane a setting.

    Args:
        rule: any rule.
        settings: (K, hypers of the rule).
        inputs: streams.
        layout: how a stream's P values lie in tensors.

    Returns:
        (K, S, T, P), float64; not finite where the rule is not.
    """
    settings = np.asarray(settings, float)
    k, (s, steps, p) = len(settings), inputs.grads.shape
    program, order = _program(rule)
    hypers = np.ascontiguousarray(settings[:, order].T) if order else np.zeros((0, k))
    lr = np.full(k, inputs.lr)
    with torch.no_grad():
        group = LaneGroup(program, k, hypers)
        lanes = _plane()([group], _side_by_side(layout, s), lr, torch.float64)
        out = torch.empty((steps, k, s * p), dtype=torch.float64)
        grads, weights = (
            torch.from_numpy(np.repeat(values.swapaxes(0, 1).reshape(steps, 1, s * p), k, axis=1))
            for values in (inputs.grads, inputs.weights)
        )
        for t in range(steps):
            lanes.step(weights[t], grads[t], t=t + 1, lr=lr, progress=(t + 1) / steps, updates=out[t])
    return out.numpy().reshape(steps, k, s, p).transpose(1, 2, 0, 3)


@dataclass(frozen=True)
class Traces:
    """Updates along streams: what a rule is to be found for.

    Attributes:
        inputs: the streams.
        updates: (S, T, P).
    """

    inputs: Inputs
    updates: Array

    def __post_init__(self) -> None:
        if not np.isfinite(self.updates).mean() > 0.2:
            raise InputError("its updates are finite at less than a fifth of the probe points")


def trace_rule(rule: Rule, inputs: Inputs | None = None) -> Traces:
    """What a rule answers at its defaults."""
    inputs = inputs or make_inputs()
    return Traces(inputs, run_settings(rule, np.array([rule.defaults]), inputs)[0])
