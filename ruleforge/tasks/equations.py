"""Differential equations solved by a network: the loss is the equation's residual, not a fit to data.

Knows one family, linear equations of second order with a made-up solution. Derivatives by the place are
carried through the layers by hand, so that lanes need no second automatic differentiation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Batch, Params, Task
from .blocks import knobs_within, mlp_init, uniform
from .seeds import generator_from


def boundary_value(
    batch_size: int = 48,
    steps: int = 200,
    name: str = "boundary_value",
    waves: int = 2,
    damping: float = 1.0,
    stiffness: float = 4.0,
    width: int = 20,
    depth: int = 2,
) -> Task:
    """u″ + damping · u′ + stiffness · u = f on (0, 1), u(0) = u(1) = 0, by a tanh network.

    The network N enters as u = x (1 - x) N(x), so that the boundary holds. f is made from a solution that
    is a sum of sines; the loss is the mean squared residual over that of u = 0. `evaluate` has the residual
    on 100 fixed places as "loss", and as "error" the squared error of u itself, over that of u = 0.

    Args:
        batch_size: random places a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is another equation.
        waves: sines of the solution; each further one is steeper (1 to 4).
        damping: factor of u′ (0 to 10).
        stiffness: factor of u (0 to 50).
        width, depth: of the hidden layers (depth 1 to 4).

    Source:
        Raissi et al. 2019, J. Comput. Phys. 378 (physics-informed networks); the hard boundary as in
        Lagaris et al. 1998, IEEE Trans. Neural Networks 9(5).
    """
    knobs_within(
        name, waves=(waves, 1, 4), damping=(damping, 0, 10), stiffness=(stiffness, 0, 50), depth=(depth, 1, 4)
    )
    fixed = generator_from(name, waves)
    pitch = torch.pi * torch.arange(1, waves + 1)
    height = (0.5 + torch.rand(waves, generator=fixed)) / torch.arange(1, waves + 1)

    def exact(x: Tensor) -> Tensor:
        return (height * torch.sin(pitch * x)).sum(-1, keepdim=True)

    def force(x: Tensor) -> Tensor:
        bent = (stiffness - pitch.square()) * torch.sin(pitch * x) + damping * pitch * torch.cos(pitch * x)
        return (height * bent).sum(-1, keepdim=True)

    grid = (torch.arange(100)[:, None] + 0.5) / 100
    force_scale, exact_scale = force(grid).square().mean(), exact(grid).square().mean()

    def residual(params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        """Residual and u, (n, 1) each."""
        n, slope, bend = _network(params, 2 * x - 1, depth)
        slope, bend = 2 * slope, 4 * bend  # by x, not by 2x - 1
        hill, hill_slope = x * (1 - x), 1 - 2 * x
        u = hill * n
        du = hill * slope + hill_slope * n
        ddu = hill * bend + 2 * hill_slope * slope - 2 * n
        return ddu + damping * du + stiffness * u - force(x), u

    def loss(params: Params, batch: Batch, key: int) -> Tensor:
        return residual(params, batch[0])[0].square().mean() / force_scale

    def evaluate(params: Params) -> dict[str, Tensor]:
        left, u = residual(params, grid)
        return {
            "loss": left.square().mean() / force_scale,
            "error": (u - exact(grid)).square().mean() / exact_scale,
        }

    def init(generator: torch.Generator) -> Params:
        params = mlp_init(generator, 1, *[width] * depth, 1)
        return params | {"0.weight": uniform(generator, width, 1, bound=3.0)}  # bends within (0, 1)

    return Task(
        name,
        init,
        lambda generator: (torch.rand(batch_size, 1, generator=generator),),
        loss,
        evaluate,
        steps,
        "generated; Raissi et al. 2019, J. Comput. Phys. 378",
    )


def _network(params: Params, x: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """A tanh network's output, and its first and second derivative by its one input, (n, 1) each."""
    value, slope, bend = x, torch.ones_like(x), torch.zeros_like(x)
    for i in range(depth + 1):
        weight = params[f"{i}.weight"]
        value = F.linear(value, weight, params[f"{i}.bias"])
        slope, bend = F.linear(slope, weight), F.linear(bend, weight)
        if i < depth:
            value = torch.tanh(value)
            rate = 1 - value.square()
            slope, bend = rate * slope, rate * bend - 2 * value * rate * slope.square()
    return value, slope, bend
