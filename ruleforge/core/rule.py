"""The rule: what one optimizer step computes, as a graph without names.

A rule is an update, and for each state the expression of its next value. Every leaf `state(i)`
reads the value before the step; the value after it is the state's `next` expression itself. So
there is no order of statements left, and nothing to get wrong about it.

The module knows kinds (host number, per-tensor scalar, tensor), limits and costs. It does not
know names or text (`text`), nor which rules are the same (`canon`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Literal

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import HOST_LEAVES, OPS
from ruleforge.errors import RuleError

INIT_LEAVES: frozenset[str] = frozenset({"const", "hyper", "lr0"})
MAX_BYTES = 64 * 1024
MAX_NODES = 512
MAX_DEPTH = 64
MAX_STATES = 16
MAX_HYPERS = 16


class Kind(IntEnum):
    """What a node's value is; the order is that of the least fixed point."""

    HOST = 0
    SCALAR = 1
    TENSOR = 2

    @property
    def label(self) -> str:
        return ("number", "per-tensor scalar", "tensor")[self]


Scale = Literal["linear", "log", "one_minus_log"]


@dataclass(frozen=True, slots=True)
class Hyper:
    """A hyperparameter: an open interval, the scale to tune it on, and its default."""

    low: float
    high: float
    default: float
    scale: Scale = "linear"


@dataclass(frozen=True, slots=True)
class State:
    """One slot that lives across steps: a host expression to start from, and the next value."""

    init: Expr
    next: Expr


@dataclass(frozen=True, slots=True)
class Cost:
    """Price of one step for one weight in float32.

    Attributes:
        flops: additions for each weight, by the op table's prices.
        bytes: bytes moved for each weight: gradient, weight in and out, tensor states in and out.
        slots: state tensors with the shape of the weights.
    """

    flops: float
    bytes: int
    slots: int


@dataclass(frozen=True)
class Rule:
    """An update rule: `w ← w − lr · (update + weight_decay · w)`.

    Attributes:
        update: what is subtracted, times lr.
        states: slots, referred to as `state(i)`.
        hypers: hyperparameters, referred to as `hyper(i)`.

    Raises:
        RuleError: an index out of range, an init that is not a host number, or a limit passed.
    """

    update: Expr
    states: tuple[State, ...] = ()
    hypers: tuple[Hyper, ...] = ()

    def __post_init__(self) -> None:
        _verify(self)

    def __reduce__(self) -> tuple[Callable[..., Rule], tuple[object, ...]]:
        rows = ex.flat(self.roots)
        at = {item: i for i, item in enumerate(ex.walk(self.roots))}
        return _revived, (rows, [at[root] for root in self.roots], self.hypers)

    @staticmethod
    def parse(text: str, *, file: str = "rule text") -> Rule:
        """Read rule text and keep the graph. See `text.parse` for names and docstring."""
        from ruleforge.core.text import parse

        return parse(text, file=file).rule

    @cached_property
    def roots(self) -> tuple[Expr, ...]:
        """The update, then each state's next value and init."""
        return (self.update, *(s.next for s in self.states), *(s.init for s in self.states))

    @cached_property
    def nodes(self) -> int:
        """Distinct nodes of the canonical graph with sugar folded, leaves included."""
        from ruleforge.core.canon import count_nodes

        return count_nodes(self)

    @cached_property
    def canonical(self) -> Rule:
        """The representative of all rules that are equal bit for bit by the laws of `canon`."""
        from ruleforge.core.canon import canonicalize

        found = canonicalize(self)
        vars(found).setdefault("canonical", found)  # it is its own representative
        return found

    @cached_property
    def key(self) -> str:
        """Identity: ignores names, ranges and defaults, dead code, and the order of arguments."""
        rule = self.canonical
        pairs = (part.key for s in rule.states for part in (s.init, s.next))
        return ex.digest("rule", rule.update.key, *pairs)

    @cached_property
    def full_key(self) -> str:
        """`key` with the defaults of the hyperparameters: what evaluations are stored under."""
        return ex.digest(self.key, *(repr(float(h.default)) for h in self.canonical.hypers))

    @cached_property
    def kinds(self) -> dict[Expr, Kind]:
        """Kind of every node."""
        return infer_kinds(self.roots, [(s.init, s.next) for s in self.states])

    @cached_property
    def state_kinds(self) -> tuple[Kind, ...]:
        return tuple(max(self.kinds[s.next], self.kinds[s.init]) for s in self.states)

    @property
    def slots(self) -> int:
        """State tensors with the shape of the weights."""
        return sum(kind is Kind.TENSOR for kind in self.state_kinds)

    @property
    def defaults(self) -> tuple[float, ...]:
        return tuple(h.default for h in self.hypers)

    def reads(self, leaf: str) -> bool:
        """Whether the update or a live state depends on a terminal."""
        return any(item.op == leaf for item in ex.walk(self.canonical.roots))

    @cached_property
    def cost(self) -> Cost:
        rule = self.canonical
        kinds = rule.kinds
        flops = sum(
            OPS[item.op].flops
            for item in ex.walk(rule.roots)
            if item.args and (kinds[item] is Kind.TENSOR or OPS[item.op].kind == "reduce")
        )
        return Cost(flops=flops + 2, bytes=4 * (3 + 2 * rule.slots), slots=rule.slots)

    def with_defaults(self, values: tuple[float, ...]) -> Rule:
        """The same rule with other hyperparameter defaults."""
        hypers = tuple(
            Hyper(h.low, h.high, float(v), h.scale) for h, v in zip(self.hypers, values, strict=True)
        )
        return Rule(self.update, self.states, hypers)

    def optimizer(self, params: Any, lr: float, **options: Any) -> Any:
        """A `torch.optim.Optimizer` that runs this rule; see `ruleforge.optim.RuleOptimizer`."""
        from importlib import import_module

        return import_module("ruleforge.optim").RuleOptimizer(params, self, lr=lr, **options)

    def to_sympy(self) -> Any:
        """The update and the recurrences in sympy; see `ruleforge.render.sympy.to_sympy`."""
        from importlib import import_module

        return import_module("ruleforge.render.sympy").to_sympy(self)


def _revived(rows: list[ex.Row], roots: list[int], hypers: tuple[Hyper, ...]) -> Rule:
    nodes = ex.revive(rows)
    update, *parts = (nodes[i] for i in roots)
    n = len(parts) // 2
    states = (State(init, value) for value, init in zip(parts[:n], parts[n:], strict=True))
    return Rule(update, tuple(states), hypers)


def infer_kinds(roots: tuple[Expr, ...], states: list[tuple[Expr, Expr]]) -> dict[Expr, Kind]:
    """Least fixed point of host < scalar < tensor over a graph with feedback through its states."""
    order = ex.walk(roots)
    slot = [Kind.HOST] * len(states)
    while True:
        kinds: dict[Expr, Kind] = {}
        for item in order:
            kinds[item] = _kind_of(item, kinds, slot)
        grown = [max(old, kinds[new]) for old, (_, new) in zip(slot, states, strict=True)]
        if grown == slot:
            return kinds
        slot = grown


def _kind_of(item: Expr, kinds: dict[Expr, Kind], slot: list[Kind]) -> Kind:
    if item.op == "state":
        return slot[item.index]
    if item.op in HOST_LEAVES or item.op in ("const", "hyper"):
        return Kind.HOST
    if item.op == "is_matrix":
        return Kind.SCALAR
    if not item.args:
        return Kind.TENSOR
    family = OPS[item.op].kind
    if family == "reduce":
        return Kind.SCALAR
    return Kind.TENSOR if family == "matrix" else max(kinds[arg] for arg in item.args)


def _verify(rule: Rule) -> None:
    if len(rule.states) > MAX_STATES:
        raise RuleError(f"{len(rule.states)} states, at most {MAX_STATES} are allowed")
    if len(rule.hypers) > MAX_HYPERS:
        raise RuleError(f"{len(rule.hypers)} hyperparameters, at most {MAX_HYPERS} are allowed")
    order = ex.walk(rule.roots)
    if len(order) > 4 * MAX_NODES:
        raise RuleError(f"{len(order)} nodes after expansion, at most {4 * MAX_NODES} are allowed")
    for item in order:
        bound = {"state": len(rule.states), "hyper": len(rule.hypers)}.get(item.op)
        if bound is not None and not 0 <= item.index < bound:
            raise RuleError(f"{item!r} does not exist: the rule has {bound}")
    for number, slot in enumerate(rule.states):
        for item in ex.walk([slot.init]):
            allowed = OPS[item.op].kind == "elementwise" if item.args else item.op in INIT_LEAVES
            if not allowed:
                raise RuleError(f"state {number} starts from {item.op}: an init is a host expression")
    for item in order:
        if item.args and OPS[item.op].kind in ("reduce", "matrix"):
            for arg in item.args:
                if rule.kinds[arg] is not Kind.TENSOR:
                    raise RuleError(f"{item.op} takes a tensor, got a {rule.kinds[arg].label}")
