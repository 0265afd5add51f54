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
    fused: step in one pass over memory, on a GPU; @FUSED_DOC@
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
@FUSES@
@MORE@'''

_FUSES = """    if group["fused"] and (group["foreach"] or group["differentiable"]):
        raise ValueError("fused excludes foreach and differentiable")
"""
_NO_FUSES = """    if group["fused"]:
        raise ValueError("fused is not possible: @WHY@")
"""
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
_NUMBERS = """    if compiling and lists[AT][0].device.type == "cpu":
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
@DTYPES@
'''

_DTYPES = """    # torch gives states the dtype of their parameter; here they keep their own.
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    places = [(p, group) for group in self.param_groups for p in group["params"]]
    for key, (p, group) in zip(keys, places, strict=True):
        for name, value in state_dict["state"].get(key, {}).items():
            kept = self._empty(name, p, group)
            self.state[p][name] = kept.copy_(torch.as_tensor(value))
"""

_STEP = '''
@property
def _step_supports_amp_scaling(self) -> bool:
    """Whether torch.amp.GradScaler leaves unscaling and skipping to us: no waiting then."""
    return any(group["capturable"] for group in self.param_groups)

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
@LISTS@
@CALL_INIT@
    if not params:
        return
    compiling = torch.compiler.is_compiling()
    capturable = group["capturable"] or compiling
    differentiable = group["differentiable"]
    # Given by torch.amp.GradScaler; a step with an overflow must change nothing.
    scale = getattr(self, "grad_scale", None)
    overflow = getattr(self, "found_inf", None)
    waits = differentiable or not capturable
    if overflow is not None and waits and overflow.item():
        return
@FUSED@
    lr = group["lr"]
    if isinstance(lr, Tensor):
        lr = lr.reshape(()).double() if capturable or differentiable else lr.item()
    foreach = group["foreach"]
    if foreach is None:
        plain = all(type(p) in PLAIN for p in params)
        foreach = plain and not differentiable
    lists = [@ARGUMENTS@]
@NUMBERS@
    if any(p.is_complex() for p in params):
        lists = [[_as_real(x) for x in column] for column in lists]
    dtype = group["state_dtype"]
    if dtype is not None@UNFUSED@:
        lists[1] = [g.to(dtype) if g.dtype in HALF else g for g in lists[1]]
    if scale is not None@UNFUSED@:
        lists[1] = [g / scale.to(g.device) for g in lists[1]]
    written: list[Tensor] = []
    if overflow is not None and not waits:
@COLUMNS@
        written = [x for column in @WRITTEN@ for x in column]
    before = [x.clone() for x in written]
@COUNT@
    options = {
@KEYS@
    }
@CALL_FUSED@
    @ELSE@if foreach and not compiling:
        for part in _together(*lists@TOGETHER@):
            _multi_tensor_@SNAKE@(
                *part,
                lr=lr,
                capturable=capturable,
                **options,
            )
    else:
        _single_tensor_@SNAKE@(
            *lists,
            lr=lr,
            capturable=capturable,
            differentiable=differentiable,
            **options,
        )
    if overflow is not None:
        _take_back(overflow, written, before)
@KEEP@'''

_COLUMNS = """        # The fused kernel sees to its own, and leaves what it does not write.
        columns = lists[2:{last}] if fused else {every}"""
_CALL_FUSED = """    if fused:
        for part in _together(*lists@TOGETHER@):
            _kernels().step(
                *part,
                lr=lr,
                capturable=capturable,
                grad_scale=scale,
                found_inf=None if waits else overflow,
                **options,
            )
"""
_INIT_GROUP = '''
def _init_group(
    self,
    group: dict[str, Any],
@PARAMETERS@
) -> None:
    """Fill the lists with parameters that have a gradient, and start their states."""
    for p in group["params"]:
        grad = p.grad
        if grad is None:
            continue
        if grad.layout != torch.strided:
            this = type(self).__name__
            raise RuntimeError(f"{this} does not support sparse gradients")
@STATE@
        params.append(p)
        grads.append(grad)
@APPENDS@
@EMPTY@'''
_STATE = """        state = self.state[p]
        if not state:
            for name in STATES:
                state[name] = self._empty(name, p, group)
"""
_EMPTY = '''
def _empty(self, name: str, p: Tensor, group: dict[str, Any]) -> Tensor:
    """A state as it is before it has a value: zeros of the right shape and dtype."""
'''


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
    counts: bool,
    why_not_fused: str,
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
        counts: whether it reads the step.
        why_not_fused: why there is no fused kernel for it, or nothing.
    """
    names = [slot.name for slot in slots]
    lists = ["params", "grads", *(["steps"] if counts else []), *names]
    kept = [*(["step"] if counts else []), *names]
    total = ["total_steps"] if needs_total else []
    more = (_TOTAL if needs_total else "") + (_RANGES if hypers else "")
    keys = [*(["lr0"] if reads_lr0 else []), *total, *hypers, "weight_decay", "maximize"]
    starting = "\n".join(
        line
        for n, start in starts.items()
        for line in [" " * 12 + part for part in wrapped(f'state["{n}"].fill_({start})', 72)]
    )
    hosts = any(slot.kind is Kind.HOST for slot in slots)
    fuses = not why_not_fused
    together = ", capturable=capturable" if counts or hosts else ""
    last = 2 + counts + sum(slot.kind is Kind.HOST for slot in slots)
    everything = "[lists[0], *lists[2:]]"
    fill = {
        "CLASS": name,
        "SNAKE": snake,
        "LR0": _LR0 if reads_lr0 else "",
        "MORE": more.rstrip("\n"),
        "LISTS": "\n".join(f"    {n}: list[Tensor] = []" for n in lists),
        "CALL_INIT": "\n".join(indented(_call("self._init_group", ["group", *lists], "", 80))),
        "ARGUMENTS": ", ".join(lists),
        "NUMBERS": _NUMBERS.replace("AT", str(lists.index(names[0]))) if hosts else "",
        "COUNT": "    torch._foreach_add_(steps, 1)" if counts else "",
        "KEYS": "\n".join(f'        "{key}": group["{key}"],' for key in keys),
        "TOGETHER": together,
        "FUSES": _FUSES.rstrip("\n") if fuses else _NO_FUSES.rstrip("\n").replace("@WHY@", why_not_fused),
        "CALL_FUSED": _CALL_FUSED.rstrip("\n").replace("@TOGETHER@", together) if fuses else "",
        "ELSE": "el" if fuses else "",
        "UNFUSED": " and not fused" if fuses else "",
        "FUSED": '    fused = group["fused"] and not compiling' if fuses else "",
        "WRITTEN": "columns" if fuses else everything,
        "COLUMNS": _COLUMNS.format(last=last, every=everything) if fuses else "",
        "KEEP": _keep(slots, lists),
        "PARAMETERS": "\n".join(f"    {n}: list[Tensor]," for n in lists),
        "DTYPES": _DTYPES if kept else "",
        "STATE": (_STATE + starting) if kept else "",
        "APPENDS": "\n".join(f'        {_list_of(n)}.append(state["{n}"])' for n in kept),
        "EMPTY": f"\n{_EMPTY.strip()}\n{_empty(slots, counts)}" if kept else "",
    }
    body = [
        *_docstring(headline, hypers, total, why_not_fused),
        "",
        *_init(name, lr, weight_decay, hypers, total),
        "",
    ]
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


def _list_of(state: str) -> str:
    return "steps" if state == "step" else state


def _keep(slots: Sequence[Slot], lists: list[str]) -> str:
    """After a differentiable step the states are new tensors."""
    kept = [slot.name for slot in slots if slot.kind is not Kind.HOST]
    if not kept:
        return ""
    lines = ["    if differentiable:", "        for i, p in enumerate(params):"]
    lines += [f'            self.state[p]["{n}"] = lists[{lists.index(n)}][i]' for n in kept]
    return "\n".join(lines)


def _empty(slots: Sequence[Slot], counts: bool) -> str:
    """Body of `_empty`: the step in float32 and numbers in float64, on the CPU unless `capturable`."""
    hosts = [slot.name for slot in slots if slot.kind is Kind.HOST]
    scalars = [slot.name for slot in slots if slot.kind is Kind.SCALAR]
    tensors = [slot.name for slot in slots if slot.kind is Kind.TENSOR]
    returns: list[tuple[list[str], list[str]]] = []  # names of states, and the lines that end with theirs
    if counts:
        returns.append((["step"], ["return torch.zeros((), device=device)"]))
    if hosts:
        returns.append((hosts, ["return torch.zeros((), dtype=torch.float64, device=device)"]))
    like = ["like = _as_real(p.detach())", 'dtype = group["state_dtype"] if like.dtype in HALF else None']
    if scalars:
        returns.append((scalars, [*([] if tensors else like), "return like.new_zeros((), dtype=dtype)"]))
    if tensors:
        returns.append((tensors, ["return torch.zeros_like(like, dtype=dtype)"]))
    lines = ['device = p.device if group["capturable"] else "cpu"'] if counts or hosts else []
    for n, (found, ending) in enumerate(returns):
        if n == len(returns) - 1:
            lines += [*(like if tensors else []), *ending] if not (scalars and tensors) else ending
            break
        if found is scalars:
            lines += like
        test = f'name == "{found[0]}"' if found == ["step"] else f"name in {_names(found)}"
        lines += [f"if {test}:", *indented(ending)]
    return "\n".join(indented(lines))


def _names(names: list[str]) -> str:
    return "(" + ", ".join(f'"{name}"' for name in names) + ("," if len(names) == 1 else "") + ")"


def _docstring(headline: str, hypers: Mapping[str, Hyper], total: list[str], why_not: str) -> list[str]:
    fused = (
        "not for this rule."
        if why_not
        else "needs Triton, and the\n        file with the kernel beside this one."
    )
    lines = [f'"""{headline}', "", "Args:", "    params: parameters, or dicts that define parameter groups."]
    lines += ["    lr: learning rate; a tensor of one element where `capturable`."]
    if total:
        lines.append("    total_steps: steps of the whole training; the rule's schedule depends on it.")
    for name, hyper in hypers.items():
        low, high = python_number(hyper.low), python_number(hyper.high)
        lines.append(f"    {name}: a number between {low} and {high}.")
    return [
        *lines,
        *_OPTIONS.strip("\n").replace("@FUSED_DOC@", fused).splitlines(),
        "",
        "Every parameter group may have its own values. Complex parameters are treated as",
        "pairs of real numbers. A NaN in a gradient is neither skipped nor repaired: it",
        "reaches the states and the weights that it concerns.",
        '"""',
    ]


def _init(
    name: str, lr: float, weight_decay: float, hypers: Mapping[str, Hyper], total: list[str]
) -> list[str]:
    keys = ["lr", *hypers, "weight_decay", "maximize", "foreach", "fused", "capturable"]
    keys += ["differentiable", "state_dtype", *total]
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
        "    fused: bool = False,",
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
