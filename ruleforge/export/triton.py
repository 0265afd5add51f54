"""A rule as a fused kernel in Triton: the file that lies beside an exported torch optimizer.

One pass over memory does the whole step, for all tensors of a device and dtype in one launch. The torch file
loads it when `fused=True` is asked for. Blocks are float32, whatever the dtype of parameters, gradients and
states; host numbers are float64 until they meet a block. Rules that reduce over whole tensors, or multiply
matrices, have no such kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.format import format_rule
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Kind, Rule
from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export.lines import WIDTH, indented, wrapped
from ruleforge.export.safety import check_class_name, check_names, class_name_for, plain_lines
from ruleforge.export.scope import RESERVED
from ruleforge.render.helpers import TORCH_HELPERS, with_needed
from ruleforge.render.python import TorchWriter, live_numbers
from ruleforge.render.script import Plan, Script, Slot, make_script
from ruleforge.render.triton import TritonWriter, triton_helpers
from ruleforge.render.unicode import formula


def why_not_fused(rule: Rule) -> str:
    """Why a rule has no fused kernel, in a few words; empty where it has one."""
    live = rule.canonical
    found = ex.walk([live.update, *(state.next for state in live.states)])
    whole = {OPS[item.op].kind for item in found if item.args} & {"reduce", "matrix"}
    reads_shape = any(item.op == "is_matrix" for item in found)
    return (
        "the rule looks at whole tensors" if whole or reads_shape or Kind.SCALAR in live.state_kinds else ""
    )


def export_triton(
    text: RuleText,
    class_name: str | None = None,
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    provenance: Mapping[str, object] | None = None,
) -> str:
    """Source of the file with the kernel.

    Args:
        text: a rule with its names.
        class_name: of the torch optimizer that the kernel is for.
        lr, weight_decay: accepted for all targets; the optimizer gives them.
        provenance: where the rule was found, shown at the top of the file.

    Raises:
        ExportError: the rule has no fused kernel, or a name that cannot be used.
    """
    check_names(text)
    name = check_class_name(class_name) if class_name is not None else class_name_for(text.doc)
    reason = why_not_fused(text.rule)
    if reason:
        raise ExportError(
            f"{reason}, so there is no fused kernel", hint="export it --to torch, without fused"
        )
    script = make_script(text, Plan("torch", RESERVED | {name}, 56, TritonWriter))
    return _File(text, name, script, provenance or {}).source()


class _File:
    def __init__(self, text: RuleText, name: str, script: Script, provenance: Mapping[str, object]) -> None:
        self.text, self.name, self.script, self.provenance = text, name, script, provenance
        first = sorted(script.slots, key=lambda slot: slot.kind is not Kind.HOST)
        self.hosts: list[Slot] = [slot for slot in first if slot.kind is Kind.HOST]
        self.tensors: list[Slot] = [slot for slot in first if slot.kind is Kind.TENSOR]
        self.counts = bool(script.reads & {"t", "first", "progress"})
        self.writer = TritonWriter(script)
        self.body = self._rule()
        changing = live_numbers(script)
        self.live = [item for item in self.writer.numbers if item in changing and item.op != "lr"]
        self.fixed = [item for item in self.writer.numbers if item not in changing]

    def source(self) -> str:
        numbers, helpers = self._numbers()
        parts = [self._kernel(), numbers, self._step(), _LAYOUT.strip(), *with_needed(helpers, TORCH_HELPERS)]
        forms = triton_helpers(self.writer.helpers)
        body = "\n\n\n".join([*forms, *parts])
        return f"{self._head(body)}\n\n\n{body}\n"

    def _rule(self) -> list[str]:
        """The rule's statements on blocks."""
        lines: list[str] = []
        for statement in self.script.statements:
            if self.script.kinds[statement.value] is Kind.HOST and not (
                statement.slot is not None and statement.slot.kind is Kind.TENSOR
            ):
                continue
            text = statement.source or self.writer.value(statement.value)
            if text != statement.name:
                lines += wrapped(f"{statement.name} = {text}", WIDTH - 4)
        update = self.script.kept or self.writer.write(self.script.update)
        return lines if update == "update" else [*lines, *wrapped(f"update = {update}", WIDTH - 4)]

    def _reads(self) -> list[str]:
        return [name for name in ("w", "g") if name in self.script.reads or name == "w"]

    def _kernel(self) -> str:
        live = ["lr", *(self.writer.numbers[item] for item in self.live)]
        ends = "_ptr"
        while any(f"{slot.name}{ends}" in self.writer.taken for slot in self.tensors):
            ends += "_"
        states = {slot.name: f"{slot.name}{ends}" for slot in self.tensors}
        pointers = ["p", *(["grad"] if "g" in self.script.reads else []), *states.values()]
        columns = len(pointers)
        lines = ["place = tl.program_id(0)", "if MANY:"]
        lines += ["    row = tl.load(tensors + place)", "    place = tl.load(starts + place)"]
        lines += ["    size = tl.load(sizes + row)", f"    at = addresses + row * {columns}"]
        lines += [f"    {x} = tl.load(at + {n}).to({x}.dtype)" for n, x in enumerate(pointers)]
        lines += ["i = place.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)", *(f"{x} += i" for x in pointers)]
        lines += ["if WIDE:", "    size = tl.multiple_of(size, 16)"]
        lines += [f"    {x} = tl.multiple_of({x}, 16)" for x in pointers]
        lines += ["inside = i < size"]
        lines += ["if LIVE:"]
        lines += [f"    {x} = tl.load(live + row * {len(live)} + {n})" for n, x in enumerate(live)]
        lines += [f"{x} = tl.full((BLOCK,), {x}, tl.float32)" for x in self.writer.blocks]
        lines += ["w = tl.load(p, inside, other=0).to(tl.float32)"]
        if "grad" in pointers:
            lines += ["g = tl.load(grad, inside, other=0).to(tl.float32)"]
        lines += [f"{x} = tl.load({at}, inside, other=0).to(tl.float32)" for x, at in states.items()]
        block = "tl.full((BLOCK,), tl.load({}), tl.float32)"
        lines += ["if SCALED:", f"    inside = inside & ({block.format('found_inf')} == 0)"]
        if "grad" in pointers:
            lines += [f"    g = tl.div_rn(g, {block.format('grad_scale')})", "if MAXIMIZE:", "    g = -g"]
        lines += [*self.body, "if DECAYS:", "    update = update + weight_decay * w"]
        lines += ["tl.store(p, w - lr * update, inside)"]
        lines += [f"tl.store({at}, {x}, inside)" for x, at in states.items()]
        fixed = [self.writer.numbers[item] for item in self.fixed]
        flags = ["MANY", "WIDE", "LIVE", "SCALED", "MAXIMIZE", "DECAYS", "BLOCK"]
        arguments = [
            *pointers,
            "row",
            "size",
            "addresses",
            "tensors",
            "starts",
            "sizes",
            "live",
            "grad_scale",
            "found_inf",
        ]
        return "\n".join(
            [
                '@triton.jit(do_not_specialize=["row"])',
                "def _kernel(",
                *(f"    {x}," for x in [*arguments, *live, *fixed, "weight_decay"]),
                *(f"    {x}: tl.constexpr," for x in flags),
                "):",
                '    """One block of one tensor: read it, step it, write it."""',
                *indented(lines),
            ]
        )

    def _numbers(self) -> tuple[str, dict[str, None]]:
        """The function that computes what the kernel takes as numbers, and the next numbers kept."""
        writer = TorchWriter(self.script, live_numbers(self.script))
        names: dict[Expr, str] = {ex.hyper(i): name for i, name in self.script.hypers.items()}
        names |= {ex.state(slot.index): slot.name for slot in self.hosts}
        writer.names = names
        lines: list[str] = []
        for statement in self.script.statements:
            value = statement.value
            host = self.script.kinds[value] is Kind.HOST and value.args
            if host and value not in names and (statement.slot is None or statement.slot.kind is Kind.HOST):
                name = f"{statement.name}_new" if statement.slot is not None else statement.name
                lines += wrapped(f"{name} = {writer.value(value)}", WIDTH - 4)
                names[value] = name
        given = [writer.write(item) for item in (*self.live, *self.fixed)]
        kept = [writer.write(slot.next) for slot in self.hosts]
        live, rest = given[: len(self.live)], given[len(self.live) :]
        if "progress" in self.script.reads:
            lines.insert(0, "progress = _smaller(t / total_steps, 1.0)")
            writer.helpers["_smaller"] = None
        lines += [f"return {_tuple(live)}, {_tuple(rest)}, {_tuple(kept)}"]
        if len(lines[-1]) > WIDTH - 4:
            lines[-1:] = ["return (", *(f"    {_tuple(x)}," for x in (live, rest, kept)), ")"]
        signature = [*(["t"] if self.counts else []), *(slot.name for slot in self.hosts), *self._options()]
        return "\n".join(
            [
                "def _numbers(",
                *(f"    {name}: Any," for name in signature),
                ") -> tuple[tuple[Any, ...], ...]:",
                '    """Numbers that change with the step, those that do not, and those that are kept."""',
                *indented(lines),
            ]
        ), writer.helpers

    def _options(self) -> list[str]:
        total = ["total_steps"] if "progress" in self.script.reads else []
        return ["lr", *(["lr0"] if "lr0" in self.script.reads else []), *total, *self.script.used_hypers]

    def _step(self) -> str:
        lists = ["params", "grads", *(["steps"] if self.counts else []), *(s.name for s in self.hosts)]
        lists += [slot.name for slot in self.tensors]
        numbers = [*(["steps"] if self.counts else []), *(slot.name for slot in self.hosts)]
        options = self._options()
        grads = ["grads"] if "g" in self.script.reads else []
        columns = ["params", *grads, *(slot.name for slot in self.tensors)]
        lines = ["_check(params)", f"columns = [{', '.join(columns)}]"]
        if grads:
            lines += ["columns[1] = [_like(p, x) for p, x in zip(params, grads, strict=True)]"]
        if numbers:
            lines += [
                f"given = [_one_or_all(x, capturable) for x in ({', '.join(numbers)},)]",
                f"live, fixed, kept = _numbers(*given, {', '.join(options)})",
            ]
        else:
            lines += [f"live, fixed, kept = _numbers({', '.join(options)})"]
        if self.hosts:
            lines += [
                f"for states, new in zip(({', '.join(s.name for s in self.hosts)},), kept, strict=True):"
            ]
            lines += ["    for n, state in enumerate(states):"]
            lines += ["        state.copy_(new[n] if capturable else torch.as_tensor(new))"]
        lines += [
            "_launch(columns, (lr, *live), fixed, weight_decay, maximize, capturable, grad_scale, found_inf)"
        ]
        return "\n".join(
            [
                "def step(",
                *(f"    {name}: list[Tensor]," for name in lists),
                "    *,",
                *(f"    {name}: Any," for name in options),
                "    weight_decay: float,",
                "    maximize: bool,",
                "    capturable: bool,",
                "    grad_scale: Tensor | None,",
                "    found_inf: Tensor | None,",
                ") -> None:",
                '    """Step all tensors of one device and dtype, with states that stand at the same step.',
                "",
                "    With `found_inf`, of torch.amp.GradScaler, nothing changes where it is not 0.",
                '    """',
                *indented(lines),
            ]
        )

    def _head(self, body: str) -> str:
        doc = plain_lines(self.text.doc, WIDTH - 4)
        lines = [
            f"The fused kernel of {self.name}, in Triton: one pass over memory.",
            "",
            *doc,
            *([""] if doc else []),
        ]
        lines += [
            "Each element w with gradient g moves by",
            "",
            *(f"    {x}" for x in formula(self.text)),
            "",
        ]
        lines += ["Lies beside the exported optimizer, under its file's name with `_fused` at the end."]
        lines += [""]
        for key, value in self.provenance.items():
            lines += plain_lines(f"{key}: {value}", WIDTH - 4)
        lines += [""] if self.provenance else []
        lines += [f"Written by ruleforge from the rule {self.text.rule.key}:", ""]
        lines += [f"    {line}" for line in format_rule(replace(self.text, doc="")).splitlines()]
        imports = ["from __future__ import annotations", ""]
        imports += ["import math"] if "math." in body else []
        imports += ["import os", "from functools import lru_cache", "from typing import Any", ""]
        imports += [
            "import torch",
            "import triton",
            "import triton.language as tl",
            "from torch import Tensor",
            "",
        ]
        imports += ['__all__ = ["step"]', "", f'RULE = "{self.text.rule.key}"']
        return "\n".join(['"""' + lines[0], *lines[1:], '"""', "", *imports])


def _tuple(values: list[str]) -> str:
    return f"({', '.join(values)}{',' if len(values) == 1 else ''})"


_LAYOUT = '''
# Elements of a block.
SIZE = 1024
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _check(params: list[Tensor]) -> None:
    p = params[0]
    if not (p.is_cuda or INTERPRETED):
        raise RuntimeError(f"fused=True needs parameters on a GPU, not on {p.device}")
    if p.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise RuntimeError(f"fused=True steps in float32, which {p.dtype} is not made for")


def _like(p: Tensor, x: Tensor) -> Tensor:
    """A gradient in the order of the parameter's memory."""
    if not (p.is_contiguous() or torch.empty_like(p).stride() == p.stride()):
        raise RuntimeError("fused=True needs parameters without gaps in memory")
    return x if x.stride() == p.stride() else torch.empty_like(p, dtype=x.dtype).copy_(x)


def _one_or_all(states: list[Tensor], capturable: bool) -> Any:
    """The number that all of these are, or all of them in a row where nothing may wait."""
    return torch.stack(states).double() if capturable else states[0].item()


@lru_cache(maxsize=16)
def _layout(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """For each block the tensor that it is of and its place there; the tensors' sizes."""
    blocks = torch.tensor([-(-size // SIZE) for size in sizes])
    tensors = torch.repeat_interleave(torch.arange(len(sizes)), blocks)
    starts = torch.arange(len(tensors)) - (blocks.cumsum(0) - blocks)[tensors]
    return tuple(x.to(device) for x in (tensors, starts, torch.tensor(sizes)))


@lru_cache(maxsize=64)
def _addresses(places: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(places, device=device)


def _launch(
    columns: list[list[Tensor]],
    live: tuple[Any, ...],
    fixed: tuple[float, ...],
    weight_decay: float,
    maximize: bool,
    capturable: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Two launches at most: what lies in memory as wide words need it, and the rest.

    While a CUDA graph is captured, tensors are launched one by one: no table of addresses
    can be sent then.
    """
    first = [column[0] for column in columns]
    device = first[0].device
    table = first[0]  # stands for what the kernel does not read
    if capturable:
        zeros = torch.zeros(len(columns[0]), dtype=torch.float64, device=device)
        table = torch.stack([zeros + x for x in live], 1).float()
        live = (0.0,) * len(live)
    numbers = [float(x) for x in (*live, *fixed, weight_decay)]
    scaled = grad_scale is not None or found_inf is not None
    given = zip((grad_scale, found_inf), (torch.ones, torch.zeros), strict=True)
    scaling = [table] * 2
    if scaled:
        scaling = [new((), device=device) if x is None else x.to(device) for x, new in given]
    flags: dict[str, Any] = {
        "LIVE": capturable,
        "SCALED": scaled,
        "MAXIMIZE": maximize,
        "DECAYS": weight_decay != 0,
        "BLOCK": SIZE,
    }
    rows = list(zip(*columns, strict=True))
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        for n, row in enumerate(rows):
            size = row[0].numel()
            rest = [table] * 5 + scaling + numbers
            if size:
                _kernel[(-(-size // SIZE),)](*row, n, size, *rest, MANY=False, WIDE=False, **flags)
        return
    places = tuple(x.data_ptr() for row in rows for x in row)
    every = [row[0].numel() for row in rows]
    wide = [
        size % 16 == 0 and not any(x.data_ptr() % 16 for x in row)
        for row, size in zip(rows, every, strict=True)
    ]
    for is_wide in set(wide):
        sizes = tuple(size * (is_wide == each) for size, each in zip(every, wide, strict=True))
        tensors, starts, ends = _layout(sizes, device)
        rest = [_addresses(places, device), tensors, starts, ends, table, *scaling, *numbers]
        if len(tensors):
            _kernel[(len(tensors),)](*first, 0, 0, *rest, MANY=True, WIDE=is_wide, **flags)
'''


__all__ = ["export_triton", "why_not_fused"]
