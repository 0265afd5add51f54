"""Families on generated pictures of 8 × 8 grey pixels: textures to tell apart, strokes to compress.

Endless data; knows how it is drawn and no suite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Batch, Params, Task
from .blocks import endless, knobs_within, linear, mlp_init
from .nets import ACTIVATIONS, Conv, Mixer, chosen
from .seeds import generator_from

SIDE = 8


def textures(
    batch_size: int = 32,
    steps: int = 150,
    name: str = "textures",
    net: str = "mixer",
    n_classes: int = 6,
    noise: float = 0.5,
    label_noise: float = 0.0,
    imbalance: float = 1.0,
    width: int = 16,
    activation: str = "gelu",
) -> Task:
    """Gratings of several directions and pitches, told apart whatever their phase and contrast (200 valid).

    Args:
        batch_size: fresh pictures a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other textures.
        net: "mixer" (on 4 patches of 4 × 4 pixels) or "conv" (on 16 of 2 × 2).
        n_classes: textures (2 to 10).
        noise: standard deviation of the pixels' noise beside waves of amplitude about 1 (0 to 2).
        label_noise: share of training labels replaced by a random class (0 to 0.5).
        imbalance: how much more frequent the first class is than the last (1 to 50).
        width: channels.
        activation: a name in `nets.ACTIVATIONS`.
    """
    chosen("net", net, ("mixer", "conv"))
    knobs_within(
        name, n_classes=(n_classes, 2, 10), noise=(noise, 0, 2), label_noise=(label_noise, 0, 0.5),
        imbalance=(imbalance, 1, 50),
    )  # fmt: skip
    fixed = generator_from(name, "textures", n_classes)
    frequency = float(imbalance) ** (-torch.arange(n_classes) / (n_classes - 1))
    turn = (torch.arange(n_classes) + torch.rand(1, generator=fixed)) * torch.pi / n_classes
    pitch = 1.0 + 1.2 * torch.rand(n_classes, generator=fixed)
    waves = torch.stack([pitch * torch.cos(turn), pitch * torch.sin(turn)], 1)  # (K, 2)
    axis = torch.arange(SIDE).float()
    places = torch.cartesian_prod(axis, axis)  # (64, 2)

    def draw(generator: torch.Generator, n: int, wrong: float = label_noise) -> Batch:
        y = torch.multinomial(frequency, n, replacement=True, generator=generator)
        u = torch.rand(n, 2, 1, generator=generator)
        x = (0.7 + 0.6 * u[:, 0]) * torch.sin(waves[y] @ places.T + 2 * torch.pi * u[:, 1])
        x = x + noise * torch.randn(n, SIDE * SIDE, generator=generator)
        is_wrong = torch.rand(n, generator=generator) < wrong
        y = torch.where(is_wrong, torch.randint(n_classes, (n,), generator=generator), y)
        return _patches(x), y

    model: Mixer | Conv
    if net == "mixer":
        model = Mixer(4, 16, n_classes, width, activation)
    else:
        model = Conv(16, 4, n_classes, width, activation=activation)
    return endless(
        name, model.init, model, draw, draw(fixed, 200, 0.0),
        batch_size=batch_size, steps=steps,
        sources="generated gratings; MLP-mixer: Tolstikhin et al. 2021, arXiv:2105.01601",
    )  # fmt: skip


def _patches(x: Tensor) -> Tensor:
    """(n, 64) pixels → (n, 64): 16 patches of 2 × 2, grouped so that each 4 in a row are a square."""
    split = x.reshape(-1, 2, 2, 2, 2, 2, 2)  # block row, patch row, pixel row, then the columns' three
    return split.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, SIDE * SIDE)


def strokes(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "strokes",
    n_strokes: int = 2,
    noise: float = 0.1,
    width: int = 24,
    code: int = 8,
    activation: str = "elu",
) -> Task:
    """An autoencoder 64-`width`-`code`-`width`-64 of pictures of soft straight strokes (100 validation).

    Args:
        batch_size: fresh pictures a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other validation pictures.
        n_strokes: strokes a picture (1 to 4).
        noise: standard deviation of the noise in what it is shown, to be removed (0 to 1).
        width, code: of the hidden layers; `code` is the narrowest.
        activation: a name in `nets.ACTIVATIONS`.

    Source:
        Hinton & Salakhutdinov 2006, Science 313; with noise, Vincent et al. 2008, ICML.
    """
    knobs_within(name, n_strokes=(n_strokes, 1, 4), noise=(noise, 0, 1))
    chosen("activation", activation, tuple(ACTIVATIONS))
    axis = torch.linspace(-1, 1, SIDE)
    places = torch.cartesian_prod(axis, axis)

    def draw(generator: torch.Generator, n: int) -> Batch:
        u = torch.rand(n, n_strokes, 3, generator=generator)
        turn = torch.pi * u[..., 0]
        normal = torch.stack([torch.cos(turn), torch.sin(turn)], -1)  # (n, strokes, 2)
        away = normal @ places.T - (1.6 * u[..., 1:2] - 0.8)
        clean = torch.exp(-10 * away.square()).amax(1)
        clean = (clean - 0.3) / 0.35
        return clean + noise * torch.randn(n, SIDE * SIDE, generator=generator), clean

    def forward(params: Params, x: Tensor) -> Tensor:
        activate = ACTIVATIONS[activation]
        narrow = linear(params, "1", activate(linear(params, "0", x)))  # the code, (n, code)
        return linear(params, "3", activate(linear(params, "2", narrow)))

    return endless(
        name,
        lambda generator: mlp_init(generator, SIDE * SIDE, width, code, width, SIDE * SIDE),
        forward,
        draw,
        draw(generator_from(name, "valid", n_strokes), 100),
        batch_size=batch_size,
        steps=steps,
        sources="generated strokes; autoencoders: Hinton & Salakhutdinov 2006, Science 313",
    )
