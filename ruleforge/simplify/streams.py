"""Gradient streams on which two rules are compared.

A stream is a history of gradients and weights that does not react to the rule, so that two rules see
the same inputs for ever and an error cannot feed back into its own input. The generator is seeded by
a tag of its own: no other part of the project draws these numbers.

Edge streams (a constant gradient, gradients near the smallest float64) can show a difference, but hold
one element each: what they merely make undecidable must not use up the allowance for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = 40
LANE_ELEMENTS = 16  # of each ordinary stream, where elements do not meet
SHAPES: tuple[tuple[int, ...], ...] = ((16,), (4, 5))  # of ordinary streams in turn, where they do
EDGE_SHAPE: tuple[int, ...] = (1,)
LR0 = 0.03
_TAG = 0x72756C65


@dataclass(frozen=True)
class Streams:
    """Inputs of a comparison, as parameter tensors of one model.

    Attributes:
        names: of the stream that each tensor's element belongs to; per tensor, flat.
        grads: by step, then tensor.
        weights: by step, then tensor.
    """

    names: tuple[tuple[str, ...], ...]
    grads: tuple[tuple[Array, ...], ...]
    weights: tuple[tuple[Array, ...], ...]

    @property
    def steps(self) -> int:
        return len(self.grads)

    def lr(self, t: int) -> float:
        """Learning rate at step t; it decays, so that reading it shows."""
        return LR0 * (1.0 - 0.9 * (t - 1) / self.steps)

    def in_float32(self) -> Streams:
        """The same, rounded to float32."""
        return self._as(np.float32)

    def in_float64(self) -> Streams:
        """The same numbers in float64."""
        return self._as(np.float64)

    def _as(self, dtype: type[np.floating[Any]]) -> Streams:
        def cast(rows: tuple[tuple[Array, ...], ...]) -> tuple[tuple[Array, ...], ...]:
            return tuple(tuple(tensor.astype(dtype) for tensor in row) for row in rows)

        return Streams(self.names, cast(self.grads), cast(self.weights))

    def only(self, tensors: Sequence[int]) -> Streams:
        """Some of the tensors."""

        def chosen(rows: tuple[tuple[Array, ...], ...]) -> tuple[tuple[Array, ...], ...]:
            return tuple(tuple(row[i] for i in tensors) for row in rows)

        return Streams(tuple(self.names[i] for i in tensors), chosen(self.grads), chosen(self.weights))

    def repeated(self, times: int) -> Streams:
        """Each tensor several times over, the copies side by side; for streams of one vector."""

        def tiled(rows: tuple[tuple[Array, ...], ...]) -> tuple[tuple[Array, ...], ...]:
            return tuple(tuple(np.tile(tensor, times) for tensor in row) for row in rows)

        return Streams(tuple(names * times for names in self.names), tiled(self.grads), tiled(self.weights))


def _scaled(scale: float) -> Callable[[np.random.Generator, int, int], Array]:
    return lambda rng, steps, n: scale * rng.standard_normal((steps, n))


def _sparse(rng: np.random.Generator, steps: int, n: int) -> Array:
    return rng.standard_normal((steps, n)) * (rng.random((steps, n)) < 0.2)


def _flips(rng: np.random.Generator, steps: int, n: int) -> Array:
    """Half the elements flip at every step at one size, half at random at any size."""
    size = np.exp(rng.standard_normal(n))
    regular = size * np.where(np.arange(steps) % 2, -1.0, 1.0)[:, None]
    wild = np.exp(rng.standard_normal((steps, n))) * rng.choice((-1.0, 1.0), (steps, n))
    return np.where(np.arange(n) % 2, regular, wild)


def _zero_runs(rng: np.random.Generator, steps: int, n: int) -> Array:
    made = rng.standard_normal((steps, n))
    for column in range(n):
        start = 0 if column % 4 == 0 else int(rng.integers(0, steps - 12))
        made[start : start + int(rng.integers(4, 12)), column] = 0.0
    return made


def _heavy(rng: np.random.Generator, steps: int, n: int) -> Array:
    return np.clip(rng.standard_t(1.3, (steps, n)), -1e9, 1e9)


def _drift(rng: np.random.Generator, steps: int, n: int) -> Array:
    signal = rng.choice((-1.0, 1.0), n) * np.exp(rng.standard_normal(n))
    decay = np.exp(-np.arange(steps) / (steps * 0.375))[:, None]
    return signal * decay + 0.3 * decay * rng.standard_normal((steps, n))


def _outlier(rng: np.random.Generator, steps: int, n: int) -> Array:
    made = 0.1 * rng.standard_normal((steps, n))
    made[rng.integers(1, steps, n), np.arange(n)] *= 1e6
    return made


def _mixed(rng: np.random.Generator, steps: int, n: int) -> Array:
    return rng.standard_normal((steps, n)) * 10.0 ** rng.uniform(-8, 8, n)


def _constant(rng: np.random.Generator, steps: int, n: int) -> Array:
    return np.broadcast_to(rng.standard_normal(n), (steps, n)).copy()


_ORDINARY: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    "scale 1e-8": _scaled(1e-8),
    "scale 1e-4": _scaled(1e-4),
    "scale 1e-2": _scaled(1e-2),
    "scale 1": _scaled(1.0),
    "scale 1e4": _scaled(1e4),
    "scale 1e8": _scaled(1e8),
    "sparse": _sparse,
    "sign flips": _flips,
    "zero runs": _zero_runs,
    "heavy tails": _heavy,
    "drift": _drift,
    "outlier": _outlier,
    "mixed scales": _mixed,
    "near the smallest float32": _scaled(1e-38),
}
_EDGE: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    "constant": _constant,
    "near the smallest float64": _scaled(1e-306),
}

NAMES = (*_ORDINARY, *_EDGE)


def _weights(rng: np.random.Generator, steps: int, n: int) -> Array:
    start = rng.standard_normal(n) * 10.0 ** rng.uniform(-2, 1, n)
    return start + np.cumsum(0.03 * rng.standard_normal((steps, n)), axis=0)


def make_streams(seed: int, *, shaped: bool, steps: int = STEPS, without: Sequence[str] = ()) -> Streams:
    """The streams of one seed.

    Args:
        seed: equal seeds give equal streams.
        shaped: each stream as a tensor of its own, vectors and matrices in turn, for rules in which the
            elements of a tensor meet; else all streams side by side in one vector, which is faster.
        steps: length of the histories.
        without: names of streams to leave out; the others keep their numbers.
    """
    rng = np.random.default_rng(np.random.SeedSequence((_TAG, seed)))
    parts: list[tuple[str, tuple[int, ...], Array, Array]] = []
    for number, (name, draw) in enumerate((_ORDINARY | _EDGE).items()):
        usual = SHAPES[number % len(SHAPES)] if shaped else (LANE_ELEMENTS,)
        shape = EDGE_SHAPE if name in _EDGE else usual
        n = int(np.prod(shape))
        part = (name, shape, draw(rng, steps, n), _weights(rng, steps, n))
        if name not in without:
            parts.append(part)
    if shaped:
        return Streams(
            names=tuple((name,) * int(np.prod(shape)) for name, shape, _, _ in parts),
            grads=tuple(tuple(g[t].reshape(shape) for _, shape, g, _ in parts) for t in range(steps)),
            weights=tuple(tuple(w[t].reshape(shape) for _, shape, _, w in parts) for t in range(steps)),
        )
    grads: Any = np.concatenate([g for _, _, g, _ in parts], axis=1)
    weights: Any = np.concatenate([w for _, _, _, w in parts], axis=1)
    return Streams(
        names=(tuple(name for name, shape, _, _ in parts for _ in range(shape[0])),),
        grads=tuple((row,) for row in grads),
        weights=tuple((row,) for row in weights),
    )
