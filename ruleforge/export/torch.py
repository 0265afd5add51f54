"""A rule as one standalone file with a torch optimizer, which imports torch alone.

The file holds what a reader looks for, in that order: the formula and the rule text, the update in
plain tensor arithmetic, an ordinary `Optimizer` class, and the few helpers that the rule needs. Its
style is that of ruff and black. Foreach and fused variants belong here too, from the same script.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.format import format_rule
from ruleforge.core.laws import ZERO
from ruleforge.core.rule import Kind
from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export.lines import WIDTH, float_literal, indented, joined, raise_runtime_error, wrapped
from ruleforge.export.safety import check_class_name, check_names, class_name_for, plain_lines, snake
from ruleforge.render.base import ATOM
from ruleforge.render.helpers import TORCH_HELPERS, with_needed
from ruleforge.render.names import MAX_NAME
from ruleforge.render.python import TorchWriter, python_number
from ruleforge.render.script import Plan, Script, Slot, Statement, make_script
from ruleforge.render.unicode import formula

_DOC = WIDTH - 4
_SCOPE = """
    torch math Tensor Optimizer ParamsT Any Callable annotations params grads states state grad w g t lr lr0
    progress is_matrix weight_decay maximize total_steps self group closure loss step p param defaults foreach
    capturable differentiable RANGES fused initial_lr l O I low high value name decayed
""".split()
_RESERVED = frozenset({*_SCOPE, *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *TORCH_HELPERS})


def export_torch(
    text: RuleText,
    class_name: str | None = None,
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    provenance: Mapping[str, object] | None = None,
) -> str:
    """Source of a file with one torch optimizer.

    Args:
        text: a rule with its names; dead states and lines are left out.
        class_name: name of the class; from the docstring's headline when missing.
        lr: default learning rate.
        weight_decay: default decoupled weight decay.
        provenance: where the rule was found, shown at the top of the file.

    Raises:
        ExportError: a class name that cannot be used, names that are no identifiers, or a default
            out of range.
    """
    check_names(text)
    name = check_class_name(class_name) if class_name is not None else class_name_for(text.doc)
    for label, value in (("lr", lr), ("weight_decay", weight_decay)):
        if not 0 <= value < float("inf"):
            raise ExportError(f"the default {label} is {value!r}", hint="give a finite number, 0 or above")
    return _File(text, name, float(lr), float(weight_decay), provenance or {}).source()


class _InitWriter(TorchWriter):
    """Host expressions where a state starts: hyperparameters are read from the group."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.names = {ex.hyper(i): f'group["{name}"]' for i, name in script.hypers.items()}

    def leaf(self, item: Expr) -> tuple[str, int]:
        return ('group["lr0"]', ATOM) if item.op == "lr0" else super().leaf(item)


@dataclass
class _File:
    text: RuleText
    name: str
    lr: float
    weight_decay: float
    provenance: Mapping[str, object]

    def source(self) -> str:
        written = (*self.text.states, *(line.target for line in self.text.lines))
        longest = max([10, *(min(len(name), MAX_NAME) for name in written)])
        plan = Plan("torch", _RESERVED | {self.name}, WIDTH - 22 - longest, TorchWriter)
        self.script = make_script(self.text, plan)
        self.writer = TorchWriter(self.script)
        self.reads = self.script.reads
        self.hypers = self.script.used_hypers
        update = self._update_function()
        optimizer = self._class()
        helpers = with_needed(self.writer.helpers, TORCH_HELPERS)
        body = "\n".join([*update, *optimizer, *helpers])
        parts = [
            self._docstring(),
            self._imports(body),
            *self._ranges(),
            "\n".join(update),
            "\n".join(optimizer),
        ]
        return "\n\n\n".join([*joined(parts), *helpers]) + "\n"

    # the top of the file

    def _docstring(self) -> str:
        doc = plain_lines(self.text.doc, _DOC)
        lines = [f"{self.name}: an optimizer for torch, which needs torch alone.", ""]
        lines += [*doc, ""] if doc else []
        lines += ["Each parameter tensor w with gradient g moves by", ""]
        lines += [f"    {line}" for line in formula(self.text)]
        lines += ["", "and, with weight_decay, by lr * weight_decay * w besides (decoupled).", ""]
        for key, value in self.provenance.items():
            lines += plain_lines(f"{key}: {value}", _DOC)
        lines += [""] if self.provenance else []
        lines += [f"Written by ruleforge from the rule {self.text.rule.key}:", ""]
        lines += [f"    {line}" for line in format_rule(replace(self.text, doc="")).splitlines()]
        return "\n".join(['"""' + lines[0], *lines[1:], '"""'])

    def _imports(self, body: str) -> str:
        standard = ["import math"] if "math." in body else []
        standard += ["from collections.abc import Callable", "from typing import Any"]
        return "\n".join(
            [
                "from __future__ import annotations",
                "",
                *standard,
                "",
                "import torch",
                "from torch import Tensor",
                "from torch.optim.optimizer import Optimizer, ParamsT",
                "",
                f'__all__ = ["{self.name}"]',
            ]
        )

    def _ranges(self) -> list[str]:
        if not self.hypers:
            return []
        lines = [
            f'    "{name}": ({python_number(hyper.low)}, {python_number(hyper.high)}),'
            for name, hyper in self.hypers.items()
        ]
        return [
            "\n".join(["# Open intervals that the hyperparameters must lie in.", "RANGES = {", *lines, "}"])
        ]

    # the update

    def _update_function(self) -> list[str]:
        numbers = [*self._host_arguments(), *self.hypers]
        return [
            f"def _single_tensor_{snake(self.name)}(",
            "    params: list[Tensor],",
            "    grads: list[Tensor],",
            "    states: list[dict[str, Any]],",
            "    *,",
            *(f"    {name}: float," for name in numbers),
            "    weight_decay: float,",
            "    maximize: bool,",
            ") -> None:",
            '    """Move each parameter tensor by one step; states are overwritten in place."""',
            *self._loop_head(),
            *indented(indented(self._body())),
        ]

    def _host_arguments(self) -> list[str]:
        return ["lr", *(name for name in ("lr0", "total_steps") if self._needs(name))]

    def _needs(self, name: str) -> bool:
        return ("progress" if name == "total_steps" else name) in self.reads

    def _loop_head(self) -> list[str]:
        if "g" not in self.reads:
            return ["    for w, state in zip(params, states, strict=True):"]
        return ["    for w, grad, state in zip(params, grads, states, strict=True):"]

    def _body(self) -> list[str]:
        lines = ['state["step"] += 1']
        if "g" in self.reads:
            lines.append("g = -grad if maximize else grad")
        if self.reads & {"t", "first", "progress"}:
            lines.append('t = float(state["step"])')
        if "progress" in self.reads:
            lines.append("progress = min(t / total_steps, 1.0)")
        if "is_matrix" in self.reads:
            lines.append("is_matrix = w.new_full((), float(w.ndim == 2))")
        lines += [f'{slot.name} = state["{slot.name}"]' for slot in self.script.slots]
        lines += [""] if self.script.slots or len(lines) > 2 else []
        for statement in self.script.statements:
            lines += wrapped(self._statement(statement), WIDTH - 8)
            if statement.slot is not None and statement.slot.kind is Kind.HOST:
                lines.append(f'state["{statement.name}"] = {statement.name}')
        update = self.script.kept or self.writer.write(self.script.update)
        lines += [f"update = {update}"] if update != "update" else []
        return [
            *lines,
            "if weight_decay != 0:",
            "    update = update + weight_decay * w",
            "w.sub_(lr * update)",
        ]

    def _statement(self, statement: Statement) -> str:
        name, value, slot = statement.name, statement.value, statement.slot
        text = statement.source or self.writer.value(value)
        if slot is None:
            copied = self.script.kinds[value] is not Kind.HOST and self.writer.may_alias(value)
            if not copied:
                return f"{name} = {text}"
            return f"{name} = {f'({text})' if value.op == 'where' else text}.clone()"
        if slot.kind is Kind.HOST:
            return f"{name} = {text}"
        return (not statement.source and self._in_place(slot)) or f"{name}.copy_({text})"

    def _in_place(self, slot: Slot) -> str:
        """`s.mul_(beta).add_(x)` for `beta * s + x`: the same numbers with less memory."""
        old, value = ex.state(slot.index), slot.next
        pairs = {"add": (value.args, value.args[::-1]), "sub": (value.args,)}.get(value.op, ())
        for kept, rest in pairs:
            if self._reads(rest, old):
                continue
            by = None if kept in self.script.names else self._factor(kept, old)
            if kept is old or by is not None:
                scaled = f".mul_({self.writer.write(by)})" if by is not None else ""
                return f"{slot.name}{scaled}.{value.op}_({self.writer.write(rest)})"
        by = self._factor(value, old)
        return f"{slot.name}.mul_({self.writer.write(by)})" if by is not None else ""

    def _factor(self, item: Expr, old: Expr) -> Expr | None:
        """The factor in `factor * old`."""
        if item.op == "mul":
            for kept, factor in (item.args, item.args[::-1]):
                if kept is old and not self._reads(factor, old):
                    return factor
        return None

    def _reads(self, item: Expr, old: Expr) -> bool:
        """Whether `old` is read when the node is written."""
        if item in self.script.names:
            return item is old
        return any(self._reads(arg, old) for arg in item.args)

    # the class

    def _class(self) -> list[str]:
        return [
            f"class {self.name}(Optimizer):",
            *indented(
                [
                    *self._class_docstring(),
                    "",
                    *self._init(),
                    "",
                    *self._add_param_group(),
                    "",
                    *self._step(),
                    "",
                    *self._gather(),
                ]
            ),
        ]

    def _class_docstring(self) -> list[str]:
        head = plain_lines(self.text.doc, _DOC)[:1]
        lines = [
            '"""' + (head[0].strip() if head and not head[0].strip().startswith('"') else f"{self.name}."),
            "",
        ]
        lines += [
            "Args:",
            "    params: parameters, or dicts that define parameter groups.",
            "    lr: learning rate.",
        ]
        if self._needs("total_steps"):
            lines.append("    total_steps: steps of the whole training; the rule's schedule depends on it.")
        for name, hyper in self.hypers.items():
            lines.append(
                f"    {name}: a number between {python_number(hyper.low)} and {python_number(hyper.high)}."
            )
        lines += [
            "    weight_decay: decoupled decay, outside the rule.",
            "    maximize: move along the gradient instead of against it.",
            "",
            "Every parameter group may have its own values. A NaN in a gradient is neither",
            "skipped nor repaired: it reaches the states and the weights that it concerns.",
            '"""',
        ]
        return lines

    def _init(self) -> list[str]:
        total = ["    total_steps: int | None = None,"] if self._needs("total_steps") else []
        lines = [
            "def __init__(",
            "    self,",
            "    params: ParamsT,",
            f"    lr: float = {float_literal(self.lr)},",
            *(f"    {name}: float = {float_literal(hyper.default)}," for name, hyper in self.hypers.items()),
            f"    weight_decay: float = {float_literal(self.weight_decay)},",
            "    *,",
            *total,
            "    maximize: bool = False,",
            ") -> None:",
        ]
        if total:
            lines += [
                "    if total_steps is None:",
                "        raise ValueError(",
                f'            "{self.name} needs total_steps: its schedule runs over the training",',
                "        )",
            ]
        lines += ["    defaults: dict[str, Any] = {"]
        keys = ["lr", *self.hypers, "weight_decay", *(["total_steps"] if total else []), "maximize"]
        return [
            *lines,
            *(f'        "{key}": {key},' for key in keys),
            "    }",
            "    super().__init__(params, defaults)",
        ]

    def _add_param_group(self) -> list[str]:
        lines = [
            "def add_param_group(self, param_group: dict[str, Any]) -> None:",
            '    """Add parameters with values of their own; the constructor adds its groups so."""',
            "    group = {**self.defaults, **param_group}",
            '    if not group["lr"] >= 0:',
            "        raise ValueError(f\"Invalid learning rate: {group['lr']}\")",
            '    if not group["weight_decay"] >= 0:',
            "        raise ValueError(f\"Invalid weight_decay value: {group['weight_decay']}\")",
        ]
        if self._needs("total_steps"):
            lines += [
                '    if not group["total_steps"] >= 1:',
                "        raise ValueError(f\"Invalid total_steps: {group['total_steps']}\")",
            ]
        if self.hypers:
            lines += [
                "    for name, (low, high) in RANGES.items():",
                "        value = group[name]",
                "        if not low < value < high:",
                "            raise ValueError(",
                '                f"Invalid {name}: {value} (must lie between {low} and {high})",',
                "            )",
            ]
        lines.append("    super().add_param_group(param_group)")
        if self._needs("lr0"):
            lines += ["    group = self.param_groups[-1]", '    group.setdefault("lr0", group["lr"])']
        return lines

    def _step(self) -> list[str]:
        keys = [*self._host_arguments(), *self.hypers, "weight_decay", "maximize"]
        return [
            "@torch.no_grad()",
            "def step(  # type: ignore[override]",
            "    self,",
            "    closure: Callable[[], float] | None = None,",
            ") -> float | None:",
            '    """Perform one step.',
            "",
            "    Args:",
            "        closure: evaluates the model again and returns the loss.",
            '    """',
            "    loss = None",
            "    if closure is not None:",
            "        with torch.enable_grad():",
            "            loss = closure()",
            "    for group in self.param_groups:",
            "        params, grads, states = self._gather(group)",
            f"        _single_tensor_{snake(self.name)}(",
            "            params,",
            "            grads,",
            "            states,",
            *(f'            {key}=group["{key}"],' for key in keys),
            "        )",
            "    return loss",
        ]

    def _gather(self) -> list[str]:
        init = [f"            {line}" for slot in self.script.slots for line in self._start(slot)]
        return [
            "def _gather(",
            "    self,",
            "    group: dict[str, Any],",
            ") -> tuple[list[Tensor], list[Tensor], list[dict[str, Any]]]:",
            '    """Parameters that have a gradient, with their gradients and states."""',
            "    params: list[Tensor] = []",
            "    grads: list[Tensor] = []",
            "    states: list[dict[str, Any]] = []",
            '    for p in group["params"]:',
            "        if p.grad is None:",
            "            continue",
            "        if p.grad.layout != torch.strided:",
            *raise_runtime_error(12, f"{self.name} does not support sparse gradients"),
            "        if p.is_complex():",
            *raise_runtime_error(12, f"{self.name} does not support complex parameters"),
            "        state = self.state[p]",
            "        if not state:",
            '            state["step"] = 0',
            *init,
            "        params.append(p)",
            "        grads.append(p.grad)",
            "        states.append(state)",
            "    return params, grads, states",
        ]

    def _start(self, slot: Slot) -> list[str]:
        writer = _InitWriter(self.script)
        value = writer.write(slot.init)
        self.writer.helpers |= writer.helpers
        if slot.kind is Kind.HOST:
            value = float_literal(float(slot.init.value or 0)) if slot.init.op == "const" else value
            return [f'state["{slot.name}"] = {value}']
        like = {Kind.TENSOR: "torch.full_like(p, {})", Kind.SCALAR: "p.new_full((), {})"}
        zero = {Kind.TENSOR: "torch.zeros_like(p)", Kind.SCALAR: "p.new_zeros(())"}
        made = zero[slot.kind] if slot.init is ZERO else like[slot.kind].format(value)
        return wrapped(f'state["{slot.name}"] = {made}', WIDTH - 16)
