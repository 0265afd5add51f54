"""Building rules from op names: where derived ops expand and sugar becomes slots.

The parser and the search's genomes both build through `RuleBuilder`, so a term means the same
however it came about. Terms with one recurrence share one slot. An expansion is text of the op table, written
by us, in the arithmetic that `_evaluated` reads.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import cache

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE, ZERO
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Hyper, Rule, State
from ruleforge.errors import RuleError
from ruleforge.words import counted

BINARY: dict[type, str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}
COMPARE: dict[type, str] = {
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip

_SLOT = ex.state(-1)  # stands for a slot that has no number yet


@cache
def _formula(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


class RuleBuilder:
    """Collects slots while expressions are built, then makes the rule."""

    def __init__(self) -> None:
        self._inits: list[Expr] = []
        self._nexts: list[Expr | None] = []
        self._terms: dict[Expr, int] = {}
        self._owner: dict[Expr, int] = {}

    def declare(self, init: Expr = ZERO) -> int:
        """A new slot; returns its number."""
        self._inits.append(init)
        self._nexts.append(None)
        return len(self._inits) - 1

    @property
    def n_slots(self) -> int:
        return len(self._inits)

    def start(self, index: int, init: Expr) -> None:
        """Set a slot's first value."""
        self._inits[index] = init

    @property
    def slots(self) -> list[tuple[Expr, Expr]]:
        """Init and next value of each slot; one that was never assigned keeps its value."""
        return [
            (init, ex.state(i) if value is None else value)
            for i, (init, value) in enumerate(zip(self._inits, self._nexts, strict=True))
        ]

    def assign(self, index: int, value: Expr) -> None:
        """Set a slot's next value."""
        self._nexts[index] = value

    def apply(self, op: str, *args: Expr) -> Expr:
        """An op of any kind applied to nodes: derived ops expand, sugar yields its slot's value.

        Raises:
            RuleError: the op is unknown or takes another number of arguments.
        """
        row = OPS.get(op)
        if row is None:
            raise RuleError(f"unknown op {op!r}")
        if len(args) != row.arity:
            raise RuleError(f"{row.signature} takes {counted(row.arity, 'argument')}, got {len(args)}")
        if row.kind == "sugar":
            return self._sugar(op, args)
        if row.kind == "derived":
            names = dict(zip(row.param_names, args, strict=True))
            return _evaluated(_formula(row.expansion), names, self.apply)
        if op == "pow" and args[1] is ex.const(2.0):
            return ex.node("mul", args[0], args[0])
        return ex.node(op, *args)

    def build(self, update: Expr, hypers: tuple[Hyper, ...] = ()) -> Rule:
        """The finished rule."""
        return Rule(update, tuple(State(init, value) for init, value in self.slots), hypers)

    def _sugar(self, op: str, args: tuple[Expr, ...]) -> Expr:
        if op == "prev":
            known = self._old_value(args[0])
            if known is not None:
                return known
        pattern = recurrence(op, _SLOT, args)
        index = self._terms.get(pattern)
        if index is None:
            index = self._terms[pattern] = self.declare()
            value = recurrence(op, ex.state(index), args)
            self.assign(index, value)
            if OPS[op].yields == "new":
                self._owner[value] = index
        value = self._nexts[index] or ZERO
        return value if OPS[op].yields == "new" else ex.state(index)

    def _old_value(self, term: Expr) -> Expr | None:
        """`prev` of a sugar term is its old slot, and costs none."""
        if term in self._owner:
            return ex.state(self._owner[term])
        found = steadily_debiased(term)
        if found is None or found[0] not in self._owner:
            return None
        average, beta = found
        bias = debias(beta, ex.node("sub", ex.leaf("t"), ONE))
        old = ex.node("div", ex.state(self._owner[average]), bias)
        return ex.node("where", ex.leaf("first"), ZERO, old)


def debias(beta: Expr, exponent: Expr) -> Expr:
    """`1 - beta ** exponent`."""
    return ex.node("sub", ONE, ex.node("pow", beta, exponent))


def steadily_debiased(term: Expr) -> tuple[Expr, Expr] | None:
    """`x` and `beta` where a term is `x / (1 - beta ** t)`, and beta never changes.

    The term one step ago can then be computed from `x` one step ago.
    """
    if term.op == "div" and term.args[1].op == "sub" and term.args[1].args[1].op == "pow":
        beta = term.args[1].args[1].args[0]
        if term.args[1] is debias(beta, ex.leaf("t")) and ex.is_steady(beta):
            return term.args[0], beta
    return None


def recurrence(op: str, slot: Expr, args: tuple[Expr, ...]) -> Expr:
    """The next value of a sugar op's slot."""
    names = {"s": slot, **dict(zip(OPS[op].param_names, args, strict=True))}
    return _evaluated(_formula(OPS[op].recurrence), names, ex.node)


def _evaluated(tree: ast.expr, names: Mapping[str, Expr], apply: Callable[..., Expr]) -> Expr:
    """A formula of the op table over nodes; `apply(op, *args)` makes the terms."""
    match tree:
        case ast.Name(id=name):
            return names[name] if name in names else ex.leaf(name)
        case ast.Constant(value=int() | float() as number):
            return ex.const(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return apply("neg", _evaluated(operand, names, apply))
        case ast.BinOp(left=left, op=op, right=right):
            pair = (_evaluated(side, names, apply) for side in (left, right))
            return apply(BINARY[type(op)], *pair)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            pair = (_evaluated(side, names, apply) for side in (left, right))
            return apply(COMPARE[type(op)], *pair)
        case ast.Call(func=ast.Name(id=name), args=args):
            return apply(name, *(_evaluated(arg, names, apply) for arg in args))
    raise RuleError(f"the op table holds a formula that cannot be read: {ast.unparse(tree)}")
