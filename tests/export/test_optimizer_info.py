"""Exported classes in torch's own tables of optimizers, and the checks that torch makes of its own.

The inputs and the errors that every optimizer must raise come from `torch.testing._internal`; the checks
are those of torch's `test_optim.py`, which does not ship with torch, written again.
"""

from __future__ import annotations

import copy
import functools
import io
import pickle
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor
from torch.nn import Parameter
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)

from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Kind
from ruleforge.export.torch import export_torch

NAMES = sorted(KNOWN)
# torch's generator of errors takes 1×1 parameters; rules that turn matrices are among those too.
LR = 1e-3


@functools.cache
def module_of(name: str) -> Any:
    """The exported module, importable by name so that its class can be pickled."""
    folder = Path(tempfile.mkdtemp())
    label = f"exported_known_{name}"
    (folder / f"{label}.py").write_text(export_torch(KNOWN[name].rule), encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        return __import__(label)
    finally:
        sys.path.remove(str(folder))


def inputs(device: str, dtype: torch.dtype | None = None) -> list[OptimizerInput]:
    options: list[dict[str, Any]] = [
        {},
        {"lr": 0.01},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "maximize": True},
        {"capturable": True},
        {"lr": torch.tensor(0.001), "capturable": True},
        {"lr": torch.tensor(0.001), "capturable": True, "weight_decay": 0.1, "maximize": True},
    ]
    return [OptimizerInput(params=None, kwargs=kwargs, desc=str(kwargs)) for kwargs in options]


def error_inputs(device: str, dtype: torch.dtype) -> list[ErrorOptimizerInput]:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
        (
            {"lr": torch.tensor(0.001), "foreach": True},
            "lr as a Tensor is not supported for capturable=False and foreach=True",
        ),
        ({"foreach": True, "differentiable": True}, "foreach and differentiable exclude each other"),
    ]
    own = [
        ErrorOptimizerInput(
            OptimizerInput(params=None, kwargs=kwargs, desc=message),
            error_type=ValueError,
            error_regex=message,
        )
        for kwargs, message in cases
    ]
    return [*get_error_inputs_for_all_optims(device, dtype), *own]


@functools.cache
def info_of(name: str) -> OptimizerInfo:
    module = module_of(name)
    return OptimizerInfo(
        getattr(module, module.__all__[0]),
        optim_inputs_func=inputs,
        optim_error_inputs_func=error_inputs,
        supported_impls=("foreach", "differentiable"),
        has_capturable_arg=True,
        supports_complex=True,
    )


def keeps_numbers(name: str) -> bool:
    """Whether the rule has states that are numbers, such as NAdam's product."""
    return Kind.HOST in KNOWN[name].rule.rule.canonical.state_kinds


# Every kind of rule: states of each kind, reductions, matrices, choices by step, progress of a product.
QUICK = ("adam", "lion", "rprop", "novograd", "nadam", "muon", "pnm")


@pytest.fixture(
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def info(request: pytest.FixtureRequest) -> OptimizerInfo:
    return info_of(request.param)


def started(
    info: OptimizerInfo, seed: int = 0, dtype: torch.dtype = torch.float64, **kwargs: Any
) -> tuple[list[Parameter], Any]:
    rng = torch.Generator().manual_seed(seed)
    shapes = ((3, 4), (4, 3), (5,), ())
    params = [Parameter(torch.randn(shape, generator=rng, dtype=dtype)) for shape in shapes]
    return params, info.optim_cls(params, **kwargs)


def give_gradients(params: list[Any], step: int) -> None:
    rng = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=rng, dtype=p.dtype)


def run(params: list[Any], optimizer: Any, steps: range) -> None:
    for step in steps:
        give_gradients(params, step)
        optimizer.step()


def close(a: list[Any], b: list[Any], **tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.detach(), y.detach(), **(tolerance or {"rtol": 1e-9, "atol": 1e-11}))


def every_input(info: OptimizerInfo) -> Iterator[dict[str, Any]]:
    for each in info.optim_inputs_func("cpu"):
        yield copy.deepcopy(each.kwargs)


def test_errors(info: OptimizerInfo) -> None:
    for case in info.optim_error_inputs_func("cpu", torch.float32):
        given = case.optimizer_error_input
        params = given.params if given.params is not None else [Parameter(torch.randn(1, 1))]
        assert case.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            with pytest.raises(case.error_type, match=case.error_regex):
                info.optim_cls(params, **given.kwargs)


def test_foreach_equals_forloop(info: OptimizerInfo) -> None:
    for kwargs in every_input(info):
        one, loop = started(info, foreach=False, **kwargs)
        other, lists = started(info, foreach=True, **copy.deepcopy(kwargs))
        run(one, loop, range(7))
        run(other, lists, range(7))
        close(one, other)
        for p, q in zip(one, other, strict=True):
            assert list(loop.state[p]) == list(lists.state[q])
            for name, value in loop.state[p].items():
                torch.testing.assert_close(value, lists.state[q][name], rtol=1e-8, atol=1e-11)


def test_step_hooks_and_closures(info: OptimizerInfo) -> None:
    params, optimizer = started(info)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    handle = optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> float:
        assert torch.is_grad_enabled()
        calls.append("closure")
        give_gradients(params, 0)
        return 3.5

    assert optimizer.step(closure) == 3.5
    assert calls == ["before", "closure", "after"]
    handle.remove()
    optimizer.step()
    assert calls[3:] == ["before"]


def test_state_dict_round_trip(info: OptimizerInfo) -> None:
    for kwargs in every_input(info):
        params, optimizer = started(info, **kwargs)
        run(params, optimizer, range(3))
        stored = io.BytesIO()
        torch.save(optimizer.state_dict(), stored)
        stored.seek(0)
        saved = torch.load(stored, weights_only=True)
        twins = [Parameter(p.detach().clone()) for p in params]
        fresh = info.optim_cls(twins, lr=0.5)
        fresh.load_state_dict(saved)
        for p, q in zip(params, twins, strict=True):
            for name, value in optimizer.state[p].items():
                assert value.dtype == fresh.state[q][name].dtype, name
                assert torch.equal(value, fresh.state[q][name]), name
        run(params, optimizer, range(3, 5))
        run(twins, fresh, range(3, 5))
        close(params, twins, rtol=0, atol=0)


def test_pickle_and_deepcopy(info: OptimizerInfo) -> None:
    params, optimizer = started(info)
    run(params, optimizer, range(3))
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        its = [p for group in twin.param_groups for p in group["params"]]
        mine, own = copy.deepcopy((params, optimizer))
        run(its, twin, range(3, 5))
        run(mine, own, range(3, 5))
        close(its, mine, rtol=0, atol=0)


def test_groups_with_their_own_lr_and_decay(info: OptimizerInfo) -> None:
    for foreach in (False, True):
        params, _ = started(info)
        twins = [Parameter(p.detach().clone()) for p in params]
        grouped = info.optim_cls(
            [{"params": params[:2], "lr": 0.02, "weight_decay": 0.1}, {"params": params[2:]}],
            lr=0.01, foreach=foreach,
        )  # fmt: skip
        single = [
            info.optim_cls(twins[:2], lr=0.02, weight_decay=0.1),
            info.optim_cls(twins[2:], lr=0.01),
        ]
        for step in range(4):
            give_gradients(params, step)
            give_gradients(twins, step)
            grouped.step()
            for each in single:
                each.step()
        close(params, twins)


def test_empty_groups_and_tensors(info: OptimizerInfo) -> None:
    p = Parameter(torch.ones(0, 3))
    optimizer = info.optim_cls([{"params": []}, {"params": [p]}])
    optimizer.step()
    assert not optimizer.state
    p.grad = torch.ones(0, 3)
    optimizer.step()
    assert p.shape == (0, 3)


def test_complex_is_pairs_of_real_numbers(info: OptimizerInfo) -> None:
    for foreach in (False, True):
        rng = torch.Generator().manual_seed(3)
        z = Parameter(torch.randn(5, generator=rng, dtype=torch.complex128))
        pair = Parameter(torch.view_as_real(z.detach()).clone())
        ours, real = info.optim_cls([z], foreach=foreach), info.optim_cls([pair], foreach=foreach)
        for _ in range(4):
            z.grad = torch.randn(5, generator=rng, dtype=torch.complex128)
            pair.grad = torch.view_as_real(z.grad).clone()
            ours.step()
            real.step()
        close([torch.view_as_real(z.detach())], [pair], rtol=0, atol=0)


def test_tensor_lr(info: OptimizerInfo) -> None:
    for kwargs in ({}, {"capturable": True}):
        plain, one = started(info, lr=0.01)
        tensor, other = started(info, lr=torch.tensor(0.01, dtype=torch.float64), **kwargs)
        run(plain, one, range(4))
        run(tensor, other, range(4))
        close(plain, tensor)


def test_maximize_is_the_negative_gradient(info: OptimizerInfo) -> None:
    for foreach in (False, True):
        up, climbing = started(info, maximize=True, foreach=foreach)
        down, falling = started(info, foreach=foreach)
        for step in range(3):
            give_gradients(up, step)
            give_gradients(down, step)
            for p in down:
                p.grad = -p.grad
            climbing.step()
            falling.step()
        close(up, down)


SMOOTH_AT = 0.7


def step_of(info: OptimizerInfo, p: Tensor, grad: Tensor, states: dict[str, Any]) -> tuple[Tensor, ...]:
    p = p.clone()
    p.grad = grad
    optimizer = info.optim_cls([p], lr=0.9, differentiable=True)
    optimizer.state[p].update({k: v.clone() if isinstance(v, Tensor) else v for k, v in states.items()})
    optimizer.step()
    kept = optimizer.state[p].values()
    return (p, *(v for v in kept if isinstance(v, Tensor) and v.requires_grad))


def test_differentiable(info: OptimizerInfo) -> None:
    """Autograd through one step from the middle of a training agrees with finite differences.

    Their steps are short beside states such as AdaDelta's, of which some are about 1e-5.
    """
    rng = torch.Generator().manual_seed(5)
    params = [Parameter(torch.rand(6, generator=rng, dtype=torch.float64) + SMOOTH_AT)]
    optimizer = info.optim_cls(params, lr=0.01)
    for _ in range(9):
        params[0].grad = torch.rand(6, generator=rng, dtype=torch.float64) + SMOOTH_AT
        optimizer.step()
    states = dict(optimizer.state[params[0]])
    p = params[0].detach().clone().requires_grad_()
    grad = (torch.rand(6, generator=rng, dtype=torch.float64) + SMOOTH_AT).requires_grad_()
    wanted = {name: value.clone().requires_grad_(value.ndim > 0) for name, value in states.items()}
    torch.autograd.gradcheck(
        lambda p, grad, *_: step_of(info, p, grad, wanted),
        (p, grad, *(v for v in wanted.values() if v.requires_grad)),
        eps=1e-7, atol=1e-5, rtol=1e-4,
    )  # fmt: skip


def test_bfloat16_with_float32_states(info: OptimizerInfo) -> None:
    """The weights follow a float32 training within their own rounding."""
    for foreach in (False, True):
        start = torch.linspace(0.5, 1.5, 12).reshape(3, 4)
        half = [Parameter(start.to(torch.bfloat16))]
        optimizer = info.optim_cls(half, state_dtype=torch.float32, foreach=foreach)
        for step in range(3):
            give_gradients(half, step)
            optimizer.step()
        assert half[0].dtype == torch.bfloat16
        states = {k: v for k, v in optimizer.state[half[0]].items() if v.ndim}
        assert all(v.dtype == torch.float32 for v in states.values())
        saved = optimizer.state_dict()
        fresh = info.optim_cls([Parameter(half[0].detach().clone())], state_dtype=torch.float32)
        fresh.load_state_dict(saved)
        for name, value in states.items():
            kept = fresh.state[fresh.param_groups[0]["params"][0]][name]
            assert kept.dtype == torch.float32
            assert torch.equal(
                kept,
                value,
            )


def test_another_rules_state_is_refused() -> None:
    _, adam = started(info_of("adam"))
    params, lion = started(info_of("lion"))
    with pytest.raises(ValueError, match=r"of rule \w+, not of \w+"):
        lion.load_state_dict(adam.state_dict())
    newer = {**lion.state_dict(), "version": 99}
    with pytest.raises(ValueError, match="version 99, not 2"):
        lion.load_state_dict(newer)
    theirs = torch.optim.Adam(params)
    run(params, theirs, range(1))
    with pytest.raises(ValueError, match="the state dict has exp_avg, exp_avg_sq, step, not exp_avg"):
        lion.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_signs_in_place_are_signs(dtype: torch.dtype) -> None:
    """Of the least numbers of wider types, which are below the normal ones, they are next to nothing."""
    tiny = torch.finfo(dtype).smallest_normal
    values = [0.0, -0.0, 1.0, -3.0, tiny, -tiny, float("inf"), float("-inf"), float("nan")]
    x = torch.tensor(values, dtype=dtype)
    expected = torch.where(x.isnan(), x, x.sign())
    signs_ = module_of("lion")._signs_
    found = x.clone()
    signs_([found])
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    least = torch.tensor([tiny * torch.finfo(dtype).eps], dtype=dtype)
    assert least > 0
    signs_([least])
    assert least == 1 if dtype is torch.float16 else 0 <= least < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not keeps_numbers(name)])
def test_compiled_steps_equal_eager_ones(name: str) -> None:
    """In one graph, and without compiling again at later steps.

    In float32: torch 2.13 takes 0-dim float64 tensors on a CPU for Python's numbers and loses what compiled
    code writes into them, its own optimizers' states too.
    """
    info = info_of(name)
    mine, eager = started(info, dtype=torch.float32)
    its, other = started(info, dtype=torch.float32)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    step = torch.compile(other.step, backend=counter, fullgraph=True)
    for t in range(5):
        give_gradients(mine, t)
        give_gradients(its, t)
        eager.step()
        step()
    close(mine, its, rtol=1e-5, atol=1e-6)
    assert counter.frame_count <= 2


@pytest.mark.slow
def test_numbers_on_a_cpu_are_not_lost_in_compiled_steps() -> None:
    """For the same reason: a wrong step would be worse than none."""
    params, nadam = started(info_of("nadam"), dtype=torch.float32)
    torch._dynamo.reset()
    give_gradients(params, 0)
    with pytest.raises(Exception, match="torch would lose the numbers"):
        torch.compile(nadam.step, backend="eager", fullgraph=True)()


@pytest.mark.parametrize("name", ["adam", "lion", "sgd", "adabelief", "nadam", "madgrad"])
def test_large_tensors_are_stepped_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of(name)
    if not hasattr(module, "BLOCK"):
        pytest.skip("its tensors are stepped whole")
    info = info_of(name)
    whole, one = started(info)
    run(whole, one, range(4))
    monkeypatch.setattr(module, "BLOCK", 5)
    parts, other = started(info)
    run(parts, other, range(4))
    close(whole, parts, rtol=1e-15, atol=0)
