"""Each law on its own: true where its assumption holds, matched in either order, oriented to an end."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Hyper, Rule
from ruleforge.errors import RuleError
from ruleforge.simplify import laws, rewrite
from ruleforge.simplify.collect import as_sum, collect_product, collect_sum, put_sum, tidy
from ruleforge.simplify.facts import ANY, NOT_NEGATIVE, POSITIVE, Facts, Range
from ruleforge.simplify.laws import Law
from ruleforge.simplify.patterns import match, put, read
from ruleforge.simplify.trajectories import run_rule
from ruleforge.simplify.verify import verify
from ruleforge.simplify.view import View, make

G, W = ex.leaf("g"), ex.leaf("w")
NO_FACTS = Facts((), {}, {})

# Two ways to fill the letters of a law: any numbers, and positive ones of moderate size.
ANY_TERMS = {"x": "g", "y": "w", "z": "sin(w)"}
MILD_TERMS = {"x": "abs(sin(w)) * 0.5 + 0.2", "y": "abs(cos(w)) * 0.5 + 0.9", "z": "abs(tanh(w)) * 0.3 + 0.1"}
LETTERS = {
    "b": "0.9", "c": "0.3", "c2": "0.2", "d": "1.7", "d2": "2.5", "k": "2.5", "q": "0.7", "q2": "0.8",
    "e": "1.5", "j": "-1.5", "p": "(abs(w) + 0.5)", "n": "abs(w)", "r": "0.9", "u": "(g > w)",
}  # fmt: skip
ALL = (*laws.TERM, *laws.MOVES, *laws.DETOURS)


def term(text: str) -> Expr:
    """A term over g, w, t, sugar folded."""
    return View.of(Rule.parse(f"update = {text}")).update


def rule_of(folded: Expr) -> Rule:
    return View(folded, (), (), ()).rule


def filled(law: Law, terms: dict[str, str]) -> tuple[Rule, Rule]:
    letters = LETTERS | terms
    bound = {name: term(text) for name, text in letters.items()}
    zero = make("mul", ex.const(0.0), G)  # keeps the update a tensor
    return tuple(rule_of(make("add", put(part, bound), zero)) for part in (law.pattern, law.result))  # type: ignore[return-value]


@pytest.mark.parametrize("law", ALL, ids=lambda law: law.text)
def test_a_law_is_true(law: Law) -> None:
    before, after = filled(law, MILD_TERMS)
    verdict = verify(before, after)
    assert verdict.holds, (law.text, verdict)
    assert law.assumption


@pytest.mark.parametrize("law", [law for law in ALL if law.assumption == "any x"], ids=lambda law: law.text)
def test_a_law_that_assumes_nothing_is_true_everywhere(law: Law) -> None:
    before, after = filled(law, ANY_TERMS)
    verdict = verify(before, after)
    rounding = "rounding alone decides" in verdict.reason or "finite at only" in verdict.reason
    assert verdict.holds or rounding, (law.text, verdict)


@pytest.mark.parametrize("law", laws.UPDATE, ids=lambda law: law.text)
def test_a_law_of_scale_is_true_up_to_scale(law: Law) -> None:
    before, after = filled(law, {"x": "g", "y": "w", "z": "w"})
    assert not verify(before, after, relation="equal")
    assert verify(before, after, relation="scale")


@pytest.mark.parametrize("law", laws.STATE, ids=lambda law: law.text)
def test_a_law_about_states_is_true(law: Law) -> None:
    s = ex.state(0)
    bound = {"s": s, "x": G, "b": ex.const(0.9)}
    start = View(s, ((0, ex.const(0.0)),), ((0, put(law.pattern, bound)),), ())
    proposals = [
        p for way in rewrite.SHORTER if way.law == "state: " + law.text for p in way.proposals(start)
    ]
    for proposal in proposals:
        assert verify(start.rule, proposal.view.rule)
    folded_by_core = View.of(start.rule).inits == ()
    assert proposals or folded_by_core


def test_a_false_law_would_be_seen() -> None:
    false = laws.read_laws("x + y -> x | never")[0]
    for terms in (MILD_TERMS, ANY_TERMS):
        before, after = filled(false, terms)
        assert not verify(before, after)


def test_no_law_is_written_twice() -> None:
    texts = [law.text for law in ALL]
    assert len(texts) == len(set(texts))


def test_families_cover_what_the_op_table_says() -> None:
    texts = {law.text for law in ALL}
    for op in OPS.values():
        if op.parity == "even":
            assert f"{op.name}(-x) -> {op.name}(x)" in texts
        if op.parity == "odd" and op.name != "neg":
            assert f"{op.name}(-x) -> -{op.name}(x)" in texts


# patterns


def matches(pattern: str, text: str) -> list[dict[str, Expr]]:
    return list(match(read(pattern), term(text), NO_FACTS))


def test_equal_letters_stand_for_equal_terms() -> None:
    assert matches("x / abs(x)", "ema(g, 0.9) / abs(ema(g, 0.9))")
    assert not matches("x / abs(x)", "ema(g, 0.9) / abs(ema(g, 0.8))")


def test_commutative_arguments_match_either_way() -> None:
    for text in ("w + w * g", "w + g * w", "w * g + w", "g * w + w"):
        assert matches("x * y + x", text)
    assert not matches("x / y", "g") and matches("x - y", "g - w") == [{"x": G, "y": W}]


@pytest.mark.parametrize(
    ("letter", "yes", "no"),
    [
        ("c", "3", "t"), ("c", "-3", "0"), ("e", "3", "-3"), ("e", "0.5", "1"), ("j", "-2", "2"),
        ("k", "2", "t"), ("k", "exp(2.5)", "-1"), ("q", "exp(-2.5)", "lr"), ("p", "exp(g)", "abs(g)"),
        ("p", "1 - 0.9 ** t", "1 - 1.1 ** t"), ("n", "abs(g)", "g"), ("r", "0.9", "1"),
        ("u", "(g > 0) * (w > 0)", "g"), ("u", "first", "t"),
    ],
)  # fmt: skip
def test_letters_stand_for_what_they_promise(letter: str, yes: str, no: str) -> None:
    assert matches(letter, yes)
    assert not matches(letter, no)


def test_a_law_that_cannot_be_read_is_refused() -> None:
    for text in ("x if y else z", "unknown(x)", "norm(x, y)", "'text'"):
        with pytest.raises((RuleError, ValueError)):
            read(text)


# ranges

HYPERS = (Hyper(0, 1, 0.9), Hyper(0, 10, 1.0), Hyper(-3, -1, -2.0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 - 0.9 ** t", Range(0.09999999999999998, 1, False, True)),
        ("g * g", NOT_NEGATIVE), ("abs(g) + 1e-8", Range(1e-8, math.inf)), ("g", ANY), ("exp(g)", POSITIVE),
        ("ema(g * g, 0.9)", NOT_NEGATIVE), ("ema(exp(g), 0.9)", POSITIVE), ("running_max(g)", NOT_NEGATIVE),
        ("prev(exp(g))", NOT_NEGATIVE), ("sign(g)", Range(-1, 1)), ("clip(g, -2, 3)", Range(-2, 3)),
        ("maximum(g, 2)", Range(2, math.inf)), ("g > 0", Range(0, 1)), ("1 / t", Range(0, 1, True, False)),
        ("where(g > 0, 2, 5)", Range(2, 5)), ("lerp(abs(g), 1, 0.5)", NOT_NEGATIVE), ("g ** 4", NOT_NEGATIVE),
        ("ema_hat(sign(g), 0.9)", Range(-1, 1)), ("trace(abs(g), 0.5)", NOT_NEGATIVE), ("1 / 0", ANY),
    ],
)  # fmt: skip
def test_ranges(text: str, expected: Range) -> None:
    assert NO_FACTS(term(text)) == expected


def test_ranges_of_hypers_are_open() -> None:
    facts = Facts(HYPERS, {}, {})
    beta, eps, c = (ex.hyper(i) for i in range(3))
    assert facts(make("sub", ex.const(1.0), make("pow", beta, ex.leaf("t")))).positive
    assert facts(make("sub", ex.const(1.0), beta)).positive
    assert facts(make("add", make("abs", G), eps)).positive
    assert facts(c).negative and facts(make("mul", c, c)).positive
    assert facts(make("div", eps, c)).negative


def test_states_keep_their_sign_by_induction() -> None:
    rule = Rule.parse("""
v: state = 0
p: state = 1e-6
x: state = 0
y: state = 1
v = 0.9 * v * abs(w) + g * g
p = p * exp(-abs(g))
x = x * w - g
y = y * abs(sign(g))
update = v + p + x + y
""")
    view = View.of(rule)
    assert len(view.inits) == 4
    found = {repr(start): view.facts.states[i] for i, start in view.inits if repr(start) != "0.0"}
    assert found == {"1e-06": POSITIVE, "1.0": NOT_NEGATIVE}
    others = [view.facts.states[i] for i, start in view.inits if repr(start) == "0.0"]
    assert sorted(map(repr, others)) == sorted(map(repr, [ANY, NOT_NEGATIVE]))


def random_term(rng: random.Random, depth: int) -> Expr:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice((G, W, ex.leaf("t"), ex.const(rng.choice((-2.0, -0.5, 0.0, 0.3, 1.0, 4.0)))))
    op = rng.choice(
        [op for op in OPS.values() if op.kind in ("elementwise", "sugar") or op.name == "ema_hat"]
    )
    args = [random_term(rng, depth - 1) for _ in op.params]
    if op.name in ("ema", "ema_hat", "trace"):
        args[1] = ex.const(rng.choice((0.3, 0.9)))
    return make(op.name, *args)


@given(st.integers(0, 10**6))
def test_values_lie_in_their_ranges(seed: int) -> None:
    """Also the guard of every law that asks for a positive term."""
    from ruleforge.simplify.streams import make_streams

    rng = random.Random(seed)
    item = make("add", random_term(rng, 3), make("mul", ex.const(0.0), make("sign", W)))
    here = NO_FACTS(item)
    values = run_rule(rule_of(item), (), make_streams(seed % 7, shaped=False))
    values = values[np.isfinite(values)]
    if values.size:
        slack = 1e-9 * max(1.0, float(np.abs(values).max()))
        assert values.min() >= here.low - slack
        assert values.max() <= here.high + slack


# sums and products


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1.1 * (0.1 * g + 0.9 * w) - 0.1 * g", "lerp(g, w, 0.99)"),
        ("g + w - g", "w"),
        ("2 * g - g - g", "0"),
        ("g + g + g + g", "4 * g"),
        ("0.5 * g + 0.5 * w + 0.5 * sign(g)", "0.5 * (g + w + sign(g))"),
        ("(g + 3) - (w + 3)", "g - w"),
        ("lerp(g, w, 0.25) * 4 - w", "3 * g"),
        ("-(-(g) - w) - w", "g"),
    ],
)
def test_like_terms_are_collected(before: str, after: str) -> None:
    made = collect_sum(term(before), NO_FACTS)
    assert made is not None
    assert len(ex.walk([made])) == len(ex.walk([term(after)]))
    zero = make("mul", ex.const(0.0), W)  # keeps the update a tensor
    assert verify(rule_of(make("add", made, zero)), rule_of(make("add", term(after), zero)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("g * w / g", "w"),
        ("(g / w) / (g / sign(w))", "sign(w) / w"),
        ("2 * (g * 3) * -w", "-(6 * (g * w))"),
        ("0.1 * g / 0.1", "g"),
        ("(g * g * g) / (g * g)", "g"),
    ],
)
def test_like_factors_are_collected(before: str, after: str) -> None:
    made = collect_product(term(before), NO_FACTS)
    assert made is not None
    assert len(ex.walk([made])) == len(ex.walk([term(after)]))
    zero = make("mul", ex.const(0.0), W)  # keeps the update a tensor
    assert verify(rule_of(make("add", made, zero)), rule_of(make("add", term(after), zero)))


def test_nothing_is_collected_where_nothing_gets_shorter() -> None:
    for text in ("g + w", "0.9 * g", "g - 2", "g / w", "g * w * 2"):
        assert collect_sum(term(text), NO_FACTS) is None
        assert collect_product(term(text), NO_FACTS) is None


def test_tidy_makes_rounding_good_and_nothing_else() -> None:
    assert tidy(1.0 - 0.9) == 0.1
    assert tidy(1.0 - 0.999) == 0.001
    assert tidy(0.1 + 0.2) == 0.3
    for value in (0.8999999, 0.89999999, 1 / 3, math.pi, 1e-300, 12345.678901):
        assert tidy(value) == value


@given(st.lists(st.tuples(st.sampled_from("gwt"), st.floats(-100, 100)), min_size=1, max_size=5))
def test_a_sum_is_spelled_as_what_it_is(parts: list[tuple[str, float]]) -> None:
    text = " + ".join(f"({weight!r}) * {leaf}" for leaf, weight in parts)
    terms = as_sum(term(text))
    spelled = put_sum(terms)
    again = as_sum(spelled)
    for node in {*terms, *again}:
        assert float(again.get(node, 0)) == pytest.approx(float(terms.get(node, 0)), rel=1e-11, abs=1e-13)
