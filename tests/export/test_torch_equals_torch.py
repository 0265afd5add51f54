"""Exports of rules that torch has too, against torch's own classes, step for step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ruleforge.core.known import KNOWN
from ruleforge.optim import RuleOptimizer
from tests.export.harness import gradients, largest, load_class, train_torch, weights


class HandWrittenLion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2, as one would type it."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((beta1 * m + (1 - beta1) * p.grad).sign(), alpha=-group["lr"])
                m.mul_(beta2).add_(p.grad, alpha=1 - beta2)


PAIRS: dict[str, tuple[str, dict[str, Any], Callable[..., Any]]] = {
    "sgd": ("sgd", {"weight_decay": 0.0}, lambda p: torch.optim.SGD(p, lr=0.01)),
    "momentum": ("momentum", {"mu": 0.8}, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8)),
    "nesterov": (
        "nesterov",
        {"mu": 0.8},
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8, nesterov=True),
    ),
    "adam": ("adam", {"beta1": 0.8, "eps": 1e-6}, lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.999), 1e-6)),
    "adamw": ("adam", {"weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
    "rmsprop": ("rmsprop", {"rho": 0.95}, lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.95)),
    "adagrad": ("adagrad", {"eps": 1e-6}, lambda p: torch.optim.Adagrad(p, 0.01, eps=1e-6)),
    "radam": ("radam", {}, lambda p: torch.optim.RAdam(p, 0.01)),
    "lion": ("lion", {"weight_decay": 0.1}, lambda p: HandWrittenLion(p, 0.01, (0.9, 0.99), 0.1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_same_steps(name: str, tmp_path: Path) -> None:
    rule, options, theirs = PAIRS[name]
    text = KNOWN[rule].rule
    exported = load_class(text, tmp_path)
    expected = train_torch(theirs, gradients(), weights())
    for make in (exported, lambda p, **kw: RuleOptimizer(p, text, **kw)):
        found = train_torch(lambda p, make=make: make(p, lr=0.01, **options), gradients(), weights())
        worst = max(largest(a, b) for a, b in zip(found, expected, strict=True))
        assert worst <= 1e-12, worst


def test_maximize_is_torchs(tmp_path: Path) -> None:
    exported = load_class(KNOWN["adam"].rule, tmp_path)
    expected = train_torch(lambda p: torch.optim.Adam(p, lr=0.01, maximize=True), gradients(), weights())
    for make in (exported, lambda p, **kw: RuleOptimizer(p, KNOWN["adam"].rule, **kw)):
        found = train_torch(lambda p, make=make: make(p, lr=0.01, maximize=True), gradients(), weights())
        assert max(largest(a, b) for a, b in zip(found, expected, strict=True)) <= 1e-12


def test_states_carry_torchs_names(tmp_path: Path) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    exported = load_class(KNOWN["adam"].rule, tmp_path)
    for optimizer in (exported([p]), RuleOptimizer([p], KNOWN["adam"].rule)):
        optimizer.step()
        theirs = torch.optim.Adam([p])
        theirs.step()
        assert set(optimizer.state[p]) == set(theirs.state[p])
    lion = load_class(KNOWN["lion"].rule, tmp_path)([p])
    lion.step()
    assert set(lion.state[p]) == {"exp_avg"}
    assert np.isclose(lion.state[p]["exp_avg"].numpy(), 0.01).all()
