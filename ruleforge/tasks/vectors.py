"""Families on feature vectors: classes of several shapes, functions to be learnt, linear maps.

Each is a function of knobs with documented ranges; the registry's rows, the sealed suite and users call
the same ones. Data is drawn from generators seeded by the task's name and the knobs that shape it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TaskError
from .base import Batch, Task
from .blocks import (
    Rows,
    endless,
    knobs_within,
    linear,
    linear_init,
    log_spectrum,
    mlp,
    mlp_init,
    rotation,
    supervised,
)
from .nets import Dense, chosen
from .seeds import generator_from

GEOMETRIES = ("clouds", "spirals", "shells", "teacher", "parity")


def classes(
    batch_size: int = 32,
    steps: int = 150,
    name: str = "classes",
    geometry: str = "clouds",
    n_features: int = 12,
    n_classes: int = 4,
    n_rows: int = 1500,
    label_noise: float = 0.0,
    imbalance: float = 1.0,
    condition: float = 1.0,
    sparsity: float = 0.0,
    shift: float = 0.0,
    width: int = 24,
    depth: int = 2,
    activation: str = "relu",
    norm: str = "none",
    form: str = "plain",
) -> Task:
    """Classification of generated feature vectors by a dense network; 200 validation rows, rightly labelled.

    Args:
        batch_size: rows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        geometry: "clouds" (two Gaussian clouds a class), "spirals" (arms in a plane), "shells" (classes by
            radius), "teacher" (the largest output of a random tanh network) or "parity" (how many of the
            first two features are positive, modulo the classes).
        n_features: inputs (2 to 64).
        n_classes: classes (2 to 10).
        n_rows: training rows (at least `batch_size`).
        label_noise: share of training labels replaced by a random class (0 to 0.5).
        imbalance: how much more frequent the first class is than the last (1 to 50).
        condition: largest over smallest standard deviation along rotated axes of the features: their
            correlation (1 to 100).
        sparsity: share of the feature values that are zero (0 to 0.8).
        shift: how far the validation rows lie off the training rows, in standard deviations (0 to 1).
        width, depth, activation, norm, form: of the network; see `nets.Dense`.
    """
    chosen("geometry", geometry, GEOMETRIES)
    knobs_within(
        name, n_features=(n_features, 2, 64), n_classes=(n_classes, 2, 10), label_noise=(label_noise, 0, 0.5),
        imbalance=(imbalance, 1, 50), condition=(condition, 1, 100), sparsity=(sparsity, 0, 0.8),
        shift=(shift, 0, 1), n_rows=(n_rows, batch_size, 100_000),
    )  # fmt: skip
    if geometry == "parity" and imbalance != 1:
        raise TaskError(f"task {name!r}: parity decides its own classes", hint="leave imbalance at 1")
    fixed = generator_from(name, geometry, n_features, n_classes)
    frequency = float(imbalance) ** (-torch.arange(n_classes) / (n_classes - 1))
    draw = _points(geometry, n_features, n_classes, frequency, fixed)
    mixing = log_spectrum(n_features, condition)[:, None] * rotation(n_features, fixed)
    offset = F.normalize(torch.randn(n_features, generator=fixed), dim=0) * shift

    def rows(n: int, *, is_valid: bool) -> tuple[Tensor, Tensor]:
        x, y = draw(n)
        x = x + offset * x.std() if is_valid else x
        x = x * (torch.rand(x.shape, generator=fixed) >= sparsity)
        return x @ mixing, y

    x, y = rows(n_rows, is_valid=False)
    x_valid, y_valid = rows(200, is_valid=True)
    wrong = torch.rand(y.shape, generator=fixed) < label_noise
    y = torch.where(wrong, torch.randint(n_classes, y.shape, generator=fixed), y)
    net = Dense(n_features, n_classes, width, depth, activation, norm, form)
    return supervised(
        name,
        net.init,
        net,
        Rows(x, y, x_valid, y_valid),
        batch_size=batch_size,
        steps=steps,
        sources=f"generated; {geometry} in {n_features} dimensions",
    )


def _points(
    geometry: str, n_features: int, n_classes: int, frequency: Tensor, fixed: torch.Generator
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Draws n points and their classes; features have about unit scale."""

    def labels(n: int) -> Tensor:
        return torch.multinomial(frequency, n, replacement=True, generator=fixed)

    if geometry == "clouds":
        centres = torch.randn(n_classes, 2, n_features, generator=fixed) * 0.8

        def clouds(n: int) -> tuple[Tensor, Tensor]:
            y, cloud = labels(n), torch.randint(2, (n,), generator=fixed)
            return centres[y, cloud] + torch.randn(n, n_features, generator=fixed), y

        return clouds
    if geometry == "spirals":
        plane = rotation(n_features, fixed)[:2] * (n_features / 2) ** 0.5

        def spirals(n: int) -> tuple[Tensor, Tensor]:
            y, u = labels(n), torch.rand(n, generator=fixed)
            angle = 2 * torch.pi * (y / n_classes + 0.6 * u)
            radius = 0.4 + 1.4 * u
            arms = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
            noise = 0.15 * torch.randn(n, n_features, generator=fixed)
            return arms @ plane + noise, y

        return spirals
    if geometry == "shells":

        def shells(n: int) -> tuple[Tensor, Tensor]:
            y = labels(n)
            way = F.normalize(torch.randn(n, n_features, generator=fixed), dim=1)
            radius = 0.4 + 0.5 * y + 0.12 * torch.randn(n, generator=fixed)
            return way * radius[:, None] * n_features**0.5, y

        return shells
    if geometry == "parity":

        def signs(n: int) -> tuple[Tensor, Tensor]:
            x = torch.where(torch.rand(n, n_features, generator=fixed) < 0.5, -1.0, 1.0)
            return x + 0.2 * torch.randn(x.shape, generator=fixed), (x[:, :2] > 0).sum(1) % n_classes

        return signs
    first = torch.randn(n_features, 12, generator=fixed) * (2 / n_features**0.5)
    second = torch.randn(12, n_classes, generator=fixed)
    bias = 2 * torch.log(frequency)

    def taught(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, n_features, generator=fixed)
        return x, (torch.tanh(x @ first) @ second + bias).argmax(1)

    return taught


def mapping(
    batch_size: int = 32,
    steps: int = 150,
    name: str = "mapping",
    n_features: int = 16,
    n_outputs: int = 2,
    noise: float = 0.1,
    tail: float = 0.0,
    condition: float = 1.0,
    sparsity: float = 0.0,
    shift: float = 0.0,
    width: int = 24,
    depth: int = 2,
    activation: str = "tanh",
    norm: str = "none",
    form: str = "plain",
) -> Task:
    """A dense network learns a random tanh network's outputs; endless data, 200 clean validation rows.

    Args:
        batch_size: fresh rows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_features: inputs (2 to 64).
        n_outputs: outputs (1 to 32).
        noise: of the training targets, beside outputs of spread 1 (0 to 3).
        tail: 0 for Gaussian noise, else one over the degrees of freedom of Student's t (0 to 0.5).
        condition: largest over smallest standard deviation along rotated axes of the features (1 to 100).
        sparsity: share of the true network's first weights that are zero (0 to 0.9).
        shift: how far the validation rows lie off the training rows, in standard deviations (0 to 1).
        width, depth, activation, norm, form: of the network; see `nets.Dense`. Depth 0 is linear
            regression.
    """
    _check_regression(name, n_features, n_outputs, noise, tail, condition, sparsity, shift)
    fixed = generator_from(name, n_features, n_outputs)
    first = torch.randn(16, n_features, generator=fixed) * (3 / n_features) ** 0.5
    first = first * (torch.rand(first.shape, generator=fixed) >= sparsity)
    second = torch.randn(n_outputs, 16, generator=fixed)
    net = Dense(n_features, n_outputs, width, depth, activation, norm, form)
    return _regression(
        name,
        net.init,
        net,
        lambda x: F.linear(torch.tanh(F.linear(x, first)), second),
        fixed, n_features, noise, tail, condition, shift, batch_size, steps,
        "generated; regression on a random network, noise as stated",
    )  # fmt: skip


def linear_map(
    batch_size: int = 32,
    steps: int = 150,
    name: str = "linear_map",
    n_features: int = 20,
    n_outputs: int = 12,
    noise: float = 0.3,
    tail: float = 0.0,
    condition: float = 10.0,
    sparsity: float = 0.0,
    shift: float = 0.0,
    width: int = 16,
    depth: int = 1,
) -> Task:
    """A linear map learnt as a product of `depth` matrices; endless data, 200 clean validation rows.

    Args:
        batch_size: fresh rows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_features, n_outputs: of the map (2 to 64, 1 to 32).
        noise, tail, condition, shift: as in `mapping`.
        sparsity: share of the true map's entries that are zero (0 to 0.9).
        width: between the matrices.
        depth: matrices in a row, each with a bias (1 to 6).
    """
    _check_regression(name, n_features, n_outputs, noise, tail, condition, sparsity, shift)
    knobs_within(name, depth=(depth, 1, 6))
    fixed = generator_from(name, n_features, n_outputs)
    true = torch.randn(n_outputs, n_features, generator=fixed)
    true = true * (torch.rand(true.shape, generator=fixed) >= sparsity)
    sizes = (n_features, *[width] * (depth - 1), n_outputs)
    return _regression(
        name,
        lambda generator: mlp_init(generator, *sizes),
        lambda params, x: mlp(params, x, lambda h: h, depth),
        lambda x: F.linear(x, true),
        fixed, n_features, noise, tail, condition, shift, batch_size, steps,
        "generated; deep linear networks after Saxe et al. 2014, arXiv:1312.6120",
    )  # fmt: skip


def counts(
    batch_size: int = 8,
    steps: int = 200,
    name: str = "counts",
    n_features: int = 16,
    n_outputs: int = 8,
    mean: float = 2.0,
    condition: float = 10.0,
) -> Task:
    """Poisson regression: linear predictors of counts, through a softplus; endless data, 200 validation rows.

    The loss is the negative log-likelihood, less that of the true rates on the same rows: it goes down to
    about 0 on the validation rows, and single gradients are noisy at any weights.

    Args:
        batch_size: fresh rows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_features, n_outputs: of the map (2 to 64, 1 to 32).
        mean: counts expected where the features are at their middle (0.2 to 20).
        condition: largest over smallest standard deviation along rotated axes of the features (1 to 100).

    Source:
        McCullagh & Nelder 1989, Generalized Linear Models, chapter 6. Departs from it: softplus in place of
        the exponential, which would overflow at learning rates that are tried.
    """
    knobs_within(
        name, n_features=(n_features, 2, 64), n_outputs=(n_outputs, 1, 32), mean=(mean, 0.2, 20),
        condition=(condition, 1, 100),
    )  # fmt: skip
    fixed = generator_from(name, n_features, n_outputs)
    mixing = log_spectrum(n_features, condition)[:, None] * rotation(n_features, fixed)
    true = torch.randn(n_outputs, n_features, generator=fixed) / n_features**0.5

    def rate(score: Tensor) -> Tensor:
        return mean * F.softplus(2 * score) + 1e-3

    def draw(generator: torch.Generator, n: int) -> Batch:
        x = torch.randn(n, n_features, generator=generator) @ mixing
        expected = rate(F.linear(x, true))
        return x, torch.stack([torch.poisson(expected, generator=generator), expected], -1)

    def lost(score: Tensor, target: Tensor) -> Tensor:
        count, expected = target.unbind(-1)
        found = rate(score)
        return ((found - expected) - count * (torch.log(found) - torch.log(expected))).mean()

    return endless(
        name,
        lambda generator: linear_init(generator, "0", n_features, n_outputs),
        lambda params, x: linear(params, "0", x),
        draw,
        draw(fixed, 200),
        batch_size=batch_size,
        steps=steps,
        sources="generated; Poisson regression: McCullagh & Nelder 1989, Generalized Linear Models",
        measure=lost,
    )


def _check_regression(
    name: str, n_features: int, n_outputs: int, noise: float, tail: float, condition: float,
    sparsity: float, shift: float,
) -> None:  # fmt: skip
    knobs_within(
        name, n_features=(n_features, 2, 64), n_outputs=(n_outputs, 1, 32), noise=(noise, 0, 3),
        tail=(tail, 0, 0.5), condition=(condition, 1, 100), sparsity=(sparsity, 0, 0.9), shift=(shift, 0, 1),
    )  # fmt: skip


def _regression(
    name: str, init: Callable[..., dict[str, Tensor]], forward: Callable[..., Tensor],
    target_of: Callable[[Tensor], Tensor], fixed: torch.Generator, n_features: int, noise: float, tail: float,
    condition: float, shift: float, batch_size: int, steps: int, sources: str,
) -> Task:  # fmt: skip
    mixing = log_spectrum(n_features, condition)[:, None] * rotation(n_features, fixed)
    offset = F.normalize(torch.randn(n_features, generator=fixed), dim=0) * shift
    sample = target_of(torch.randn(4096, n_features, generator=fixed) @ mixing)
    centre, scale = sample.mean(0), sample.std(0)

    def draw(generator: torch.Generator, n: int) -> Batch:
        x = torch.randn(n, n_features, generator=generator) @ mixing
        y = (target_of(x) - centre) / scale
        return x, y + noise * _noise(generator, y.shape, tail)

    x = (torch.randn(200, n_features, generator=fixed) + offset) @ mixing
    valid = x, (target_of(x) - centre) / scale
    return endless(name, init, forward, draw, valid, batch_size=batch_size, steps=steps, sources=sources)


def _noise(generator: torch.Generator, shape: torch.Size, tail: float) -> Tensor:
    """Gaussian, or Student's t with 1 / tail degrees of freedom, each drawn from uniforms."""
    normal = torch.randn(shape, generator=generator)
    if not tail:
        return normal
    # Bailey's polar form: t = cos(2πu) · sqrt(ν (v^(-2/ν) - 1)).
    u, v = torch.rand(2, *shape, generator=generator).clamp_min(1e-6)
    return torch.cos(2 * torch.pi * u) * torch.sqrt((v ** (-2 * tail) - 1) / tail)
