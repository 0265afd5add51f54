"""Matrix ops for many small matrices: equal shapes side by side, one matrix in each lane of a vector.

A row of a 10 × 12 matrix fills no vector. Here every element of a matrix is a vector, of as many matrices as
the processor multiplies at once: each shape runs at full width and without tails, a tall matrix differs from a
wide one in its strides alone, and a result cannot depend on the neighbours.

A Newton–Schulz step is M · y for g = y·yᵀ and M = a·I + b·g + c·g². With β = b / 2c and γ = a − c·β² that M is
c·(g + β·I)² + γ·I: a step is three products, two of them symmetric, that add to a diagonal at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic
from numpy.typing import NDArray

from ruleforge.backends.numba_loops import aligned, kept, pointer_to
from ruleforge.core import ops

_AVX512 = "+avx512f" in get_host_cpu_features()
VECTOR = 64 if _AVX512 else 32
"""Bytes of a vector."""
BLOCK = 4 if _AVX512 else 3
"""BLOCK² sums and what is added to them fit in the registers: 32 of AVX-512, 16 of AVX2."""
_merged = njit(error_model="numpy")


class _Vectors:
    """Emits what is done with the vectors of an array."""

    def __init__(self, context: Any, builder: Any, array: Any, value: Any) -> None:
        self.builder = builder
        self.item = array.dtype.bitwidth // 8
        self.lanes = VECTOR // self.item
        self.type = ir.VectorType(context.get_value_type(array.dtype), self.lanes)
        data = context.make_array(array)(context, builder, value).data
        self._start = builder.bitcast(data, self.type.as_pointer())

    def at(self, matrix: Any, i: Any, j: Any) -> Any:
        """Where element i, j of a matrix lies: (its first vector, stride of rows, stride of columns)."""
        first, down, across = matrix
        i, j = (first.type(k) if isinstance(k, int) else k for k in (i, j))
        add, mul = self.builder.add, self.builder.mul
        return self.builder.gep(self._start, [add(first, add(mul(down, i), mul(across, j)))])

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
    typingctx: Any, array: Any, corner: Any, size: Any, n: Any, left: Any, right: Any, out: Any,
    symmetric: Any, scale: Any, shift: Any,
) -> Any:  # fmt: skip
    """`out[i, j] = scale · Σₖ left[i, k] · right[j, k] + shift · [i = j]` for a block of at most BLOCK × BLOCK.

    If symmetric, `out[j, i]` as well. The sums stay in registers: there is a loop over k for each size.
    """

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = _Vectors(context, builder, array, args[0])
        n, symmetric, scale, shift = args[3], *args[7:]
        (top, first), (n_rows, n_columns), left, right, out = (
            cgutils.unpack_tuple(builder, args[k]) for k in (1, 2, 4, 5, 6)
        )
        on_diagonal = builder.icmp_signed("==", top, first)
        shift = vectors.spread(builder.select(on_diagonal, shift, shift.type(0)))
        scale = vectors.spread(scale)

        def emit(height: int, width: int) -> None:
            rows = [builder.add(top, top.type(i)) for i in range(height)]
            columns = [builder.add(first, first.type(j)) for j in range(width)]
            sums = {at: cgutils.alloca_once(builder, vectors.type) for at in product(range(height), range(width))}
            for place in sums.values():
                builder.store(vectors.type(None), place)
            with cgutils.for_range(builder, n) as loop:
                a = [vectors.load(vectors.at(left, row, loop.index)) for row in rows]
                b = [vectors.load(vectors.at(right, column, loop.index)) for column in columns]
                for (i, j), place in sums.items():
                    builder.store(vectors.add_product(builder.load(place), a[i], b[j]), place)
            made = {at: builder.fmul(scale, builder.load(place)) for at, place in sums.items()}
            made |= {at: builder.fadd(made[at], shift) for at in made if at[0] == at[1]}
            for (i, j), value in made.items():
                vectors.store(value, vectors.at(out, rows[i], columns[j]))
            with builder.if_then(symmetric):
                for (i, j), value in made.items():
                    vectors.store(value, vectors.at(out, columns[j], rows[i]))

        after = builder.append_basic_block("after")
        number = n.type
        switch = builder.switch(builder.add(builder.mul(n_rows, number(BLOCK + 1)), n_columns), after)
        for height, width in product(range(1, BLOCK + 1), repeat=2):
            case = builder.append_basic_block(f"block.{height}.{width}")
            switch.add_case(number(height * (BLOCK + 1) + width), case)
            builder.position_at_end(case)
            emit(height, width)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    pair, matrix, real = types.UniTuple(types.intp, 2), types.UniTuple(types.intp, 3), array.dtype
    kinds = (array, pair, pair, types.intp, matrix, matrix, matrix, types.boolean, real, real)
    return types.void(*kinds), lower


@intrinsic
def _normalize(typingctx: Any, array: Any, size: Any, eps: Any) -> Any:
    """Divide the first `size` vectors by their lanes' norms, summed in float64, or by eps if that is larger."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = _Vectors(context, builder, array, args[0])
        wide = ir.VectorType(ir.DoubleType(), vectors.lanes)
        origin, double = (args[1].type(0), args[1].type(0), args[1].type(1)), array.dtype == types.float64
        total = cgutils.alloca_once_value(builder, wide(None))
        builder.store(wide(None), total)
        with cgutils.for_range(builder, args[1]) as loop:
            x = vectors.load(vectors.at(origin, 0, loop.index))
            x = x if double else builder.fpext(x, wide)
            builder.store(vectors.add_product(builder.load(total), x, x), total)
        root = ir.FunctionType(wide, (wide,))
        root = cgutils.get_or_insert_function(builder.module, root, f"llvm.sqrt.v{vectors.lanes}f64")
        norm = builder.call(root, (builder.load(total),))
        norm = norm if double else builder.fptrunc(norm, vectors.type)
        least = vectors.spread(args[2])
        norm = builder.select(builder.fcmp_ordered("<", norm, least), least, norm)
        with cgutils.for_range(builder, args[1]) as loop:
            place = vectors.at(origin, 0, loop.index)
            vectors.store(builder.fdiv(vectors.load(place), norm), place)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), lower


@intrinsic
def _transpose(typingctx: Any, array: Any, sources: Any, source_at: Any, targets: Any, target_at: Any) -> Any:
    """A vector from each source to each target: number i of vector j becomes number j of vector i.

    Sources and targets are arrays of as many addresses as a vector has lanes, and bytes to add to each.
    """

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = _Vectors(context, builder, array, args[0])
        lanes = range(vectors.lanes)

        def pointers(addresses: Any, value: Any, at: Any) -> list[Any]:
            data = context.make_array(addresses)(context, builder, value).data
            found = [builder.load(builder.gep(data, [at.type(lane)])) for lane in lanes]
            return [builder.inttoptr(builder.add(f, at), vectors.type.as_pointer()) for f in found]

        rows = [vectors.load(pointer) for pointer in pointers(sources, args[1], args[2])]
        half = vectors.lanes // 2
        while half:  # the off-diagonal quarters change places, then those of each quarter, and so on
            upper = [k - half + vectors.lanes if k & half else k for k in lanes]
            lower = [k + vectors.lanes if k & half else k + half for k in lanes]
            mask = ir.VectorType(ir.IntType(32), vectors.lanes)
            for i in lanes:
                if not i & half:
                    pair = rows[i], rows[i + half]
                    rows[i] = builder.shuffle_vector(*pair, mask(upper))
                    rows[i + half] = builder.shuffle_vector(*pair, mask(lower))
            half //= 2
        for row, pointer in zip(rows, pointers(targets, args[3], args[4]), strict=True):
            vectors.store(row, pointer)
        return context.get_dummy_value()

    return types.void(array, sources, types.intp, targets, types.intp), lower


@_merged
def _product(
    work: Any, left: Any, right: Any, out: Any, shape: Any, symmetric: bool, scale: Any, shift: Any
) -> None:
    """`out = scale · left · rightᵀ + shift · I` in blocks; if symmetric, each pair of blocks once.

    `shape`: rows of `left`, rows of `right`, columns of both. `shift` is for symmetric products alone.
    """
    n_left, n_right, n = shape
    down, across = -(-n_left // BLOCK), -(-n_right // BLOCK)
    for p in range(down):
        i = n_left * p // down
        for q in range(p if symmetric else 0, across):
            j = n_right * q // across
            size = n_left * (p + 1) // down - i, n_right * (q + 1) // across - j
            _block(work, (i, j), size, n, left, right, out, symmetric, scale, shift)


@_merged
def _newton_schulz(work: Any, rows: int, columns: int, numbers: Any, eps: Any, steps: int) -> int:
    """The table's `orthogonalize` of the matrices at the start of `work`; where in it they lie afterwards."""
    beta, c, gamma, one, zero = numbers
    n, m = min(rows, columns), max(rows, columns)
    wide = rows <= columns  # a tall one is read as its transpose
    down, across = columns if wide else 1, 1 if wide else columns
    y, z = (0, down, across), (n * m, down, across)
    gram, mixed = (2 * n * m, n, 1), (2 * n * m + n * n, n, 1)
    _normalize(work, n * m, eps)
    for _ in range(steps):
        _product(work, y, y, gram, (n, n, m), True, one, beta)
        _product(work, gram, gram, mixed, (n, n, n), True, c, gamma)
        _product(work, mixed, (y[0], across, down), z, (n, m, n), False, one, zero)
        y, z = z, y
    return y[0]


@_merged
def _gather(work: Any, matrices: Any, vectors: Any, size: int) -> None:
    """The matrices at some addresses, into the lanes of the vectors at the start of `work`."""
    lanes = len(vectors)
    if size < lanes:
        for lane in range(lanes):
            for i in range(size):
                work[i * lanes + lane] = pointer_to(work, matrices[lane])[i]
    else:
        for i in range(0, size, lanes):
            i = min(i, size - lanes)
            _transpose(work, matrices, i * work.itemsize, vectors, i * VECTOR)


@_merged
def _scatter(work: Any, first: int, vectors: Any, matrices: Any, size: int) -> None:
    """The way back, from the vectors that begin with number `first`."""
    lanes = len(vectors)
    if size < lanes:
        for lane in range(lanes):
            for i in range(size):
                pointer_to(work, matrices[lane])[i] = work[(first + i) * lanes + lane]
    else:
        for i in range(0, size, lanes):
            i = min(i, size - lanes)
            _transpose(work, vectors, (first + i) * VECTOR, matrices, i * work.itemsize)


def _orthogonalize_lanes(
    given: Any, at: int, out: Any, to: int, shapes: Any, firsts: Any, places: Any, others: Any, work: Any,
    address: Any, numbers: Any, eps: Any, steps: int,
) -> None:  # fmt: skip
    """Arguments as attributes of `Matrices`."""
    item = given.itemsize
    lanes = VECTOR // item
    whole, read, written = address[0], address[1], address[2]
    for v in range(lanes):
        whole[v] = work.ctypes.data + v * VECTOR
    for k in range(len(shapes)):
        rows, columns = shapes[k]
        size, alike = rows * columns, places[firsts[k] : firsts[k + 1]]
        n_matrices = given.shape[0] * len(alike)
        for first in range(0, n_matrices, lanes):
            for v in range(lanes):  # the last vector is filled up with the last matrix
                lane, tensor = divmod(min(first + v, n_matrices - 1), len(alike))
                inner = alike[tensor] * item
                read[v] = given.ctypes.data + lane * given.strides[0] + at * given.strides[1] + inner
                written[v] = out.ctypes.data + lane * out.strides[0] + to * out.strides[1] + inner
            _gather(work, read, whole, size)
            made = _newton_schulz(work, rows, columns, numbers, eps, steps)
            _scatter(work, made, whole, written, size)
    for k in range(len(others)):
        lo, hi = others[k]
        for lane in range(given.shape[0]):
            out[lane, to, lo:hi] = given[lane, at, lo:hi]


@cache
def _kernel() -> Any:
    return kept(_orthogonalize_lanes, "matrix ops")


class Matrices:
    """What matrix ops need to know of the parameter tensors of a lane, and where they work.

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
        self.work = aligned(lanes * max((2 * (r * c + min(r, c) ** 2) for r, c in alike), default=0), real)
        self.address = np.zeros((3, lanes), np.int64)
        a, b, c = np.array(ops.NEWTON_SCHULZ, real).astype(float)
        beta = float(real(b / (2 * c)))
        self.numbers = np.array([beta, c, a - c * beta**2, 1, 0], real)
        self.eps = real(ops.NEWTON_SCHULZ_EPS)


def orthogonalize_lanes(given: NDArray[Any], at: int, out: NDArray[Any], to: int, matrices: Matrices) -> None:
    """The table's `orthogonalize` of every 2-D parameter tensor of every lane; other tensors are copied.

    Args:
        given, at: (L, N, P), contiguous, of the type of `matrices`, and which of the N is read.
        out, to: the same, and which is written.
        matrices: of a lane.
    """
    m = matrices
    _kernel()(
        given, at, out, to, m.shapes, m.firsts, m.places, m.others, m.work, m.address, m.numbers, m.eps,
        ops.NEWTON_SCHULZ_STEPS,
    )  # fmt: skip


def warm_up(real: Any) -> None:
    """Compile what a float type needs, or load it from numba's cache on disk."""
    none = np.zeros((0, 1, 0), real)
    orthogonalize_lanes(none, 0, none, 0, Matrices((), np.zeros(1, np.int64), real))
