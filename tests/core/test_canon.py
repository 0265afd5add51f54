"""One rule, one key: invariant under every disguise, and nothing in it changes a bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core import expr as ex
from ruleforge.core.canon import canonicalize, count_nodes, fold, live_states
from ruleforge.core.expr import Expr
from ruleforge.core.laws import lawful
from ruleforge.core.ops import COMMUTATIVE, OPS
from ruleforge.core.rule import Rule
from ruleforge.core.text import parse
from ruleforge.testing import rules
from tests.core.disguise import DISGUISES, doubled, permuted, swapped
from tests.core.literal import Literal, assert_same_bits
from tests.core.streams import tensors

G, W, T = ex.leaf("g"), ex.leaf("w"), ex.leaf("t")
N = ex.node
seeds = st.integers(0, 2**32 - 1)


def rule(text: str) -> Rule:
    return parse(text).rule


def update(text: str) -> Expr:
    return rule(f"update = {text}").canonical.update


# properties


@given(rules())
def test_canonicalizing_twice_changes_nothing(r: Rule) -> None:
    assert canonicalize(r.canonical) == r.canonical
    assert Rule(r.canonical.update, r.canonical.states, r.canonical.hypers).key == r.key


@given(rules(), seeds)
def test_the_key_sees_through_every_disguise(r: Rule, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size: dict[Expr, int] = {}
    for item in ex.walk(r.roots):
        size[item] = 1 + sum(size[arg] for arg in item.args)
    if max(size.values()) > 300:  # the disguises write terms out
        return
    for disguise in DISGUISES:
        other = disguise(r, rng)
        assert other.canonical == r.canonical, disguise.__name__
        assert (other.key, other.full_key) == (r.key, r.full_key)


@given(rules(), seeds, st.sampled_from([np.float32, np.float64]), st.sampled_from([0.0, 0.25]))
def test_the_canonical_rule_computes_the_same_bits(r: Rule, seed: int, dtype: type, edges: float) -> None:
    rng = np.random.default_rng(seed)
    w = tensors(rng, dtype, edges=edges)
    raw, canonical = Literal(r, w, 0.1), Literal(r.canonical, w, 0.1)
    for t in range(1, 6):
        g = tensors(rng, dtype, edges=edges)
        at = {"t": t, "lr": 0.1 / t, "progress": t / 5}
        for found, expected in zip(canonical.step(g, w, **at), raw.step(g, w, **at), strict=True):
            assert_same_bits(found, expected, f"step {t}")


@given(rules())
def test_folding_sugar_never_adds_nodes(r: Rule) -> None:
    assert count_nodes(r) <= len(ex.walk(r.canonical.roots))
    assert count_nodes(r) == r.nodes == r.canonical.nodes


# identity by example

SAME = [
    ("g + w", "w + g"),
    ("g - -w", "g + w"),
    ("-g + w", "w - g"),
    ("1 * g * 1", "g"),
    ("g / 1", "g"),
    ("g ** 1", "g"),
    ("g ** 2", "g * g"),
    ("g ** (1 + 1)", "square(g)"),
    ("-g * -w", "g * w"),
    ("-g / -w", "g / w"),
    ("abs(-g)", "abs(g)"),
    ("abs(g * g)", "g * g"),
    ("abs(abs(g))", "abs(g)"),
    ("abs(norm(g))", "norm(g)"),
    ("sign(sign(g))", "sign(g)"),
    ("floor(floor(g))", "floor(g)"),
    ("maximum(g, g)", "g"),
    ("minimum(g + w, w + g)", "g + w"),
    ("--g", "g"),
    ("g - 0", "g"),
    ("g * (2 + 3)", "5 * g"),
    ("where(first, g, g)", "g"),
    ("ema(g, 0.9)", "ema(1 * g, 0.9)"),
    ("trace((1 - 0.9) * g, 0.9)", "ema(g, 0.9)"),
    ("total(g)", "trace(g, 1)"),
    ("prev(ema(g, 0.9))", "prev(trace((1 - 0.9) * g, 0.9))"),
]
DIFFERENT = [
    ("g - w", "w - g"),
    ("g + 0", "g"),  # −0 + 0 is 0
    ("g * 0", "0 * w"),  # NaN
    ("g / g", "1"),
    ("(g + w) + t", "g + (w + t)"),  # addition does not associate
    ("g * (w + t)", "g * w + g * t"),
    ("sqrt(g * g)", "abs(g)"),
    ("g - g", "0"),
    ("-(g + w)", "-g - w"),  # the sign of a zero
    ("-(g - w)", "w - g"),
    ("abs(g)", "g"),
    ("where(1, exp(1), g)", "exp(1)"),  # a tensor, and so rounded before
    ("where(t, g, g)", "where(first, g, g)"),
    ("ema(g, 0.9)", "ema(g, 0.99)"),
    ("ema(g, 0.9)", "trace(g, 0.9)"),
    ("prev(g)", "g"),
    ("minimum(g, w)", "maximum(g, w)"),
    ("clip(g, -1, 1)", "minimum(maximum(g, -1), 1)"),
    ("g ** 3", "cube(g)"),
    ("abs(mean(g))", "mean(g)"),
    ("-g - w", "-w + g"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_rule_in_two_spellings(one: str, other: str) -> None:
    assert rule(f"update = {one}").key == rule(f"update = {other}").key


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_two_rules(one: str, other: str) -> None:
    assert rule(f"update = {one}").key != rule(f"update = {other}").key


def test_names_docstring_ranges_and_defaults_are_not_identity() -> None:
    one = parse('"""A."""\nb: hyper(0, 1) = 0.9\nm: state = 0\nm = b * m + g\nupdate = m')
    other = parse("c: hyper(0, 5, log) = 0.5\nx: state = 0\nx = g + x * c\nupdate = x")
    assert one.rule.key == other.rule.key
    assert one.rule.full_key != other.rule.full_key


def test_dead_lines_are_not_identity() -> None:
    dead = "h: hyper(0, 1) = 0.5\nm: state = 0\nm = m + h\na = exp(m)\nupdate = g"
    assert rule(dead).key == rule("update = g").key
    assert rule(dead).canonical.states == () and rule(dead).canonical.hypers == ()


def test_states_that_hold_the_same_values_are_one() -> None:
    text = "a: state = 0\nb: state = 0\na = lerp(g, a, 0.9)\nb = lerp(g, b, 0.9)\nupdate = a + b"
    one = rule(text).canonical
    assert len(one.states) == 1 and one.slots == 1
    assert rule(text).key == rule("a: state = 0\na = lerp(g, a, 0.9)\nupdate = a + a").key


def test_states_that_feed_each_other_merge_as_far_as_they_agree() -> None:
    text = """
a: state = {0}
b: state = 0
a_old = a
a = b + g
b = a_old + g
update = a + b
"""
    assert len(rule(text.format(0)).canonical.states) == 1
    assert len(rule(text.format(1)).canonical.states) == 2


def test_merging_makes_laws_apply_and_laws_make_states_merge() -> None:
    merged = "a: state = 0\nb: state = 0\na = g + a\nb = b + g\nupdate = maximum(a, b)"
    assert rule(merged).key == rule("update = total(g)").key
    lawful_first = "a: state = 0\nb: state = 0\na = 1 * g + a\nb = g + b / 1\nupdate = a * b"
    assert len(rule(lawful_first).canonical.states) == 1


def test_live_states_in_order_of_first_occurrence() -> None:
    text = "a: state = 0\nb: state = 0\nc: state = 0\na = g\nc = b + g\nb = w\nupdate = c"
    assert live_states(rule(text)) == [1]
    assert live_states(rule("a: state = 0\nb: state = 0\nupdate = b - a\na = g\nb = w")) == [1, 0]


SYMMETRIC = [
    "update = ({0} + {1}) * maximum({0}, {1})",
    "update = ({0} + {1}) / (hypot({0}, {1}) + minimum({0}, {1}))",
    "update = ({0} + {1}) * ({0} * w + {1} * w)",
    "update = g * (-{0} + -{1})",
    "update = exp({0} + {1}) * hypot(sin({1}), sin({0})) - ({0} == {1})",
]


@pytest.mark.parametrize("text", SYMMETRIC)
@pytest.mark.parametrize("term", ["ema(g, {})", "ema(trace(g, {}), 0.5)", "({} + g)"])
def test_symmetric_hypers_in_any_order_are_one_rule_with_one_full_key(text: str, term: str) -> None:
    one, other = term.format("b1"), term.format("b2")
    base = rule("b1: hyper(0, 1) = 0.9\nb2: hyper(0, 1) = 0.99\n" + text.format(one, other))
    again = rule("b1: hyper(0, 1) = 0.99\nb2: hyper(0, 1) = 0.9\n" + text.format(other, one))
    assert base.key == again.key and base.full_key == again.full_key
    for seed in range(40):
        rng = np.random.default_rng(seed)
        disguised = permuted(swapped(base, rng), rng)
        assert disguised.key == base.key and disguised.full_key == base.full_key


def test_pairs_of_hypers_stay_paired() -> None:
    """Two symmetries that must be broken alike: h0 goes with h2 and h1 with h3 in both factors."""
    declared = "".join(f"h{i}: hyper(0, 9) = {i + 1}\n" for i in range(4))
    base = rule(declared + "update = (h0 / h2 + h1 / h3) * hypot(h0 - h2, h1 - h3) * g")
    crossed = rule(declared + "update = (h0 / h2 + h1 / h3) * hypot(h0 - h3, h1 - h2) * g")
    assert base.key != crossed.key
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for r in (base, crossed):
            other = permuted(swapped(r, rng), rng)
            assert (other.key, other.full_key) == (r.key, r.full_key)


def test_many_interchangeable_hypers() -> None:
    declared = "".join(f"h{i}: hyper(0, 99) = {i + 1}\n" for i in range(16))
    base = rule(declared + "update = g * " + " * ".join(f"(w + h{i})" for i in range(16)))
    other = rule(declared + "update = g * " + " * ".join(f"(w + h{i})" for i in reversed(range(16))))
    assert base.key == other.key  # the leaves play one part in both, though products do not associate


def test_disguises_disguise() -> None:
    declared = "b1: hyper(0, 1) = 0.9\nb2: hyper(0, 1) = 0.5\nm: state = 0\nn: state = 1\n"
    base = rule(declared + "m = b1 * m + g\nn = b2 * n + w\nupdate = m * n")
    for disguise in (permuted, swapped, doubled):
        assert any(disguise(base, np.random.default_rng(seed)) != base for seed in range(5))


# laws

PARTS = [
    G,
    W,
    N("neg", G),
    N("neg", W),
    N("neg", N("neg", G)),
    N("mul", G, G),
    N("abs", G),
    N("sign", W),
    N("floor", G),
]
CONSTS = [ex.const(v) for v in (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 1e300)]


def value_of(item: Expr, g: np.ndarray, w: np.ndarray) -> np.ndarray:
    if item.op in ("g", "w"):
        return g if item.op == "g" else w
    if item.op == "const":
        return g.dtype.type(item.number)
    return OPS[item.op].meaning(*(value_of(arg, g, w) for arg in item.args))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", [op.name for op in OPS.values() if op.kind == "elementwise" and op.arity <= 2])
def test_every_law_holds_bit_for_bit(op: str, dtype: type) -> None:
    edges = np.array([*(0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, 1e-42, 1e30, -3.7, 0.5)])
    with np.errstate(all="ignore"):
        g, w = (v.ravel().astype(dtype) for v in np.meshgrid(edges, edges))
        for args in itertools.product([*PARTS, *CONSTS], repeat=OPS[op].arity):
            if all(arg.op == "const" for arg in args):
                continue  # host arithmetic, which is float64
            plain = N(op, *args)
            better = lawful(op, *(lawful(a.op, *a.args) if a.args else a for a in args))
            shape = np.broadcast_shapes(g.shape)
            assert_same_bits(
                np.broadcast_to(value_of(better, g, w), shape),
                np.broadcast_to(value_of(plain, g, w), shape),
                f"{plain!r} as {better!r}",
            )


def test_lawful_form_is_reached_in_one_pass() -> None:
    for op in (row.name for row in OPS.values() if row.kind == "elementwise" and row.arity <= 2):
        for args in itertools.product([*PARTS[:2], *PARTS[5:], *CONSTS], repeat=OPS[op].arity):
            once = lawful(op, *args)
            again = lawful(once.op, *once.args) if once.args else once
            assert again is once


def test_commutative_arguments_are_ordered_by_content() -> None:
    for op in COMMUTATIVE - {"dot"}:
        assert lawful(op, G, W) is lawful(op, W, G)


def test_constants_fold_in_float64_unless_they_are_not_finite() -> None:
    assert update("0.1 + 0.2") is ex.const(0.1 + 0.2)
    assert update("exp(1000)") is N("exp", ex.const(1000))
    assert update("0 * -1") is ex.const(-0.0)
    assert update("1 / 0").op == "div"
    assert update("2 < 3") is ex.const(1)


# folding


def test_folding_recognises_each_sugar() -> None:
    for text in ("ema(g, 0.9)", "trace(g, 0.9)", "total(g)", "running_max(g)", "prev(g)"):
        r = rule(f"update = {text}").canonical
        assert fold(r).update.op == text.split("(")[0] and fold(r).hidden == {0}
    assert rule("update = ema_hat(g, 0.9)").nodes == 3
    assert rule("update = prev(ema_hat(g, 0.9))").nodes == 4
    assert rule("update = prev(ema(g, 0.9))").slots == 1


def test_what_starts_elsewhere_or_reads_itself_is_no_sugar() -> None:
    for text in (
        "m: state = 1\nm = 0.9 * m + g\nupdate = m",
        "m: state = 0\nm = 0.9 * m + g * m\nupdate = m",
        "m: state = 0\nm = g * m + w\nupdate = m",  # a tensor for a beta
    ):
        assert fold(rule(text).canonical).hidden == frozenset()


def test_explicit_states_that_are_sugar_fold_and_stay_when_told() -> None:
    r = rule("m: state = 0\nm = 0.9 * m + (1 - 0.9) * g\nupdate = m").canonical
    assert fold(r).update is ex.sugar("ema", G, ex.const(0.9))
    assert fold(r, frozenset({0})).hidden == frozenset()
    assert r.nodes == 3


def test_a_decaying_sum_of_what_is_subtracted() -> None:
    r = rule("m: state = 0\nm = 0.9 * m - g\nupdate = m").canonical
    assert fold(r).terms[0] == ("trace", (N("neg", G), ex.const(0.9)))
    assert r.key == rule("update = trace(-g, 0.9)").key


def test_states_in_a_circle_fold_as_far_as_they_can() -> None:
    r = rule("a: state = 0\nb: state = 0\na_old = a\na = b\nb = a_old + g\nupdate = a").canonical
    folded = fold(r)
    assert len(folded.hidden) == 1 and len(folded.states) == 1


def test_counting() -> None:
    assert rule("update = g").nodes == 1
    assert rule("update = g * g").nodes == 2
    assert rule("update = g / (abs(g) + 1e-8)").nodes == 5
    assert rule("m: state = 0\nm = lerp(g, m, 0.9)\nupdate = sign(m)").nodes == 5
    assert rule("m: state = 1e-6\nm = lerp(g, m, 0.9)\nupdate = sign(m)").nodes == 6
