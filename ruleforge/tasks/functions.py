"""Functions of few inputs, to be learnt closely: surfaces by their heights, potentials by their forces.

Endless generated data without noise, so that the loss can go on falling; what limits it is the rule and the
budget. Knows how it is drawn and no suite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Batch, Params, Task
from .blocks import endless, knobs_within, linear, linear_init, uniform
from .nets import ACTIVATIONS, Dense, chosen
from .seeds import generator_from


def surface(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "surface",
    n_inputs: int = 2,
    waves: int = 8,
    bandwidth: float = 2.0,
    n_features: int = 16,
    width: int = 20,
    activation: str = "relu",
) -> Task:
    """A network on fixed random Fourier features learns a smooth random surface over the unit square.

    Args:
        batch_size: random places a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is another surface.
        n_inputs: of the surface (1 to 4).
        waves: plane waves that it is the sum of (1 to 32).
        bandwidth: standard deviation of the waves' and features' frequencies (0.5 to 6).
        n_features: frequencies that the network is shown, each as a sine and a cosine (4 to 64).
        width, activation: of the one hidden layer.

    Source:
        Tancik et al. 2020, Fourier features, arXiv:2006.10739.
    """
    knobs_within(
        name, n_inputs=(n_inputs, 1, 4), waves=(waves, 1, 32), bandwidth=(bandwidth, 0.5, 6),
        n_features=(n_features, 4, 64),
    )  # fmt: skip
    chosen("activation", activation, tuple(ACTIVATIONS))
    fixed = generator_from(name, n_inputs, waves, n_features)
    pitch = bandwidth * torch.randn(waves, n_inputs, generator=fixed)
    height = torch.randn(waves, generator=fixed) * (2 / waves) ** 0.5
    phase = uniform(fixed, waves, bound=3.14)
    shown = bandwidth * torch.randn(n_features, n_inputs, generator=fixed)
    net = Dense(2 * n_features, 1, width, 1, activation)

    def draw(generator: torch.Generator, n: int) -> Batch:
        x = 2 * torch.rand(n, n_inputs, generator=generator) - 1
        angle = F.linear(x, shown)
        features = torch.cat([torch.sin(angle), torch.cos(angle)], -1) * 2**0.5
        return features, (torch.sin(F.linear(x, pitch) + phase) @ height)[:, None]

    return endless(
        name, net.init, net, draw, draw(fixed, 200),
        batch_size=batch_size, steps=steps,
        sources="generated; Fourier features: Tancik et al. 2020, arXiv:2006.10739",
    )  # fmt: skip


def potential(
    batch_size: int = 24,
    steps: int = 200,
    name: str = "potential",
    n_inputs: int = 3,
    wells: int = 4,
    width: int = 24,
) -> Task:
    """A network is a potential and learns it from forces alone: its gradient by the place is compared.

    The true potential is a bowl with Gaussian wells. The network has two softplus layers; its gradient by
    the place is carried back through them by hand, so that lanes need no second automatic differentiation.

    Args:
        batch_size: random places a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is another potential.
        n_inputs: coordinates of a place (1 to 6).
        wells: of the potential (1 to 10).
        width: of both hidden layers.

    Source:
        Chmiela et al. 2017, Science Advances 3(5), e1603015 (learning a potential from its forces).
    """
    knobs_within(name, n_inputs=(n_inputs, 1, 6), wells=(wells, 1, 10))
    fixed = generator_from(name, n_inputs, wells)
    centres = uniform(fixed, wells, n_inputs, bound=1.0)
    depth = 0.5 + torch.rand(wells, generator=fixed)

    def pull(x: Tensor) -> Tensor:
        away = x[:, None] - centres  # (n, wells, n_inputs)
        well = depth * torch.exp(-2 * away.square().sum(-1))
        return -0.5 * x - (4 * well[..., None] * away).sum(1)

    scale = pull(2.4 * torch.rand(4096, n_inputs, generator=fixed) - 1.2).std()

    def draw(generator: torch.Generator, n: int) -> Batch:
        x = 2.4 * torch.rand(n, n_inputs, generator=generator) - 1.2
        return x, pull(x) / scale

    def init(generator: torch.Generator) -> Params:
        params = linear_init(generator, "0", n_inputs, width)
        params["0.weight"] = 2 * params["0.weight"]  # layers that bend within the places' range
        params |= linear_init(generator, "1", width, width)
        return params | {"head": uniform(generator, 1, width, bound=width**-0.5)}

    def forward(params: Params, x: Tensor) -> Tensor:
        first = linear(params, "0", x)
        second = linear(params, "1", F.softplus(first))
        back = (torch.sigmoid(second) * params["head"]) @ params["1.weight"]
        return -((torch.sigmoid(first) * back) @ params["0.weight"])

    return endless(
        name, init, forward, draw, draw(fixed, 200),
        batch_size=batch_size, steps=steps,
        sources="generated; forces of a potential: Chmiela et al. 2017, Science Advances 3(5)",
    )  # fmt: skip


def bumps(
    batch_size: int = 24,
    steps: int = 200,
    name: str = "bumps",
    n_inputs: int = 2,
    hills: int = 10,
    units: int = 24,
    n_outputs: int = 2,
) -> Task:
    """A network of radial basis functions learns surfaces made of hills: centres, widths and heights.

    Args:
        batch_size: random places a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other hills.
        n_inputs: coordinates of a place (1 to 6).
        hills: of each surface, with widths of their own (1 to 32).
        units: radial basis functions (4 to 64).
        n_outputs: surfaces on the same hills (1 to 8).

    Source:
        Broomhead & Lowe 1988, Complex Systems 2, 321-355.
    """
    knobs_within(
        name,
        n_inputs=(n_inputs, 1, 6),
        hills=(hills, 1, 32),
        units=(units, 4, 64),
        n_outputs=(n_outputs, 1, 8),
    )
    fixed = generator_from(name, n_inputs, hills, n_outputs)

    def activity(x: Tensor, centres: Tensor, log_width: Tensor) -> Tensor:
        """(n, units): squares by their expansion, so that no tensor has places × units × coordinates."""
        away = x.square().sum(-1, keepdim=True) - 2 * F.linear(x, centres) + centres.square().sum(-1)
        return torch.exp(-0.5 * away * torch.exp(-2 * log_width))

    centres = uniform(fixed, hills, n_inputs, bound=1.0)
    log_width = torch.log(0.2 + 0.4 * torch.rand(hills, generator=fixed))
    height = torch.randn(hills, n_outputs, generator=fixed)
    scale = (activity(uniform(fixed, 4096, n_inputs, bound=1.2), centres, log_width) @ height).std()

    def draw(generator: torch.Generator, n: int) -> Batch:
        x = uniform(generator, n, n_inputs, bound=1.2)
        return x, activity(x, centres, log_width) @ height / scale

    def init(generator: torch.Generator) -> Params:
        return {
            "centres": uniform(generator, units, n_inputs, bound=1.2),
            "log_width": torch.full((units,), -0.7),
            "height": uniform(generator, units, n_outputs, bound=units**-0.5),
            "offset": torch.zeros(n_outputs),
        }

    def forward(params: Params, x: Tensor) -> Tensor:
        return activity(x, params["centres"], params["log_width"]) @ params["height"] + params["offset"]

    return endless(
        name, init, forward, draw, draw(fixed, 200),
        batch_size=batch_size, steps=steps,
        sources="generated; radial basis functions: Broomhead & Lowe 1988, Complex Systems 2",
    )  # fmt: skip
