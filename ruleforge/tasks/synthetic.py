"""Generated problems, each with a knob for what makes it hard.

Knows how its data is drawn: from generators seeded by name, so that the same knobs are the same data
everywhere. Knows no suite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Batch, Params, Task
from .blocks import Rows, endless, linear_init, log_spectrum, mlp, mlp_init, rotation, supervised, uniform
from .seeds import generator_from


def teacher_student(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "teacher_student",
    n_features: int = 32,
    hidden: int = 24,
    condition: float = 30.0,
    sparsity: float = 0.5,
    noise: float = 0.1,
) -> Task:
    """A tanh MLP learns a smaller tanh MLP from correlated features; endless data, 200 validation rows.

    Args:
        batch_size: fresh rows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_features: inputs.
        hidden: width of the student; the teacher has half of it.
        condition: largest over smallest standard deviation along the features' principal axes, which
            are rotated against the inputs (1 = uncorrelated).
        sparsity: share of the teacher's first-layer weights that are zero.
        noise: standard deviation of the target's noise; the noise-free target has about 1.
    """
    fixed = generator_from(name, n_features, hidden)
    mixing = log_spectrum(n_features, condition)[:, None] * rotation(n_features, fixed)  # (F, F)
    width = hidden // 2
    first = torch.randn(width, n_features, generator=fixed) * (3 / n_features) ** 0.5
    first = first * (torch.rand(first.shape, generator=fixed) >= sparsity)
    second = torch.randn(1, width, generator=fixed)

    def target_of(x: Tensor) -> Tensor:
        return F.linear(torch.tanh(F.linear(x, first)), second).squeeze(-1)

    def draw(generator: torch.Generator, n: int) -> Batch:
        x = torch.randn(n, n_features, generator=generator) @ mixing
        return x, target_of(x) / scale + noise * torch.randn(n, generator=generator)

    scale = target_of(torch.randn(4096, n_features, generator=fixed) @ mixing).std()
    return endless(
        name,
        lambda generator: mlp_init(generator, n_features, hidden, 1),
        lambda params, x: mlp(params, x, torch.tanh, 2).squeeze(-1),
        draw,
        draw(fixed, 200),
        batch_size=batch_size,
        steps=steps,
        sources="generated; teacher–student regression after Saad & Solla 1995, Phys. Rev. E 52, 4225",
    )


def noisy_labels(
    batch_size: int = 64,
    steps: int = 200,
    name: str = "noisy_labels",
    n_features: int = 20,
    n_classes: int = 6,
    hidden: int = 32,
    label_noise: float = 0.15,
    imbalance: float = 10.0,
) -> Task:
    """A ReLU MLP with two hidden layers on imbalanced classes with wrong labels (2,000 train rows).

    Each class is two Gaussian clouds, so no linear model separates them. The 200 validation rows have
    the same imbalance and right labels.

    Args:
        batch_size: rows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_features: inputs.
        n_classes: classes.
        hidden: width of both hidden layers.
        label_noise: share of training labels replaced by a random class.
        imbalance: how much more frequent the first class is than the last.
    """
    fixed = generator_from(name, n_features, n_classes)
    frequency = float(imbalance) ** (-torch.arange(n_classes) / (n_classes - 1))
    centres = torch.randn(n_classes, 2, n_features, generator=fixed) * 0.8

    def draw(n: int) -> tuple[Tensor, Tensor]:
        y = torch.multinomial(frequency, n, replacement=True, generator=fixed)
        cloud = torch.randint(2, (n,), generator=fixed)
        return centres[y, cloud] + torch.randn(n, n_features, generator=fixed), y

    x, y = draw(2000)
    x_valid, y_valid = draw(200)
    wrong = torch.rand(y.shape, generator=fixed) < label_noise
    y = torch.where(wrong, torch.randint(n_classes, y.shape, generator=fixed), y)
    return supervised(
        name,
        lambda generator: mlp_init(generator, n_features, hidden, hidden, n_classes),
        lambda params, h: mlp(params, h, torch.relu, 3),
        Rows(x, y, x_valid, y_valid),
        batch_size=batch_size,
        steps=steps,
        sources="generated; Gaussian clouds with label noise and class imbalance",
    )


def quadratic(
    batch_size: int = 32,
    steps: int = 200,
    name: str = "quadratic",
    size: int = 20,
    condition: float = 1000.0,
    noise: float = 1.0,
) -> Task:
    """½‖A (W − W*) B‖², a quadratic in a matrix W (size, size), ill-conditioned and rotated.

    Its Hessian is the Kronecker product of AᵀA and BBᵀ, so that no coordinate is an eigenvector. A
    batch is noise in the residual; the validation loss is the noise-free value. Both are means over
    entries, scaled so that W = 0 has a loss of about 0.5.

    Args:
        batch_size: noise matrices averaged in a batch: the noise falls as its square root.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        size: rows and columns of W.
        condition: largest over smallest eigenvalue of the Hessian.
        noise: standard deviation of one noise matrix's entries, beside a residual of about 1.
    """
    fixed = generator_from(name, size)

    def factor() -> Tensor:
        axes = rotation(size, fixed)
        return axes.T @ (log_spectrum(size, condition**0.25)[:, None] * axes)

    left, right, optimum = factor(), factor(), torch.randn(size, size, generator=fixed)

    def residual(params: Params) -> Tensor:
        return left @ (params["weight"] - optimum) @ right

    def loss(params: Params, batch: Batch, key: int) -> Tensor:
        # The mean over the batch of ½‖R + N‖², less its part that no weight can change.
        r = residual(params)
        return 0.5 * r.square().mean() + (r * batch[0]).mean()

    return Task(
        name,
        lambda generator: {"weight": uniform(generator, size, size, bound=size**-0.5)},
        lambda generator: (noise * torch.randn(batch_size, size, size, generator=generator).mean(0),),
        loss,
        lambda params: {"loss": 0.5 * residual(params).square().mean()},
        steps,
        "generated; noisy quadratic after Schaul et al. 2013, arXiv:1206.1106",
    )


def matrix_factorization(
    batch_size: int = 64,
    steps: int = 200,
    name: str = "matrix_factorization",
    n_users: int = 40,
    n_items: int = 30,
    rank: int = 8,
    observed: float = 0.6,
    noise: float = 0.1,
) -> Task:
    """Embeddings whose inner product predicts a rating; a batch touches only its users and items.

    Popular users and items come up often, rare ones in few batches: most gradient rows are exactly
    zero in a step, for some of them in most steps. Lookups are one-hot products, which vmap well.

    Args:
        batch_size: ratings a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_users: rows of the rating matrix.
        n_items: its columns.
        rank: width of the embeddings; the true rank is 3.
        observed: share of the ratings in the training set; 200 of the others are for validation.
        noise: standard deviation of the rating noise; a rating has about 1.
    """
    fixed = generator_from(name, n_users, n_items)
    true = torch.randn(n_users, 3, generator=fixed) @ torch.randn(3, n_items, generator=fixed) / 3**0.5
    ratings = (true + noise * torch.randn(true.shape, generator=fixed)).flatten()
    cells = torch.randperm(n_users * n_items, generator=fixed)
    n_train = int(observed * cells.shape[0])
    train, valid = cells[:n_train], cells[n_train:][:200]
    # Popularity falls tenfold from the first user (item) to the last.
    popularity = 10.0 ** -((train // n_items) / n_users + (train % n_items) / n_items)

    def pairs(chosen: Tensor) -> Tensor:
        return torch.stack([chosen // n_items, chosen % n_items], -1)  # (n, 2)

    def batch(generator: torch.Generator) -> Batch:
        chosen = train[torch.multinomial(popularity, batch_size, generator=generator)]
        return pairs(chosen), ratings[chosen]

    def init(generator: torch.Generator) -> Params:
        return {
            "users": 0.5 * torch.randn(n_users, rank, generator=generator),
            "items": 0.5 * torch.randn(n_items, rank, generator=generator),
        }

    def forward(params: Params, x: Tensor) -> Tensor:
        users = F.one_hot(x[:, 0], n_users).float() @ params["users"]
        items = F.one_hot(x[:, 1], n_items).float() @ params["items"]
        return (users * items).sum(-1)

    return supervised(
        name,
        init,
        forward,
        Rows(pairs(train), ratings[train], pairs(valid), ratings[valid]),
        batch_size=batch_size,
        steps=steps,
        sources="generated; matrix factorization after Koren et al. 2009, IEEE Computer 42(8)",
        batch=batch,
    )


def image_coords(
    batch_size: int = 64,
    steps: int = 200,
    name: str = "image_coords",
    side: int = 32,
    hidden: int = 32,
    frequency: float = 6.0,
) -> Task:
    """Sine network 2-`hidden`-`hidden`-3 from a pixel's place to its colour, on a generated image.

    The image is gratings and discs; 200 of its pixels are for validation. Initial weights are those
    of the SIREN paper, whose first layer is multiplied by `frequency` (30 there, for finer images).
    """
    fixed = generator_from(name, side)
    axis = torch.linspace(-1, 1, side)
    places = torch.cartesian_prod(axis, axis)  # (side², 2)
    waves = torch.sin(places @ uniform(fixed, 2, 6, bound=5.0) + uniform(fixed, 6, bound=3.14))
    centres = uniform(fixed, 4, 2, bound=0.8)
    discs = torch.sigmoid(12 * (0.35 - torch.cdist(places, centres)))
    colours = torch.cat([waves, 2 * discs], 1) @ uniform(fixed, 10, 3, bound=1.0)  # (side², 3)
    colours = (colours - colours.mean(0)) / colours.std(0)
    order = torch.randperm(side * side, generator=fixed)
    train, valid = order[200:], order[:200]

    def init(generator: torch.Generator) -> Params:
        params = linear_init(generator, "0", 2, hidden)
        bound = (6 / hidden) ** 0.5
        for i, n_out in ((1, hidden), (2, 3)):
            params[f"{i}.weight"] = uniform(generator, n_out, hidden, bound=bound)
            params[f"{i}.bias"] = uniform(generator, n_out, bound=hidden**-0.5)
        return params

    def forward(params: Params, x: Tensor) -> Tensor:
        return mlp(params, frequency * x, torch.sin, 3)

    return supervised(
        name,
        init,
        forward,
        Rows(places[train], colours[train], places[valid], colours[valid]),
        batch_size=batch_size,
        steps=steps,
        sources="generated image; sine network: Sitzmann et al. 2020, arXiv:2006.09661",
    )
