"""Which of torch's foreach operations computes a node: where one pass does the work of several.

A sum takes factors and products along (`alpha`, `addcmul`, `addcdiv`), an average is one `lerp`, the step
of the weights takes the last quotient. Knows the graph and torch's list operations; names and memory are the
business of `foreach`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE
from ruleforge.core.rule import Kind
from ruleforge.render.python import TorchWriter
from ruleforge.render.script import Script, Slot

_UNARY = frozenset("neg abs sqrt exp log log1p expm1 sin cos tan asin acos atan sinh cosh tanh floor".split())
_BINARY = frozenset("add sub mul div minimum maximum".split())
_COMMUTES = frozenset("add mul minimum maximum".split())
# Ops that give finite numbers for finite numbers, but for sums and products that grow beyond all bounds.
_FINITE = frozenset(
    "add sub mul neg abs sign cbrt sin cos atan tanh atan2 floor minimum maximum clip lerp where".split()
)


@dataclass(frozen=True)
class Call:
    """One operation on lists: `torch._foreach_<stem>(operands…, text)`.

    Attributes:
        stem: name of the operation; "" where it goes tensor by tensor.
        operands: nodes that are lists; the first may be overwritten.
        rest: arguments after them, as text.
    """

    stem: str
    operands: tuple[Expr, ...]
    rest: str = ""


@dataclass(frozen=True)
class Last:
    """The last quotient or product, `a op b`, that the step of the weights does itself.

    Attributes:
        op: "div" or "mul".
        a, b: lists.
        factors: numbers that multiply or divide, and join lr.
    """

    op: str
    a: Expr
    b: Expr
    factors: tuple[tuple[str, Expr], ...]


class Calls:
    """The operations of one script.

    Args:
        script: the rule in statements.
        slots: its states.
        writer: spells numbers; those that change from step to step are marks, see `number`.
    """

    def __init__(self, script: Script, slots: tuple[Slot, ...], writer: TorchWriter) -> None:
        self.script, self.slots, self.writer = script, slots, writer
        self.kinds, self.live = script.kinds, writer.live
        self.names = {s.value: s.name for s in script.statements if s.role == "let" and s.value.args}
        roots = [s.value for s in script.statements] + [script.update]
        self.parents = Counter(arg for item in ex.walk(roots) for arg in item.args)
        self.parents.update({slot.next for slot in slots} | {script.update} | set(self.names))

    def is_number(self, item: Expr) -> bool:
        return self.kinds[item] is Kind.HOST

    def is_fixed(self, item: Expr) -> bool:
        """Whether it is a number that never changes, written out where it is used."""
        return self.is_number(item) and item not in self.live

    def number(self, item: Expr) -> str:
        """A host number: written out, or by the name under which `_numbers` gives it."""
        if self.is_fixed(item) or item is ex.leaf("lr"):
            return self.writer.write(item)
        return f"<{item.key}>"  # named when the operation is emitted, since only then the order is known

    def writing(self, slot: Slot) -> list[Call]:
        """A state's next value in place: where its old value is read once, at the outermost op."""
        old, value = ex.state(slot.index), slot.next
        if slot.kind is Kind.HOST or self._times_read(value, old) != 1:
            return []
        if value.op == "lerp":
            x, kept, beta = value.args
            if kept is old and x.op in ("g", "w") and self.is_fixed(beta):
                return [Call("lerp", (old, x), f", 1 - {self.tight(beta)}")]
        if value.op not in _BINARY:
            return []
        for kept, rest in (value.args, value.args[::-1]):
            if kept is value.args[1] and value.op not in _COMMUTES:
                continue
            if kept is old:
                return [self._onto(value.op, old, rest)]
            by = self._factor(kept, old)
            if by is None or value.op not in ("add", "sub"):
                continue
            weight = self._weight_of_g(rest) if value.op == "add" and self.is_fixed(by) else None
            if weight is not None and weight.op == "sub" and weight.args == (ONE, by):
                return [Call("lerp", (old, ex.leaf("g")), f", {self.writer.write(weight)}")]
            return [self._onto("mul", old, by), self._onto(value.op, old, rest)]
        by = self._factor(value, old)
        return [self._onto("mul", old, by)] if by is not None else []

    def _times_read(self, item: Expr, old: Expr) -> int:
        """How often a state is read where the node is written out."""
        if item is old:
            return 1
        inside = [arg for arg in item.args if not (arg.args and arg in self.script.names)]
        return sum(self._times_read(arg, old) for arg in inside)

    def _factor(self, item: Expr, old: Expr) -> Expr | None:
        if item.op == "mul" and self.is_free(item):
            for kept, factor in (item.args, item.args[::-1]):
                if kept is old:
                    return factor
        return None

    def _weight_of_g(self, item: Expr) -> Expr | None:
        if item.op == "mul" and self.is_free(item):
            for weight, x in (item.args, item.args[::-1]):
                if x is ex.leaf("g") and self.is_number(weight):
                    return weight
        return None

    def is_free(self, item: Expr) -> bool:
        """Whether the operation that reads a node may do its work too."""
        return self.parents[item] == 1 and item not in self.names

    # operations

    def computing(self, item: Expr) -> Call:
        """The operation that computes a node from lists."""
        a, b = item.args[0], item.args[-1]
        if item.op in _UNARY:
            return Call(item.op, (a,))
        if item.op == "norm":
            return Call("norm", (a,))
        if item.op in _BINARY or (item.op == "pow" and not self.is_number(a)):
            if not self.is_number(a) and (self.is_number(b) or not self._prefers_second(item)):
                return self._onto(item.op, a, b)
            if item.op in _COMMUTES:
                return self._onto(item.op, b, a)
            if not self.is_number(a):
                return self._onto(item.op, a, b)
        if item.op == "lerp":
            x = item.args[2]
            leaves = all(arg.op in ("g", "w", "state") for arg in item.args[:2])
            numbers = any(map(self.is_number, item.args[:2]))
            if self.is_fixed(x) and leaves and not numbers and all(map(self._is_finite, item.args[:2])):
                return Call("lerp", item.args[:2], f", {self.writer.write(x)}")
        lists = tuple(arg for arg in dict.fromkeys(item.args) if not self.is_number(arg))
        return Call("", lists)

    def _is_finite(self, item: Expr, known: frozenset[Expr] = frozenset()) -> bool:
        """Whether a value is finite while gradients are: torch's `lerp` makes NaN of an infinity."""
        if item.op == "state":
            return item in known or self._is_finite(self._next_of(item), known | {item})
        if not item.args or self.is_number(item):
            return True
        if item.op == "mul" and not any(map(self.is_number, item.args)):  # states may outgrow all bounds
            return not any(node.op == "state" for node in ex.walk(list(item.args)))
        return item.op in _FINITE and all(self._is_finite(arg, known) for arg in item.args)

    def _next_of(self, state: Expr) -> Expr:
        return next(slot.next for slot in self.slots if ex.state(slot.index) is state)

    def _prefers_second(self, item: Expr) -> bool:
        """Whether the second argument is the better one to overwrite, or the longer list of numbers."""
        a, b = item.args
        if item.op not in _COMMUTES or self.is_number(b):
            return False
        if self.kinds[a] is not self.kinds[b]:
            return self.kinds[b] is Kind.TENSOR
        return item.op == "add" and self._rides(a) and not self._rides(b)

    def _rides(self, item: Expr) -> bool:
        return item.op in ("mul", "div") and self.is_free(item) and self.kinds[item] is Kind.TENSOR

    def _onto(self, op: str, onto: Expr, other: Expr) -> Call:
        """`onto op other`; in a sum, factors and products ride along."""
        if self.is_number(other):
            return Call(op, (onto,), f", {self.number(other)}")
        whole = self.kinds[onto] is Kind.TENSOR
        if op in ("add", "sub") and whole and self._rides(other) and onto is not other:
            sign = "" if op == "add" else "-"
            weight, product = self._weighed(other)
            if product is not None:
                value = "1" if weight is None else self.tight(weight) if sign else self.number(weight)
                value = f"{sign}{value}"
                suffix = f", {value}" if value != "1" else ""
                return Call(f"addc{product.op}", (onto, *product.args), suffix)
            if weight is not None:
                x = other.args[0] if other.args[1] is weight else other.args[1]
                return Call(
                    "add", (onto, x), f", alpha={sign}{self.tight(weight) if sign else self.number(weight)}"
                )
        return Call(op, (onto, other))

    def _weighed(self, item: Expr) -> tuple[Expr | None, Expr | None]:
        """A fixed factor of a product, and the product of two tensors that remains."""
        weight = None
        if item.op == "mul":
            for factor, x in (item.args, item.args[::-1]):
                if self.is_fixed(factor) and not self.is_number(x) and self.kinds[x] is Kind.TENSOR:
                    weight, item = factor, x
                    break
        free = weight is None or (self.is_free(item) and item.op in ("mul", "div"))
        tensors = free and item.op in ("mul", "div") and all(self.kinds[x] is Kind.TENSOR for x in item.args)
        return weight, item if tensors else None

    def tight(self, item: Expr) -> str:
        text = self.number(item)
        return text if re.fullmatch(r"[\w.<>]+", text) else f"({text})"

    def last(self) -> Last | None:
        """`w -= lr * a / b` as addcdiv, `w -= lr * a * b` as addcmul; numbers that multiply a join lr."""
        update = self.script.update
        shared = self.parents[update] > 1 or any(slot.next is update for slot in self.slots)
        if update.op not in ("mul", "div") or shared:
            return None
        a, b = update.args
        factors: list[tuple[str, Expr]] = []
        while self.is_free(a) and a.op in ("mul", "div") and not self.is_number(a):
            x, y = a.args
            if self.is_number(y):
                factors.append((a.op, y))
                a = x
            elif a.op == "mul" and self.is_number(x):
                factors.append(("mul", y if self.is_number(y) else x))
                a = y
            else:
                break
        leaves = {ex.leaf("w")} & {a, b}
        tensors = all(self.kinds[arg] is Kind.TENSOR for arg in (a, b))
        return Last(update.op, a, b, tuple(factors)) if tensors and not leaves else None
