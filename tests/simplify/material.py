"""Material for the tests of simplification: known rules made longer without changing them, random rules,
and a judge that shares no code with `verify`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core import expr as ex
from ruleforge.core.build import RuleBuilder
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS
from ruleforge.core.program import compile_rule
from ruleforge.core.rule import MAX_STATES, Rule, State

NUMBERS = (0.1, 0.25, 0.3, 0.7, 2.0, 3.0, 12.5, 100.0)
BETAS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)


# neutral material


def number(rng: random.Random) -> Expr:
    return ex.const(rng.choice(NUMBERS))


def debias(rng: random.Random) -> Expr:
    power = ex.node("pow", ex.const(rng.choice(BETAS)), ex.leaf("t"))
    return ex.node("sub", ex.const(1.0), power)


def scaled_up_and_down(x: Expr, rng: random.Random) -> Expr:
    c = number(rng)
    return ex.node("div", ex.node("mul", x, c), c)


def zero_added(x: Expr, rng: random.Random) -> Expr:
    z = rng.choice((ex.leaf("g"), ex.leaf("w"), x))
    return ex.node("add", ex.node("sub", z, z), x)


def one_multiplied(x: Expr, rng: random.Random) -> Expr:
    z = ex.node("add", ex.node("abs", ex.leaf("g")), number(rng))
    return ex.node("mul", x, ex.node("div", z, z))


def halves(x: Expr, rng: random.Random) -> Expr:
    return ex.node("add", ex.node("mul", ex.const(0.5), x), ex.node("div", x, ex.const(2.0)))


def size_times_sign(x: Expr, rng: random.Random) -> Expr:
    return ex.node("mul", ex.node("sqrt", ex.node("mul", x, x)), ex.node("sign", x))


NEUTRAL: dict[str, Callable[[Expr, random.Random], Expr]] = {
    "times one": lambda x, rng: ex.node("mul", ex.const(1.0), x),
    "plus zero": lambda x, rng: ex.node("add", x, ex.const(0.0)),
    "minus minus": lambda x, rng: ex.node("neg", ex.node("neg", x)),
    "minus one twice": lambda x, rng: ex.node("mul", ex.node("mul", x, ex.const(-1.0)), ex.const(-1.0)),
    "zero added": zero_added,
    "one multiplied": one_multiplied,
    "scaled up and down": scaled_up_and_down,
    "halves": halves,
    "size times sign": size_times_sign,
    "average of itself": lambda x, rng: ex.node("lerp", x, x, ex.const(rng.choice(BETAS))),
    "bounded by itself": lambda x, rng: ex.node("minimum", x, ex.node("maximum", x, ex.leaf("g"))),
    "either way": lambda x, rng: ex.node("where", ex.node("gt", ex.leaf("g"), ex.const(0.0)), x, x),
}  # fmt: skip
UNDER_SIGN: dict[str, Callable[[Expr, random.Random], Expr]] = {
    "scale": lambda x, rng: ex.node("mul", number(rng), x),
    "quotient": lambda x, rng: ex.node("div", x, number(rng)),
    "bias correction": lambda x, rng: ex.node("div", x, debias(rng)),
    "sinh": lambda x, rng: ex.node("atan", x),
}


def grown(rule: Rule, rng: random.Random, least: int, most: int) -> Rule:
    """A rule of the same behaviour, up to a positive factor of the update, written with more nodes.

    Args:
        rule: any rule.
        rng: chooses the material and its place.
        least, most: how many nodes to add, sugar expanded.
    """
    goal = len(ex.walk(rule.roots)) + rng.randint(least, most)
    longest = len(ex.walk(rule.roots)) + most
    ways = (_term, _term, _term, _sign, _dead_state, _duplicate_state, _update_scale)
    while len(ex.walk(rule.roots)) < goal:
        bigger = rng.choice(ways)(rule, rng)
        if len(ex.walk(bigger.roots)) > longest:
            break
        rule = bigger
    return rule


def _swap(rule: Rule, target: Expr, made: Expr) -> Rule:
    mapping = ex.rebuild(rule.roots, lambda item, args: made if item is target else ex.with_args(item, args))
    states = tuple(State(s.init, mapping[s.next]) for s in rule.states)
    return Rule(mapping[rule.update], states, rule.hypers)


def _tensors(rule: Rule) -> list[Expr]:
    roots = (rule.update, *(s.next for s in rule.states))
    return [item for item in ex.walk(roots) if rule.kinds[item] == 2]


def _term(rule: Rule, rng: random.Random) -> Rule:
    target = rng.choice(_tensors(rule))
    return _swap(rule, target, NEUTRAL[rng.choice(sorted(NEUTRAL))](target, rng))


def _sign(rule: Rule, rng: random.Random) -> Rule:
    signs = [item for item in _tensors(rule) if item.op == "sign"]
    if not signs:
        return rule
    target = rng.choice(signs)
    x = target.args[0]
    if rng.random() < 0.3:
        return _swap(rule, target, ex.node("div", x, ex.node("sqrt", ex.node("mul", x, x))))
    return _swap(rule, target, ex.node("sign", UNDER_SIGN[rng.choice(sorted(UNDER_SIGN))](x, rng)))


def _dead_state(rule: Rule, rng: random.Random) -> Rule:
    if len(rule.states) >= MAX_STATES:
        return rule
    s = ex.state(len(rule.states))
    value = ex.node("cosh", ex.node("add", s, rng.choice(_tensors(rule))))
    return Rule(rule.update, (*rule.states, State(ex.const(0.0), value)), rule.hypers)


def _duplicate_state(rule: Rule, rng: random.Random) -> Rule:
    """A second copy of a state, read in the update in place of the first."""
    if not rule.states or len(rule.states) >= MAX_STATES:
        return rule
    index = rng.randrange(len(rule.states))
    old, new = ex.state(index), ex.state(len(rule.states))

    def copied(root: Expr) -> Expr:
        return ex.rebuild([root], lambda item, args: new if item is old else ex.with_args(item, args))[root]

    twin = State(rule.states[index].init, copied(rule.states[index].next))
    return Rule(copied(rule.update), (*rule.states, twin), rule.hypers)


def _update_scale(rule: Rule, rng: random.Random) -> Rule:
    if rule.reads("lr") or rule.reads("lr0"):
        return rule
    return replace(rule, update=ex.node("mul", number(rng), rule.update))


# random rules


def random_rule(rng: random.Random, size: int) -> Rule:
    """A rule of about `size` ops, often silly."""
    builder = RuleBuilder()
    elementwise = [
        n
        for n, op in OPS.items()
        if op.kind in ("elementwise", "derived")
        and n not in ("clip_norm", "normalize", "ema_hat", "graft", "equalize")
    ]
    pool: list[Expr] = [ex.leaf("g"), ex.leaf("g"), ex.leaf("w"), ex.leaf("t")]
    own = builder.declare(ex.const(0.0)) if rng.random() < 0.4 else None
    if own is not None:
        pool.append(ex.state(own))
    tensors = [ex.leaf("g"), ex.leaf("w")]
    likely = ["add", "sub", "mul", "div", "sign", "abs", "sqrt", "neg", "lerp", "maximum"]
    for _ in range(size):
        kind = rng.random() if builder.n_slots < MAX_STATES - 1 else 1.0
        if kind < 0.2:
            op = rng.choice(("ema", "ema_hat", "trace"))
            made = builder.apply(op, rng.choice(tensors), ex.const(rng.choice(BETAS)))
        elif kind < 0.26:
            made = builder.apply(rng.choice(("norm", "mean", "rms", "max_abs")), rng.choice(tensors))
        elif kind < 0.3:
            made = builder.apply(rng.choice(("prev", "running_max", "total")), rng.choice(tensors))
        else:
            op = rng.choice(likely) if rng.random() < 0.7 else rng.choice(elementwise)
            recent = pool[-5:] if rng.random() < 0.6 else pool
            args = [rng.choice(recent) if rng.random() < 0.8 else number(rng) for _ in OPS[op].params]
            if not any(arg in tensors for arg in args):
                args[0] = rng.choice(tensors)
            made = builder.apply(op, *args)
        pool.append(made)
        if any(leaf.op in ("g", "w") for leaf in ex.walk([made])) and made.op not in (
            "norm",
            "mean",
            "rms",
            "max_abs",
        ):
            tensors.append(made)
    if own is not None:
        builder.assign(own, rng.choice(tensors))
    return builder.build(tensors[-1])


# the judge


def disagreement(a: Rule, b: Rule, *, scaled: bool, seed: int) -> float:
    """Share of points where two rules differ by more than 1e-7 of what the element's updates reach.

    Streams are drawn here and nowhere else. Points where the first rule is not finite do not count, and
    where nothing counts the answer is 0. With `scaled`, the second rule is fitted to the first by one
    positive factor.
    """
    rng = np.random.default_rng([987_654, seed])
    shapes = ((7,), (3, 5))
    steps = 60
    scales = 10.0 ** rng.uniform(-5, 5, 3)
    first, second = [], []
    for scale in scales:
        drift = [rng.standard_normal(s) for s in shapes]
        grads = [
            [scale * (rng.standard_normal(s) + d) for s, d in zip(shapes, drift, strict=True)]
            for _ in range(steps)
        ]
        weights = [[rng.standard_normal(s) for s in shapes] for _ in range(steps)]
        first.append(_run(a, grads, weights))
        second.append(_run(b, grads, weights))
    x, y = np.concatenate(first, axis=1), np.concatenate(second, axis=1)
    known = np.isfinite(x)
    if not known.any():
        return 0.0
    with np.errstate(all="ignore"):
        if scaled:
            usable = known & np.isfinite(y) & (np.abs(x) > 1e-200)
            factor = np.median(y[usable] / x[usable]) if usable.any() else 1.0
            if not factor > 0:
                return 1.0
            y = y / factor
        peak = np.max(np.where(known, np.abs(x), 0.0), axis=0)
        wrong = known & ~(np.abs(x - y) <= 1e-7 * peak)
    return float(wrong.sum() / known.sum())


def _run(rule: Rule, grads: list, weights: list) -> np.ndarray:
    tagged = rule.with_defaults(tuple(float(i) for i in range(len(rule.hypers))))
    program = compile_rule(tagged)
    hypers = tuple(rule.hypers[int(i)].default for i in tagged.canonical.defaults)
    ctx = StepContext(1, 0.01, 0.02, 0.1, hypers)
    state = reference.init_state(program, weights[0], ctx)
    rows = []
    for step, (g, w) in enumerate(zip(grads, weights, strict=True)):
        ctx = StepContext(step + 1, 0.02 / (1 + step), 0.02, (step + 1) / len(grads), hypers)
        updates, state = reference.update(program, state, g, w, ctx)
        rows.append(np.concatenate([u.ravel() for u in updates]))
    return np.array(rows)
