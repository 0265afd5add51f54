"""A rule knows its kinds, its cost and its limits, and refuses what breaks them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import OPS
from ruleforge.core.rule import MAX_HYPERS, MAX_NODES, MAX_STATES, Cost, Hyper, Kind, Rule, State
from ruleforge.core.text import parse
from ruleforge.errors import RuleError
from ruleforge.testing import rules

G, ZERO = ex.leaf("g"), ex.const(0)


def rule(text: str) -> Rule:
    return parse(text).rule


KINDS = [
    ("1 + t * lr / progress", Kind.HOST),
    ("first", Kind.HOST),
    ("is_matrix * 2", Kind.SCALAR),
    ("norm(g) + t", Kind.SCALAR),
    ("norm(g) * g", Kind.TENSOR),
    ("where(1, 2, w)", Kind.TENSOR),
    ("orthogonalize(g)", Kind.TENSOR),
    ("ema(t, 0.9)", Kind.HOST),
    ("ema(norm(g), 0.9)", Kind.SCALAR),
    ("ema(g, 0.9)", Kind.TENSOR),
    ("prev(norm(prev(g)))", Kind.SCALAR),
]


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_kinds(text: str, kind: Kind) -> None:
    r = rule(f"update = {text}")
    assert r.kinds[r.update] is kind


def test_feedback_takes_the_least_kind_that_fits() -> None:
    assert rule("p: state = 1\np = p * 0.9\nupdate = g * p").state_kinds == (Kind.HOST,)
    both = "a: state = 0\nb: state = 0\na_old = a\na = b + 1\nb = a_old + {}\nupdate = g * a"
    for last, kind in (("t", Kind.HOST), ("norm(g)", Kind.SCALAR), ("w", Kind.TENSOR)):
        assert rule(both.format(last)).state_kinds == (kind, kind)


@given(rules())
def test_kinds_are_a_fixed_point(r: Rule) -> None:
    for item, kind in r.kinds.items():
        if item.op == "state":
            assert kind is r.state_kinds[item.index] is r.kinds[r.states[item.index].next]
        elif item.args and OPS[item.op].kind == "elementwise":
            assert kind is max(r.kinds[arg] for arg in item.args)


@given(rules())
def test_the_canonical_rule_has_no_kind_or_leaf_of_its_own(r: Rule) -> None:
    c = r.canonical
    assert c.kinds[c.update] is r.kinds[r.update]
    assert c.slots <= r.slots and len(c.states) <= len(r.states) and len(c.hypers) <= len(r.hypers)


def test_kind_labels() -> None:
    assert [kind.label for kind in Kind] == ["number", "per-tensor scalar", "tensor"]


# cost


def test_cost_counts_tensor_work_bytes_and_slots() -> None:
    assert rule("update = g").cost == Cost(flops=2, bytes=12, slots=0)
    assert rule("update = ema(g, 0.9)").cost == Cost(flops=2 + 3, bytes=20, slots=1)
    assert rule("update = g * norm(g)").cost == Cost(flops=2 + 1 + 2, bytes=12, slots=0)
    assert rule("update = g * (1 - 0.9 ** t) * ema(t, 0.9)").cost.flops == 2 + 2  # host work is free
    assert KNOWN["adam"].rule.rule.cost.slots == 2
    dead = "m: state = 0\nm = exp(g)\nupdate = g"
    assert rule(dead).cost == rule("update = g").cost and rule(dead).slots == 1


def test_what_a_rule_reads() -> None:
    r = rule("a = w\nupdate = g * t")
    assert r.reads("g") and r.reads("t") and not r.reads("w") and not r.reads("lr")


def test_other_defaults() -> None:
    r = rule("a: hyper(0, 1, log) = 0.5\nb: hyper(0, 2) = 1.5\nupdate = g * a * b")
    other = r.with_defaults((0.25, 1.0))
    assert other.defaults == (0.25, 1.0) and other.hypers[0] == Hyper(0, 1, 0.25, "log")
    assert other.key == r.key and other.full_key != r.full_key
    with pytest.raises(ValueError):
        r.with_defaults((0.25,))


def test_reading_keeps_the_graph() -> None:
    assert Rule.parse("update = g * g").update is ex.node("mul", G, G)


@given(rules())
def test_rules_travel_between_processes(r: Rule) -> None:
    assert r.kinds and r.key  # what was computed from it stays behind
    again = pickle.loads(pickle.dumps(r))
    assert again == r and "key" not in vars(again)


# what is refused


def deep(n: int) -> Expr:
    item: Expr = G
    for _ in range(n):
        item = ex.node("atan", item)
    return item


REFUSED = {
    "17 states": (lambda: Rule(G, (State(ZERO, G),) * (MAX_STATES + 1)), "17 states, at most 16"),
    "17 hypers": (
        lambda: Rule(G, (), (Hyper(0, 1, 0.5),) * (MAX_HYPERS + 1)),
        "17 hyperparameters, at most 16",
    ),
    "too many nodes": (lambda: Rule(deep(4 * MAX_NODES)), "2049 nodes after expansion, at most 2048"),
    "a state that is not there": (lambda: Rule(ex.state(0)), "state0 does not exist: the rule has 0"),
    "a negative state": (lambda: Rule(ex.state(-1), (State(ZERO, G),)), "state-1 does not exist"),
    "a hyper that is not there": (
        lambda: Rule(ex.hyper(1), (), (Hyper(0, 1, 0.5),)),
        "hyper1 does not exist",
    ),
    "a reduction of a number": (lambda: Rule(ex.node("norm", ZERO)), "norm takes a tensor, got a number"),
    "a matrix op on a scalar": (
        lambda: Rule(ex.node("orthogonalize", ex.node("norm", G))),
        "orthogonalize takes a tensor, got a per-tensor scalar",
    ),
    "a reduction of a host state": (
        lambda: Rule(ex.node("norm", ex.state(0)), (State(ZERO, ex.state(0)),)),
        "norm takes a tensor, got a number",
    ),
}
REFUSED |= {
    f"a state that starts from {leaf}": (
        lambda leaf=leaf: Rule(G, (State(ex.node("neg", ex.leaf(leaf)), G),)),
        f"state 0 starts from {leaf}",
    )
    for leaf in ("g", "w", "t", "first", "lr", "progress", "is_matrix")
}
REFUSED["a state that starts from a reduction"] = (
    lambda: Rule(G, (State(ex.node("norm", ex.hyper(0)), G),), (Hyper(0, 1, 0.5),)),
    "state 0 starts from norm",
)


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_rules_that_break_a_law(build: object, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        build()
    assert message in caught.value.message


def test_limits_are_reached_but_not_passed() -> None:
    assert Rule(deep(4 * MAX_NODES - 1)).nodes == 4 * MAX_NODES
    states = tuple(State(ex.const(i), ex.node("add", ex.state(i), G)) for i in range(MAX_STATES))
    total = G
    for i in range(MAX_STATES):
        total = ex.node("add", total, ex.state(i))
    assert Rule(total, states).slots == MAX_STATES


def test_an_init_may_use_constants_hypers_and_the_initial_lr() -> None:
    init = ex.node("mul", ex.hyper(0), ex.node("add", ex.leaf("lr0"), ex.const(1e-6)))
    assert Rule(ex.state(0), (State(init, G),), (Hyper(0, 1, 0.5),)).state_kinds == (Kind.TENSOR,)


def test_random_rules_are_of_all_sorts() -> None:
    """The strategy that other tests rely on reaches what they claim to test."""
    from ruleforge.testing import random_rule

    made = [random_rule(np.random.default_rng(seed)) for seed in range(400)]
    ops = {item.op for r in made for item in ex.walk(r.roots)}
    assert ops >= {op.name for op in OPS.values() if op.meaning} | {
        "g",
        "w",
        "t",
        "first",
        "lr",
        "lr0",
        "progress",
        "is_matrix",
    }
    assert {kind for r in made for kind in r.state_kinds} == set(Kind)
    assert any(len(r.states) > 5 for r in made) and any(len(r.hypers) == 3 for r in made)
    assert any(r.canonical.states != r.states for r in made)
    fed = [r for r in made for s in r.states if ex.state(0) in ex.walk([s.next]) and r.nodes > 10]
    assert len(fed) > 20 and len({r.key for r in made}) > 350
