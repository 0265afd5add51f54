"""A grammar made ready for drawing: weighted pools of nodes by type, constants, random trees.

All randomness comes from the numpy generator passed in. The module knows trees, not genomes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ruleforge.search import deap_bridge as bridge
from ruleforge.search.deap_bridge import Node
from ruleforge.search.forms import TYPE_LABELS, Beta, Eps, Form, Low, Mask, Number, Scale, Tensor, Type, Value
from ruleforge.search.grammar_model import Draw, Grammar, closing_depths

Rng = np.random.Generator

STOP_EARLY = 0.3  # chance that a branch of a "grow" tree ends before its depth
PLAIN_ARGUMENT = 0.35  # chance that a free argument, as the factor in `g * …`, is a leaf
MIRRORED = 0.25  # weight of forms such as number − tensor beside tensor − number
MASK_AS_VALUE = 0.3  # weight of a comparison where any tensor would do
STEPS = {Beta: 0.4, Eps: 1.0, Scale: 0.2, Low: 0.2}  # half of a constant's steps are shorter, in log units


def draw_index(rng: Rng, n: int) -> int:
    """A uniform integer below n."""
    return int(rng.random() * n)


class Pool:
    """Items drawn in proportion to their weights."""

    def __init__(self, items: Sequence[Node], weights: Sequence[float]) -> None:
        kept = [(item, weight) for item, weight in zip(items, weights, strict=True) if weight > 0]
        self.items = [item for item, _ in kept]
        self.upto = list(accumulate(weight for _, weight in kept))
        self.total = self.upto[-1] if kept else 0.0

    def at(self, mark: float) -> Node:
        """The item at a mark in [0, total)."""
        return self.items[min(bisect_right(self.upto, mark), len(self.items) - 1)]

    def draw(self, rng: Rng) -> Node:
        return self.at(rng.random() * self.total)


class Vocabulary:
    """What variation draws from.

    Attributes:
        grammar: the grammar, limits included.
        limits: its limits.
    """

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.limits = grammar.limits
        forms = {form.name: form for form in grammar.forms}
        self.closing = closing_depths(forms.values(), grammar.open_terminals, grammar.constant_types)
        self._height = {name: 1 + max(self.closing[arg] for arg in form.args) for name, form in forms.items()}
        pset = bridge.primitive_set(
            grammar.name or "grammar", Tensor, list(forms), grammar.open_terminals, grammar.constant_types
        )
        self.calls = {
            kind: Pool(nodes, [self._form_weight(node.form, kind) for node in nodes])
            for kind, nodes in pset.primitives.items()
        }
        self.leaves = {}
        for kind, nodes in pset.terminals.items():
            fitting = [node for node in nodes if _natural(node, kind)]
            self.leaves[kind] = Pool(fitting, [self._leaf_weight(node, kind) for node in fitting])
        self._low_calls: dict[tuple[Type, int], Pool] = {}

    def _form_weight(self, form: Form, kind: Type) -> float:
        weight = self.grammar.weights.get(form.op, 1.0)
        if issubclass(form.ret, Mask) and not issubclass(kind, Mask):
            weight *= MASK_AS_VALUE
        return weight * (MIRRORED if form.place else 1.0)

    def _leaf_weight(self, node: Node, kind: Type) -> float:
        if node.ret is kind and isinstance(node, bridge.Const):
            return 1.0  # a role has no other choice; weights are for free places
        name = TYPE_LABELS[node.ret] if isinstance(node, bridge.Const) else node.name
        return self.grammar.weights.get(name, 1.0)

    def creates(self, node: Node) -> bool:
        """Whether variation could have made this node here; references count as made."""
        if isinstance(node, bridge.Call):
            return node.name in self._height
        if isinstance(node, bridge.Const):
            return node.ret in self.grammar.constant_types
        return isinstance(node, bridge.Ref) or node.name in self.grammar.terminals

    # drawing

    def call(self, rng: Rng, kind: Type, room: int) -> Node | None:
        """An op that gives this type and can be closed within `room` levels; None if there is none."""
        pool = self._low_calls.get((kind, room))
        if pool is None:
            every = self.calls.get(kind)
            nodes = [n for n in every.items if self._height[n.name] <= room] if every else []
            pool = Pool(nodes, [self._form_weight(node.form, kind) for node in nodes])
            self._low_calls[kind, room] = pool
        return pool.draw(rng) if pool.total else None

    def leaf(self, rng: Rng, kind: Type, refs: Sequence[Node] = ()) -> Node | None:
        """A terminal, a reference or a fresh constant of this type; None if there is none."""
        pool = self.leaves.get(kind)
        fitting = [node for node in refs if issubclass(node.ret, kind)]
        total = pool.total if pool else 0.0
        mark = rng.random() * (total + len(fitting))
        if mark >= total:
            return fitting[min(int(mark - total), len(fitting) - 1)] if fitting else None
        node = pool.at(mark)  # type: ignore[union-attr]
        return self.constant(rng, node.ret) if isinstance(node, bridge.Const) else node

    def tree(self, rng: Rng, kind: Type, room: int, *, full: bool, refs: Sequence[Node] = ()) -> list[Node]:
        """A random tree in prefix order.

        Args:
            rng: source of randomness.
            kind: type of the root.
            room: levels below the root; exceeded only where no lower tree of the type exists.
            full: every branch as deep as it may be; else branches stop early at random.
            refs: references that may stand as leaves.
        """
        out: list[Node] = []
        pending: list[tuple[Type, int]] = [(kind, room)]
        while pending:
            wanted, left = pending.pop()
            stop = left <= 0 or (not full and left < room and rng.random() < STOP_EARLY)
            if not stop and wanted is Value:
                stop = rng.random() < PLAIN_ARGUMENT
            node = self.leaf(rng, wanted, refs) if stop else self.call(rng, wanted, left)
            if node is None:
                node = self.call(rng, wanted, self.closing[wanted]) if stop else self.leaf(rng, wanted, refs)
            if node is None:
                node = self.call(rng, wanted, self.closing[wanted])
            if node is None:
                raise ValueError(f"the grammar closes no tree of type {wanted.__name__}")
            out.append(node)
            if node.arity:
                pending.extend((arg, left - 1) for arg in reversed(node.args))
        return out

    # constants

    def _draw_of(self, kind: Type) -> Draw | None:
        constants = self.grammar.constants
        if kind is Beta:
            return constants.beta
        return constants.eps if kind is Eps else constants.scale

    def constant(self, rng: Rng, kind: Type) -> Node:
        """A fresh constant, from the grammar's set or range."""
        draw = self._draw_of(kind)
        if draw is None:
            raise ValueError(f"the grammar creates no constants of type {kind.__name__}")
        sign = -1.0 if kind is Low else 1.0
        if draw.values:
            return bridge.const(sign * draw.values[draw_index(rng, len(draw.values))], kind)
        return bridge.const(sign * _anywhere(rng, *_bounds(draw, kind), kind), kind)

    def step(self, rng: Rng, node: Node) -> Node | None:
        """A constant near this one, within the grammar's set or range; None where nothing else is.

        Steps are Cauchy: most are short, one in seven is five times as long. From 0.999 to 0.99 is one step
        then, not five that gain nothing before the last. What passes an end of the range is drawn afresh.

        Source:
            Yao, Liu & Lin 1999, Evolutionary programming made faster, IEEE Trans. Evol. Comp. 3(2).
        """
        kind, value = node.ret, abs(float(node.value))
        sign = math.copysign(1.0, float(node.value))
        draw = self._draw_of(kind)
        if draw is not None and draw.values:
            others = [v for v in draw.values if v != value]
            return bridge.const(sign * others[draw_index(rng, len(others))], kind) if others else None
        if value == 0:
            return None
        low, high = _bounds(draw, kind)
        start, end = _ends(low, high, kind)
        moved = _to_scale(value, kind) + STEPS[kind] * rng.standard_cauchy()
        inside = start <= moved <= end
        chosen = _constant_at(moved, low, high, kind) if inside else _anywhere(rng, low, high, kind)
        return bridge.const(sign * chosen, kind)


def _natural(node: Node, kind: Type) -> bool:
    """Whether a leaf belongs where this type is asked for: no beta stands as a free factor."""
    if not isinstance(node, bridge.Const) or node.ret is kind:
        return True
    return node.ret in (Scale, Eps) or (kind is Number and node.ret is Beta)


def _bounds(draw: Draw | None, kind: Type) -> tuple[float, float]:
    if draw is not None and draw.low is not None and draw.high is not None:
        return draw.low, draw.high
    if kind is Beta:
        return 1e-6, 1 - 1e-6
    return (1e-16, 1.0) if kind is Eps else (1e-12, 1e12)


def _anywhere(rng: Rng, low: float, high: float, kind: Type) -> float:
    """A constant of the range, uniform on its scale."""
    start, end = _ends(low, high, kind)
    return _constant_at(start + rng.random() * (end - start), low, high, kind)


def _ends(low: float, high: float, kind: Type) -> list[float]:
    return sorted((_to_scale(low, kind), _to_scale(high, kind)))


def _constant_at(place: float, low: float, high: float, kind: Type) -> float:
    """The rounded constant at a place of the scale, within the range."""
    return min(max(_rounded(_from_scale(place, kind), kind), low), high)


def _to_scale(value: float, kind: Type) -> float:
    """log(1 − beta) for betas, the logarithm for the others."""
    return math.log(1 - value) if kind is Beta else math.log(value)


def _from_scale(value: float, kind: Type) -> float:
    return 1 - math.exp(value) if kind is Beta else math.exp(min(value, 50.0))


def _rounded(value: float, kind: Type) -> float:
    """Three significant digits, of 1 − beta for betas: constants that a reader can hold."""
    if kind is Beta:
        return round(1 - float(f"{1 - value:.3g}"), 12)
    return float(f"{value:.3g}")
