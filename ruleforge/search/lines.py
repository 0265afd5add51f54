"""The genome as data: lines of typed trees, in an order that rules out cycles.

A line is the update, the next value of an explicit state, or a local that several lines share.
Trees read the old value of any state (`old0`) and the new value of any line above (`new0`). A state
below the update may read it (Adadelta); the update then has no way to read that state's new value.
Sugar such as `ema` stands inside trees. The module knows nothing of rules or of text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ruleforge.search import deap_bridge as bridge
from ruleforge.search.deap_bridge import Node, Tree
from ruleforge.search.forms import Type

Role = Literal["state", "local", "update"]


@dataclass(frozen=True)
class Line:
    """One assignment.

    Attributes:
        role: what is assigned.
        kind: Tensor or Number, the type of the value.
        tree: the value; never changed in place.
        init: a state's first value, a tree over constants, lr and lr0; empty for other roles.
    """

    role: Role
    kind: Type
    tree: Tree
    init: Tree = ()


@dataclass(frozen=True)
class Genome:
    """Lines in order, exactly one of which is the update."""

    lines: tuple[Line, ...]

    @property
    def update(self) -> int:
        """Index of the update."""
        return next(i for i, line in enumerate(self.lines) if line.role == "update")

    @property
    def states(self) -> tuple[int, ...]:
        """Indices of the explicit states."""
        return tuple(i for i, line in enumerate(self.lines) if line.role == "state")

    def __len__(self) -> int:
        """Nodes of all trees."""
        return sum(len(line.tree) for line in self.lines)


def is_live(genome: Genome) -> list[bool]:
    """Which lines the update depends on."""
    live = [False] * len(genome.lines)
    pending = [genome.update]
    while pending:
        index = pending.pop()
        if not live[index]:
            live[index] = True
            pending += [node.line for node in genome.lines[index].tree if isinstance(node, bridge.Ref)]
    return live


def reads(genome: Genome, leaf: str) -> bool:
    """Whether the update depends on a terminal."""
    return any(
        isinstance(node, bridge.Leaf) and node.name == leaf
        for line, live in zip(genome.lines, is_live(genome), strict=True)
        if live
        for node in line.tree
    )


def remapped(nodes: Iterable[Node], position: Mapping[int, int]) -> Tree:
    """A tree whose references follow lines to their new positions."""
    return bridge.tree(
        [
            bridge.ref(position[node.line], node.new, node.ret) if isinstance(node, bridge.Ref) else node
            for node in nodes
        ]
    )


def without_dead(genome: Genome) -> Genome:
    """The genome without lines that the update does not depend on."""
    live = is_live(genome)
    if all(live):
        return genome
    keep = [i for i, alive in enumerate(live) if alive]
    position = {old: new for new, old in enumerate(keep)}
    return Genome(
        tuple(
            Line(line.role, line.kind, remapped(line.tree, position), line.init)
            for line in (genome.lines[i] for i in keep)
        )
    )
