"""Matrix ops for many small matrices: compiled loops over lanes and parameter tensors, one call for all.

A library's matrix product costs half a microsecond before it multiplies anything, and Newton–Schulz takes
fifteen of them; small matrices are multiplied by then. Products here go four rows by four at a time along
contiguous rows, which LLVM vectorizes; a · b + c is contracted, as in any BLAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ruleforge.backends.numba_loops import kept
from ruleforge.core import ops

CONTRACT = {"contract"}
_product = njit(fastmath=CONTRACT, error_model="numpy")


@_product
def _multiply(left: Any, right: Any, out: Any) -> None:
    """`out = left @ right` for C-contiguous matrices that share no memory."""
    (n, k), m = left.shape, right.shape[1]
    whole_n, whole_k = n - n % 4, k - k % 4
    out[:] = 0
    for i in range(0, whole_n, 4):
        a, b, c, d = left[i], left[i + 1], left[i + 2], left[i + 3]
        to_a, to_b, to_c, to_d = out[i], out[i + 1], out[i + 2], out[i + 3]
        for p in range(0, whole_k, 4):
            r0, r1, r2, r3 = right[p], right[p + 1], right[p + 2], right[p + 3]
            a0, a1, a2, a3 = a[p], a[p + 1], a[p + 2], a[p + 3]
            b0, b1, b2, b3 = b[p], b[p + 1], b[p + 2], b[p + 3]
            c0, c1, c2, c3 = c[p], c[p + 1], c[p + 2], c[p + 3]
            d0, d1, d2, d3 = d[p], d[p + 1], d[p + 2], d[p + 3]
            for j in range(m):
                x0, x1, x2, x3 = r0[j], r1[j], r2[j], r3[j]
                to_a[j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                to_b[j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                to_c[j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                to_d[j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
        for p in range(whole_k, k):
            r0, a0, b0, c0, d0 = right[p], a[p], b[p], c[p], d[p]
            for j in range(m):
                x0 = r0[j]
                to_a[j] += a0 * x0
                to_b[j] += b0 * x0
                to_c[j] += c0 * x0
                to_d[j] += d0 * x0
    for i in range(whole_n, n):
        a, to_a = left[i], out[i]
        for p in range(k):
            r0, a0 = right[p], a[p]
            for j in range(m):
                to_a[j] += a0 * r0[j]


@_product
def _newton_schulz(
    x: Any, out: Any, rows: int, columns: int, work: Any, factors: Any, eps: Any, steps: int
) -> None:
    """The table's `orthogonalize` of one matrix of `rows` × `columns`, not empty, in flat arrays."""
    a, b, c = factors[0], factors[1], factors[2]
    tall = rows > columns
    n, m = (columns, rows) if tall else (rows, columns)
    size = n * m
    y, z = work[:size].reshape(n, m), work[size : 2 * size].reshape(n, m)
    turned = work[2 * size : 3 * size].reshape(m, n)
    gram = work[3 * size : 3 * size + n * n].reshape(n, n)
    mixed = work[3 * size + n * n : 3 * size + 2 * n * n].reshape(n, n)
    total = 0.0
    for k in range(size):
        total += np.float64(x[k]) * np.float64(x[k])
    work[0] = np.sqrt(total)  # rounded to the matrix's own type
    norm = eps if work[0] < eps else work[0]
    for i in range(n):
        for j in range(m):
            y[i, j] = (x[j * n + i] if tall else x[i * m + j]) / norm
    for _ in range(steps):
        for i in range(n):
            for j in range(m):
                turned[j, i] = y[i, j]
        _multiply(y, turned, gram)
        _multiply(gram, gram, mixed)
        for i in range(n):
            for j in range(n):
                mixed[i, j] = b * gram[i, j] + c * mixed[i, j]
            mixed[i, i] += a
        _multiply(mixed, y, z)
        y, z = z, y
    for i in range(n):
        for j in range(m):
            out[j * n + i if tall else i * m + j] = y[i, j]


def _orthogonalize_lanes(
    given: Any,
    at: int,
    out: Any,
    to: int,
    offsets: Any,
    shapes: Any,
    work: Any,
    factors: Any,
    eps: Any,
    steps: int,
) -> None:
    for lane in range(given.shape[0]):
        for tensor in range(shapes.shape[0]):
            lo, hi = offsets[tensor], offsets[tensor + 1]
            x, y = given[lane, at, lo:hi], out[lane, to, lo:hi]
            if shapes[tensor, 0] > 0 and hi > lo:
                _newton_schulz(x, y, shapes[tensor, 0], shapes[tensor, 1], work, factors, eps, steps)
            else:
                y[:] = x


@cache
def _kernel() -> Any:
    return kept(_orthogonalize_lanes, "matrix ops", fastmath=CONTRACT)


class Matrices:
    """What matrix ops need to know of the parameter tensors of a lane, and where they work.

    Args:
        shapes, offsets: of the parameter tensors, and where they begin, as in `Layout`.
        real: numpy's float32 or float64.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], offsets: NDArray[np.int64], real: Any) -> None:
        self.offsets = offsets
        sizes = [shape if len(shape) == 2 else (0, 0) for shape in shapes]
        self.shapes = np.array(sizes, np.int64).reshape(-1, 2)
        self.work = np.empty(max((3 * r * c + 2 * min(r, c) ** 2 for r, c in sizes), default=0), real)
        self.factors = np.array(ops.NEWTON_SCHULZ, real)
        self.eps = real(ops.NEWTON_SCHULZ_EPS)


def orthogonalize_lanes(given: NDArray[Any], at: int, out: NDArray[Any], to: int, matrices: Matrices) -> None:
    """The table's `orthogonalize` of every 2-D parameter tensor of every lane; other tensors are copied.

    Args:
        given, at: (L, N, P), contiguous, of the type of `matrices`, and which of the N is read.
        out, to: the same, and which is written.
        matrices: of a lane.
    """
    m = matrices
    _kernel()(given, at, out, to, m.offsets, m.shapes, m.work, m.factors, m.eps, ops.NEWTON_SCHULZ_STEPS)


def warm_up(real: Any) -> None:
    """Compile what a float type needs, or load it from numba's cache on disk."""
    none = np.zeros((0, 1, 0), real)
    orthogonalize_lanes(none, 0, none, 0, Matrices((), np.zeros(1, np.int64), real))
