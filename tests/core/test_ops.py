# ruff: noqa: E501 (tables)
"""The op table holds what its rows claim: meanings at the edges, facts by sampling, NaN to the end."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest

from ruleforge.core import ops
from ruleforge.core.build import RuleBuilder
from ruleforge.core.ops import COMMUTATIVE, CORE, OPS, RESERVED, SUGAR, TERMINALS, Op
from tests.core.literal import assert_same_bits

INF, NAN = math.inf, math.nan
ELEMENTWISE = [op for op in OPS.values() if op.kind == "elementwise"]
REDUCE = [op for op in OPS.values() if op.kind == "reduce"]
DTYPES = (np.float32, np.float64)
EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 0.5, 1e-30, -1e30, 5e-324, INF, -INF]


def ids(row: Op) -> str:
    return row.name


def apply(name: str, *args: float, dtype: type = np.float64) -> float:
    with np.errstate(all="ignore"):
        return float(OPS[name].meaning(*(dtype(arg) for arg in args)))


def samples(arity: int, dtype: type, *, seed: int = 0) -> list[np.ndarray]:
    """Ordinary values of all sizes and all pairs of edges, (n,) for each argument."""
    rng = np.random.default_rng(seed)
    edges = np.array(list(itertools.product(EDGES, repeat=arity))).T
    plain = rng.standard_normal((arity, 400)) * 10.0 ** rng.integers(-8, 8, (arity, 400))
    with np.errstate(all="ignore"):
        return list(
            np.concatenate([edges, plain, rng.uniform(-1.5, 1.5, (arity, 400))], axis=1).astype(dtype)
        )


# meanings at zero, at negatives and where a value ends

MEANINGS = [
    ("add", (INF, -INF), NAN), ("sub", (INF, INF), NAN), ("mul", (0, INF), NAN), ("mul", (-0.0, 3), -0.0),
    ("div", (1, 0), INF), ("div", (-1, 0), -INF), ("div", (1, -0.0), -INF), ("div", (0, 0), NAN),
    ("pow", (0, 0), 1), ("pow", (0, -1), INF), ("pow", (-2, 3), -8), ("pow", (-2, 0.5), NAN),
    ("pow", (-3, 2), 9), ("pow", (-0.0, 1), -0.0), ("pow", (INF, -1), 0), ("pow", (-INF, 2), INF),
    ("neg", (0,), -0.0), ("neg", (-INF,), INF), ("abs", (-0.0,), 0.0), ("abs", (-3,), 3),
    ("sign", (0,), 0), ("sign", (-0.0,), 0), ("sign", (-1e-300,), -1), ("sign", (INF,), 1),
    ("sqrt", (-1,), NAN), ("sqrt", (-0.0,), -0.0), ("sqrt", (INF,), INF), ("cbrt", (-8,), -2), ("cbrt", (0,), 0),
    ("exp", (0,), 1), ("exp", (-INF,), 0), ("exp", (1000,), INF), ("log", (0,), -INF), ("log", (-1,), NAN),
    ("log1p", (-1,), -INF), ("log1p", (-2,), NAN), ("log1p", (0,), 0), ("expm1", (-INF,), -1), ("expm1", (0,), 0),
    ("sin", (INF,), NAN), ("sin", (0,), 0), ("cos", (0,), 1), ("cos", (INF,), NAN), ("tan", (0,), 0),
    ("asin", (1,), math.pi / 2), ("asin", (2,), NAN), ("acos", (-1,), math.pi), ("acos", (2,), NAN),
    ("atan", (INF,), math.pi / 2), ("sinh", (-INF,), -INF), ("cosh", (-INF,), INF), ("tanh", (INF,), 1),
    ("floor", (-0.5,), -1), ("floor", (INF,), INF), ("floor", (-0.0,), -0.0),
    ("minimum", (0.0, -0.0), -0.0), ("minimum", (-0.0, 0.0), -0.0), ("minimum", (2, -INF), -INF),
    ("maximum", (0.0, -0.0), 0.0), ("maximum", (-0.0, 0.0), 0.0), ("maximum", (-0.0, -0.0), -0.0),
    ("atan2", (0, -1), math.pi), ("atan2", (-0.0, -1), -math.pi), ("atan2", (1, 0), math.pi / 2), ("atan2", (0, 0), 0),
    ("hypot", (3, -4), 5), ("hypot", (1e300, 1e300), math.sqrt(2) * 1e300),
    ("clip", (5, 0, 1), 1), ("clip", (-5, 0, 1), 0), ("clip", (0.5, 0, 1), 0.5), ("clip", (0.5, 1, 0), 0),
    ("lerp", (1, 3, 0.5), 2), ("lerp", (1e30, 1, 1), 0), ("lerp", (INF, 1, 0), NAN),
    ("where", (1, 2, 3), 2), ("where", (0, 2, 3), 3), ("where", (-0.0, 2, 3), 3), ("where", (-0.5, 2, 3), 2),
    ("where", (INF, 2, 3), 2), ("where", (1, 2, NAN), 2), ("where", (0, NAN, 3), 3),
    ("lt", (1, 2), 1), ("lt", (2, 2), 0), ("le", (2, 2), 1), ("gt", (0.0, -0.0), 0), ("ge", (0.0, -0.0), 1),
    ("eq", (0.0, -0.0), 1), ("eq", (INF, INF), 1), ("ne", (1, 2), 1), ("ne", (2, 2), 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "expected"), MEANINGS)
def test_what_an_op_means_at_its_edges(name: str, args: tuple[float, ...], expected: float) -> None:
    found = np.float64(apply(name, *args))
    if not math.isfinite(expected) or expected in (0, 1, -1):
        assert_same_bits(found, np.float64(expected), f"{name}{args}")
    assert found == pytest.approx(expected, rel=1e-15, nan_ok=True)


def test_every_elementwise_op_has_a_row_of_edges() -> None:
    assert {name for name, _, _ in MEANINGS} == {op.name for op in ELEMENTWISE}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ELEMENTWISE, ids=ids)
def test_the_dtype_of_the_arguments_is_kept(row: Op, dtype: type) -> None:
    with np.errstate(all="ignore"):
        assert np.asarray(row.meaning(*samples(row.arity, dtype))).dtype == dtype
        assert np.asarray(row.meaning(*(dtype(0.5),) * row.arity)).dtype == dtype


@pytest.mark.parametrize("row", [op for op in ELEMENTWISE if op.arity <= 2], ids=ids)
def test_a_number_and_an_array_give_the_same_bits(row: Op) -> None:
    args = [values[:144] for values in samples(row.arity, np.float64)]
    with np.errstate(all="ignore"):
        whole = np.asarray(row.meaning(*args))
        for i in range(0, len(args[0]), 7):
            alone = row.meaning(*(values[i] for values in args))
            assert np.isclose(alone, whole[i], rtol=1e-14, atol=0, equal_nan=True)


# NaN

NAN_STOPS_HERE = {  # IEEE says so, and a `where` reads only the branch that it takes
    ("pow", 0): lambda others: others[0] == 0,
    ("pow", 1): lambda others: others[0] == 1,
    ("hypot", 0): lambda others: math.isinf(others[0]),
    ("hypot", 1): lambda others: math.isinf(others[0]),
    ("where", 1): lambda others: others[0] == 0,
    ("where", 2): lambda others: others[0] != 0,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ELEMENTWISE, ids=ids)
def test_nan_propagates_through_every_argument(row: Op, dtype: type) -> None:
    for place in range(row.arity):
        stops = NAN_STOPS_HERE.get((row.name, place), lambda others: False)
        for others in itertools.product([0.0, -0.0, 1.0, -2.0, 0.5, INF, -INF], repeat=row.arity - 1):
            args = [*others[:place], NAN, *others[place:]]
            assert math.isnan(apply(row.name, *args, dtype=dtype)) != stops(others), (
                f"{row.name}{tuple(args)}"
            )


@pytest.mark.parametrize("row", REDUCE, ids=ids)
def test_nan_propagates_through_reductions(row: Op) -> None:
    x = np.array([1.0, NAN, 2.0])
    assert np.isnan(row.meaning(*(x,) * row.arity))


# facts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [op for op in ELEMENTWISE if op.arity == 2], ids=ids)
def test_commutative_means_bit_for_bit_and_nothing_else_is(row: Op, dtype: type) -> None:
    a, b = samples(2, dtype)
    with np.errstate(all="ignore"):
        there, back = np.asarray(row.meaning(a, b)), np.asarray(row.meaning(b, a))
    if row.commutative:
        assert_same_bits(there, back, row.name)
    else:
        assert not np.array_equal(there, back, equal_nan=True)


def test_dot_is_commutative_bit_for_bit() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 1001)).astype(np.float32)
    assert OPS["dot"].commutative
    assert_same_bits(OPS["dot"].meaning(a, b), OPS["dot"].meaning(b, a))


def tensors(n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 7)) * 10.0 ** rng.integers(-3, 3, (n, 1))


ONE_ARGUMENT = [op for op in OPS.values() if op.meaning is not None and op.arity == 1 and op.kind != "matrix"]


def of_one(row: Op, x: np.ndarray) -> np.ndarray:
    """An op of one argument on each element, or on each row of a matrix."""
    with np.errstate(all="ignore"):
        return np.array([row.meaning(v) for v in x]) if row.kind == "reduce" else np.asarray(row.meaning(x))


@pytest.mark.parametrize("row", ONE_ARGUMENT, ids=ids)
def test_parity(row: Op) -> None:
    x = tensors() if row.kind == "reduce" else samples(1, np.float64)[0]
    there, back = of_one(row, x), of_one(row, -x)
    same = np.allclose(there, back, rtol=1e-14, atol=0, equal_nan=True)
    opposite = np.allclose(there, -back, rtol=1e-14, atol=0, equal_nan=True)
    assert (same and not opposite) == (row.parity == "even")
    assert (opposite and not same) == (row.parity == "odd")


@pytest.mark.parametrize("row", [op for op in ELEMENTWISE if op.arity == 1], ids=ids)
def test_monotone(row: Op) -> None:
    x = np.sort(np.concatenate([np.linspace(-30, 30, 4001), samples(1, np.float64)[0]]))
    y = of_one(row, x)
    y = y[~np.isnan(y)]
    step = np.diff(y[np.isfinite(y)])
    slack = 4e-16 * np.abs(y[np.isfinite(y)][1:])
    rises, falls = bool(np.all(step >= -slack)), bool(np.all(step <= slack))
    assert row.monotone == rises - falls


@pytest.mark.parametrize("row", [op for op in OPS.values() if op.meaning and op.kind != "matrix"], ids=ids)
def test_degree(row: Op) -> None:
    rng = np.random.default_rng(2)
    args = [rng.uniform(0.1, 3, 64) * rng.choice([-1, 1], 64) for _ in row.params]
    if row.name in ("where", "clip", "lerp") or row.bounds == (0, 1):
        assert row.degree is None  # homogeneous in some arguments alone, or not claimed
        return
    degrees = set()
    with np.errstate(all="ignore"):
        for c in (0.25, 8.0):
            before = np.asarray(row.meaning(*args))
            after = np.asarray(row.meaning(*(c * arg for arg in args)))
            fine = np.isfinite(before) & (before != 0) & np.isfinite(after)
            ratio = np.log(np.abs(after[fine] / before[fine])) / np.log(c)
            degrees |= set(np.round(np.atleast_1d(ratio), 6))
            assert np.array_equal(np.sign(before[fine]), np.sign(after[fine])) or row.degree is None
    if row.degree is None:
        assert len(degrees) > 1
    else:
        assert degrees == {round(row.degree, 6)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [op for op in OPS.values() if op.bounds], ids=ids)
def test_bounds_hold_and_are_reached(row: Op, dtype: type) -> None:
    low, high = (dtype(v) for v in row.bounds)
    if row.kind == "reduce":
        y = of_one(row, np.concatenate([tensors(), np.zeros((1, 7)), np.full((1, 7), INF)]).astype(dtype))
    else:
        with np.errstate(all="ignore"):
            y = np.asarray(row.meaning(*samples(row.arity, dtype)))
    y = y[~np.isnan(y)]
    assert np.all((y >= low) & (y <= high))
    assert y.min() == pytest.approx(float(low), abs=1e-3) and (
        y.max() > 1e30 or y.max() == pytest.approx(float(high), abs=1e-3)
    )


@pytest.mark.parametrize("row", [op for op in ELEMENTWISE if not op.domain], ids=ids)
def test_without_a_domain_moderate_arguments_give_finite_values(row: Op) -> None:
    rng = np.random.default_rng(3)
    args = [np.concatenate([[0.0, -0.0, 1.0, -1.0], rng.uniform(-20, 20, 300)]) for _ in row.params]
    assert np.all(np.isfinite(row.meaning(*args)))


@pytest.mark.parametrize("row", [op for op in ELEMENTWISE if op.domain], ids=ids)
def test_outside_its_domain_an_op_is_not_finite_somewhere(row: Op) -> None:
    with np.errstate(all="ignore"):
        values = np.asarray(row.meaning(*(np.array([0.0, -1.0, -2.0, 2.0, -0.5]),) * row.arity))
    assert not np.all(np.isfinite(values))


def test_the_cheapest_ops_are_single_additions_and_nothing_is_free() -> None:
    assert {op.flops for op in OPS.values() if op.name in ("add", "sub", "mul", "neg", "abs")} == {1}
    assert all(op.flops >= 1 for op in OPS.values() if op.meaning)


# reductions and the matrix op


def test_reductions_are_summed_in_float64_and_rounded_once() -> None:
    x = np.full(2**20, 0.1, dtype=np.float32)
    exact = float(np.float64(x[0])) * x.size
    assert OPS["mean"].meaning(x) == np.float32(exact / x.size)
    assert OPS["norm"].meaning(x) == np.float32(math.sqrt(float(np.float64(x[0])) ** 2 * x.size))
    assert OPS["max_abs"].meaning(np.array([1, -3, 2], dtype=np.float32)) == 3


def test_reductions_of_an_empty_tensor_are_zero() -> None:
    empty = np.zeros((0, 3), dtype=np.float32)
    for row in REDUCE:
        value = row.meaning(*(empty,) * row.arity)
        assert value == 0 and value.dtype == np.float32


def test_orthogonalize_brings_singular_values_near_one_and_leaves_vectors_alone() -> None:
    meaning = OPS["orthogonalize"].meaning
    rng = np.random.default_rng(4)
    for shape in ((6, 9), (9, 6), (5, 5)):
        x = rng.standard_normal(shape)
        y = meaning(x)
        assert y.shape == shape and np.allclose(meaning(-x), -y)
        assert np.all(np.abs(np.linalg.svd(y, compute_uv=False) - 1) < 0.4)
        assert np.allclose(meaning(8.0 * x), y, rtol=1e-6)  # degree 0
    v = rng.standard_normal(4)
    assert meaning(v) is v
    assert np.all(meaning(np.zeros((3, 3))) == 0)


# derived ops and sugar


DERIVED = {
    "square": lambda x: x * x, "cube": lambda x: x * x * x, "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / np.sqrt(x), "ratio": lambda a, b, eps: a / (b + eps), "agree": lambda a, b: a * b > 0,
    "cautious": lambda x, y: x * (x * y > 0) / max(np.mean(x * y > 0), 1e-3),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "softsign": lambda x: x / (1 + abs(x)),
    "signed_sqrt": lambda x: np.sign(x) * np.sqrt(abs(x)), "softplus": lambda x: np.log1p(np.exp(x)),
    "log_scale": lambda x: np.sign(x) * np.log1p(abs(x)),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_derived_ops_mean_their_formula(name: str) -> None:
    from ruleforge.core import expr as ex

    values = [0.7, 1.3, 0.2][: OPS[name].arity]
    built = RuleBuilder().apply(name, *(ex.const(v) for v in values))
    seen = {}
    for item in ex.walk([built]):
        seen[item] = (
            np.float64(item.number) if not item.args else OPS[item.op].meaning(*(seen[a] for a in item.args))
        )
    assert float(seen[built]) == float(DERIVED[name](*values))


def test_graft_and_equalize_mean_their_formulas() -> None:
    from ruleforge.backends.base import Layout
    from ruleforge.backends.numpy_block import NumpyBlock
    from ruleforge.core.program import compile_rule
    from ruleforge.core.rule import Rule

    rng = np.random.default_rng(0)
    g, w = rng.normal(size=(2, 1, 12))
    layout = Layout(("matrix",), ((4, 3),))

    def update(text: str) -> np.ndarray:
        block = NumpyBlock(
            compile_rule(Rule.parse(f"update = {text}\n")), layout, np.zeros((0, 1)), np.array([0.1])
        )
        return block.step(w, g, t=1, lr=np.array([0.1]), progress=1.0).reshape(4, 3)

    given = g.reshape(4, 3)
    grafted = given * np.linalg.norm(w) / np.linalg.norm(given)
    np.testing.assert_allclose(update("graft(g, w)"), grafted, rtol=1e-12)
    assert (update("graft(0 * g, w)") == 0).all()
    equal = update("equalize(g)")
    assert np.isclose(np.linalg.norm(equal), np.linalg.norm(given))
    values = np.linalg.svd(equal, compute_uv=False)  # five Newton-Schulz steps stop near 1, not at it
    assert values.max() / values.min() < 2


def test_every_derived_op_is_checked_here_or_expands_to_tensors() -> None:
    derived = {op.name for op in OPS.values() if op.kind == "derived"}
    assert derived - set(DERIVED) == {"normalize", "clip_norm", "ema_hat", "graft", "equalize"}


def test_the_table_lists_itself() -> None:
    assert set(CORE) == {op.name for op in OPS.values() if op.kind in ("elementwise", "reduce", "matrix")}
    assert set(SUGAR) == {"ema", "trace", "total", "running_max", "prev"}
    assert {"add", "mul", "minimum", "maximum", "hypot", "eq", "ne", "dot"} == COMMUTATIVE
    assert OPS["pow"].symbol == "**" and OPS["sub"].symbol == OPS["neg"].symbol == "-"
    assert set(TERMINALS) | set(OPS) <= RESERVED
    assert all(op.doc for op in OPS.values())
    assert all(re.fullmatch(r"[a-z_0-9]+", name) for name in OPS)
    assert OPS["ema"].signature == "ema(x, beta)" and OPS["ema"].param_names == ("x", "beta")


def test_latex_templates_take_their_arguments() -> None:
    for op in OPS.values():
        if op.latex:
            shown = op.latex.format(*(f"ARG{i}" for i in range(op.arity)))
            assert all(f"ARG{i}" in shown for i in range(op.arity)), op.name


def test_a_table_that_contradicts_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = ops._ROWS
    for bad, message in (
        ((*good, good[0]), "share a name"),
        ((*good, Op("twice", "derived", ("x",), np.abs, expansion="x")), "exactly one"),
        ((*good, dataclasses.replace(OPS["abs"], name="abs2", latex="")), "LaTeX"),
    ):
        monkeypatch.setattr(ops, "_ROWS", bad)
        monkeypatch.setattr(ops, "OPS", {row.name: row for row in bad})
        with pytest.raises(ValueError, match=message):
            ops.check_table()
