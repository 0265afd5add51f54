"""Rules in disguise: other numbers, another order of arguments, a state twice. The same rule still."""

from __future__ import annotations

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import COMMUTATIVE
from ruleforge.core.rule import Rule, State


def permuted(rule: Rule, rng: np.random.Generator) -> Rule:
    """States and hypers under other numbers."""
    states, hypers = rng.permutation(len(rule.states)), rng.permutation(len(rule.hypers))

    def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
        if item.op == "state":
            return ex.state(int(states[item.index]))
        if item.op == "hyper":
            return ex.hyper(int(hypers[item.index]))
        return ex.with_args(item, args)

    new = ex.rebuild(rule.roots, replace)
    moved = [State(new[s.init], new[s.next]) for s in rule.states]
    return Rule(
        new[rule.update],
        tuple(moved[i] for i in np.argsort(states)),
        tuple(rule.hypers[i] for i in np.argsort(hypers)),
    )


def swapped(rule: Rule, rng: np.random.Generator) -> Rule:
    """Commutative arguments the other way round, each use of each node on its own."""

    def copy(item: Expr) -> Expr:
        args = tuple(copy(arg) for arg in item.args)
        if item.op in COMMUTATIVE and rng.integers(2):
            args = args[::-1]
        return ex.with_args(item, args)

    return Rule(copy(rule.update), tuple(State(copy(s.init), copy(s.next)) for s in rule.states), rule.hypers)


def doubled(rule: Rule, rng: np.random.Generator) -> Rule:
    """One state twice, read now through one copy and now through the other."""
    if not rule.states or len(rule.states) == 16:
        return rule
    old, new = int(rng.integers(len(rule.states))), len(rule.states)

    def copy(item: Expr) -> Expr:
        if item.op == "state" and item.index == old:
            return ex.state((old, new)[rng.integers(2)])
        return ex.with_args(item, tuple(copy(arg) for arg in item.args))

    states = [State(s.init, copy(s.next)) for s in (*rule.states, rule.states[old])]
    return Rule(copy(rule.update), tuple(states), rule.hypers)


DISGUISES = (permuted, swapped, doubled)
