"""The rule itself as one pure function in a Python dialect: gradient and states in, update and states out.

Every Python target shares it, so that a reader finds the maths in one place and in one form. What is
around it (classes, loops, in-place updates) belongs to the targets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ruleforge.export.lines import wrapped
from ruleforge.render.base import Writer
from ruleforge.render.script import Script, Slot


@dataclass(frozen=True)
class Pure:
    """Body of the function, and what it must be given.

    Attributes:
        body: lines, without indentation, the last one a `return`.
        tensors: what it reads of `g` and `w`.
        slots: states, in the order in which they are taken and given back.
        numbers: names of the numbers that it reads, in the order of a signature.
    """

    body: list[str]
    tensors: tuple[str, ...]
    slots: tuple[Slot, ...]
    numbers: tuple[str, ...]


def pure_function(
    script: Script,
    writer: Writer,
    slots: tuple[Slot, ...],
    width: int,
    *,
    progress: str = "min(t / total_steps, 1.0)",
    is_matrix: str = "",
    copied: Callable[[Slot], bool] = lambda slot: False,
    copy: str = "{}.clone()",
) -> Pure:
    """The rule's statements as a function body.

    Args:
        script: the rule in statements.
        writer: spells expressions.
        slots: the order of the states.
        width: longest line.
        progress: how progress is computed from `t` and `total_steps`.
        is_matrix: how `is_matrix` is computed from `w`.
        copied: whether a state's next value may be the memory of something else, and is copied.
        copy: how.
    """
    lines: list[str] = []
    if "progress" in script.reads:
        lines.append(f"progress = {progress}")
    if "is_matrix" in script.reads and is_matrix:
        lines.append(f"is_matrix = {is_matrix}")
    for statement in script.statements:
        text = statement.source or writer.value(statement.value)
        if text != statement.name:
            lines += wrapped(f"{statement.name} = {text}", width)
    update = script.kept or writer.write(script.update)
    returned = [update if len(update) <= 24 and "(" not in update else "update"]
    if returned == ["update"] and update != "update":
        lines += wrapped(f"update = {update}", width)
    for slot in slots:
        returned.append(copy.format(slot.name) if copied(slot) else slot.name)
    lines += _return(returned, width)
    words = set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", "\n".join(lines)))
    numbers = [name for name in ("t", "lr", "lr0", "total_steps") if name in words]
    numbers += [name for name in script.used_hypers if name in words]
    return Pure(lines, tuple(name for name in ("g", "w") if name in words), tuple(slots), tuple(numbers))


def _return(values: list[str], width: int) -> list[str]:
    line = f"return {', '.join(values)}" if len(values) > 1 else f"return ({values[0]},)"
    if len(line) <= width:
        return [line]
    return ["return (", *(f"    {value}," for value in values), ")"]
