"""Families for recurrent networks: sums and echoes to be remembered, oscillations to be continued.

Endless generated data. Knows how it is drawn and no suite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Batch, Task
from .blocks import endless, knobs_within
from .nets import Recurrent
from .seeds import generator_from


def adding(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "adding",
    length: int = 8,
    noise: float = 0.0,
    cell: str = "gru",
    width: int = 16,
) -> Task:
    """A recurrent network adds the two marked numbers of a sequence (endless data, 200 validation rows).

    Args:
        batch_size: fresh sequences a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        length: numbers of a sequence (4 to 24).
        noise: standard deviation of the target's noise; the target has 1 (0 to 1).
        cell: "elman" or "gru".
        width: of the hidden state.

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), the adding problem. Departs from it: short
        sequences, targets of unit variance.
    """
    knobs_within(name, length=(length, 4, 24), noise=(noise, 0, 1))

    def draw(generator: torch.Generator, n: int) -> Batch:
        numbers = 2 * torch.rand(n, length, generator=generator) - 1
        places = torch.rand(n, length, generator=generator).argsort(1)[:, :2]
        marks = F.one_hot(places, length).sum(1).float()
        target = (numbers * marks).sum(1, keepdim=True) * 1.5**0.5  # two uniforms on ±1: variance 2/3
        return torch.stack([numbers, marks], -1), target + noise * torch.randn(n, 1, generator=generator)

    net = Recurrent(2, 1, width, cell)
    return endless(
        name, net.init, net, draw, draw(generator_from(name, "valid", length), 200),
        batch_size=batch_size, steps=steps,
        sources="generated; the adding problem: Hochreiter & Schmidhuber 1997, Neural Computation 9(8)",
    )  # fmt: skip


def series(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "series",
    length: int = 10,
    tones: int = 2,
    noise: float = 0.1,
    cell: str = "elman",
    width: int = 20,
) -> Task:
    """A recurrent network continues sums of damped tones, a step ahead at every step (endless data).

    Args:
        batch_size: fresh series a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        length: steps of a series (4 to 24).
        tones: sines in a series, with random pitch, phase, loudness and damping (1 to 4).
        noise: standard deviation of the noise in what the network is shown (0 to 0.5).
        cell: "elman" or "gru".
        width: of the hidden state.
    """
    knobs_within(name, length=(length, 4, 24), tones=(tones, 1, 4), noise=(noise, 0, 0.5))

    def draw(generator: torch.Generator, n: int) -> Batch:
        u = torch.rand(n, tones, 4, generator=generator)
        time = torch.arange(length + 1)
        pitch, phase = 0.3 + 1.2 * u[..., :1], 2 * torch.pi * u[..., 1:2]
        loudness, damping = 0.5 + u[..., 2:3], 0.08 * u[..., 3:]
        waves: Tensor = (loudness * torch.exp(-damping * time) * torch.sin(pitch * time + phase)).sum(1)
        waves = waves * (1.4 / tones**0.5)
        shown = waves[:, :-1] + noise * torch.randn(n, length, generator=generator)
        return shown[..., None], waves[:, 1:, None]

    net = Recurrent(1, 1, width, cell, every_step=True)
    return endless(
        name, net.init, net, draw, draw(generator_from(name, "valid", length, tones), 100),
        batch_size=batch_size, steps=steps, sources="generated; sums of damped tones",
    )  # fmt: skip


def echo(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "echo",
    length: int = 8,
    delay: int = 2,
    fading: float = 0.5,
    cell: str = "lstm",
    width: int = 10,
) -> Task:
    """A recurrent network repeats what it was shown some steps ago, and a fading sum of all before (endless).

    Two outputs a step: the number shown `delay` steps earlier, and the sum of the numbers so far in which
    each counts `fading` times the next one. Both have about unit variance; before the start lie zeros.

    Args:
        batch_size: fresh sequences a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other validation sequences.
        length: steps of a sequence (4 to 24).
        delay: how far back the echo lies (1 to 4).
        fading: of the sum (0 to 0.95).
        cell: "elman", "gru" or "lstm".
        width: of the hidden state.
    """
    knobs_within(name, length=(length, 4, 24), delay=(delay, 1, 4), fading=(fading, 0, 0.95))
    lag = torch.arange(length)[:, None] - torch.arange(length)
    kernel = torch.where(lag >= 0, float(fading) ** lag.clamp_min(0), 0.0) * (1 - fading**2) ** 0.5

    def draw(generator: torch.Generator, n: int) -> Batch:
        x = torch.randn(n, length, generator=generator)
        late = F.pad(x, (delay, 0))[:, :length]
        return x[..., None], torch.stack([late, x @ kernel.T], -1)

    net = Recurrent(1, 2, width, cell, every_step=True)
    return endless(
        name, net.init, net, draw, draw(generator_from(name, "valid", length), 100),
        batch_size=batch_size, steps=steps,
        sources="generated; LSTM: Hochreiter & Schmidhuber 1997, Neural Computation 9(8)",
    )  # fmt: skip
