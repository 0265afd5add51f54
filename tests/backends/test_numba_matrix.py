"""Matrix ops over lanes and parameter tensors against the op table's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ruleforge.backends.numba_matrix import Matrices, orthogonalize_lanes
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
    orthogonalize_lanes(x[:, None], 0, out, 1, Matrices(shapes, offsets, x.dtype.type))
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


def test_a_lane_does_not_depend_on_its_neighbours() -> None:
    x = np.random.default_rng(0).normal(size=(5, 17 * 23)).astype(np.float32)
    together = of_lanes(x, [(17, 23)])
    for lane in range(5):
        assert (of_lanes(x[lane : lane + 1], [(17, 23)]) == together[lane]).all()


def test_what_is_not_finite_or_zero_goes_through() -> None:
    zero = np.zeros((1, 12), np.float32)
    assert (of_lanes(zero, [(3, 4)]) == 0).all()
    broken = zero.copy()
    broken[0, 5] = np.nan
    assert np.isnan(of_lanes(broken, [(3, 4)])).all()
