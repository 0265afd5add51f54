"""AdamRule: an optimizer for torch, which needs torch alone.

Adam. Kingma & Ba 2014, arXiv:1412.6980.

Each parameter tensor w with gradient g moves by

    m ← β₁·m + (1 − β₁)·g
    v ← β₂·v + (1 − β₂)·g²
    u ← (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    w ← w − lr·u

and, with weight_decay, by lr * weight_decay * w besides (decoupled).

Written by ruleforge from the rule cc5152b75e37434644d2e04ac51c8c79:

    beta1: hyper(0, 1, one_minus_log) = 0.9
    beta2: hyper(0, 1, one_minus_log) = 0.999
    eps: hyper(0, 1, log) = 1e-08
    update = ema_hat(g, beta1) / (sqrt(ema_hat(g * g, beta2)) + eps)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

__all__ = ["AdamRule"]

# Open intervals that the hyperparameters must lie in.
RANGES = {
    "beta1": (0, 1),
    "beta2": (0, 1),
    "eps": (0, 1),
}


def _single_tensor_adam_rule(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[dict[str, Any]],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Move each parameter tensor by one step; states are overwritten in place."""
    for w, grad, state in zip(params, grads, states, strict=True):
        state["step"] += 1
        g = -grad if maximize else grad
        t = float(state["step"])
        exp_avg = state["exp_avg"]
        exp_avg_sq = state["exp_avg_sq"]

        exp_avg.mul_(beta1).add_((1 - beta1) * g)
        exp_avg_sq.mul_(beta2).add_((1 - beta2) * (g * g))
        denom = torch.sqrt(exp_avg_sq / (1 - beta2**t)) + eps
        update = exp_avg / (1 - beta1**t) / denom
        if weight_decay != 0:
            update = update + weight_decay * w
        w.sub_(lr * update)


class AdamRule(Optimizer):
    """Adam. Kingma & Ba 2014, arXiv:1412.6980.

    Args:
        params: parameters, or dicts that define parameter groups.
        lr: learning rate.
        beta1: a number between 0 and 1.
        beta2: a number between 0 and 1.
        eps: a number between 0 and 1.
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
        beta2: float = 0.999,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "eps": eps,
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
            _single_tensor_adam_rule(
                params,
                grads,
                states,
                lr=group["lr"],
                beta1=group["beta1"],
                beta2=group["beta2"],
                eps=group["eps"],
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
                raise RuntimeError("AdamRule does not support sparse gradients")
            if p.is_complex():
                raise RuntimeError("AdamRule does not support complex parameters")
            state = self.state[p]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(p)
                state["exp_avg_sq"] = torch.zeros_like(p)
            params.append(p)
            grads.append(p.grad)
            states.append(state)
        return params, grads, states
