"""Matrix ops over lanes and parameter tensors against the op table's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ruleforge.backends.numba_matrix import Matrices, orthogonalize_lanes, rows
from ruleforge.core.ops import OPS

TABLE = OPS["orthogonalize"].meaning
SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(0, 9)), st.just(()),
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)), st.just((0, 4)),
    ),
    max_size=4,
)  # fmt: skip


def of_lanes(x: np.ndarray, shapes: list[tuple[int, ...]]) -> np.ndarray:
    offsets = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)]).astype(np.int64)
    out = np.full((len(x), 2, x.shape[1]), 7.0, x.dtype)
    orthogonalize_lanes(rows(x), rows(out[:, 1]), Matrices(shapes, offsets, x.dtype.type))
    assert (out[:, 0] == 7.0).all()
    return out[:, 1]


@settings(max_examples=60, deadline=None)
@given(
    shapes=SHAPES,
    lanes=st.integers(0, 3),
    seed=st.integers(0, 2**20),
    scale=st.sampled_from((1e-9, 1.0, 1e9)),
)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_equals_the_table(
    real: type, shapes: list[tuple[int, ...]], lanes: int, seed: int, scale: float
) -> None:
    sizes = [int(np.prod(shape)) for shape in shapes]
    x = (scale * np.random.default_rng(seed).normal(size=(lanes, sum(sizes)))).astype(real)
    out = of_lanes(x, shapes)
    tolerance = 1e-4 if real is np.float32 else 1e-12
    offsets = np.cumsum([0, *sizes])
    assert TABLE is not None
    for lane in range(lanes):
        for shape, lo, hi in zip(shapes, offsets[:-1], offsets[1:], strict=True):
            wanted = TABLE(x[lane, lo:hi].reshape(shape))
            np.testing.assert_allclose(
                out[lane, lo:hi].reshape(shape), wanted, atol=tolerance, rtol=tolerance
            )


@pytest.mark.parametrize("shape", [(16, 16), (24, 32), (64, 32), (10, 40), (24, 3)])
def test_single_precision_is_as_near_the_truth_as_a_librarys(shape: tuple[int, int]) -> None:
    assert TABLE is not None
    ours, librarys = [], []
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=shape)
        truth, single = TABLE(x), x.astype(np.float32)
        ours.append(np.abs(of_lanes(single.reshape(1, -1), [shape])[0].reshape(shape) - truth).max())
        librarys.append(np.abs(TABLE(single) - truth).max())
    assert np.median(ours) <= 2 * np.median(librarys)


ODD = [(17, 23), (1, 9), (31, 1), (3, 5), (17, 23), (5,), (24, 7), (1, 1)]


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_a_lane_does_not_depend_on_its_neighbours_or_on_how_many_they_are(real: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(37, sum(int(np.prod(shape)) for shape in ODD))).astype(real)
    together = of_lanes(x, ODD)
    for n_lanes in (1, 2, 7, 8, 9, 16, 17, 36):
        lanes = rng.permutation(len(x))[:n_lanes]
        assert (of_lanes(x[lanes], ODD) == together[lanes]).all()


def test_a_tensor_does_not_depend_on_the_others_of_its_lane() -> None:
    shapes = [(6, 6), (9,), (6, 6), (4, 8), (6, 6)]
    x = np.random.default_rng(0).normal(size=(3, 3 * 36 + 9 + 32)).astype(np.float32)
    out, lo = of_lanes(x, shapes), 0
    for shape in shapes:
        hi = lo + int(np.prod(shape))
        assert (of_lanes(x[:, lo:hi], [shape]) == out[:, lo:hi]).all()
        lo = hi


@pytest.mark.parametrize("shape", [(3, 4), (17, 23), (2, 2), (30, 3)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_lane_breaks_no_other(shape: tuple[int, int], bad: float) -> None:
    x = np.random.default_rng(0).normal(size=(19, shape[0] * shape[1])).astype(np.float32)
    whole = of_lanes(x, [shape])
    x[[4, 18], 1] = bad
    broken = of_lanes(x, [shape])
    assert np.isnan(broken[[4, 18]]).all()
    rest = [lane for lane in range(19) if lane not in (4, 18)]
    assert (broken[rest] == whole[rest]).all()


def test_may_work_in_place() -> None:
    x = np.random.default_rng(0).normal(size=(9, 5 * 7)).astype(np.float32)
    wanted = of_lanes(x, [(5, 7)])
    orthogonalize_lanes(rows(x), rows(x), Matrices([(5, 7)], np.array([0, 35], np.int64), np.float32))
    assert (x == wanted).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_whose_squares_single_precision_cannot_hold(scale: float) -> None:
    assert TABLE is not None
    x = (scale * np.random.default_rng(0).normal(size=(2, 6 * 8))).astype(np.float32)
    for made, given_lane in zip(of_lanes(x, [(6, 8)]), x, strict=True):
        np.testing.assert_allclose(made.reshape(6, 8), TABLE(given_lane.reshape(6, 8)), rtol=1e-4, atol=1e-5)


def test_what_is_not_finite_or_zero_goes_through() -> None:
    zero = np.zeros((1, 12), np.float32)
    assert (of_lanes(zero, [(3, 4)]) == 0).all()
    broken = zero.copy()
    broken[0, 5] = np.nan
    assert np.isnan(of_lanes(broken, [(3, 4)])).all()
