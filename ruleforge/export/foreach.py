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
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE
from ruleforge.core.rule import Kind
from ruleforge.export.lines import wrapped
from ruleforge.render.names import temporary_name
from ruleforge.render.python import TorchWriter, live_numbers
from ruleforge.render.script import Script, Slot, Statement

_UNARY = frozenset("neg abs sqrt exp log log1p expm1 sin cos tan asin acos atan sinh cosh tanh floor".split())
_BINARY = frozenset("add sub mul div minimum maximum".split())
_COMMUTES = frozenset("add mul minimum maximum".split())


@dataclass(frozen=True)
class Foreach:
    """What a file needs of this form.

    Attributes:
        body: lines of the function after its docstring, without indentation.
        numbers: body of `_numbers`, or nothing.
        arguments: what `_numbers` takes.
        helpers: functions of ours that the text calls.
    """

    body: list[str]
    numbers: list[str]
    arguments: tuple[str, ...]
    helpers: tuple[str, ...]


def foreach_function(script: Script, slots: tuple[Slot, ...], width: int) -> Foreach:
    """Lower a script to foreach operations on lists that are named as its tensors are."""
    return _Lowering(script, slots, width).run()


@dataclass(frozen=True)
class _Call:
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
class _Let:
    """A number by name."""

    name: str
    text: str


class _Lowering:
    def __init__(self, script: Script, slots: tuple[Slot, ...], width: int) -> None:
        self.script, self.slots, self.width = script, slots, width
        self.kinds = script.kinds
        self.live = live_numbers(script)
        self.writer = TorchWriter(script, self.live)
        self.lines: list[str] = []
        self.helpers: dict[str, None] = {}
        self.number_lines: list[_Let] = []
        self.fixed_lines: list[_Let] = []
        self.number_names: dict[Expr, str] = {}
        self.given: dict[str, str] = {}  # name of a number in the body, and in `_numbers`
        self.host = {slot.name for slot in slots if slot.kind is Kind.HOST}
        self.taken = {*script.names.values(), *(slot.name for slot in slots), *_SCOPE}
        self.storage = {slot.name for slot in slots} | {"g", "w", "is_matrix"}
        self.holders: dict[Expr, str] = {ex.state(slot.index): slot.name for slot in slots}
        self.names = {s.value: s.name for s in script.statements if s.role == "let" and s.value.args}
        roots = [s.value for s in script.statements] + [script.update]
        self.parents = Counter(arg for item in ex.walk(roots) for arg in item.args)
        self.parents.update({slot.next for slot in slots} | {script.update} | set(self.names))
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
        delayed = [s for s in delayed if not self._is_number(s.value)]
        statements = [s for s in statements if s not in delayed]
        self.is_last = bool(delayed)
        self._count([s.value for s in statements] + [self.script.update])
        for statement in statements:
            self._statement(statement)
        self._move()
        return self._finished()

    def _count(self, roots: list[Expr]) -> None:
        """How often each list is read, by the operations that will be emitted."""
        seen: set[Expr] = set()
        pending = [root for root in roots if not self._is_number(root)]
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
        calls = self._write_calls(slot) if slot is not None else []
        if calls:
            return [x for call in calls for x in call.operands]
        if item is self.script.update and self._quotient():
            _, a, b, _ = self._quotient() or ("", item, item, [])
            return [a, b]
        return list(self._call(item).operands)

    # numbers

    def _is_number(self, item: Expr) -> bool:
        return self.kinds[item] is Kind.HOST

    def _fixed(self, item: Expr) -> bool:
        """Whether it is a number that never changes, written out where it is used."""
        return self._is_number(item) and item not in self.live

    def _number(self, item: Expr) -> str:
        """A host number: written out, or by the name under which `_numbers` gives it."""
        if self._fixed(item) or item is ex.leaf("lr"):
            return self.writer.write(item)
        return f"<{item.key}>"  # named when the operation is emitted, since only then the order is known

    def _named(self, text: str) -> str:
        """The text with its numbers by name."""
        by_key = {item.key: item for item in self.live}
        return re.sub(r"<(\w+)>", lambda match: self._number_name(by_key[match[1]]), text)

    def _number_name(self, item: Expr) -> str:
        if item not in self.number_names:
            known = self.script.names.get(item, "") if item.args else ""
            wish = temporary_name(item, self.script.names, set()) if item.args else item.op
            if item.op == "state":
                wish = f"old_{self.script.names[item]}"
            name = known or ("t" if item is ex.leaf("t") else self._fresh({"part": "number"}.get(wish, wish)))
            self.number_names[item] = f"{name}_new" if name in self.host else name
            self.given[self.number_names[item]] = name
            if not known and item.op not in ("t", "progress"):
                self.number_lines.append(_Let(name, self.writer.value(item)))
        return self.number_names[item]

    # statements

    def _statement(self, statement: Statement) -> None:
        value, slot = statement.value, statement.slot
        if self._is_number(value):
            text = statement.source or self.writer.value(value)
            if text != statement.name:
                self.number_lines.append(_Let(statement.name, text))
                if self._fixed(value) and slot is None:
                    self.fixed_lines.append(_Let(statement.name, text))
            return
        if slot is None:
            name = self._emit(value, statement.name)
            if not value.args:
                self._add(f"{statement.name} = [x.clone() for x in {name}]")
                self.holders[value] = statement.name
            elif name != statement.name:
                self._add(f"{statement.name} = {name}")
                self.holders[value] = statement.name
        elif not statement.source and value not in self.holders and self._write_calls(slot):
            self._write(slot)
        else:
            name = self._emit(value, self._fresh("new") if value.args and value not in self.holders else "")
            self._add(f"torch._foreach_copy_({slot.name}, {name})")
            if value.args:
                self.holders[value] = slot.name
        self.left[value] -= 1

    def _write(self, slot: Slot) -> None:
        for call in self._write_calls(slot):
            others = [self._emit(arg, self._fresh("part")) for arg in call.operands[1:]]
            self._add(f"torch._foreach_{call.stem}_({', '.join([slot.name, *others])}{call.rest})")
            self.left.subtract(call.operands)
        self.holders[slot.next] = slot.name

    def _write_calls(self, slot: Slot) -> list[_Call]:
        """A state's next value in place: where its old value is read once, at the outermost op."""
        old, value = ex.state(slot.index), slot.next
        if slot.kind is Kind.HOST or self._times_read(value, old) != 1:
            return []
        if value.op == "lerp":
            x, kept, beta = value.args
            if kept is old and x.op in ("g", "w") and self._fixed(beta):
                return [_Call("lerp", (old, x), f", 1 - {self._tight(beta)}")]
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
            weight = self._weight_of_g(rest) if value.op == "add" and self._fixed(by) else None
            if weight is not None and weight.op == "sub" and weight.args == (ONE, by):
                return [_Call("lerp", (old, ex.leaf("g")), f", {self.writer.write(weight)}")]
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
        if item.op == "mul" and self._is_free(item):
            for kept, factor in (item.args, item.args[::-1]):
                if kept is old:
                    return factor
        return None

    def _weight_of_g(self, item: Expr) -> Expr | None:
        if item.op == "mul" and self._is_free(item):
            for weight, x in (item.args, item.args[::-1]):
                if x is ex.leaf("g") and self._is_number(weight):
                    return weight
        return None

    def _is_free(self, item: Expr) -> bool:
        """Whether the operation that reads a node may do its work too."""
        return self.parents[item] == 1 and item not in self.names

    # operations

    def _call(self, item: Expr) -> _Call:
        """The operation that computes a node from lists."""
        a, b = item.args[0], item.args[-1]
        if item.op in _UNARY:
            return _Call(item.op, (a,))
        if item.op == "norm":
            return _Call("norm", (a,))
        if item.op in _BINARY or (item.op == "pow" and not self._is_number(a)):
            if not self._is_number(a) and (self._is_number(b) or not self._prefers_second(item)):
                return self._onto(item.op, a, b)
            if item.op in _COMMUTES:
                return self._onto(item.op, b, a)
            if not self._is_number(a):
                return self._onto(item.op, a, b)
        if item.op == "lerp":
            x = item.args[2]
            leaves = all(arg.op in ("g", "w", "state") for arg in item.args[:2])
            if self._fixed(x) and leaves and not any(map(self._is_number, item.args[:2])):
                return _Call("lerp", item.args[:2], f", {self.writer.write(x)}")
        lists = tuple(arg for arg in dict.fromkeys(item.args) if not self._is_number(arg))
        return _Call("", lists)

    def _prefers_second(self, item: Expr) -> bool:
        """Whether the second argument is the better one to overwrite, or the longer list of numbers."""
        a, b = item.args
        if item.op not in _COMMUTES or self._is_number(b):
            return False
        if self.kinds[a] is not self.kinds[b]:
            return self.kinds[b] is Kind.TENSOR
        return item.op == "add" and self._rides(a) and not self._rides(b)

    def _rides(self, item: Expr) -> bool:
        return item.op in ("mul", "div") and self._is_free(item) and self.kinds[item] is Kind.TENSOR

    def _onto(self, op: str, onto: Expr, other: Expr) -> _Call:
        """`onto op other`; in a sum, factors and products ride along."""
        if self._is_number(other):
            return _Call(op, (onto,), f", {self._number(other)}")
        whole = self.kinds[onto] is Kind.TENSOR
        if op in ("add", "sub") and whole and self._rides(other) and onto is not other:
            sign = "" if op == "add" else "-"
            weight, product = self._weighed(other)
            if product is not None:
                value = "1" if weight is None else self._tight(weight) if sign else self._number(weight)
                value = f"{sign}{value}"
                suffix = f", {value}" if value != "1" else ""
                return _Call(f"addc{product.op}", (onto, *product.args), suffix)
            if weight is not None:
                x = other.args[0] if other.args[1] is weight else other.args[1]
                return _Call(
                    "add", (onto, x), f", alpha={sign}{self._tight(weight) if sign else self._number(weight)}"
                )
        return _Call(op, (onto, other))

    def _weighed(self, item: Expr) -> tuple[Expr | None, Expr | None]:
        """A fixed factor of a product, and the product of two tensors that remains."""
        weight = None
        if item.op == "mul":
            for factor, x in (item.args, item.args[::-1]):
                if self._fixed(factor) and not self._is_number(x) and self.kinds[x] is Kind.TENSOR:
                    weight, item = factor, x
                    break
        free = weight is None or (self._is_free(item) and item.op in ("mul", "div"))
        tensors = free and item.op in ("mul", "div") and all(self.kinds[x] is Kind.TENSOR for x in item.args)
        return weight, item if tensors else None

    def _tight(self, item: Expr) -> str:
        text = self._number(item)
        return text if re.fullmatch(r"[\w.<>]+", text) else f"({text})"

    def _emit(self, item: Expr, want: str) -> str:
        """Compute a node unless it is there already; the name of the list that holds it."""
        if item in self.holders:
            return self.holders[item]
        if not item.args:
            return item.op
        want = self.names.get(item, want) or self._fresh("part")
        call = self._call(item)
        names: list[str] = []
        for place, arg in enumerate(call.operands):
            wish = want if place == 0 and (call.stem or item.op == "sign") else ""
            names.append(self._emit(arg, wish))
        if item.op == "sign" and names[0] not in self.storage and self.left[item.args[0]] == 1:
            name = names[0]
            self.helpers |= {"_each": None, "_sign": None, "_sign_": None}
            self._add(f"_each(_sign_, {name})")
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
            if self._is_number(arg) and not self._fixed(arg):
                given[arg] = self._named(self._number(arg))
        letters = dict(zip(given, "xyz", strict=False))
        writer = TorchWriter(self.script, self.live)
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
        if item.op == "orthogonalize" or (item.op == "where" and self._is_number(item.args[0])):
            self._add(f"{want} = [x.clone() for x in {want}]")
        return want

    def _fresh(self, wish: str) -> str:
        name, number = wish, 2
        while name in self.taken:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name

    def _add(self, line: str, indent: int = 0) -> None:
        made = wrapped(self._named(line), self.width - indent)
        self.lines += [" " * indent + part for part in made]

    # the weights

    def _move(self) -> None:
        """`w -= lr * (update + weight_decay * w)`; where numbers are floats, without one more pass."""
        update = self.script.update
        decay = ["if weight_decay != 0:", "    torch._foreach_mul_(params, 1 - lr * weight_decay)"]
        if self._is_number(update):
            text = self._named(self._number(update))
            self.helpers["_each"] = None
            self.lines += [f"change = _each(lambda x: lr * x, {text})", *decay]
            self.lines += ["torch._foreach_sub_(params, change)"]
            return
        found = self._quotient() if update not in self.holders else None
        if found is not None:
            op, a, b, factors = found
            first = self._emit(a, self._fresh("part") if a.args else "")
            second = self._emit(b, self._fresh("part") if b.args else "")
            slow = [f"update = torch._foreach_{op}({first}, {second})"]
            slow += [f"torch._foreach_{way}_(update, {self._number(number)})" for way, number in factors]
            slow += ["torch._foreach_mul_(update, lr)", "torch._foreach_sub_(params, update)"]
            size = "".join(
                f" {'*' if way == 'mul' else '/'} {self._tight(number)}" for way, number in factors
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

    def _quotient(self) -> tuple[str, Expr, Expr, list[tuple[str, Expr]]] | None:
        """`w -= lr * a / b` as addcdiv, `w -= lr * a * b` as addcmul; numbers that multiply a join lr."""
        update = self.script.update
        shared = self.parents[update] > 1 or any(slot.next is update for slot in self.slots)
        if update.op not in ("mul", "div") or shared or not self.is_last:
            return None
        a, b = update.args
        factors: list[tuple[str, Expr]] = []
        while self._is_free(a) and a.op in ("mul", "div") and not self._is_number(a):
            x, y = a.args
            if self._is_number(y):
                factors.append((a.op, y))
                a = x
            elif a.op == "mul" and self._is_number(x):
                factors.append(("mul", y if self._is_number(y) else x))
                a = y
            else:
                break
        leaves = {ex.leaf("w")} & {a, b}
        tensors = all(self.kinds[arg] is Kind.TENSOR for arg in (a, b))
        return (update.op, a, b, factors) if tensors and not leaves else None

    # the end

    def _finished(self) -> Foreach:
        text = "\n".join(self.lines)
        head = []
        if re.search(r"\bg\b", text):
            head.append("g = torch._foreach_neg(grads) if maximize else grads")
        if re.search(r"\bw\b", text):
            head.append("w = [p.to(x.dtype) for p, x in zip(params, grads, strict=True)]")
        if re.search(r"\bis_matrix\b", text):
            head.append("is_matrix = [x.new_full((), float(x.ndim == 2)) for x in grads]")
        host = [slot.name for slot in self.slots if slot.kind is Kind.HOST]
        self.helpers |= self.writer.helpers
        given = {**self.given, **{f"{name}_new": name for name in host}}
        fixed = _kept(self.fixed_lines, "\n".join(self.lines), self.width)
        if not given:
            return Foreach([*head, *fixed, *self.lines], [], (), tuple(self.helpers))
        lets = list(self.number_lines)
        if "progress" in self.script.reads:
            lets.insert(0, _Let("progress", "_smaller(t / total_steps, 1.0)"))
            self.helpers["_smaller"] = None
        lines = _kept(lets, " ".join(given.values()), self.width)
        alone = list(given) == ["t"]
        words = set(re.findall(r"[A-Za-z_]\w*", "\n".join([*lines, *given.values()])))
        each = [name for name in ("t", *host) if name in words]
        others = [n for n in ("lr", "lr0", "total_steps", *self.script.used_hypers) if n in words]
        for name in each:
            source = "steps" if name == "t" else name
            new = name if name == "t" else f"{name}_old"
            head.append(f"{new} = _one_for_all({source}, capturable)")
        self.helpers["_one_for_all"] = None
        if not alone:
            arguments = [name if name == "t" else f"{name}_old" for name in each]
            self.helpers["_columns"] = None
            call = f"_columns({', '.join(['_numbers', *arguments, *others])})"
            head += _unpacked(list(given), call, self.width)
            for name in host:
                self.helpers["_store"] = None
                head.append(f"_store({name}, {name}_new)")
        body = [*head, *fixed, *self.lines]
        numbers = [] if alone else [*lines, *_returned(list(given.values()), self.width)]
        return Foreach(body, numbers, () if alone else (*each, *others), tuple(self.helpers))


def _kept(lets: list[_Let], text: str, width: int) -> list[str]:
    """The lines that the text needs, directly or through others."""
    lines: list[str] = []
    for let in reversed(lets):
        if re.search(rf"\b{let.name}\b", text):
            lines = [*wrapped(f"{let.name} = {let.text}", width), *lines]
            text += f"\n{let.text}"
    return lines


def _unpacked(targets: list[str], call: str, width: int) -> list[str]:
    left = ", ".join(targets) if len(targets) > 1 else f"({targets[0]},)"
    if len(left) > width // 2:
        return [*wrapped(f"found = {call}", width), *_spread(targets)]
    return wrapped(f"{left} = {call}", width)


def _spread(targets: list[str]) -> list[str]:
    return ["(", *(f"    {name}," for name in targets), ") = found"]


def _returned(values: list[str], width: int) -> list[str]:
    line = f"return {', '.join(values)}" if len(values) > 1 else f"return ({values[0]},)"
    if len(line) <= width:
        return [line]
    return ["return (", *(f"    {value}," for value in values), ")"]


_SCOPE = frozenset(
    "params grads steps g w t update lr lr0 capturable maximize change x y z weight_decay is_matrix".split()
)
