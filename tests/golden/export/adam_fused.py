"""The fused kernel of AdamRule, in Triton: one pass over memory.

Adam. Kingma & Ba 2014, arXiv:1412.6980.

Each element w with gradient g moves by

    m ← β₁·m + (1 − β₁)·g
    v ← β₂·v + (1 − β₂)·g²
    u ← (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    w ← w − lr·u

Lies beside the exported optimizer, under its file's name with `_fused` at the end.

Written by ruleforge from the rule cc5152b75e37434644d2e04ac51c8c79:

    beta1: hyper(0, 1, one_minus_log) = 0.9
    beta2: hyper(0, 1, one_minus_log) = 0.999
    eps: hyper(0, 1, log) = 1e-08
    update = ema_hat(g, beta1) / (sqrt(ema_hat(g * g, beta2)) + eps)
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["step"]

RULE = "cc5152b75e37434644d2e04ac51c8c79"


@triton.jit(do_not_specialize=["row"])
def _kernel(
    p,
    grad,
    exp_avg_ptr,
    exp_avg_sq_ptr,
    row,
    size,
    addresses,
    tensors,
    starts,
    sizes,
    live,
    grad_scale,
    found_inf,
    lr,
    bias_correction2,
    bias_correction1,
    beta1,
    one_minus_beta1,
    beta2,
    one_minus_beta2,
    eps,
    weight_decay,
    MANY: tl.constexpr,
    WIDE: tl.constexpr,
    LIVE: tl.constexpr,
    SCALED: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    DECAYS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of one tensor: read it, step it, write it."""
    place = tl.program_id(0)
    if MANY:
        row = tl.load(tensors + place)
        place = tl.load(starts + place)
        size = tl.load(sizes + row)
        at = addresses + row * 4
        p = tl.load(at + 0).to(p.dtype)
        grad = tl.load(at + 1).to(grad.dtype)
        exp_avg_ptr = tl.load(at + 2).to(exp_avg_ptr.dtype)
        exp_avg_sq_ptr = tl.load(at + 3).to(exp_avg_sq_ptr.dtype)
    i = place.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    p += i
    grad += i
    exp_avg_ptr += i
    exp_avg_sq_ptr += i
    if WIDE:
        size = tl.multiple_of(size, 16)
        p = tl.multiple_of(p, 16)
        grad = tl.multiple_of(grad, 16)
        exp_avg_ptr = tl.multiple_of(exp_avg_ptr, 16)
        exp_avg_sq_ptr = tl.multiple_of(exp_avg_sq_ptr, 16)
    inside = i < size
    if LIVE:
        lr = tl.load(live + row * 3 + 0)
        bias_correction2 = tl.load(live + row * 3 + 1)
        bias_correction1 = tl.load(live + row * 3 + 2)
    w = tl.load(p, inside, other=0).to(tl.float32)
    g = tl.load(grad, inside, other=0).to(tl.float32)
    exp_avg = tl.load(exp_avg_ptr, inside, other=0).to(tl.float32)
    exp_avg_sq = tl.load(exp_avg_sq_ptr, inside, other=0).to(tl.float32)
    if SCALED:
        inside = inside & (tl.full((BLOCK,), tl.load(found_inf), tl.float32) == 0)
        g = tl.div_rn(g, tl.full((BLOCK,), tl.load(grad_scale), tl.float32))
    if MAXIMIZE:
        g = -g
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    part_ = tl.div_rn(exp_avg_sq, bias_correction2)
    denom = tl.sqrt_rn(part_) + eps
    update = tl.div_rn(tl.div_rn(exp_avg, bias_correction1), denom)
    if DECAYS:
        update = update + weight_decay * w
    tl.store(p, w - lr * update, inside)
    tl.store(exp_avg_ptr, exp_avg, inside)
    tl.store(exp_avg_sq_ptr, exp_avg_sq, inside)


def _numbers(
    t: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
) -> tuple[tuple[Any, ...], ...]:
    """Numbers that change with the step, those that do not, and those that are kept."""
    bias_correction2 = 1 - beta2**t
    return (
        (bias_correction2, 1 - beta1**t),
        (beta1, 1 - beta1, beta2, 1 - beta2, eps),
        (),
    )


def step(
    params: list[Tensor],
    grads: list[Tensor],
    steps: list[Tensor],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    *,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: float,
    maximize: bool,
    capturable: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Step all tensors of one device and dtype, with states that stand at the same step.

    With `found_inf`, of torch.amp.GradScaler, nothing changes where it is not 0.
    """
    _check(params)
    columns = [params, grads, exp_avg, exp_avg_sq]
    columns[1] = [_like(p, x) for p, x in zip(params, grads, strict=True)]
    given = [_one_or_all(x, capturable) for x in (steps,)]
    live, fixed, kept = _numbers(*given, lr, beta1, beta2, eps)
    _launch(columns, (lr, *live), fixed, weight_decay, maximize, capturable, grad_scale, found_inf)


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
