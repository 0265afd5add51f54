"""The four gradient streams on which rules are compared with upstream optimizers.

Each stream is a fixed list of 50 float64 gradients for one (7, 5) weight tensor, together with the
weights that the training starts from. The gradients do not depend on the weights, so two
implementations that drift apart are seen to drift and never pull each other back.

The numbers come from PCG64's raw 64-bit words and from additions and multiplications in a fixed
order alone. numpy keeps the raw words stable across releases but not its distributions, and
transcendental functions may differ in the last bit between machines, so neither is used. `digest`
names the exact bytes: the recording keeps it, and the tests refuse a recording made from others.

This module knows nothing of rules or of upstream packages.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

N_STEPS = 50
SHAPE = (7, 5)

ELEMENT_SCALES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Stream:
    """One fixed training: where it starts and what gradients it sees.

    Args:
        name: `white`, `sparse`, `drift` or `orthogonal`.
        weights: initial weights, (7, 5), float64.
        gradients: (50, 7, 5), float64.
    """

    name: str
    weights: np.ndarray
    gradients: np.ndarray


def _normals(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normal numbers, exactly the same on every machine, of the given shape.

    Each is the sum of twelve uniforms less six (mean 0, variance 1, bounded by 6 in absolute value).
    """
    n = int(np.prod(shape))
    words = np.random.PCG64(seed).random_raw(12 * n).reshape(12, n)
    uniforms = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    total = np.zeros(n)
    for row in uniforms:
        total = total + row
    return (total - 6.0).reshape(shape)


def _white() -> Stream:
    """White noise: nothing for an average to find."""
    return Stream("white", _normals(1, SHAPE), _normals(11, (N_STEPS, *SHAPE)))


def _sparse() -> Stream:
    """30 % exact zeros, and elements whose scales range from 1e-2 to 10.

    Zeros meet sign(0), 0/0 and states that are still 0; the scales show where an eps stands. The
    weights are twice as large as elsewhere, so that caps on their norm take effect.
    """
    rows, columns = np.indices(SHAPE)
    scales = np.array(ELEMENT_SCALES)[(rows + 3 * columns) % len(ELEMENT_SCALES)]
    words = np.random.PCG64(22).random_raw(N_STEPS * SHAPE[0] * SHAPE[1]).reshape(N_STEPS, *SHAPE)
    is_zero = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53 < 0.3
    gradients = np.where(is_zero, 0.0, scales * _normals(12, (N_STEPS, *SHAPE)))
    return Stream("sparse", 2.0 * _normals(2, SHAPE), gradients)


def _drift() -> Stream:
    """A constant mean with small noise: averages converge and signs agree."""
    gradients = _normals(23, SHAPE) + 0.1 * _normals(13, (N_STEPS, *SHAPE))
    return Stream("drift", _normals(3, SHAPE), gradients)


def _orthogonal() -> Stream:
    """Each row orthogonal to the same row of the first weights, and small.

    Projection rules act on such gradients; the whole gradient's norm stays below 1, where clipping
    by norm must do nothing.
    """
    weights = _normals(4, SHAPE)
    noise = _normals(14, (N_STEPS, *SHAPE))
    inner = np.zeros((N_STEPS, SHAPE[0]))
    length = np.zeros(SHAPE[0])
    for j in range(SHAPE[1]):
        inner = inner + noise[:, :, j] * weights[:, j]
        length = length + weights[:, j] * weights[:, j]
    gradients = 0.05 * (noise - (inner / length)[:, :, None] * weights)
    return Stream("orthogonal", weights, gradients)


def all_streams() -> tuple[Stream, ...]:
    """The four streams, in the order in which recordings hold them."""
    return (_white(), _sparse(), _drift(), _orthogonal())


def digest(streams: tuple[Stream, ...]) -> str:
    """Hex digest of all bytes of the streams."""
    state = hashlib.blake2b(digest_size=16)
    for stream in streams:
        state.update(stream.name.encode())
        state.update(np.ascontiguousarray(stream.weights, dtype="<f8").tobytes())
        state.update(np.ascontiguousarray(stream.gradients, dtype="<f8").tobytes())
    return state.hexdigest()
