"""A rule as a few lines of numpy, for teaching and for checking other code against.

The file holds the rule as a pure function and a small class that steps a list of arrays. It needs numpy
alone; hyperparameters and the step are Python floats, arrays keep their dtype.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Mapping
from dataclasses import replace

from ruleforge.core.expr import Expr
from ruleforge.core.format import format_rule
from ruleforge.core.laws import ZERO
from ruleforge.core.rule import Hyper, Kind
from ruleforge.core.text import RuleText
from ruleforge.export.lines import WIDTH, float_literal, indented, wrapped
from ruleforge.export.pure import pure_function
from ruleforge.export.safety import check_class_name, check_names, class_name_for, plain_lines
from ruleforge.render.base import ATOM, Spelling
from ruleforge.render.helpers import NUMPY_HELPERS, with_needed
from ruleforge.render.python import HOST, NUMPY, PythonWriter
from ruleforge.render.ranges import ANY
from ruleforge.render.script import Plan, Script, Slot, make_script
from ruleforge.render.unicode import formula

_SCOPE = """
    np math Array Any Callable annotations params grads states g w t lr lr0 progress is_matrix weight_decay
    total_steps self step count change i rule l O I _rule
""".split()
_RESERVED = frozenset({*_SCOPE, *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *NUMPY_HELPERS})
_UNSAFE = {"div": "np.divide({0}, {1})", "pow": "np.power({0}, {1})"}


class ArrayWriter(PythonWriter):
    """Arrays in numpy's words, host numbers as Python floats, which leave an array's dtype alone."""

    def __init__(self, script: Script) -> None:
        super().__init__(script.names)
        self.script = script

    def spelling(self, item: Expr) -> Spelling:
        if self.script.kinds[item] is not Kind.HOST:
            return NUMPY[item.op]
        word = HOST[item.op]
        ranges = [self.script.ranges.get(arg, ANY) for arg in item.args]
        if item.op != "cbrt" and word.safe(ranges, self.script.ranges.get(item, ANY)):
            return word.spelling
        words = NUMPY[item.op]
        return Spelling(f"float({_UNSAFE.get(item.op, words.template)})", ATOM, (), words.helpers)


def export_numpy(
    text: RuleText,
    class_name: str | None = None,
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    provenance: Mapping[str, object] | None = None,
) -> str:
    """Source of a file with the rule in numpy.

    Args:
        text: a rule with its names.
        class_name: name of the class; from the docstring's headline when missing.
        lr: default learning rate.
        weight_decay: default decoupled weight decay.
        provenance: where the rule was found, shown at the top of the file.

    Raises:
        ExportError: a class name that cannot be used, or names that are no identifiers.
    """
    check_names(text)
    name = check_class_name(class_name) if class_name is not None else class_name_for(text.doc)
    script = make_script(text, Plan("torch", _RESERVED | {name}, 56, ArrayWriter))
    writer = ArrayWriter(script)
    pure = pure_function(
        script,
        writer,
        script.slots,
        WIDTH - 4,
        is_matrix="w.dtype.type(w.ndim == 2)",
        copied=lambda slot: slot.kind is Kind.TENSOR and not slot.next.args,
        copy="{}.copy()",
    )
    hypers = script.used_hypers
    body = "\n\n\n".join(
        [
            "\n".join(_rule_lines([*_given(script), *hypers], pure.body)),
            "\n".join(_class_lines(name, script, hypers, writer, lr, weight_decay)),
            *with_needed(writer.helpers, NUMPY_HELPERS),
        ]
    )
    head = _head(text, name, provenance or {}, uses_math="math." in body)
    return f"{head}\n\n\n{body}\n"


def _given(script: Script) -> list[str]:
    numbers: list[str] = [n for n in ("lr", "lr0") if n in script.reads]
    numbers += ["total_steps"] if "progress" in script.reads else []
    return ["g", "w", *(slot.name for slot in script.slots), "t", *numbers]


def _rule_lines(names: list[str], body: list[str]) -> list[str]:
    line = f"def _rule({', '.join(names)}):"
    head = [line] if len(line) <= WIDTH else ["def _rule(", *(f"    {name}," for name in names), "):"]
    return [
        *head,
        '    """The rule: the update, to be subtracted times lr, and the next states."""',
        *indented(body),
    ]


def _class_lines(
    name: str,
    script: Script,
    hypers: Mapping[str, Hyper],
    writer: ArrayWriter,
    lr: float,
    weight_decay: float,
) -> list[str]:
    options = {"lr": lr, **{n: h.default for n, h in hypers.items()}, "weight_decay": weight_decay}
    total = ["total_steps"] if "progress" in script.reads else []
    starts = [_start(slot, writer, script) for slot in script.slots]
    call = ", ".join(
        ["g", "w", "*states", "float(self.t)"]
        + [f"self.{n}" for n in ("lr", "lr0") if n in script.reads]
        + [f"self.{n}" for n in (*total, *hypers)]
    )
    kept = [f"({', '.join(starts)}{',' if len(starts) == 1 else ''})" if starts else "()"]
    lines = [
        f"class {name}:",
        '    """Steps arrays in place.',
        "",
        "    Args:",
        "        params: list of arrays.",
        "",
        "    `step` takes a list of gradients. `lr` may be changed between steps.",
        '    """',
        "",
        "    def __init__(",
        "        self,",
        "        params,",
        *(f"        {n}={float_literal(float(value))}," for n, value in options.items()),
        *(f"        {n}=None," for n in total),
        "    ):",
        *(
            [
                "        if total_steps is None:",
                f'            raise ValueError("{name} needs total_steps")',
            ]
            if total
            else []
        ),
        *(f"        self.{n} = {n}" for n in ["params", *options, *total]),
        "        self.lr0 = lr",
        "        self.t = 0",
        *wrapped_list("        self.states = ", kept[0]),
        "",
        "    def step(self, grads):",
        "        self.t += 1",
        "        for i, (w, g) in enumerate(zip(self.params, grads, strict=True)):",
        "            states = self.states[i]",
        '            with np.errstate(all="ignore"):',
        *(" " * 16 + part for part in wrapped(f"update, *states = _rule({call})", WIDTH - 16)),
        "                if self.weight_decay != 0:",
        "                    update = update + self.weight_decay * w",
        "                w[...] = w - self.lr * update",
        "            self.states[i] = states",
    ]
    return lines


def wrapped_list(head: str, row: str) -> list[str]:
    line = f"{head}[{row} for w in params]"
    if len(line) <= WIDTH:
        return [line]
    items = row[1:-1].rstrip(",")
    parts = _split(items)
    inner = [f"                {part}," for part in parts]
    return [f"{head}[", "            (", *inner, "            )", "            for w in params", "        ]"]


def _split(items: str) -> list[str]:
    """Arguments at the outermost commas."""
    found, depth, start = [], 0, 0
    for i, char in enumerate(items):
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            found.append(items[start:i].strip())
            start = i + 1
    return [*found, items[start:].strip()]


def _start(slot: Slot, writer: ArrayWriter, script: Script) -> str:
    value = writer.write(slot.init) if slot.init is not ZERO else "0.0"
    value = "lr" if value == "lr0" else value.replace("lr0", "lr")
    if slot.kind is Kind.HOST:
        return f"float({value})" if slot.init.op != "const" else float_literal(float(value))
    if slot.kind is Kind.SCALAR:
        return f"w.dtype.type({value})"
    return "np.zeros_like(w)" if slot.init is ZERO else f"np.full_like(w, {value})"


def _head(text: RuleText, name: str, provenance: Mapping[str, object], *, uses_math: bool) -> str:
    doc = plain_lines(text.doc, WIDTH - 4)
    lines = [f"{name} in numpy, which it needs alone.", "", *doc, ""] if doc else [f"{name} in numpy.", ""]
    lines += ["Each array w with gradient g moves by", "", *(f"    {line}" for line in formula(text)), ""]
    for key, value in provenance.items():
        lines += plain_lines(f"{key}: {value}", WIDTH - 4)
    lines += [""] if provenance else []
    lines += [f"Written by ruleforge from the rule {text.rule.key}:", ""]
    lines += [f"    {line}" for line in format_rule(replace(text, doc="")).splitlines()]
    imports = ["from __future__ import annotations", ""]
    imports += ["import math", ""] if uses_math else []
    imports += ["import numpy as np", "", f'__all__ = ["{name}"]', "", "Array = np.ndarray"]
    return "\n".join(['"""' + lines[0], *lines[1:], '"""', "", *imports])
