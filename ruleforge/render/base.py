"""Writing expressions: one walk for all targets, brackets from a small table of precedence.

A target brings a table from op to `Spelling` and spells leaves; this module knows when brackets
are needed and nothing of any target's words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from ruleforge.core.expr import Expr
from ruleforge.core.ops import CORE

LOOSEST, SUM, QUOTIENT, PRODUCT, SIGN, POWER, ATOM = range(7)
"""How tightly a text holds together; an argument below the level its place asks for is bracketed."""


@dataclass(frozen=True)
class Spelling:
    """How a target writes one op.

    Attributes:
        template: text over `{0}`, `{1}`, …
        level: how tightly the result holds together.
        inner: level that each argument needs to stand without brackets; `LOOSEST` where not given.
        helpers: functions of ours that the text calls.
    """

    template: str
    level: int = ATOM
    inner: tuple[int, ...] = ()
    helpers: tuple[str, ...] = ()

    @cached_property
    def repeated(self) -> frozenset[int]:
        """Arguments that the template writes more than once, and that must be short therefore."""
        places = [int(name) for _, name, _, _ in Formatter().parse(self.template) if name is not None]
        return frozenset(n for n in places if places.count(n) > 1)


def missing_ops(table: Iterable[str], extra: Iterable[str] = ()) -> set[str]:
    """Ops that a target's table lacks, or has too many of."""
    return {*CORE, *extra} ^ set(table)


class Writer(ABC):
    """Writes expressions in one target's words.

    Args:
        names: nodes that are written by name.
    """

    def __init__(self, names: Mapping[Expr, str]) -> None:
        self.names = dict(names)
        self.helpers: dict[str, None] = {}

    @abstractmethod
    def leaf(self, item: Expr) -> tuple[str, int]:
        """A constant, terminal, hyper or state without a name, and its level."""

    @abstractmethod
    def spelling(self, item: Expr) -> Spelling:
        """How this node is written."""

    def bracket(self, text: str) -> str:
        return f"({text})"

    def fill(self, item: Expr, spelling: Spelling, args: list[str]) -> str:
        """The template with its arguments; a target with rules of spacing overrides this."""
        return spelling.template.format(*args)

    def write(self, item: Expr) -> str:
        """The node by its name, or written out."""
        return self.held(item)[0]

    def value(self, item: Expr) -> str:
        """The right-hand side of the node's definition: written out, unless it is a leaf with a name."""
        return self._spelled(item)[0] if item.args else self.write(item)

    def held(self, item: Expr) -> tuple[str, int]:
        """The node by its name or written out, and how tightly the text holds together."""
        if item in self.names:
            return self.names[item], ATOM
        return self._spelled(item)

    def _spelled(self, item: Expr) -> tuple[str, int]:
        if not item.args:
            return self.leaf(item)
        spelling = self.spelling(item)
        self.helpers |= dict.fromkeys(spelling.helpers)
        args = []
        for place, arg in enumerate(item.args):
            text, level = self.held(arg)
            needed = spelling.inner[place] if place < len(spelling.inner) else LOOSEST
            args.append(text if level >= needed else self.bracket(text))
        return self.fill(item, spelling, args), spelling.level
