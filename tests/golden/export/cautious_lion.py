"""CautiousLion: an optimizer for torch, which needs torch alone.

Cautious Lion. Liang et al. 2024, arXiv:2411.16085.

Lion where it agrees with the gradient's sign; the mean is kept above 1e-3, as in
timm.

Each parameter tensor w with gradient g moves by

    a ← sign(β₁·m + (1 − β₁)·g)
    m ← β₂·m + (1 − β₂)·g
    u ← a·[a·g > 0] / max(mean([a·g > 0]), 0.001)
    w ← w − lr·u

and, with weight_decay, by lr * weight_decay * w besides (decoupled).

Written by ruleforge from the rule 00afd22c9dffcf275c27da91af8bb977:

    beta1: hyper(0, 1, one_minus_log) = 0.9
    beta2: hyper(0, 1, one_minus_log) = 0.99
    m: state = 0
    a = sign(lerp(g, m, beta1))
    m = lerp(g, m, beta2)
    update = cautious(a, g)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

__all__ = ["CautiousLion"]

# Which rule a state dict belongs to, and the version of its layout.
RULE = "00afd22c9dffcf275c27da91af8bb977"
VERSION = 2
STATES = ("exp_avg",)
OPTIONS = {
    "maximize": False,
    "foreach": None,
    "fused": False,
    "capturable": False,
    "differentiable": False,
    "state_dtype": None,
}
HALF = (torch.float16, torch.bfloat16)
PLAIN = (Tensor, torch.nn.Parameter)
# Open intervals that the hyperparameters must lie in.
RANGES = {
    "beta1": (0, 1),
    "beta2": (0, 1),
}


def _rule(
    g: Tensor,
    exp_avg: Tensor,
    *,
    beta1: float,
    beta2: float,
) -> tuple[Any, ...]:
    """The rule: the update, to be subtracted times lr, and the next states."""
    a = _sign(g + beta1 * (exp_avg - g))
    exp_avg = g + beta2 * (exp_avg - g)
    mask = _greater(a * g, 0)
    update = a * mask / torch.clamp(_mean(mask), min=0.001)
    return update, exp_avg


def _single_tensor_cautious_lion(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avg: list[Tensor],
    *,
    lr: Any,
    beta1: float,
    beta2: float,
    weight_decay: float,
    maximize: bool,
    capturable: bool,
    differentiable: bool,
) -> None:
    """Move one parameter tensor after the other."""
    for i, p in enumerate(params):
        g = -grads[i] if maximize else grads[i]
        update, *states = _rule(g, exp_avg[i], beta1=beta1, beta2=beta2)
        if weight_decay != 0:
            update = update + weight_decay * p
        change = lr * update
        if differentiable:
            exp_avg[i] = states[0]
        else:
            exp_avg[i].copy_(states[0])
        p.sub_(change)


def _multi_tensor_cautious_lion(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avg: list[Tensor],
    *,
    lr: Any,
    beta1: float,
    beta2: float,
    weight_decay: float,
    maximize: bool,
    capturable: bool,
) -> None:
    """The same over lists of tensors; what is not needed any more is overwritten."""
    g = torch._foreach_neg(grads) if maximize else grads
    a = torch._foreach_lerp(g, exp_avg, beta1)
    _signs_(a)
    torch._foreach_lerp_(exp_avg, g, 1 - beta2)
    part_2 = torch._foreach_mul(a, g)
    mask = _each(lambda x: _greater(x, 0), part_2)
    torch._foreach_mul_(a, mask)
    part_3 = _each(_mean, mask)
    torch._foreach_maximum_(part_3, 0.001)
    torch._foreach_div_(a, part_3)
    if weight_decay != 0:
        torch._foreach_mul_(params, 1 - lr * weight_decay)
    if capturable:
        torch._foreach_mul_(a, lr)
        torch._foreach_sub_(params, a)
    else:
        torch._foreach_add_(params, a, alpha=-lr)


class CautiousLion(Optimizer):
    """Cautious Lion. Liang et al. 2024, arXiv:2411.16085.

    Args:
        params: parameters, or dicts that define parameter groups.
        lr: learning rate; a tensor of one element where `capturable`.
        beta1: a number between 0 and 1.
        beta2: a number between 0 and 1.
        weight_decay: decoupled decay, outside the rule.
        maximize: move along the gradient instead of against it.
        foreach: step over lists of tensors, the fast way; by default where that works.
        fused: step in one pass over memory, on a GPU; not for this rule.
        capturable: never wait for the device, so that steps can go into a CUDA graph.
        differentiable: let autograd see through the step.
        state_dtype: dtype of the states of half-precision parameters, such as
            torch.float32; by default that of the parameter.

    Every parameter group may have its own values. Complex parameters are treated as
    pairs of real numbers. A NaN in a gradient is neither skipped nor repaired: it
    reaches the states and the weights that it concerns.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
            "state_dtype": state_dtype,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with values of their own; the constructor adds its groups so."""
        if isinstance(param_group, dict):
            self._check({**self.defaults, **param_group})
        super().add_param_group(param_group)

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
        if group["fused"]:
            raise ValueError("fused is not possible: the rule looks at whole tensors")
        for name, (low, high) in RANGES.items():
            if not low < group[name] < high:
                raise ValueError(
                    f"Invalid {name}: {group[name]} (must lie between {low} and {high})",
                )

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
        params: list[Tensor] = []
        grads: list[Tensor] = []
        exp_avg: list[Tensor] = []
        self._init_group(group, params, grads, exp_avg)
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
        lr = group["lr"]
        if isinstance(lr, Tensor):
            lr = lr.reshape(()).double() if capturable or differentiable else lr.item()
        foreach = group["foreach"]
        if foreach is None:
            plain = all(type(p) in PLAIN for p in params)
            foreach = plain and not differentiable
        lists = [params, grads, exp_avg]
        if any(p.is_complex() for p in params):
            lists = [[_as_real(x) for x in column] for column in lists]
        dtype = group["state_dtype"]
        if dtype is not None:
            lists[1] = [g.to(dtype) if g.dtype in HALF else g for g in lists[1]]
        if scale is not None:
            lists[1] = [g / scale.to(g.device) for g in lists[1]]
        written: list[Tensor] = []
        if overflow is not None and not waits:
            written = [x for column in [lists[0], *lists[2:]] for x in column]
        before = [x.clone() for x in written]
        options = {
            "beta1": group["beta1"],
            "beta2": group["beta2"],
            "weight_decay": group["weight_decay"],
            "maximize": group["maximize"],
        }
        if foreach and not compiling:
            for part in _together(*lists):
                _multi_tensor_cautious_lion(
                    *part,
                    lr=lr,
                    capturable=capturable,
                    **options,
                )
        else:
            _single_tensor_cautious_lion(
                *lists,
                lr=lr,
                capturable=capturable,
                differentiable=differentiable,
                **options,
            )
        if overflow is not None:
            _take_back(overflow, written, before)
        if differentiable:
            for i, p in enumerate(params):
                self.state[p]["exp_avg"] = lists[2][i]

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        exp_avg: list[Tensor],
    ) -> None:
        """Fill the lists with parameters that have a gradient, and start their states."""
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if grad.layout != torch.strided:
                this = type(self).__name__
                raise RuntimeError(f"{this} does not support sparse gradients")
            state = self.state[p]
            if not state:
                for name in STATES:
                    state[name] = self._empty(name, p, group)
            params.append(p)
            grads.append(grad)
            exp_avg.append(state["exp_avg"])

    def _empty(self, name: str, p: Tensor, group: dict[str, Any]) -> Tensor:
        """A state as it is before it has a value: zeros of the right shape and dtype."""
        like = _as_real(p.detach())
        dtype = group["state_dtype"] if like.dtype in HALF else None
        return torch.zeros_like(like, dtype=dtype)


def _together(*columns: list[Tensor]) -> Iterator[list[list[Tensor]]]:
    """Lists that step as one: alike in device and dtype."""
    keys: list[Any] = [(p.device, p.dtype) for p in columns[0]]
    kinds = list(dict.fromkeys(keys))
    for kind in kinds:
        group = list(columns)
        if len(kinds) > 1:
            chosen = [key == kind for key in keys]
            group = [list(compress(column, chosen)) for column in columns]
        yield group


def _as_real(x: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones, in the same memory."""
    return torch.view_as_real(x) if x.is_complex() else x


def _take_back(overflow: Tensor, written: list[Tensor], before: list[Tensor]) -> None:
    """Undo a step with an overflow, without waiting for the device to say whether."""
    for x, old in zip(written, before, strict=True):
        x.copy_(torch.where(overflow.to(x.device) != 0, old, x))


def _each(op: Callable[..., Any], *args: Any) -> Any:
    """An op on each tensor of lists; what is no list goes to each of them."""
    lists = [arg for arg in args if isinstance(arg, list | tuple)]
    if not lists:
        return op(*args)
    size = len(lists[0])
    columns = [a if isinstance(a, list | tuple) else [a] * size for a in args]
    return [op(*row) for row in zip(*columns, strict=True)]


def _sign(x: Tensor) -> Tensor:
    """Sign of x; NaN stays NaN, which torch.sign would turn into 0."""
    return torch.where(torch.isnan(x), x, torch.sign(x))


def _signs_(xs: list[Tensor] | tuple[Tensor, ...]) -> None:
    """Signs in place, NaN kept. A number of float32 or wider that is below the normal ones
    becomes less than 1, that is, almost nothing."""
    dtype = xs[0].dtype
    # As a tensor: torch would make one of a Python number for every tensor of the list.
    scale = xs[0].new_full((), 1 / torch.finfo(dtype).tiny)
    for _ in range(2 if dtype is torch.float16 else 1):
        torch._foreach_mul_(xs, scale)
    for x in xs:
        torch.nn.functional.hardtanh_(x)  # between -1 and 1


def _mask(holds: Tensor | bool, a: Tensor | float, b: Tensor | float) -> Tensor:
    """1 where a comparison of a and b holds, else 0; NaN where either is NaN."""
    unknown = torch.isnan(torch.as_tensor(a)) | torch.isnan(torch.as_tensor(b))
    like: Any = b
    if isinstance(a, Tensor) and not (isinstance(b, Tensor) and b.dim() > a.dim()):
        like = a
    return torch.as_tensor(holds).to(like.dtype).masked_fill(unknown, torch.nan)


def _greater(a: Tensor | float, b: Tensor | float) -> Tensor:
    """1 where a > b, else 0; NaN where either is NaN."""
    return _mask(a > b, a, b)


def _mean(x: Tensor) -> Tensor:
    """Mean over the tensor; 0 where it is empty."""
    return x.sum() / max(x.numel(), 1)
