"""Elementwise ops in Triton, for kernels that are written into a file.

How Triton spells an op is said once, in `backends/triton_math.py`, which the GPU's plane runs and tests hold
to the definition. Its text is read here and nothing of it is imported, so that exporting needs no Triton. A
form that is one call is written where it is used; others are copied into the file as functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Kind
from ruleforge.render.base import ATOM, Spelling
from ruleforge.render.names import number_name
from ruleforge.render.python import NUMPY, PythonWriter
from ruleforge.render.script import Script

_INLINE = frozenset("add sub mul neg lerp".split())
"""Written as Python writes them."""
_LITERAL = _INLINE | {"div"}
_ARGS = ("a", "b", "c")


@cache
def _source() -> tuple[dict[str, str], dict[str, ast.FunctionDef]]:
    """Text of every function and constant of the forms, in their order, and the functions parsed."""
    text = (resources.files("ruleforge.backends") / "triton_math.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    pieces: dict[str, str] = {}
    functions: dict[str, ast.FunctionDef] = {}
    for item in ast.parse(text).body:
        if isinstance(item, ast.FunctionDef):
            functions[item.name] = item
            pieces[item.name] = "\n".join(lines[item.decorator_list[0].lineno - 1 : item.end_lineno])
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            pieces[item.targets[0].id] = "\n".join(lines[item.lineno - 1 : item.end_lineno])
    return pieces, functions


@cache
def triton_spelling(op: str) -> Spelling:
    """How an elementwise op is written in a kernel."""
    if op in _INLINE:
        return NUMPY[op]
    arity = OPS[op].arity
    form = _source()[1][f"_{op}"]
    first = form.body[0]
    if len(form.body) == 1 and isinstance(first, ast.Return) and isinstance(first.value, ast.Call):
        text = ast.unparse(first.value)
        called = tuple(name for name in _source()[1] if re.search(rf"\b{name}\(", text))
        inner = (ATOM,) * arity if ".to(" in text or " " in text.replace(", ", "") else ()
        for place, name in enumerate(_ARGS):
            text = re.sub(rf"\b{name}\b", f"{{{place}}}", text)
        return Spelling(text, ATOM, inner, called)
    args = ", ".join(f"{{{n}}}" for n in range(arity))
    return Spelling(f"_{op}({args})", helpers=(f"_{op}",))


def triton_helpers(names: Iterable[str]) -> list[str]:
    """Sources of the functions, of those that they call, and of their constants, in their order."""
    pieces, functions = _source()
    wanted = set(names)
    while True:
        text = "\n".join(pieces[name] for name in wanted)
        called = {name for name in pieces if re.search(rf"\b{name}\b", text)}
        if called <= wanted:
            break
        wanted |= called
    found = []
    for name in pieces:
        if name in wanted:
            arity = OPS[name[1:]].arity if name in functions and name[1:] in OPS else 3
            short = f"def {name}({', '.join(_ARGS[:arity])})"
            found.append(pieces[name].replace(f"def {name}(a, b, c)", short))
    return found


class TritonWriter(PythonWriter):
    """Blocks of float32, and numbers of the host by name.

    Attributes:
        numbers: the names of the numbers, by node, in the order in which they came up.
        blocks: numbers that functions take, and that must be blocks therefore.
    """

    def __init__(self, script: Script) -> None:
        super().__init__(script.names)
        self.script = script
        self.taken = set(script.names.values())
        self.numbers: dict[Expr, str] = {}
        self.blocks: dict[str, None] = {}

    def _is_number(self, item: Expr) -> bool:
        return self.script.kinds[item] is Kind.HOST

    def held(self, item: Expr) -> tuple[str, int]:
        if self._is_number(item):
            return self.number(item), ATOM
        return super().held(item)

    def _spelled(self, item: Expr) -> tuple[str, int]:
        """Constants are written out in arithmetic; functions of ours take them as numbers with a name."""
        if item.op not in _LITERAL:
            self.blocks |= {self.number(arg): None for arg in item.args if self._is_number(arg)}
            return super()._spelled(item)
        literals = {arg: repr(arg.number) for arg in item.args if arg.op == "const"}
        kept, self.numbers = self.numbers, {**literals, **self.numbers}
        text, level = super()._spelled(item)
        self.numbers = {**kept, **{n: name for n, name in self.numbers.items() if n not in literals}}
        return text, level

    def number(self, item: Expr) -> str:
        """The name under which the kernel is given a number."""
        if item not in self.numbers:
            named = (item.args or item.op == "hyper") and item in self.script.names
            if item.op == "const" or item.op == "state":
                wish = {"const": "number", "state": "old"}[item.op]
            else:
                wish = number_name(item, self.script.names) if item.args else item.op
            wish = self.script.names[item] if named else wish
            name, count = wish, 2
            while name in self.taken and not named:
                name, count = f"{wish}_{count}", count + 1
            self.taken.add(name)
            self.numbers[item] = name
        return self.numbers[item]

    def spelling(self, item: Expr) -> Spelling:
        return triton_spelling(item.op)
