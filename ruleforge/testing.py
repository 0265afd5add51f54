"""What tests of rules share: random rules of every kind, for hypothesis and for plain loops.

Needs core alone; hypothesis is imported only when a strategy is asked for. The rules are legal and
otherwise unreasonable: dead lines, states that feed each other, reads before and after an
assignment, constants such as −0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from ruleforge.core.ops import OPS
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText, parse
from ruleforge.errors import RuleTextError

if TYPE_CHECKING:
    import numpy as np
    from hypothesis.strategies import SearchStrategy

    Below = Callable[[int], int]

Want = Literal["number", "tensor", "any"]
T = TypeVar("T")

_CONSTANTS = ("0", "1", "2", "0.5", "0.9", "0.999", "-1", "-0.0", "3", "1e-8", "-2.5", "1e30")
_NUMBERS = ("t", "first", "is_matrix", "lr", "lr0", "progress")
_SUGAR_BUDGET = 6
_STATE_KINDS: tuple[Want, ...] = ("number", "any", "any")
_TENSOR_THEN_NUMBER: tuple[Want, ...] = ("tensor", "number")
_ALL_TENSORS: tuple[Want, ...] = ("tensor", "tensor")
_ANY_GOAL: tuple[Want, ...] = ("number", "tensor", "any")


def _named(kind: str, marks: str) -> tuple[str, ...]:
    return tuple(
        op.name
        for op in OPS.values()
        if op.kind == kind and marks == "".join(p[-1] for p in op.params if p[-1] in "#!")
    )


_PLAIN = tuple(
    op.name for op in OPS.values() if op.kind in ("elementwise", "derived") and op.name != "ema_hat"
)
_ELEMENTWISE = tuple(name for name in _PLAIN if not any(p[-1] in "#!" for p in OPS[name].params))
_SUGAR = (*(op.name for op in OPS.values() if op.kind == "sugar"), "ema_hat")
_REDUCE = tuple(op.name for op in OPS.values() if op.kind == "reduce")
_TO_TENSOR = ("orthogonalize", "normalize", "clip_norm")


class _Author:
    """Writes one random rule text; `below(n)` draws an integer from 0 to n − 1."""

    def __init__(self, below: Below) -> None:
        self.below = below
        self.sugar_left = _SUGAR_BUDGET
        self.numbers: list[str] = list(_NUMBERS)
        self.tensors: list[str] = ["g", "w"]
        self.anything: list[str] = []
        self.explicit: set[str] = set()

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def text(self) -> str:
        out = []
        for i in range(self.below(4)):
            out.append(f"h{i}: hyper(0, 1) = 0.{1 + self.below(8)}")
            self.numbers.append(f"h{i}")
        goals: list[tuple[str, Want]] = []
        for i in range(self.below(4)):
            name, kind = f"s{i}", self.pick(_STATE_KINDS)
            out.append(f"{name}: state = {self.pick(('0', '0', '1', '1e-6', 'lr0', '0.5 * lr0'))}")
            (self.numbers if kind == "number" else self.anything).append(name)
            self.explicit.add(name)
            if self.below(8):  # now and then a state is never assigned
                goals.append((name, kind))
        goals += [(f"a{i}", self.pick(_ANY_GOAL)) for i in range(self.below(3))]
        goals.append(("update", "any"))
        while goals:
            name, kind = goals.pop(self.below(len(goals)))
            deep = 2 if name == "update" else 1
            out.append(f"{name} = {self.term(kind, deep + self.below(4))}")
            if name not in self.explicit:
                {"number": self.numbers, "tensor": self.tensors, "any": self.anything}[kind].append(name)
        return "\n".join(out) + "\n"

    def leaf(self, want: Want) -> str:
        if want == "number":
            return self.pick((*_CONSTANTS, *self.numbers, *self.numbers))
        if want == "tensor":
            return self.pick(self.tensors)
        return self.pick((*self.tensors, *self.tensors, *self.anything, *self.anything, *self.numbers, "0.5"))

    def term(self, want: Want, depth: int) -> str:
        if depth <= 0:
            return self.leaf(want)
        kinds = ["elementwise"] * 6 + ["leaf"]
        if self.sugar_left > 0:
            kinds += ["sugar"] * 2
        kinds.append("reduce" if want == "number" else "whole tensor" if want == "tensor" else "hat")
        match self.pick(kinds):
            case "sugar":
                return self.sugar(want, depth)
            case "reduce":
                op = self.pick(_REDUCE)
                return self.call(op, _ALL_TENSORS[: OPS[op].arity], depth)
            case "whole tensor":
                op = self.pick(_TO_TENSOR)
                return self.call(op, _TENSOR_THEN_NUMBER[: OPS[op].arity], depth)
            case "hat" if self.sugar_left > 0:
                return self.sugar(want, depth, "ema_hat")
            case "leaf":
                return self.leaf(want)
            case _:
                op = self.pick(_ELEMENTWISE)
                wants: list[Want] = ["number" if want == "number" else "any"] * OPS[op].arity
                if want == "tensor":
                    wants[self.below(len(wants))] = "tensor"
                return self.call(op, wants, depth)

    def sugar(self, want: Want, depth: int, op: str = "") -> str:
        self.sugar_left -= 1
        op = op or self.pick(_SUGAR)
        x = self.term(want, depth - 1)
        if op == "prev" and x in self.explicit:
            x = f"-{x}"
        return f"{op}({x})" if OPS[op].arity == 1 else f"{op}({x}, {self.term('number', depth - 2)})"

    def call(self, op: str, wants: Sequence[Want], depth: int) -> str:
        parts = [self.term(want, depth - 1) for want in wants]
        symbol = OPS[op].symbol
        if symbol and len(parts) == 2:
            return f"({parts[0]} {symbol} {parts[1]})" if self.below(4) else f"{op}({', '.join(parts)})"
        if op == "neg":
            return f"(-{parts[0]})"
        return f"{op}({', '.join(parts)})"


def _written(below: Below) -> RuleText:
    """The first legal text; a few pass a limit, such as the number of states."""
    while True:
        text = _Author(below).text()
        try:
            return parse(text)
        except RuleTextError as error:
            if "more than" not in error.message:
                raise AssertionError(f"{text}\n{error}") from error


def random_text(rng: np.random.Generator) -> RuleText:
    """A random rule with names and lines."""
    return _written(lambda n: int(rng.integers(n)))


def random_rule(rng: np.random.Generator) -> Rule:
    """A random rule: any ops, explicit states with feedback, sugar, hypers, all kinds of values."""
    return random_text(rng).rule


def rule_texts() -> SearchStrategy[RuleText]:
    """Hypothesis strategy of random rules with names and lines."""
    from hypothesis import strategies as st

    @st.composite
    def texts(draw: Callable[[SearchStrategy[int]], int]) -> RuleText:
        return _written(lambda n: draw(st.integers(0, n - 1)))

    return texts()


def rules() -> SearchStrategy[Rule]:
    """Hypothesis strategy of random rules."""
    return rule_texts().map(lambda text: text.rule)
