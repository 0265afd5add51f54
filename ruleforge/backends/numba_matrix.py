"""Matrix ops for many small matrices: equal shapes side by side, one matrix in each lane of a vector.

A row of a 10 × 12 matrix fills no vector. Here each element of a matrix is a vector, of as many matrices as
the processor multiplies at once: every shape runs at full width and without tails, and what becomes of a
matrix cannot depend on its neighbours. Matrices lie in bands of a few rows, a band column by column, so the
product of two bands reads memory straight on; a tall one is read as its transpose.

A Newton–Schulz step is M · y with M = a·I + b·g + c·g² and g = y · yᵀ. For β = b / 2c and γ = a − c·β² that M
is c · (g + β·I)² + γ·I: three products, two of them symmetric, and nothing between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic
from numpy.typing import NDArray

from ruleforge.backends.numba_loops import aligned, compiled, kept
from ruleforge.backends.numba_pointers import pointer_to
from ruleforge.core import ops

_AVX512 = "+avx512f" in get_host_cpu_features()
VECTOR = 64 if _AVX512 else 32
"""Bytes of a vector."""
BLOCK = 4 if _AVX512 else 3
"""Rows of a band at most: BLOCK² sums and what they are made of fit in 32 registers, or in the 16 of AVX2."""


class _Vectors:
    """Emits what is done with the vectors of an array."""

    def __init__(self, context: Any, builder: Any, array: Any, value: Any) -> None:
        self.builder = builder
        self.item = array.dtype.bitwidth // 8
        self.lanes = VECTOR // self.item
        self.type = ir.VectorType(context.get_value_type(array.dtype), self.lanes)
        data = context.make_array(array)(context, builder, value).data
        self._start = builder.bitcast(data, self.type.as_pointer())

    def at(self, place: Any, further: int = 0) -> Any:
        """A pointer to a vector."""
        return self.builder.gep(self._start, [self.builder.add(place, place.type(further))])

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=self.item)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer, align=self.item)

    def add_product(self, total: Any, a: Any, b: Any) -> Any:
        """total + a · b, rounded once where the processor can."""
        return self.builder.fadd(total, self.builder.fmul(a, b, flags=["contract"]), flags=["contract"])

    def spread(self, number: Any) -> Any:
        """A number in every lane."""
        index = ir.IntType(32)
        one = self.builder.insert_element(self.type(ir.Undefined), number, index(0))
        return self.builder.shuffle_vector(one, one, ir.VectorType(index, self.lanes)([0] * self.lanes))


@intrinsic
def _block(
    typingctx: Any, array: Any, height: Any, width: Any, n: Any, left: Any, right: Any, out: Any, turned: Any,
    scale: Any, shift: Any,
) -> Any:  # fmt: skip
    """`scale · Σₖ left[i, k] · right[j, k] + shift · [i = j]` of two bands; the sums stay in registers.

    The bands have `height` and `width` rows of n and begin at `left` and `right`. The result is written as a
    piece of a band to `out`, and its transpose to `turned`.
    """

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, height, width, n, left, right, out, turned, scale, shift = args
        vectors = _Vectors(context, builder, array, args[0])
        scale, shift = vectors.spread(scale), vectors.spread(shift)

        def emit(h: int, w: int) -> None:
            zero = vectors.type(None)
            sums = {at: cgutils.alloca_once_value(builder, zero) for at in product(range(h), range(w))}
            with cgutils.for_range(builder, n) as loop:
                lefts = builder.add(left, builder.mul(loop.index, n.type(h)))
                rights = builder.add(right, builder.mul(loop.index, n.type(w)))
                a = [vectors.load(vectors.at(lefts, i)) for i in range(h)]
                b = [vectors.load(vectors.at(rights, j)) for j in range(w)]
                for (i, j), total in sums.items():
                    builder.store(vectors.add_product(builder.load(total), a[i], b[j]), total)
            for (i, j), total in sums.items():
                made = builder.fmul(scale, builder.load(total))
                made = builder.fadd(made, shift) if i == j else made
                vectors.store(made, vectors.at(out, j * h + i))
                vectors.store(made, vectors.at(turned, i * w + j))

        after = builder.append_basic_block("after")
        switch = builder.switch(builder.add(builder.mul(height, n.type(BLOCK + 1)), width), after)
        for h, w in product(range(1, BLOCK + 1), repeat=2):
            case = builder.append_basic_block(f"block.{h}.{w}")
            switch.add_case(n.type(h * (BLOCK + 1) + w), case)
            builder.position_at_end(case)
            emit(h, w)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(array, *(types.intp,) * 7, array.dtype, array.dtype), lower


@intrinsic
def _normalize(typingctx: Any, array: Any, size: Any, eps: Any) -> Any:
    """Divide the first vectors by their lanes' norms, summed in float64, or by eps where that is larger."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, size, eps = args
        vectors = _Vectors(context, builder, array, args[0])
        wide = ir.VectorType(ir.DoubleType(), vectors.lanes)
        double = array.dtype == types.float64
        total = cgutils.alloca_once_value(builder, wide(None))
        with cgutils.for_range(builder, size) as loop:
            x = vectors.load(vectors.at(loop.index))
            x = x if double else builder.fpext(x, wide)
            builder.store(vectors.add_product(builder.load(total), x, x), total)
        kind = ir.FunctionType(wide, (wide,))
        root = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{vectors.lanes}f64")
        norm = builder.call(root, (builder.load(total),))
        norm = norm if double else builder.fptrunc(norm, vectors.type)
        least = vectors.spread(eps)
        norm = builder.select(builder.fcmp_ordered("<", norm, least), least, norm)
        with cgutils.for_range(builder, size) as loop:
            pointer = vectors.at(loop.index)
            vectors.store(builder.fdiv(vectors.load(pointer), norm), pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), lower


@intrinsic
def _copy(typingctx: Any, array: Any, source: Any, target: Any) -> Any:
    """Copy one vector."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = _Vectors(context, builder, array, args[0])
        vectors.store(vectors.load(vectors.at(args[1])), vectors.at(args[2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), lower


@intrinsic
def _transpose(typingctx: Any, array: Any, sources: Any, source_at: Any, targets: Any, target_at: Any) -> Any:
    """A vector from each source to each target: number i of vector j becomes number j of vector i.

    Sources and targets are arrays of as many addresses as a vector has lanes, and bytes to add to each.
    """

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = _Vectors(context, builder, array, args[0])
        lanes = range(vectors.lanes)
        mask = ir.VectorType(ir.IntType(32), vectors.lanes)

        def pointers(addresses: Any, value: Any, at: Any) -> list[Any]:
            data = context.make_array(addresses)(context, builder, value).data
            found = [builder.load(builder.gep(data, [at.type(lane)])) for lane in lanes]
            return [builder.inttoptr(builder.add(f, at), vectors.type.as_pointer()) for f in found]

        rows = [vectors.load(pointer) for pointer in pointers(sources, *args[1:3])]
        half = vectors.lanes // 2
        while half:  # two quarters of the square change places, then two of each quarter, and so on
            upper = mask([k - half + vectors.lanes if k & half else k for k in lanes])
            lower = mask([k + vectors.lanes if k & half else k + half for k in lanes])
            for i in lanes:
                if not i & half:
                    pair = rows[i], rows[i + half]
                    rows[i], rows[i + half] = (builder.shuffle_vector(*pair, m) for m in (upper, lower))
            half //= 2
        for row, pointer in zip(rows, pointers(targets, *args[3:5]), strict=True):
            vectors.store(row, pointer)
        return context.get_dummy_value()

    return types.void(array, sources, types.intp, targets, types.intp), lower


@compiled
def _gather(work: Any, matrices: Any, vectors: Any, size: int) -> None:
    """The matrices at some addresses, into the lanes of the first vectors."""
    lanes = len(vectors)
    if size < lanes:
        for lane in range(lanes):
            for i in range(size):
                work[i * lanes + lane] = pointer_to(work, matrices[lane])[i]
    else:
        for start in range(0, size, lanes):
            i = min(start, size - lanes)
            _transpose(work, matrices, i * work.itemsize, vectors, i * VECTOR)


@compiled
def _scatter(work: Any, vectors: Any, matrices: Any, size: int) -> None:
    """The way back."""
    lanes = len(vectors)
    if size < lanes:
        for lane in range(lanes):
            for i in range(size):
                pointer_to(work, matrices[lane])[i] = work[i * lanes + lane]
    else:
        for start in range(0, size, lanes):
            i = min(start, size - lanes)
            _transpose(work, vectors, i * VECTOR, matrices, i * work.itemsize)


@compiled
def _bands(n: int) -> tuple[int, int, int]:
    """How many bands n rows are divided into, how many rows each has, and how many bands have one more."""
    n_bands = -(-n // BLOCK)
    return n_bands, n // n_bands, n % n_bands


@compiled
def _band(number: int, rows: int, longer: int) -> tuple[int, int]:
    """The first row of a band and how many it has; the longer ones come first. Divides nothing."""
    return number * rows + min(number, longer), rows + (number < longer)


@compiled
def _rearrange(
    work: Any, plain: int, down: int, across: int, rows: int, columns: int, banded: int, back: bool
) -> None:
    """Copy a matrix whose elements lie at strides into bands, or back."""
    n_bands, least, longer = _bands(rows)
    for p in range(n_bands):
        first, height = _band(p, least, longer)
        for i in range(height):
            for k in range(columns):
                place = plain + (first + i) * down + k * across
                in_band = banded + first * columns + k * height + i
                if back:
                    _copy(work, in_band, place)
                else:
                    _copy(work, place, in_band)


@compiled
def _product(
    work: Any, left: int, n_left: int, right: int, n_right: int, n: int, out: int, turned: int, scale: Any,
    shift: Any,
) -> None:  # fmt: skip
    """`out = scale · left · rightᵀ + shift · I` and its transpose, for factors of n columns.

    A matrix by its own transpose is computed by half: `out` and `turned` are one.
    """
    left_bands, left_rows, left_longer = _bands(n_left)
    right_bands, right_rows, right_longer = _bands(n_right)
    for p in range(left_bands):
        i, height = _band(p, left_rows, left_longer)
        for q in range(p if left == right else 0, right_bands):
            j, width = _band(q, right_rows, right_longer)
            _block(
                work, height, width, n, left + i * n, right + j * n,
                out + i * n_right + j * height, turned + j * n_left + i * width,
                scale, shift if i == j else work.dtype.type(0),
            )  # fmt: skip


@compiled
def _newton_schulz(work: Any, rows: int, columns: int, numbers: Any, eps: Any, steps: int) -> None:
    """The table's `orthogonalize` of the matrices in the first vectors, which it overwrites."""
    beta, c, gamma, one, zero = numbers
    n, m = min(rows, columns), max(rows, columns)
    size = n * m
    down, across = columns, 1
    if rows > columns:
        down, across = across, down
    y, turned, next_turned, gram, mixed = 2 * size, size, 0, 3 * size, 3 * size + n * n
    _normalize(work, size, eps)
    _rearrange(work, 0, down, across, n, m, y, False)
    _rearrange(work, 0, across, down, m, n, turned, False)
    for _ in range(steps):
        _product(work, y, n, y, n, m, gram, gram, one, beta)
        _product(work, gram, n, gram, n, n, mixed, mixed, c, gamma)
        _product(work, mixed, n, turned, m, n, y, next_turned, one, zero)
        turned, next_turned = next_turned, turned
    _rearrange(work, 0, down, across, n, m, y, True)


def _orthogonalize_lanes(
    sources: Any, targets: Any, shapes: Any, firsts: Any, places: Any, others: Any, work: Any, address: Any,
    numbers: Any, eps: Any, steps: int,
) -> None:  # fmt: skip
    """Arguments: as of `orthogonalize_lanes`, and attributes of `Matrices`."""
    item = work.itemsize
    lanes = VECTOR // item
    whole, read, written = address[0], address[1], address[2]
    for v in range(lanes):
        whole[v] = work.ctypes.data + v * VECTOR
    for k in range(len(shapes)):
        rows, columns = shapes[k]
        size, alike = rows * columns, places[firsts[k] : firsts[k + 1]]
        n_matrices = len(sources) * len(alike)
        for first in range(0, n_matrices, lanes):
            for v in range(lanes):  # the last vector is filled up with the last matrix
                lane, tensor = divmod(min(first + v, n_matrices - 1), len(alike))
                read[v] = sources[lane] + alike[tensor] * item
                written[v] = targets[lane] + alike[tensor] * item
            _gather(work, read, whole, size)
            _newton_schulz(work, rows, columns, numbers, eps, steps)
            _scatter(work, whole, written, size)
    for k in range(len(others)):
        lo, hi = others[k]
        for lane in range(len(sources)):
            given, out = pointer_to(work, sources[lane]), pointer_to(work, targets[lane])
            for i in range(lo, hi):
                out[i] = given[i]


@cache
def _kernel() -> Any:
    return kept(_orthogonalize_lanes, "matrix ops")


class Matrices:
    """What matrix ops need to know of the parameter tensors of a lane, and where they work.

    2-D tensors are listed by shape, since matrices of one shape share vectors.

    Args:
        shapes, offsets: of the parameter tensors, and where they begin, as in `Layout`.
        real: numpy's float32 or float64.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], offsets: NDArray[np.int64], real: Any) -> None:
        alike: dict[tuple[int, ...], list[int]] = {}
        others = []
        for shape, lo, hi in zip(shapes, offsets[:-1], offsets[1:], strict=True):
            if len(shape) == 2 and hi > lo:
                alike.setdefault(shape, []).append(lo)
            else:
                others.append((lo, hi))
        lanes = VECTOR // np.dtype(real).itemsize
        self.shapes = np.array(list(alike), np.int64).reshape(-1, 2)
        self.places = np.array([lo for found in alike.values() for lo in found], np.int64)
        self.firsts = np.cumsum([0, *(len(found) for found in alike.values())], dtype=np.int64)
        self.others = np.array(others, np.int64).reshape(-1, 2)
        self.work = aligned(lanes * max((3 * r * c + 2 * min(r, c) ** 2 for r, c in alike), default=0), real)
        self.address = np.zeros((3, lanes), np.int64)
        a, b, c = (float(real(k)) for k in ops.NEWTON_SCHULZ)
        beta = float(real(b / (2 * c)))  # as it is used, so that a comes out right
        self.numbers = np.array([beta, c, a - c * beta**2, 1, 0], real)
        self.eps = real(ops.NEWTON_SCHULZ_EPS)


def rows(array: NDArray[Any]) -> NDArray[np.int64]:
    """The addresses of an array's rows."""
    return array.ctypes.data + np.arange(len(array), dtype=np.int64) * array.strides[0]


def orthogonalize_lanes(sources: NDArray[np.int64], targets: NDArray[np.int64], matrices: Matrices) -> None:
    """The table's `orthogonalize` of every 2-D parameter tensor of every lane; other tensors are copied.

    Args:
        sources: addresses of what is read, (L,): the parameters of a lane, of the type of `matrices`.
        targets: of what is written.
        matrices: of a lane.
    """
    m = matrices
    _kernel()(
        sources, targets, m.shapes, m.firsts, m.places, m.others, m.work, m.address, m.numbers, m.eps,
        ops.NEWTON_SCHULZ_STEPS,
    )  # fmt: skip


def warm_up(real: Any) -> None:
    """Compile what a float type needs, or load it from numba's cache on disk."""
    none = np.zeros(0, np.int64)
    orthogonalize_lanes(none, none, Matrices((), np.zeros(1, np.int64), real))
