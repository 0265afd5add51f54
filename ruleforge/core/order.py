"""Which state is state 0: numbers and argument order that depend on content alone.

Two rules that differ in the numbers of their states and hyperparameters, or in the order of
commutative arguments, come out as one. Leaves are told apart by what they play in the whole graph
(colour refinement, both towards the leaves and away from them). Leaves that it cannot tell apart
are interchangeable, so whichever comes first gives the same graph; among hyperparameters the
default decides, so that `full_key` does not depend on it either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import COMMUTATIVE
from ruleforge.core.rule import Hyper, Rule, State


def digests(roots: Sequence[Expr], colour: Mapping[Expr, str]) -> dict[Expr, str]:
    """Digest of each node with coloured leaves, blind to the order of commutative arguments."""
    found: dict[Expr, str] = {}
    for item in ex.walk(roots):
        if not item.args:
            found[item] = colour.get(item, item.key)
            continue
        parts = [found[arg] for arg in item.args]
        if item.op in COMMUTATIVE:
            parts.sort()
        found[item] = ex.digest(item.op, *parts)
    return found


def numbered(update: Expr, states: Sequence[State], hypers: Sequence[Hyper]) -> Rule:
    """The rule with arguments ordered by content, states and hypers numbered by first occurrence.

    Args:
        update: lawful.
        states: all live.
        hypers: those that nothing reads are dropped.
    """
    roots = (update, *(part for s in states for part in (s.next, s.init)))
    seen = digests(roots, _colours(update, states, hypers, roots))
    places: dict[tuple[str, float | int | None], Expr] = {}
    pending = [update]
    done: set[Expr] = set()
    kept: list[State] = []
    used: list[Hyper] = []
    while pending:
        item = pending.pop()
        if item in done:
            continue
        done.add(item)
        if item.op == "state":
            places["state", item.value] = ex.state(len(kept))
            kept.append(states[item.index])
            pending[:0] = [kept[-1].init, kept[-1].next]  # read after all that the update says
        elif item.op == "hyper":
            places["hyper", item.value] = ex.hyper(len(used))
            used.append(hypers[item.index])
        elif item.op in COMMUTATIVE:
            pending += sorted(item.args, key=seen.__getitem__, reverse=True)
        else:
            pending += reversed(item.args)

    def place(item: Expr, args: tuple[Expr, ...]) -> Expr:
        if not args:
            return places.get((item.op, item.value), item)
        if item.op in COMMUTATIVE and seen[item.args[1]] < seen[item.args[0]]:
            args = args[::-1]
        return ex.with_args(item, args)

    mapping = ex.rebuild(roots, place)
    return Rule(
        mapping[update], tuple(State(mapping[s.init], mapping[s.next]) for s in kept), tuple(used)
    )  # fmt: skip


def _colours(
    update: Expr, states: Sequence[State], hypers: Sequence[Hyper], roots: Sequence[Expr]
) -> dict[Expr, str]:
    """A colour for each state and hyper leaf that does not depend on its number."""
    order = ex.walk(roots)
    moved = [item for item in order if item.op in ("hyper", "state")]
    if max(sum(item.op == op for item in moved) for op in ("hyper", "state")) < 2:
        return {item: item.op for item in moved}
    graph = _Graph(order, update, states)
    while True:
        graph.refine()
        tied = graph.tied(moved)
        if not tied:
            return {item: f"{item.op} {graph.colour(item)}" for item in moved}
        graph.mark(min(tied, key=lambda item: _preference(item, hypers)))


def _preference(item: Expr, hypers: Sequence[Hyper]) -> tuple[float | str, ...]:
    """Which of interchangeable leaves comes first."""
    if item.op == "state":
        return (item.index,)
    h = hypers[item.index]
    return (h.default, h.low, h.high, h.scale)


class _Graph:
    """Colours of all nodes as ranks, refined by the colours of their neighbours."""

    def __init__(self, order: list[Expr], update: Expr, states: Sequence[State]) -> None:
        self.at = {item: i for i, item in enumerate(order)}
        self.below: list[tuple[int, ...]] = []
        self.sorts: list[bool] = [item.op in COMMUTATIVE for item in order]
        self.above: list[list[tuple[int, int]]] = [[] for _ in order]
        labels = []
        for i, item in enumerate(order):
            numbered_leaf = item.op in ("state", "hyper")
            labels.append((item.op, "" if item.args or numbered_leaf else item.key, item is update))
            args = item.args
            if item.op == "state":
                slot = states[item.index]
                args = (slot.init, slot.next)
            below = tuple(self.at[arg] for arg in args)
            self.below.append(below)
            for position, child in enumerate(below):
                self.above[child].append((i, 0 if self.sorts[i] else position))
        ranks = {label: rank for rank, label in enumerate(sorted(set(labels)))}
        self.rank = [ranks[label] for label in labels]

    def refine(self) -> None:
        """Split colours until neighbours tell no two nodes apart that share one."""
        count = len(set(self.rank))
        while True:
            rank = self.rank
            signs = []
            for i, old in enumerate(rank):
                down = [rank[child] for child in self.below[i]]
                if self.sorts[i]:
                    down.sort()
                signs.append((old, down, sorted([(rank[parent], where) for parent, where in self.above[i]])))
            ranks: list[int] = [0] * len(signs)
            current, last = -1, None
            for i in sorted(range(len(signs)), key=signs.__getitem__):
                if signs[i] != last:
                    current, last = current + 1, signs[i]
                ranks[i] = current
            self.rank = ranks
            if current + 1 == count:
                return
            count = current + 1

    def colour(self, item: Expr) -> int:
        return self.rank[self.at[item]]

    def tied(self, leaves: list[Expr]) -> list[Expr]:
        """The first class of leaves that share a colour, hypers before states."""
        classes: dict[tuple[str, int], list[Expr]] = {}
        for item in leaves:
            classes.setdefault((item.op, self.colour(item)), []).append(item)
        return next((classes[name] for name in sorted(classes) if len(classes[name]) > 1), [])

    def mark(self, item: Expr) -> None:
        """Give one node a colour of its own, before that of its class."""
        own = self.colour(item)
        self.rank = [rank + (rank >= own) for rank in self.rank]
        self.rank[self.at[item]] = own
