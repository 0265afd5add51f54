"""Lion: an optimizer for torch, which needs torch alone.

Lion. Chen et al. 2023, arXiv:2302.06675.

beta1 mixes for the step, beta2 updates the state.

Each parameter tensor w with gradient g moves by

    u ← sign(β₁·m + (1 − β₁)·g)
    m ← β₂·m + (1 − β₂)·g
    w ← w − lr·u

and, with weight_decay, by lr * weight_decay * w besides (decoupled).

Written by ruleforge from the rule bec0fb424b6c5bc2099622e3061ca249:

    beta1: hyper(0, 1, one_minus_log) = 0.9
    beta2: hyper(0, 1, one_minus_log) = 0.99
    m: state = 0
    update = sign(lerp(g, m, beta1))
    m = lerp(g, m, beta2)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

__all__ = ["Lion"]

# Open intervals that the hyperparameters must lie in.
RANGES = {
    "beta1": (0, 1),
    "beta2": (0, 1),
}


def _single_tensor_lion(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[dict[str, Any]],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Move each parameter tensor by one step; states are overwritten in place."""
    for w, grad, state in zip(params, grads, states, strict=True):
        state["step"] += 1
        g = -grad if maximize else grad
        exp_avg = state["exp_avg"]

        update = _sign(g + beta1 * (exp_avg - g))
        exp_avg.copy_(g + beta2 * (exp_avg - g))
        if weight_decay != 0:
            update = update + weight_decay * w
        w.sub_(lr * update)


class Lion(Optimizer):
    """Lion. Chen et al. 2023, arXiv:2302.06675.

    Args:
        params: parameters, or dicts that define parameter groups.
        lr: learning rate.
        beta1: a number between 0 and 1.
        beta2: a number between 0 and 1.
        weight_decay: decoupled decay, outside the rule.
        maximize: move along the gradient instead of against it.

    Every parameter group may have its own values. A NaN in a gradient is neither
    skipped nor repaired: it reaches the states and the weights that it concerns.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
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
            _single_tensor_lion(
                params,
                grads,
                states,
                lr=group["lr"],
                beta1=group["beta1"],
                beta2=group["beta2"],
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
                raise RuntimeError("Lion does not support sparse gradients")
            if p.is_complex():
                raise RuntimeError("Lion does not support complex parameters")
            state = self.state[p]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(p)
            params.append(p)
            grads.append(p.grad)
            states.append(state)
        return params, grads, states


def _sign(x: Tensor) -> Tensor:
    """Sign of x; NaN stays NaN, which torch.sign would turn into 0."""
    return torch.where(torch.isnan(x), x, torch.sign(x))
