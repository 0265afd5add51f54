"""The only file that knows DEAP: typed trees, primitive sets, and NSGA-II selection.

Trees are `deap.gp.PrimitiveTree`: prefix lists of nodes, each with an arity and a return type. The
node kinds below are DEAP primitives and terminals with what ruleforge needs to know about them.
DEAP draws from Python's global `random` in places; nothing of that kind is called here, so every
random draw of the search comes from the numpy generator that is passed in.

A tree is never changed once it is part of a genome: edits make new trees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from deap import base, gp, tools

from ruleforge.search.forms import FORMS, LEAF_TYPES, Form, Type

Tree: TypeAlias = gp.PrimitiveTree
Node: TypeAlias = Any  # a Call, Leaf, Const or Ref: DEAP has no common base class


class Call(gp.Primitive):
    """An op in one of its typed forms."""

    __slots__ = ("form",)

    def __init__(self, form: Form) -> None:
        super().__init__(form.name, list(form.args), form.ret)
        self.form = form

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and other.form is self.form

    def __hash__(self) -> int:
        return hash(self.name)


class _Terminal(gp.Terminal):
    """A node without arguments, compared by class, name and type."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.name == other.name and self.ret is other.ret

    def __hash__(self) -> int:
        return hash((self.name, self.ret))


class Leaf(_Terminal):
    """A terminal of the rule language, such as `g`."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(name, True, LEAF_TYPES[name])


class Const(_Terminal):
    """A typed constant; `value` is a float."""

    __slots__ = ()

    def __init__(self, value: float, kind: Type) -> None:
        super().__init__(float(value), False, kind)


class Ref(_Terminal):
    """The value of another line: `new3` once line 3 has run, `old3` what its state held before."""

    __slots__ = ("line", "new")

    def __init__(self, line: int, new: bool, kind: Type) -> None:
        super().__init__(f"{'new' if new else 'old'}{line}", True, kind)
        self.line = line
        self.new = new


_CALLS: dict[str, Node] = {name: Call(form) for name, form in FORMS.items()}
_LEAVES: dict[str, Node] = {name: Leaf(name) for name in LEAF_TYPES}
_REFS: dict[tuple[int, bool, Type], Node] = {}


def call(name: str) -> Node:
    """The node of a form; one object for each."""
    return _CALLS[name]


def leaf(name: str) -> Node:
    """The node of a terminal."""
    return _LEAVES[name]


def const(value: float, kind: Type) -> Node:
    """A constant's node."""
    return Const(value, kind)


def ref(line: int, new: bool, kind: Type) -> Node:
    """A reference to a line's value; one object for each."""
    known = _REFS.get((line, new, kind))
    if known is None:
        known = _REFS[line, new, kind] = Ref(line, new, kind)
    return known


def tree(nodes: Sequence[Node]) -> Tree:
    """A tree from its nodes in prefix order."""
    return gp.PrimitiveTree(nodes)


def primitive_set(
    name: str, ret: Type, forms: Sequence[str], leaves: Sequence[str], constants: Sequence[Type]
) -> Any:
    """DEAP's strongly typed set: which nodes may be created, listed by the type that they can stand for.

    A constant type is represented by a placeholder, a `Const` with value NaN, that the caller
    replaces by a draw.
    """
    pset = gp.PrimitiveSetTyped(name, [], ret)
    for form in forms:
        pset._add(call(form))
        pset.prims_count += 1
    for item in (*map(leaf, leaves), *(const(math.nan, kind) for kind in constants)):
        pset._add(item)
        pset.terms_count += 1
    return pset


def subtree_end(nodes: Sequence[Node], begin: int) -> int:
    """Index after the last node of the subtree that starts at `begin`."""
    return int(gp.PrimitiveTree.searchSubtree(nodes, begin).stop)


def children(nodes: Sequence[Node], index: int) -> list[int]:
    """Indices of the roots of a node's arguments."""
    found, at = [], index + 1
    for _ in range(nodes[index].arity):
        found.append(at)
        at = subtree_end(nodes, at)
    return found


def replaced(nodes: Sequence[Node], index: int, new: Sequence[Node]) -> Tree:
    """A copy with the subtree at `index` replaced."""
    return tree([*nodes[:index], *new, *nodes[subtree_end(nodes, index) :]])


def height(nodes: Sequence[Node]) -> int:
    """Edges on the longest path from the root to a leaf."""
    return int(gp.PrimitiveTree.height.fget(nodes))


def depth_of(nodes: Sequence[Node], index: int) -> int:
    """Edges from the root to a node."""
    path: list[int] = []
    for node in nodes[: index + 1]:
        level = len(path)
        path.append(node.arity)
        while path and path[-1] == 0:
            path.pop()
            if path:
                path[-1] -= 1
    return level


def expected_types(nodes: Sequence[Node], root: Type) -> list[Type]:
    """The type that each position asks for; what stands there is that type or narrower."""
    found: list[Type] = []
    pending: list[Type] = [root]
    for node in nodes:
        found.append(pending.pop())
        if node.arity:
            pending.extend(reversed(node.args))
    return found


# selection


@dataclass(frozen=True)
class Ranking:
    """Non-dominated sorting of a population.

    Attributes:
        order: indices of those kept, best first.
        rank: front of each kept one, from 0, in that order.
        crowding: crowding distance of each kept one within its front.
    """

    order: tuple[int, ...]
    rank: tuple[int, ...]
    crowding: tuple[float, ...]


class _Individual:
    __slots__ = ("fitness", "index")

    def __init__(self, index: int, fitness: Any) -> None:
        self.index = index
        self.fitness = fitness


def rank_nsga2(objectives: Sequence[tuple[float, ...]], signs: tuple[float, ...], k: int) -> Ranking:
    """Keep the k best by front, then by crowding distance; ties go to the earlier index.

    Args:
        objectives: finite values of each individual.
        signs: +1 for an objective to maximise, −1 to minimise.
        k: how many to keep at most.

    Source:
        Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II.
    """
    if not objectives or k <= 0:
        return Ranking((), (), ())
    fitness_class = type("Fitness", (base.Fitness,), {"weights": signs})
    people = [_Individual(i, fitness_class(values)) for i, values in enumerate(objectives)]
    kept: list[tuple[int, float, int]] = []
    for level, front in enumerate(tools.sortNondominated(people, len(people))):
        front.sort(key=lambda item: item.index)
        tools.emo.assignCrowdingDist(front)
        front.sort(key=lambda item: (-item.fitness.crowding_dist, item.index))
        kept += [(item.index, item.fitness.crowding_dist, level) for item in front]
        if len(kept) >= k:
            break
    kept = kept[:k]
    return Ranking(
        order=tuple(index for index, _, _ in kept),
        rank=tuple(level for _, _, level in kept),
        crowding=tuple(float(crowding) for _, crowding, _ in kept),
    )
