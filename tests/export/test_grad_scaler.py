"""Exported classes under `torch.amp.GradScaler`: scaled gradients, and overflows without waiting."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.export.test_optimizer_info import NAMES, QUICK, close, info_of

WAYS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "single, capturable": {"foreach": False, "capturable": True},
    "foreach, capturable": {"foreach": True, "capturable": True},
}


def scaled_training(name: str, overflows: frozenset[int], unscale: bool = False, **options: Any) -> Any:
    """Five steps under a scaler, with an infinite gradient in some of them; parameters and optimizer."""
    rng = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=rng)) for shape in ((3, 4), (5,), ())]
    optimizer = info_of(name).optim_cls(params, lr=0.01, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=10**6, backoff_factor=0.999999)
    for step in range(5):
        optimizer.zero_grad()
        noise = torch.Generator().manual_seed(step)
        loss = sum((p * torch.randn(p.shape, generator=noise)).sum() for p in params)
        if step in overflows:
            loss = loss + (params[1] * float("inf")).sum()
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    return params, optimizer


def plain_training(name: str, skipped: frozenset[int], **options: Any) -> Any:
    """The same without a scaler, where the steps that would overflow are left out."""
    rng = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=rng)) for shape in ((3, 4), (5,), ())]
    optimizer = info_of(name).optim_cls(params, lr=0.01, **options)
    for step in range(5):
        noise = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=noise)
        if step not in skipped:
            optimizer.step()
    return params, optimizer


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
@pytest.mark.parametrize("way", WAYS)
def test_steps_under_a_scaler(name: str, way: str) -> None:
    """Unscaled gradients move weights as they would without; overflows move nothing, states included."""
    for overflows in (frozenset[int](), frozenset({0, 2})):
        for unscale in (False, True):
            mine, optimizer = scaled_training(name, overflows, unscale, **copy.deepcopy(WAYS[way]))
            its, other = plain_training(name, overflows, **copy.deepcopy(WAYS[way]))
            close(mine, its, rtol=1e-4, atol=1e-5)
            for p, q in zip(mine, its, strict=True):
                assert set(optimizer.state[p]) == set(other.state[q])
                for state, value in optimizer.state[p].items():
                    torch.testing.assert_close(value, other.state[q][state], rtol=1e-4, atol=1e-5)


def test_who_unscales() -> None:
    """A capturable class does it itself; with others the scaler does, so that gradients can be clipped."""
    made = info_of("adam").optim_cls
    assert not made([Parameter(torch.ones(1))])._step_supports_amp_scaling
    assert made([Parameter(torch.ones(1))], capturable=True)._step_supports_amp_scaling
    p = Parameter(torch.ones(2))
    optimizer = made([p], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(p.sum() * 3).backward()
    scaler.step(optimizer)
    assert p.grad is not None
    assert p.grad.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("way", WAYS)
def test_the_attributes_of_torchs_own_optimizers(way: str) -> None:
    """`grad_scale` and `found_inf` work by hand too, and gradients stay as they are."""
    p, q = (Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    mine, other = (info_of("adam").optim_cls([each], lr=0.1, **WAYS[way]) for each in (p, q))
    for found in (0.0, 1.0, 0.0):
        p.grad, q.grad = torch.tensor([4.0, 8.0]), torch.tensor([0.5, 1.0])
        mine.grad_scale, mine.found_inf = torch.tensor(8.0), torch.tensor(found)
        mine.step()
        assert p.grad.tolist() == [4.0, 8.0]
        if not found:
            other.step()
    assert torch.equal(p, q)
    assert mine.state[p]["step"] == 2


def test_half_precision_gradients_are_unscaled_in_the_states_dtype() -> None:
    """A gradient that float16 cannot hold once it is unscaled still counts."""
    p = Parameter(torch.ones(1, dtype=torch.float16))
    optimizer = info_of("adam").optim_cls([p], lr=0.1, capturable=True, state_dtype=torch.float32)
    p.grad = torch.tensor([2.0**-10], dtype=torch.float16)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0**20), torch.tensor(0.0)
    optimizer.step()
    assert optimizer.state[p]["exp_avg"].item() == pytest.approx(0.1 * 2.0**-30, rel=1e-3)
