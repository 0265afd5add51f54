"""Handwritten digits, 8 × 8 grey pixels: two tasks on the first rows, one on the others.

Knows scikit-learn's bundled copy of the data and nothing of suites. Nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .base import Params, Task
from .blocks import Rows, linear, linear_init, mlp, mlp_init, split_rows, standardized, supervised, uniform
from .seeds import generator_from

SOURCES = "scikit-learn load_digits: Alpaydin & Kaynak 1998, Handwritten Digits, UCI, CC BY 4.0"


@lru_cache(maxsize=2)
def _rows(low: int, high: int, n_valid: int) -> Rows:
    """Rows low … high-1: x (n, 64) standardized with one scale for all pixels, y (n,) in 0 … 9."""
    from sklearn.datasets import load_digits

    data = load_digits()
    part = split_rows(
        data.data[low:high], data.target[low:high], n_valid, generator_from("digits", low, high)
    )
    return standardized(part, shared_scale=True)


def digits_mlp(batch_size: int = 32, steps: int = 120, hidden: int = 32) -> Task:
    """ReLU MLP 64-`hidden`-10 on rows 0 … 1199 (1,000 train, 200 validation)."""
    return supervised(
        "digits_mlp",
        lambda generator: mlp_init(generator, 64, hidden, 10),
        lambda params, x: mlp(params, x, torch.relu, 2),
        _rows(0, 1200, 200),
        batch_size=batch_size,
        steps=steps,
        sources=SOURCES,
    )


def digits_tied(batch_size: int = 32, steps: int = 150, code: int = 12) -> Task:
    """An autoencoder 64-`code`-64 whose two layers share one matrix, on the rows of `digits_mlp`.

    The code is tanh(W x + b), the output Wᵀ code + c. Shared weights make a loss of degree four in W.
    """
    rows = _rows(0, 1200, 200)

    def init(generator: torch.Generator) -> Params:
        params = linear_init(generator, "0", 64, code)
        return params | {"out.bias": uniform(generator, 64, bound=code**-0.5)}

    def forward(params: Params, x: Tensor) -> Tensor:
        return torch.tanh(linear(params, "0", x)) @ params["0.weight"] + params["out.bias"]

    return supervised(
        "digits_tied",
        init,
        forward,
        Rows(rows.x, rows.x, rows.x_valid, rows.x_valid),
        batch_size=batch_size,
        steps=steps,
        sources=f"{SOURCES}; tied weights: Vincent et al. 2010, JMLR 11",
    )


def digits_conv(batch_size: int = 64, steps: int = 200, channels: tuple[int, int] = (8, 16)) -> Task:
    """Two convolutions and a linear layer on rows 1200 … 1796 (437 train, 160 validation).

    conv 3 × 3 stride 2 pad 1 (8 × 8 → 4 × 4), conv 2 × 2 stride 2 (→ 2 × 2), linear to 10. A
    convolution is a linear layer over patches. The first layer's patches are cut once, while the data
    is prepared, in the order in which the second layer's four neighbours lie side by side, so both
    layers are one matrix product each: 82 µs a lane-step where conv2d took 232 µs under vmap on CPU.
    """
    narrow, wide = channels
    rows = _rows(1200, 1797, 160)
    rows = Rows(_ordered_patches(rows.x), rows.y, _ordered_patches(rows.x_valid), rows.y_valid)

    def init(generator: torch.Generator) -> Params:
        params = linear_init(generator, "conv0", 9, narrow)
        params |= linear_init(generator, "conv1", 4 * narrow, wide)
        return params | linear_init(generator, "head", 4 * wide, 10)

    def forward(params: Params, x: Tensor) -> Tensor:
        n = x.shape[0]  # x: (n, 4 blocks · 4 positions · 9 pixels)
        h = torch.relu(linear(params, "conv0", x.reshape(n * 16, 9)))  # (n·16, narrow)
        h = torch.relu(linear(params, "conv1", h.reshape(n * 4, 4 * narrow)))  # (n·4, wide)
        return linear(params, "head", h.reshape(n, 4 * wide))

    return supervised("digits_conv", init, forward, rows, batch_size=batch_size, steps=steps, sources=SOURCES)


def _ordered_patches(images: Tensor) -> Tensor:
    """(n, 64) pixels → (n, 144): 3 × 3 patches at stride 2, grouped by 2 × 2 blocks of positions."""
    n = images.shape[0]
    padded = torch.nn.functional.pad(images.reshape(n, 8, 8), (1, 1, 1, 1))
    patches = padded.unfold(1, 3, 2).unfold(2, 3, 2)  # (n, 4, 4, 3, 3)
    blocks = patches.reshape(n, 2, 2, 2, 2, 9).transpose(2, 3)  # (n, block row, block col, row, col, 9)
    return blocks.reshape(n, 144).contiguous()
