"""The numbers of the foreach form: what changes from step to step is computed once, in `_numbers`.

Operations refer to numbers by marks, `<key>`; a number gets its name, and a line in `_numbers`, when an
operation that needs it is written. Knows the layout of the function's first lines, and no operation on lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.rule import Kind
from ruleforge.export.lines import wrapped
from ruleforge.render.names import number_name
from ruleforge.render.python import TorchWriter
from ruleforge.render.script import Script, Slot


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


@dataclass(frozen=True)
class _Let:
    """A number by name."""

    name: str
    text: str


class Numbers:
    """The numbers of one script.

    Args:
        script, slots: the rule.
        writer: spells numbers.
        fresh: gives out free names.
    """

    def __init__(
        self, script: Script, slots: tuple[Slot, ...], writer: TorchWriter, fresh: Callable[[str], str]
    ) -> None:
        self.script, self.writer, self.fresh = script, writer, fresh
        self.lets: list[_Let] = []
        self.fixed: list[_Let] = []
        self.names: dict[Expr, str] = {}
        self.given: dict[str, str] = {}  # name of a number in the body, and in `_numbers`
        self.hosts = [slot.name for slot in slots if slot.kind is Kind.HOST]

    def let(self, name: str, text: str, *, fixed: bool) -> None:
        """Define a number; a fixed one may be defined in the body too."""
        self.lets.append(_Let(name, text))
        if fixed:
            self.fixed.append(_Let(name, text))

    def named(self, text: str) -> str:
        """The text with its numbers by name."""
        by_key = {item.key: item for item in self.writer.live}
        return re.sub(r"<(\w+)>", lambda match: self._name(by_key[match[1]]), text)

    def _name(self, item: Expr) -> str:
        if item not in self.names:
            known = self.script.names.get(item, "") if item.args else ""
            wish = number_name(item, self.script.names) if item.args else item.op
            if item.op == "state":
                wish = f"old_{self.script.names[item]}"
            name = known or ("t" if item is ex.leaf("t") else self.fresh(wish))
            self.names[item] = f"{name}_new" if name in self.hosts else name
            self.given[self.names[item]] = name
            if not known and item.op not in ("t", "progress"):
                self.lets.append(_Let(name, self.writer.value(item)))
        return self.names[item]

    def finished(self, body: list[str], helpers: dict[str, None], width: int) -> Foreach:
        """The whole function, from the lines that work on lists."""
        text = "\n".join(body)
        head = []
        if re.search(r"\bg\b", text):
            head.append("g = torch._foreach_neg(grads) if maximize else grads")
        if re.search(r"\bw\b", text):
            head.append("w = [p.to(x.dtype) for p, x in zip(params, grads, strict=True)]")
        if re.search(r"\bis_matrix\b", text):
            head.append("is_matrix = [x.new_full((), float(x.ndim == 2)) for x in grads]")
        host = self.hosts
        given = {**self.given, **{f"{name}_new": name for name in host}}
        fixed = _kept(self.fixed, text, width)
        if not given:
            return Foreach([*head, *fixed, *body], [], (), tuple(helpers))
        lets = list(self.lets)
        if "progress" in self.script.reads:
            lets.insert(0, _Let("progress", "_smaller(t / total_steps, 1.0)"))
            helpers["_smaller"] = None
        lines = _kept(lets, " ".join(given.values()), width)
        alone = list(given) == ["t"]
        words = set(re.findall(r"[A-Za-z_]\w*", "\n".join([*lines, *given.values()])))
        each = [name for name in ("t", *host) if name in words]
        others = [n for n in ("lr", "lr0", "total_steps", *self.script.used_hypers) if n in words]
        for name in each:
            source = "steps" if name == "t" else name
            new = name if name == "t" else f"{name}_old"
            head.append(f"{new} = _one_for_all({source}, capturable)")
        helpers["_one_for_all"] = None
        if not alone:
            arguments = [name if name == "t" else f"{name}_old" for name in each]
            helpers["_columns"] = None
            call = f"_columns({', '.join(['_numbers', *arguments, *others])})"
            head += _unpacked(list(given), call, width)
            for name in host:
                helpers["_store"] = None
                head.append(f"_store({name}, {name}_new)")
        numbers = [] if alone else [*lines, *_returned(list(given.values()), width)]
        return Foreach([*head, *fixed, *body], numbers, () if alone else (*each, *others), tuple(helpers))


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
