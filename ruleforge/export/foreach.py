"""The rule over lists of tensors, in torch's foreach operations: the fast form of the same statements.

States and values that nothing reads any more are overwritten in place, and the pairs of operations that
torch has one pass for (`lerp`, `addcmul`, `addcdiv`) are used. Rounding may differ in the last place from
the pure function. An op that torch has no list form for goes tensor by tensor, in the words of
`render.python`.

Numbers that change from step to step come from `_numbers`, computed once; where the device must not be
waited for they are lists of 0-dim tensors, which the same operations take.
"""

from __future__ import annotations

import re
from collections import Counter

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.rule import Kind
from ruleforge.export.foreach_calls import Calls
from ruleforge.export.foreach_numbers import Foreach, Numbers
from ruleforge.export.lines import wrapped
from ruleforge.export.zeros import tells_zeros_apart
from ruleforge.render.python import TorchWriter, live_numbers
from ruleforge.render.script import Script, Slot, Statement


def foreach_function(script: Script, slots: tuple[Slot, ...], width: int) -> Foreach:
    """Lower a script to foreach operations on lists that are named as its tensors are."""
    return _Lowering(script, slots, width).run()


class _Lowering:
    def __init__(self, script: Script, slots: tuple[Slot, ...], width: int) -> None:
        self.script, self.slots, self.width = script, slots, width
        self.kinds = script.kinds
        self.writer = TorchWriter(script, live_numbers(script))
        self.calls = Calls(script, slots, self.writer)
        self.numbers = Numbers(script, slots, self.writer, self._fresh)
        self.lines: list[str] = []
        self.helpers: dict[str, None] = {}
        self.taken = {*script.names.values(), *(slot.name for slot in slots), *_SCOPE}
        self.storage = {slot.name for slot in slots} | {"g", "w", "is_matrix"}
        self.holders: dict[Expr, str] = {ex.state(slot.index): slot.name for slot in slots}
        self.in_place = {
            s.value: s.slot for s in script.statements if s.slot is not None and not s.source and s.value.args
        }
        self.left: Counter[Expr] = Counter()

    def run(self) -> Foreach:
        statements = list(self.script.statements)
        last_write = max((i for i, s in enumerate(statements) if s.role == "write"), default=-1)
        delayed = [
            s
            for i, s in enumerate(statements)
            if s.value is self.script.update and i > last_write and s.role == "let" and s.value.args
        ]
        delayed = [s for s in delayed if not self.calls.is_number(s.value)]
        statements = [s for s in statements if s not in delayed]
        self.is_last = bool(delayed)
        self._count([s.value for s in statements] + [self.script.update])
        for statement in statements:
            self._statement(statement)
        self._move()
        self.helpers |= self.writer.helpers
        return self.numbers.finished(self.lines, self.helpers, self.width)

    def _count(self, roots: list[Expr]) -> None:
        """How often each list is read, by the operations that will be emitted."""
        seen: set[Expr] = set()
        pending = [root for root in roots if not self.calls.is_number(root)]
        self.left.update(pending)
        while pending:
            item = pending.pop()
            if item in seen or not item.args:
                continue
            seen.add(item)
            read = self._reads_of(item)
            self.left.update(read)
            pending += read

    def _reads_of(self, item: Expr) -> list[Expr]:
        slot = self.in_place.get(item)
        calls = self.calls.writing(slot) if slot is not None else []
        if calls:
            return [x for call in calls for x in call.operands]
        last = self.calls.last() if self.is_last and item is self.script.update else None
        if last is not None:
            return [last.a, last.b]
        return list(self.calls.computing(item).operands)

    # statements

    def _statement(self, statement: Statement) -> None:
        value, slot = statement.value, statement.slot
        if self.calls.is_number(value):
            text = statement.source or self.writer.value(value)
            if text != statement.name:
                self.numbers.let(statement.name, text, fixed=self.calls.is_fixed(value) and slot is None)
            return
        if slot is None:
            name = self._emit(value, statement.name)
            if not value.args:
                self._add(f"{statement.name} = [x.clone() for x in {name}]")
                self.holders[value] = statement.name
            elif name != statement.name:
                self._add(f"{statement.name} = {name}")
                self.holders[value] = statement.name
        elif not statement.source and value not in self.holders and self.calls.writing(slot):
            self._write(slot)
        else:
            name = self._emit(value, self._fresh("new") if value.args and value not in self.holders else "")
            self._add(f"torch._foreach_copy_({slot.name}, {name})")
            if value.args:
                self.holders[value] = slot.name
        self.left[value] -= 1

    def _write(self, slot: Slot) -> None:
        for call in self.calls.writing(slot):
            others = [self._emit(arg, self._fresh("part")) for arg in call.operands[1:]]
            self._add(f"torch._foreach_{call.stem}_({', '.join([slot.name, *others])}{call.rest})")
            self.left.subtract(call.operands)
        self.holders[slot.next] = slot.name

    def _emit(self, item: Expr, want: str) -> str:
        """Compute a node unless it is there already; the name of the list that holds it."""
        if item in self.holders:
            return self.holders[item]
        if not item.args:
            return item.op
        want = self.calls.names.get(item, want) or self._fresh("part")
        call = self.calls.computing(item)
        names: list[str] = []
        for place, arg in enumerate(call.operands):
            wish = want if place == 0 and (call.stem or item.op == "sign") else ""
            names.append(self._emit(arg, wish))
        mine = names[0] not in self.storage and self.left[item.args[0]] == 1
        if item.op == "sign" and mine and not tells_zeros_apart(self.script, item):
            name = names[0]
            self.helpers["_signs_"] = None
            self._add(f"_signs_({name})")
        elif not call.stem:
            name = self._each(item, want, dict(zip(call.operands, names, strict=True)))
        else:
            first = call.operands[0]
            mine = (
                names[0] not in self.storage
                and self.left[first] == call.operands.count(first)
                and self.kinds[first] is self.kinds[item]
                and call.stem != "norm"
            )
            name = names[0] if mine else want
            text = f"torch._foreach_{call.stem}{'_' if mine else ''}({', '.join(names)}{call.rest})"
            self._add(text if mine else f"{name} = {text}")
        self.left.subtract(call.operands)
        self.holders[item] = name
        return name

    def _each(self, item: Expr, want: str, lists: dict[Expr, str]) -> str:
        """Tensor by tensor, in the words of the pure function."""
        given = dict(lists)
        for arg in item.args:
            if self.calls.is_number(arg) and not self.calls.is_fixed(arg):
                given[arg] = self.numbers.named(self.calls.number(arg))
        letters = dict(zip(given, "xyz", strict=False))
        writer = TorchWriter(self.script, self.writer.live)
        hypers = {node: name for node, name in writer.names.items() if node.op == "hyper"}
        writer.names = {**hypers, **letters}
        text = writer.value(item)
        self.helpers |= writer.helpers
        arguments = list(given.values())
        if re.search(r"\bw\b", text):
            text = re.sub(r"\bw\b", next(letters[arg] for arg in lists), text)
        function = re.fullmatch(rf"([A-Za-z_.]+)\({', '.join(letters.values())}\)", text)
        called = function[1] if function else f"lambda {', '.join(letters.values())}: {text}"
        self.helpers["_each"] = None
        self._add(f"{want} = {', '.join([f'_each({called}', *arguments])})")
        if item.op == "orthogonalize" or (item.op == "where" and self.calls.is_number(item.args[0])):
            self._add(f"{want} = [x.clone() for x in {want}]")
        return want

    def _fresh(self, wish: str) -> str:
        name, number = wish, 2
        while name in self.taken:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name

    def _add(self, line: str, indent: int = 0) -> None:
        made = wrapped(self.numbers.named(line), self.width - indent)
        self.lines += [" " * indent + part for part in made]

    # the weights

    def _move(self) -> None:
        """`w -= lr * (update + weight_decay * w)`; where numbers are floats, without one more pass."""
        update = self.script.update
        decay = ["if weight_decay != 0:", "    torch._foreach_mul_(params, 1 - lr * weight_decay)"]
        if self.calls.is_number(update):
            text = self.numbers.named(self.calls.number(update))
            self.helpers["_each"] = None
            self.lines += [f"change = _each(lambda x: lr * x, {text})", *decay]
            self.lines += ["torch._foreach_sub_(params, change)"]
            return
        found = self.calls.last() if self.is_last and update not in self.holders else None
        if found is not None:
            op, a, b, factors = found.op, found.a, found.b, found.factors
            first = self._emit(a, self._fresh("part") if a.args else "")
            second = self._emit(b, self._fresh("part") if b.args else "")
            slow = [f"update = torch._foreach_{op}({first}, {second})"]
            slow += [f"torch._foreach_{way}_(update, {self.calls.number(number)})" for way, number in factors]
            slow += ["torch._foreach_mul_(update, lr)", "torch._foreach_sub_(params, update)"]
            size = "".join(
                f" {'*' if way == 'mul' else '/'} {self.calls.tight(number)}" for way, number in factors
            )
            fast = f"torch._foreach_addc{op}_(params, {first}, {second}, -lr{size})"
        else:
            name = self._emit(update, "update")
            if name == "w":  # decay comes first, and would change it
                self._add("update = [x.clone() for x in w]")
                name = "update"
            mine = name not in self.storage
            slow = [
                f"torch._foreach_mul_({name}, lr)" if mine else f"update = torch._foreach_mul({name}, lr)"
            ]
            slow += [f"torch._foreach_sub_(params, {name if mine else 'update'})"]
            fast = f"torch._foreach_add_(params, {name}, alpha=-lr)"
            if self.kinds[update] is not Kind.TENSOR:
                fast = ""
        self.lines += decay
        if not fast:
            for line in slow:
                self._add(line)
            return
        self.lines.append("if capturable:")
        for line in slow:
            self._add(line, 4)
        self.lines.append("else:")
        self._add(fast, 4)


_SCOPE = frozenset(
    "params grads steps g w t update lr lr0 capturable maximize change x y z weight_decay is_matrix".split()
)
