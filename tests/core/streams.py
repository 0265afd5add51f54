"""Gradients that a rule should survive, or fail on like its definition: all sizes, and every edge of IEEE."""

from __future__ import annotations

import numpy as np

SHAPES = ((3, 4), (5,), (4, 2), ())
EDGES = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-310, 1.0, -1.0, 2.0, 1e38)


def tensors(rng: np.random.Generator, dtype: type, *, edges: float) -> list[np.ndarray]:
    """One array for each of `SHAPES`; a fraction `edges` of the elements is special."""
    made = []
    for shape in SHAPES:
        plain = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, size=shape)
        with np.errstate(all="ignore"):
            special = rng.choice(EDGES, size=shape)
            made.append(np.where(rng.random(shape) < edges, special, plain).astype(dtype))
    return made
