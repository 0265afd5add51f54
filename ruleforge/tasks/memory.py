"""A family for networks that must hold on to something: until they do, nothing is learned.

Endless generated data. Knows how it is drawn and no suite.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Batch, Params, Task
from .blocks import endless, knobs_within, linear, linear_init
from .seeds import generator_from


@dataclass(frozen=True)
class MinimalGated:
    """A minimal gated unit, unrolled over all steps of its input; a linear head reads the last state.

    Attributes:
        n_in, n_out: of one step.
        width: of the hidden state.

    Source:
        Zhou et al. 2016, arXiv:1603.09420.
    """

    n_in: int
    n_out: int
    width: int = 12

    def init(self, generator: torch.Generator) -> Params:
        params = linear_init(generator, "input", self.n_in, 2 * self.width)
        params |= linear_init(generator, "forget", self.width, self.width)
        params |= linear_init(generator, "hidden", self.width, self.width)
        return params | linear_init(generator, "head", self.width, self.n_out)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        steps = x.movedim(0, -1)  # (T, n_in, B): a unit's values lie side by side
        h = x.new_zeros(self.width, len(x))
        for step in steps:
            given = columns(params, "input", step)
            gate = torch.sigmoid(given[: self.width] + columns(params, "forget", h))
            new = torch.tanh(given[self.width :] + columns(params, "hidden", gate * h))
            h = h + gate * (new - h)
        return linear(params, "head", h.T)


def columns(params: Params, name: str, x: Tensor) -> Tensor:
    """A linear layer of (n_in, B) as a sum over its inputs: a product this small costs a library's call more.

    Returns:
        (n_out, B).
    """
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    return (weight[:, :, None] * x[None]).sum(1) + bias[:, None]


def recall(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "recall",
    length: int = 6,
    n_symbols: int = 4,
    width: int = 12,
) -> Task:
    """After distractors a gated network names the symbol that came first (endless data, 200 validation rows).

    Args:
        batch_size: fresh sequences a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other validation sequences.
        length: symbols of a sequence (3 to 24).
        n_symbols: size of the alphabet (2 to 16).
        width: of the hidden state.

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), experiment 2, long time lags. Departs from it:
        short lags and random distractors.
    """
    knobs_within(name, length=(length, 3, 24), n_symbols=(n_symbols, 2, 16))

    def draw(generator: torch.Generator, n: int) -> Batch:
        symbols = torch.randint(n_symbols, (n, length), generator=generator)
        return F.one_hot(symbols, n_symbols).float(), symbols[:, 0]

    net = MinimalGated(n_symbols, n_symbols, width)
    return endless(
        name, net.init, net, draw, draw(generator_from(name, "valid", length), 200),
        batch_size=batch_size, steps=steps,
        sources="generated; long time lags: Hochreiter & Schmidhuber 1997, Neural Computation 9(8)",
    )  # fmt: skip


def marked(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "marked",
    length: int = 6,
    width: int = 12,
) -> Task:
    """A gated network says which number of a sequence was marked (endless data, 200 validation rows).

    Args:
        batch_size: fresh sequences a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other validation sequences.
        length: numbers of a sequence, each with a mark of 0 or 1 (3 to 24).
        width: of the hidden state.
    """
    knobs_within(name, length=(length, 3, 24))

    def draw(generator: torch.Generator, n: int) -> Batch:
        numbers = 2 * torch.rand(n, length, generator=generator) - 1
        marks = F.one_hot(torch.randint(length, (n,), generator=generator), length).float()
        target = (numbers * marks).sum(1, keepdim=True) * 3**0.5  # uniform on ±1: variance 1/3
        return torch.stack([numbers, marks], -1), target

    net = MinimalGated(2, 1, width)
    return endless(
        name, net.init, net, draw, draw(generator_from(name, "valid", length), 200),
        batch_size=batch_size, steps=steps, sources="generated",
    )  # fmt: skip
