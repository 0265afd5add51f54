"""The op table on torch tensors: one callable for each core elementwise op.

Arguments are tensors of one dtype, or Python floats where `Op` takes a number; the first argument
of a call with a tensor in it may be a float too. Meanings are those of `core.ops`: NaN propagates
through sign, comparisons, minimum, maximum and the condition of `where`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ruleforge.core.ops import (
    CORE,
    NEWTON_SCHULZ,
    NEWTON_SCHULZ_EPS,
    NEWTON_SCHULZ_STEPS,
    OPS,
)

Value = Any


def _like(value: Value, other: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=other.dtype, device=other.device)


def _tensors(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Turn floats into tensors for functions of torch that take tensors alone."""

    def call(*args: Value) -> Tensor:
        like = next(arg for arg in args if isinstance(arg, Tensor))
        return fn(*(_like(arg, like) for arg in args))

    return call


def _nan_where_unknown(mask: Tensor, *args: Tensor) -> Tensor:
    for arg in args:
        mask = torch.where(torch.isnan(arg), arg, mask)
    return mask


def _compare(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return _tensors(lambda a, b: _nan_where_unknown(fn(a, b).to(a.dtype), a, b))


def _where(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _nan_where_unknown(torch.where(c != 0, a, b), c)


def _clip(x: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, lo), hi)


def _sign(x: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), x, torch.sign(x))


def _cbrt(x: Tensor) -> Tensor:
    """One Newton step after the power brings the root to within an ulp or two."""
    root = torch.abs(x) ** (1.0 / 3.0)
    better = root - (root * root * root - torch.abs(x)) / (3.0 * root * root)
    better = torch.where(torch.isfinite(better), better, root)
    return torch.copysign(better, x)


TORCH_OPS: dict[str, Callable[..., Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": _sign,
    "sqrt": torch.sqrt,
    "cbrt": _cbrt,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "floor": torch.floor,
    "minimum": _tensors(torch.minimum),
    "maximum": _tensors(torch.maximum),
    "atan2": _tensors(torch.atan2),
    "hypot": _tensors(torch.hypot),
    "clip": _tensors(_clip),
    "lerp": lambda a, b, x: a + x * (b - a),
    "where": _tensors(_where),
    "lt": _compare(torch.lt),
    "le": _compare(torch.le),
    "gt": _compare(torch.gt),
    "ge": _compare(torch.ge),
    "eq": _compare(torch.eq),
    "ne": _compare(torch.ne),
}

REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "norm": lambda x: x.square().sum(-1).sqrt(),
    "mean": lambda x: x.mean(-1),
    "rms": lambda x: x.square().mean(-1).sqrt(),
    "dot": lambda a, b: (a * b).sum(-1),
    "max_abs": lambda x: x.abs().amax(-1),
}
"""Reductions over the last axis of float64 tensors with at least one element."""


def orthogonalize(x: Tensor) -> Tensor:
    """Newton–Schulz on the last two axes, batched over the axes before; see `core.ops`."""
    a, b, c = NEWTON_SCHULZ
    tall = x.shape[-2] > x.shape[-1]
    y = x.mT if tall else x
    size = y.double().square().sum((-2, -1), keepdim=True).sqrt().to(y.dtype)
    y = y / size.clamp(min=NEWTON_SCHULZ_EPS)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = y @ y.mT
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y.mT if tall else y


_missing = {op for op in CORE if OPS[op].kind == "elementwise"} ^ set(TORCH_OPS)
_missing |= {op for op in CORE if OPS[op].kind == "reduce"} ^ set(REDUCTIONS)
if _missing:
    raise ImportError(f"torch spellings and the op table disagree on {sorted(_missing)}")
