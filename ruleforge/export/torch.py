"""A rule as one standalone file with a torch optimizer, which imports torch alone.

The file holds what a reader looks for, in that order: the formula and the rule text, the rule as a pure
function, the two ways to step (tensor by tensor, and over lists in foreach operations), an ordinary
`Optimizer` class, and the few helpers that the rule needs. Its style is that of ruff and black.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.format import format_rule
from ruleforge.core.laws import ZERO
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Kind
from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export.faster import with_fewer_passes
from ruleforge.export.foreach import foreach_function
from ruleforge.export.foreach_numbers import Foreach
from ruleforge.export.lines import WIDTH, float_literal, indented, wrapped
from ruleforge.export.pure import Pure, pure_function
from ruleforge.export.safety import check_class_name, check_names, class_name_for, plain_lines, snake
from ruleforge.export.scope import RESERVED
from ruleforge.export.torch_class import class_lines
from ruleforge.export.triton import why_not_fused
from ruleforge.render.base import ATOM
from ruleforge.render.helpers import TORCH_HELPERS, with_needed
from ruleforge.render.names import MAX_NAME
from ruleforge.render.python import TorchWriter, live_numbers, python_number
from ruleforge.render.script import Plan, Script, Slot, make_script
from ruleforge.render.unicode import formula

STATE_VERSION = 2
"""Of the layout of exported states; raised when old ones can no longer be read."""

_DOC = WIDTH - 4
_BLOCK = """
# Tensors on a CPU are stepped in parts of this many weights, which stay in its cache:
# memory is read and written once a step, not once an operation.
BLOCK = 2**18
"""

_TOGETHER = '''
def _together(*columns: list[Tensor]@CAPTURABLE@) -> Iterator[list[list[Tensor]]]:
    """Lists that step as one: alike in device and dtype@ALIKE@."""
    keys: list[Any] = [(p.device, p.dtype) for p in columns[0]]
    @NUMBERS@
    kinds = list(dict.fromkeys(keys))
    for kind in kinds:
        group = list(columns)
        if len(kinds) > 1:
            chosen = [key == kind for key in keys]
            group = [list(compress(column, chosen)) for column in columns]
        @YIELD@
'''
_BLOCKS = '''
def _blocks(columns: list[list[Tensor]]) -> Iterator[list[list[Tensor]]]:
    """The same in parts of about BLOCK weights, on a CPU."""
    params = columns[0]
    if params[0].device.type != "cpu" or sum(p.numel() for p in params) <= BLOCK:
        yield columns
        return
    part: list[list[Tensor]] = [[] for _ in columns]
    size = 0
    for row in zip(*columns, strict=True):
        for piece in _pieces(list(row)):
            for column, x in zip(part, piece, strict=True):
                column.append(x)
            size += piece[0].numel()
            if size >= BLOCK:
                yield part
                part, size = [[] for _ in columns], 0
    if part[0]:
        yield part


def _pieces(row: list[Tensor]) -> Iterator[list[Tensor]]:
    """Views of a parameter, its gradient and its states, cut alike where they are large."""
    size = row[0].numel()
    tensors = [x for x in row if x.numel() == size]
    if size <= BLOCK or not all(x.is_contiguous() for x in tensors):
        yield row
        return
    count = -(-size // BLOCK)
    views = [x.view(-1).chunk(count) if x.numel() == size else [x] * count for x in row]
    for piece in zip(*views, strict=True):
        yield list(piece)
'''


_KERNELS = '''
def _kernels() -> Any:
    """The file with the fused kernel, which lies beside this one."""
    name = f"{__name__}_fused"
    try:
        found: Any = importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(f"fused=True needs Triton and {name}.py: {error}") from error
    if found.RULE != RULE:
        raise RuntimeError(f"{name}.py is of rule {found.RULE}, not of {RULE}")
    return found
'''


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
        longest = max([24, *(min(len(name), MAX_NAME) for name in written)])

        def script_of(text: RuleText) -> Script:
            return make_script(text, Plan("torch", RESERVED | {self.name}, WIDTH - 8 - longest, _live_writer))

        self.script = script_of(self.text)
        lists = script_of(with_fewer_passes(self.script))
        self.snake = snake(self.name)
        self.slots = _numbers_first(self.script)
        self.host = [slot.name for slot in self.slots if slot.kind is Kind.HOST]
        self.reads = self.script.reads
        self.hypers = self.script.used_hypers
        self.counts = bool(self.reads & {"t", "first", "progress"})
        writer = _live_writer(self.script)
        pure = self._pure(writer)
        multi = foreach_function(lists, _numbers_first(lists), WIDTH - 4)
        starts, init_helpers = self._starts()
        why_not = why_not_fused(self.text.rule)
        optimizer = class_lines(
            self.name, self._headline(), lr=self.lr, weight_decay=self.weight_decay, hypers=self.hypers,
            slots=self.slots, starts=starts, snake=self.snake, reads_lr0="lr0" in self.reads,
            needs_total="progress" in self.reads, counts=self.counts,
            why_not_fused=why_not,
        )  # fmt: skip
        helpers = {
            **writer.helpers,
            **dict.fromkeys(multi.helpers),
            **init_helpers,
            "_as_real": None,
            "_take_back": None,
        }
        if self.host or "t" in pure.numbers:
            helpers["_number"] = None
        functions = [
            self._rule_function(pure),
            self._single(pure),
            *self._numbers(multi),
            self._multi(multi),
        ]
        kernels = [] if why_not else [_KERNELS.strip()]
        tail = [*self._grouping(multi), *kernels, *with_needed(helpers, TORCH_HELPERS)]
        body = "\n\n\n".join(["\n".join(part) for part in [*functions, optimizer]] + tail)
        head = "\n\n".join([self._docstring(), self._imports(body), self._constants()])
        return f"{head}\n\n\n{body}\n"

    # the top of the file

    def _headline(self) -> str:
        head = plain_lines(self.text.doc, _DOC)[:1]
        return head[0].strip() if head and not head[0].strip().startswith('"') else f"{self.name}."

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
        standard = ["import importlib"] if "importlib." in body else []
        standard += ["import math"] if "math." in body else []
        return "\n".join(
            [
                "from __future__ import annotations",
                "",
                *standard,
                "from collections.abc import Callable, Iterator",
                "from itertools import compress",
                "from typing import Any",
                "",
                "import torch",
                "from torch import Tensor",
                "from torch.optim.optimizer import Optimizer, ParamsT",
                "",
                f'__all__ = ["{self.name}"]',
            ]
        )

    def _constants(self) -> str:
        lines = [
            "# Which rule a state dict belongs to, and the version of its layout.",
            f'RULE = "{self.text.rule.key}"',
            f"VERSION = {STATE_VERSION}",
            *_tuple("STATES", [*(["step"] if self.counts else []), *(slot.name for slot in self.slots)]),
            "OPTIONS = {",
            '    "maximize": False,',
            '    "foreach": None,',
            '    "fused": False,',
            '    "capturable": False,',
            '    "differentiable": False,',
            '    "state_dtype": None,',
            "}",
            "HALF = (torch.float16, torch.bfloat16)",
            "PLAIN = (Tensor, torch.nn.Parameter)",
        ]
        if self.hypers:
            lines += ["# Open intervals that the hyperparameters must lie in.", "RANGES = {"]
            lines += [
                f'    "{name}": ({python_number(hyper.low)}, {python_number(hyper.high)}),'
                for name, hyper in self.hypers.items()
            ]
            lines.append("}")
        if self._is_elementwise():
            lines += _BLOCK.strip().splitlines()
        return "\n".join(lines)

    # the functions

    def _pure(self, writer: TorchWriter) -> Pure:
        return pure_function(
            self.script, writer, self.slots, WIDTH - 4,
            progress="_smaller(t / total_steps, 1.0)", is_matrix="w.new_full((), float(w.ndim == 2))",
            copied=lambda slot: slot.kind is not Kind.HOST and _is_another(slot, writer),
        )  # fmt: skip

    def _rule_function(self, pure: Pure) -> list[str]:
        tensors = [*pure.tensors, *(slot.name for slot in self.slots if slot.kind is not Kind.HOST)]
        live = [*self.host, *(name for name in ("t", "lr") if name in pure.numbers)]
        fixed = [name for name in pure.numbers if name not in ("t", "lr")]
        return [
            "def _rule(",
            *(["    *,"] if not tensors else []),
            *(f"    {name}: Tensor," for name in tensors),
            *(["    *,"] if tensors and (live or fixed) else []),
            *(f"    {name}: float | Tensor," for name in live),
            *(f"    {name}: float," for name in fixed),
            ") -> tuple[Any, ...]:",
            '    """The rule: the update, to be subtracted times lr, and the next states."""',
            *indented(pure.body),
        ]

    def _signature(self, function: str, options: list[str]) -> list[str]:
        lists = ["params", "grads", *(["steps"] if self.counts else []), *(slot.name for slot in self.slots)]
        numbers = [name for name in ("lr0", "total_steps") if self._needs(name)]
        return [
            f"def {function}_{self.snake}(",
            *(f"    {name}: list[Tensor]," for name in lists),
            "    *,",
            "    lr: Any,",
            *(f"    {name}: float," for name in [*numbers, *self.hypers]),
            "    weight_decay: float,",
            *(f"    {name}: bool," for name in options),
            ") -> None:",
        ]

    def _needs(self, name: str) -> bool:
        return ("progress" if name == "total_steps" else name) in self.reads

    def _single(self, pure: Pure) -> list[str]:
        lines = ["g = -grads[i] if maximize else grads[i]"] if pure.tensors else []
        if "w" in pure.tensors:
            lines.append("w = p.clone() if differentiable else p.to(g.dtype)")
        arguments = list(pure.tensors)
        named = []
        for slot in self.slots:
            if slot.kind is Kind.HOST:
                named.append(f"{slot.name}=_number({slot.name}[i], capturable)")
            else:
                arguments.append(f"{slot.name}[i]")
        if "t" in pure.numbers:
            named.append("t=_number(steps[i], capturable)")
        named += [f"{name}={name}" for name in pure.numbers if name != "t"]
        left = "update, *states" if self.slots else "(update,)"
        call = f"{left} = _rule({', '.join([*arguments, *named])})"
        lines += wrapped(call, WIDTH - 8) if self.slots else wrapped(f"update = {call[12:]}[0]", WIDTH - 8)
        lines += ["if weight_decay != 0:", "    update = update + weight_decay * p", "change = lr * update"]
        for n, slot in enumerate(self.slots):
            if slot.kind is Kind.HOST:
                lines.append(f"{slot.name}[i].fill_(states[{n}])")
        tensors = [(n, slot.name) for n, slot in enumerate(self.slots) if slot.kind is not Kind.HOST]
        if tensors:
            lines.append("if differentiable:")
            lines += [f"    {name}[i] = states[{n}]" for n, name in tensors]
            lines.append("else:")
            lines += [f"    {name}[i].copy_(states[{n}])" for n, name in tensors]
        lines.append("p.sub_(change)")
        return [
            *self._signature("_single_tensor", ["maximize", "capturable", "differentiable"]),
            '    """Move one parameter tensor after the other."""',
            "    for i, p in enumerate(params):",
            *indented(indented(lines)),
        ]

    def _numbers(self, multi: Foreach) -> list[list[str]]:
        if not multi.numbers:
            return []
        return [
            [
                "def _numbers(",
                *(f"    {name}: Any," for name in multi.arguments),
                ") -> tuple[Any, ...]:",
                '    """What depends on the step, not on the tensors."""',
                *indented(multi.numbers),
            ]
        ]

    def _multi(self, multi: Foreach) -> list[str]:
        return [
            *self._signature("_multi_tensor", ["maximize", "capturable"]),
            '    """The same over lists of tensors; what is not needed any more is overwritten."""',
            *indented(multi.body),
        ]

    def _starts(self) -> tuple[dict[str, str], dict[str, None]]:
        writer = _InitWriter(self.script)
        found = {}
        for slot in self.slots:
            if slot.init is not ZERO:
                value = writer.write(slot.init)
                constant = slot.init.op == "const"
                found[slot.name] = float_literal(float(slot.init.value or 0)) if constant else value
        return found, writer.helpers

    # which tensors step together

    def _is_elementwise(self) -> bool:
        """Whether a tensor can be stepped in parts, each with the same numbers."""
        roots = [self.script.update, *(slot.next for slot in self.slots)]
        kinds = {OPS[item.op].kind for item in ex.walk(roots) if item.args}
        tensors = all(slot.kind is Kind.TENSOR for slot in self.slots)
        return tensors and not kinds & {"reduce", "matrix"} and "is_matrix" not in self.reads

    def _grouping(self, multi: Foreach) -> list[str]:
        steps = self.counts and bool(re.search(r"\bsteps\b", "\n".join(multi.body)))
        last = 2 + self.counts + len(self.host)
        first = 2 if steps else 2 + self.counts
        takes = ", capturable: bool" if self.counts or self.host else ""
        numbers = []
        if first < last:
            numbers = [
                "if not capturable:",
                f"    numbers = zip(*columns[{first}:{last}], strict=True)",
                "    values = [tuple(x.item() for x in row) for row in numbers]",
                "    keys = list(zip(keys, values, strict=True))",
            ]
        parts = self._is_elementwise()
        made = _TOGETHER.strip().replace("@CAPTURABLE@", takes)
        made = made.replace("@ALIKE@", " and, if it matters, step" if numbers else "")
        made = made.replace("    @NUMBERS@\n", "".join(f"    {line}\n" for line in numbers))
        made = made.replace("@YIELD@", "yield from _blocks(group)" if parts else "yield group")
        return [made, *([_BLOCKS.strip()] if parts else [])]


def _live_writer(script: Script) -> TorchWriter:
    return TorchWriter(script, live_numbers(script))


def _numbers_first(script: Script) -> tuple[Slot, ...]:
    return tuple(sorted(script.slots, key=lambda slot: slot.kind is not Kind.HOST))


def _is_another(slot: Slot, writer: TorchWriter) -> bool:
    """Whether a state's next value may be the memory of something else, such as another state."""
    value = slot.next
    own = value is ex.state(slot.index)
    return not own and (value.op in ("state", "g", "w") or writer.may_alias(value))


def _tuple(name: str, values: list[str]) -> list[str]:
    line = f"{name} = ({', '.join(repr(v) for v in values)}{',' if len(values) == 1 else ''})"
    line = line.replace("'", '"')
    if len(line) <= WIDTH:
        return [line]
    return [f"{name} = (", *(f'    "{value}",' for value in values), ")"]
