"""The class of an exported torch optimizer: what every torch optimizer does besides its rule.

Text with a few marks in it, so that it reads here as it reads in the file. What differs from rule to
rule is filled in; the maths is not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ruleforge.core.rule import Hyper, Kind
from ruleforge.export.lines import float_literal, indented, wrapped
from ruleforge.render.python import python_number
from ruleforge.render.script import Slot

_OPTIONS = """
    weight_decay: decoupled decay, outside the rule.
    maximize: move along the gradient instead of against it.
    foreach: step over lists of tensors, the fast way; by default where that works.
    capturable: never wait for the device, so that steps can go into a CUDA graph.
    differentiable: let autograd see through the step.
    state_dtype: dtype of the states of half-precision parameters, such as
        torch.float32; by default that of the parameter.
"""

_CHECKS = '''
def add_param_group(self, param_group: dict[str, Any]) -> None:
    """Add parameters with values of their own; the constructor adds its groups so."""
    if isinstance(param_group, dict):
        self._check({**self.defaults, **param_group})
    super().add_param_group(param_group)
@LR0@
def _check(self, group: dict[str, Any]) -> None:
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if isinstance(lr, Tensor) and group["foreach"] and not group["capturable"]:
        raise ValueError(
            "lr as a Tensor is not supported for capturable=False and foreach=True",
        )
    if not lr >= 0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if not group["weight_decay"] >= 0:
        raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
    if group["foreach"] and group["differentiable"]:
        raise ValueError("foreach and differentiable exclude each other")
@MORE@'''

_LR0 = """    group = self.param_groups[-1]
    group.setdefault("lr0", float(group["lr"]))
"""
_TOTAL = """    if not group["total_steps"] >= 1:
        raise ValueError(f"Invalid total_steps: {group['total_steps']}")
"""
_RANGES = """    for name, (low, high) in RANGES.items():
        if not low < group[name] < high:
            raise ValueError(
                f"Invalid {name}: {group[name]} (must lie between {low} and {high})",
            )
"""

# Seen in torch 2.13, in its own optimizers too where they keep such states.
_NUMBERS = """    if compiling and lists[3][0].device.type == "cpu":
        raise RuntimeError(
            "cannot be compiled: torch would lose the numbers that the rule keeps on the CPU",
        )
"""

_SAVING = '''
def __setstate__(self, state: dict[str, Any]) -> None:
    super().__setstate__(state)
    for group in self.param_groups:
        for name, value in OPTIONS.items():
            group.setdefault(name, value)

def state_dict(self) -> dict[str, Any]:
    """States and groups, marked with the rule that they belong to."""
    return {**super().state_dict(), "rule": RULE, "version": VERSION}

def load_state_dict(self, state_dict: dict[str, Any]) -> None:
    """Load what `state_dict` gave; states of another rule or version are refused."""
    rule, version = state_dict.get("rule", RULE), state_dict.get("version", VERSION)
    if rule != RULE:
        raise ValueError(f"the state dict is of rule {rule}, not of {RULE}")
    if version != VERSION:
        raise ValueError(f"the state dict has version {version}, not {VERSION}")
    for found in state_dict["state"].values():
        if set(found) != set(STATES):
            names = ", ".join(sorted(found))
            raise ValueError(f"the state dict has {names}, not {', '.join(STATES)}")
    super().load_state_dict(state_dict)
    # torch gives states the dtype of their parameter; here they keep their own.
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    places = [(p, group) for group in self.param_groups for p in group["params"]]
    for key, (p, group) in zip(keys, places, strict=True):
        for name, value in state_dict["state"].get(key, {}).items():
            kept = self._empty(name, p, group)
            self.state[p][name] = kept.copy_(torch.as_tensor(value))
'''

_STEP = '''
def step(  # type: ignore[override]
    self,
    closure: Callable[[], float] | None = None,
) -> float | None:
    """Perform one step.

    Args:
        closure: evaluates the model again and returns the loss.
    """
    loss = None
    if closure is not None:
        with torch.enable_grad():
            loss = closure()
    with torch.set_grad_enabled(self.defaults["differentiable"]):
        for group in self.param_groups:
            self._step_group(group)
    return loss

def _step_group(self, group: dict[str, Any]) -> None:
    params: list[Tensor] = []
    grads: list[Tensor] = []
    steps: list[Tensor] = []
@LISTS@
@CALL_INIT@
    if not params:
        return
    compiling = torch.compiler.is_compiling()
    capturable = group["capturable"] or compiling
    differentiable = group["differentiable"]
    lr = group["lr"]
    if isinstance(lr, Tensor):
        lr = lr.reshape(()).double() if capturable or differentiable else lr.item()
    foreach = group["foreach"]
    if foreach is None:
        plain = all(type(p) in (Tensor, torch.nn.Parameter) for p in params)
        foreach = plain and not differentiable
    torch._foreach_add_(steps, 1)
    lists = [@ARGUMENTS@]
@NUMBERS@
    if any(p.is_complex() for p in params):
        lists = [[_as_real(x) for x in column] for column in lists]
    dtype = group["state_dtype"]
    if dtype is not None:
        lists[1] = [g.to(dtype) if g.dtype in HALF else g for g in lists[1]]
    options = {
@KEYS@
    }
    if foreach and not compiling:
        for part in _together(*lists, capturable=capturable):
            _multi_tensor_@SNAKE@(
                *part,
                lr=lr,
                capturable=capturable,
                **options,
            )
        return
    _single_tensor_@SNAKE@(
        *lists,
        lr=lr,
        capturable=capturable,
        differentiable=differentiable,
        **options,
    )
@KEEP@'''

_INIT_GROUP = '''
def _init_group(
    self,
    group: dict[str, Any],
    params: list[Tensor],
    grads: list[Tensor],
    steps: list[Tensor],
@PARAMETERS@
) -> None:
    """Fill the lists with parameters that have a gradient, and start their states."""
    for p in group["params"]:
        if p.grad is None:
            continue
        if p.grad.layout != torch.strided:
            this = type(self).__name__
            raise RuntimeError(f"{this} does not support sparse gradients")
        state = self.state[p]
        if not state:
            for name in STATES:
                state[name] = self._empty(name, p, group)
@STARTS@
        params.append(p)
        grads.append(p.grad)
        steps.append(state["step"])
@APPENDS@

def _empty(self, name: str, p: Tensor, group: dict[str, Any]) -> Tensor:
    """A state as it is before it has a value: zeros of the right shape and dtype."""
@EMPTY@'''


def class_lines(
    name: str,
    headline: str,
    *,
    lr: float,
    weight_decay: float,
    hypers: Mapping[str, Hyper],
    slots: Sequence[Slot],
    starts: Mapping[str, str],
    snake: str,
    reads_lr0: bool,
    needs_total: bool,
) -> list[str]:
    """Source of the class.

    Args:
        name: of the class.
        headline: first line of its docstring.
        lr, weight_decay: defaults.
        hypers: hyperparameters by name.
        slots: states, in the order of the lists.
        starts: first value of the states that do not start at 0, as text over `group`.
        snake: suffix of the functions that move weights.
        reads_lr0: whether the rule reads the initial learning rate.
        needs_total: whether it reads its progress.
    """
    names = [slot.name for slot in slots]
    total = ["total_steps"] if needs_total else []
    more = (_TOTAL if needs_total else "") + (_RANGES if hypers else "")
    keys = [*(["lr0"] if reads_lr0 else []), *total, *hypers, "weight_decay", "maximize"]
    lists = ["params", "grads", "steps", *names]
    fill = {
        "CLASS": name,
        "SNAKE": snake,
        "LR0": _LR0 if reads_lr0 else "",
        "MORE": more.rstrip("\n"),
        "LISTS": "\n".join(f"    {n}: list[Tensor] = []" for n in names),
        "CALL_INIT": "\n".join(indented(_call("self._init_group", ["group", *lists], "", 80))),
        "ARGUMENTS": ", ".join(lists),
        "NUMBERS": _NUMBERS if any(slot.kind is Kind.HOST for slot in slots) else "",
        "KEYS": "\n".join(f'        "{key}": group["{key}"],' for key in keys),
        "KEEP": _keep(names, slots),
        "PARAMETERS": "\n".join(f"    {n}: list[Tensor]," for n in names),
        "STARTS": "\n".join(
            line
            for n, start in starts.items()
            for line in [" " * 12 + part for part in wrapped(f'state["{n}"].fill_({start})', 72)]
        ),
        "APPENDS": "\n".join(f'        {n}.append(state["{n}"])' for n in names),
        "EMPTY": _empty(slots),
    }
    body = [*_docstring(headline, hypers, total), "", *_init(name, lr, weight_decay, hypers, total), ""]
    for part in (_CHECKS, _SAVING, _STEP, _INIT_GROUP):
        body += [*_filled(part, fill), ""]
    return [f"class {name}(Optimizer):", *indented(body[:-1])]


def _filled(template: str, fill: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for line in template.strip("\n").splitlines():
        mark = line.strip()
        if mark.startswith("@") and mark.endswith("@") and mark.strip("@") in fill:
            text = fill[mark.strip("@")]
            lines += text.splitlines() if text else []
            if mark == "@LR0@":
                lines += [""]
            continue
        for key, value in fill.items():
            line = line.replace(f"@{key}@", value)
        lines += _fitted(line)
    return lines


def _fitted(line: str) -> list[str]:
    """Lines that names made too long, one argument a line."""
    if len(line) <= 84 or line.endswith("("):
        return [line]
    indent = len(line) - len(line.lstrip())
    text = line.strip()
    if text.startswith("lists = ["):
        items = text[len("lists = [") : -1].split(", ")
        return [
            " " * indent + "lists = [",
            *(" " * (indent + 4) + f"{x}," for x in items),
            " " * indent + "]",
        ]
    return [" " * indent + part for part in wrapped(text, 84 - indent)]


def _call(function: str, arguments: list[str], tail: str, width: int) -> list[str]:
    return wrapped(f"{function}({', '.join(arguments)}){tail}", width)


def _keep(names: list[str], slots: Sequence[Slot]) -> str:
    """After a differentiable step the states are new tensors."""
    kept = [slot.name for slot in slots if slot.kind is not Kind.HOST]
    if not kept:
        return ""
    lines = ["    if differentiable:", "        for i, p in enumerate(params):"]
    lines += [f'            self.state[p]["{n}"] = lists[{3 + names.index(n)}][i]' for n in kept]
    return "\n".join(lines)


def _empty(slots: Sequence[Slot]) -> str:
    numbers = ["step", *(slot.name for slot in slots if slot.kind is Kind.HOST)]
    scalars = [slot.name for slot in slots if slot.kind is Kind.SCALAR]
    tensors = [slot.name for slot in slots if slot.kind is Kind.TENSOR]
    lines = ['device = p.device if group["capturable"] else "cpu"']
    if len(numbers) == 1 and not (scalars or tensors):
        return "\n".join(indented([*lines, "return torch.zeros((), device=device)"]))
    lines += ['if name == "step":', "    return torch.zeros((), device=device)"]
    if len(numbers) > 1:
        lines += [f"if name in {_names(numbers[1:])}:"]
        lines += ["    return torch.zeros((), dtype=torch.float64, device=device)"]
    if scalars or tensors:
        lines += ["like = _as_real(p.detach())"]
        lines += ['dtype = group["state_dtype"] if like.dtype in HALF else None']
    if scalars and tensors:
        lines += [f"if name in {_names(scalars)}:", "    return like.new_zeros((), dtype=dtype)"]
    if tensors:
        lines += ["return torch.zeros_like(like, dtype=dtype)"]
    elif scalars:
        lines += ["return like.new_zeros((), dtype=dtype)"]
    return "\n".join(indented(lines))


def _names(names: list[str]) -> str:
    return "(" + ", ".join(f'"{name}"' for name in names) + ("," if len(names) == 1 else "") + ")"


def _docstring(headline: str, hypers: Mapping[str, Hyper], total: list[str]) -> list[str]:
    lines = [f'"""{headline}', "", "Args:", "    params: parameters, or dicts that define parameter groups."]
    lines += ["    lr: learning rate; a tensor of one element where `capturable`."]
    if total:
        lines.append("    total_steps: steps of the whole training; the rule's schedule depends on it.")
    for name, hyper in hypers.items():
        low, high = python_number(hyper.low), python_number(hyper.high)
        lines.append(f"    {name}: a number between {low} and {high}.")
    return [
        *lines,
        *_OPTIONS.strip("\n").splitlines(),
        "",
        "Every parameter group may have its own values. Complex parameters are treated as",
        "pairs of real numbers. A NaN in a gradient is neither skipped nor repaired: it",
        "reaches the states and the weights that it concerns.",
        '"""',
    ]


def _init(
    name: str, lr: float, weight_decay: float, hypers: Mapping[str, Hyper], total: list[str]
) -> list[str]:
    keys = ["lr", *hypers, "weight_decay", "maximize", "foreach", "capturable", "differentiable"]
    keys += ["state_dtype", *total]
    lines = [
        "def __init__(",
        "    self,",
        "    params: ParamsT,",
        f"    lr: float | Tensor = {float_literal(lr)},",
        *(f"    {n}: float = {float_literal(hyper.default)}," for n, hyper in hypers.items()),
        f"    weight_decay: float = {float_literal(weight_decay)},",
        "    *,",
        *(f"    {n}: int | None = None," for n in total),
        "    maximize: bool = False,",
        "    foreach: bool | None = None,",
        "    capturable: bool = False,",
        "    differentiable: bool = False,",
        "    state_dtype: torch.dtype | None = None,",
        ") -> None:",
    ]
    if total:
        lines += [
            "    if total_steps is None:",
            "        raise ValueError(",
            f'            "{name} needs total_steps: its schedule runs over the training",',
            "        )",
        ]
    lines += ["    defaults: dict[str, Any] = {", *(f'        "{key}": {key},' for key in keys), "    }"]
    return [*lines, "    super().__init__(params, defaults)"]
