"""RpropRule: an optimizer for torch, which needs torch alone.

Rprop. Riedmiller & Braun 1993, A Direct Adaptive Method for Faster Backpropagation
Learning.

lr is only the first step size. After a sign change the element rests and forgets
its gradient.

Each parameter tensor w with gradient g moves by

    s ← sign(g·kept)
    part ← η_plus if [s > 0] else (η_minus if [s < 0] else 1)
    h ← clip(h·part, step_min, step_max)
    kept ← 0 if [s < 0] else g
    u ← sign(kept)·h / lr
    w ← w − lr·u
    start: h₀ = lr0

and, with weight_decay, by lr * weight_decay * w besides (decoupled).

Written by ruleforge from the rule 7c1f6ae769a6a1ac2a4b542b32090436:

    eta_minus: hyper(0, 1) = 0.5
    eta_plus: hyper(1, 10) = 1.2
    step_min: hyper(0, 0.01, log) = 1e-06
    step_max: hyper(0.01, 10000, log) = 50
    h: state = lr0
    kept: state = 0
    s = sign(g * kept)
    h = clip(h * where(s > 0, eta_plus, where(s < 0, eta_minus, 1)), step_min, step_max)
    kept = where(s < 0, 0, g)
    update = sign(kept) * h / lr
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

__all__ = ["RpropRule"]

# Open intervals that the hyperparameters must lie in.
RANGES = {
    "eta_minus": (0, 1),
    "eta_plus": (1, 10),
    "step_min": (0, 0.01),
    "step_max": (0.01, 10000),
}


def _single_tensor_rprop_rule(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[dict[str, Any]],
    *,
    lr: float,
    lr0: float,
    eta_minus: float,
    eta_plus: float,
    step_min: float,
    step_max: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Move each parameter tensor by one step; states are overwritten in place."""
    for w, grad, state in zip(params, grads, states, strict=True):
        state["step"] += 1
        g = -grad if maximize else grad
        h = state["h"]
        kept = state["kept"]

        s = _sign(g * kept)
        mask = _less(s, 0)
        part_2 = _where(mask, eta_minus, 1)
        part = _where(_greater(s, 0), eta_plus, part_2)
        h.copy_(torch.clamp(h * part, step_min, step_max))
        kept.copy_(_where(mask, 0, g))
        update = _sign(kept) * h / lr
        if weight_decay != 0:
            update = update + weight_decay * w
        w.sub_(lr * update)


class RpropRule(Optimizer):
    """Rprop. Riedmiller & Braun 1993, A Direct Adaptive Method for Faster Backpropagation

    Args:
        params: parameters, or dicts that define parameter groups.
        lr: learning rate.
        eta_minus: a number between 0 and 1.
        eta_plus: a number between 1 and 10.
        step_min: a number between 0 and 0.01.
        step_max: a number between 0.01 and 10000.
        weight_decay: decoupled decay, outside the rule.
        maximize: move along the gradient instead of against it.

    Every parameter group may have its own values. A NaN in a gradient is neither
    skipped nor repaired: it reaches the states and the weights that it concerns.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        eta_minus: float = 0.5,
        eta_plus: float = 1.2,
        step_min: float = 1e-06,
        step_max: float = 50.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "eta_minus": eta_minus,
            "eta_plus": eta_plus,
            "step_min": step_min,
            "step_max": step_max,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with values of their own; the constructor adds its groups so."""
        group = {**self.defaults, **param_group}
        if not group["lr"] >= 0:
            raise ValueError(f"Invalid learning rate: {group['lr']}")
        if not group["weight_decay"] >= 0:
            raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
        for name, (low, high) in RANGES.items():
            value = group[name]
            if not low < value < high:
                raise ValueError(
                    f"Invalid {name}: {value} (must lie between {low} and {high})",
                )
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("lr0", group["lr"])

    @torch.no_grad()
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
        for group in self.param_groups:
            params, grads, states = self._gather(group)
            _single_tensor_rprop_rule(
                params,
                grads,
                states,
                lr=group["lr"],
                lr0=group["lr0"],
                eta_minus=group["eta_minus"],
                eta_plus=group["eta_plus"],
                step_min=group["step_min"],
                step_max=group["step_max"],
                weight_decay=group["weight_decay"],
                maximize=group["maximize"],
            )
        return loss

    def _gather(
        self,
        group: dict[str, Any],
    ) -> tuple[list[Tensor], list[Tensor], list[dict[str, Any]]]:
        """Parameters that have a gradient, with their gradients and states."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        states: list[dict[str, Any]] = []
        for p in group["params"]:
            if p.grad is None:
                continue
            if p.grad.layout != torch.strided:
                raise RuntimeError("RpropRule does not support sparse gradients")
            if p.is_complex():
                raise RuntimeError("RpropRule does not support complex parameters")
            state = self.state[p]
            if not state:
                state["step"] = 0
                state["h"] = torch.full_like(p, group["lr0"])
                state["kept"] = torch.zeros_like(p)
            params.append(p)
            grads.append(p.grad)
            states.append(state)
        return params, grads, states


def _sign(x: Tensor) -> Tensor:
    """Sign of x; NaN stays NaN, which torch.sign would turn into 0."""
    return torch.where(torch.isnan(x), x, torch.sign(x))


def _where(c: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """The value a where c is not 0, else b; NaN where c is NaN."""
    a, b = (torch.as_tensor(value, dtype=c.dtype, device=c.device) for value in (a, b))
    return torch.where(torch.isnan(c), c, torch.where(c != 0, a, b))


def _mask(holds: Tensor | bool, a: Tensor | float, b: Tensor | float) -> Tensor:
    """1 where a comparison of a and b holds, else 0; NaN where either is NaN."""
    unknown = torch.isnan(torch.as_tensor(a)) | torch.isnan(torch.as_tensor(b))
    mask = torch.as_tensor(holds).to(torch.result_type(a, b))
    return mask.masked_fill(unknown, torch.nan)


def _less(a: Tensor | float, b: Tensor | float) -> Tensor:
    """1 where a < b, else 0; NaN where either is NaN."""
    return _mask(a < b, a, b)


def _greater(a: Tensor | float, b: Tensor | float) -> Tensor:
    """1 where a > b, else 0; NaN where either is NaN."""
    return _mask(a > b, a, b)
