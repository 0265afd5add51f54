"""Small tables of measurements that ship inside scikit-learn.

Knows the four data sets and the models tried on them. Nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Params, Task
from .blocks import Rows, knobs_within, linear, mlp, mlp_init, split_rows, standardized, supervised
from .seeds import generator_from

BREAST_CANCER = "scikit-learn load_breast_cancer: Wolberg et al. 1993, Wisconsin Diagnostic, UCI, CC BY 4.0"
WINE = (
    "scikit-learn load_wine: Aeberhard & Forina 1991, UCI, CC BY 4.0;"
    " layer norm: Ba et al. 2016, arXiv:1607.06450"
)
IRIS = "scikit-learn load_iris: Fisher 1936, Annals of Eugenics 7(2), UCI, CC BY 4.0"
DIABETES = "scikit-learn load_diabetes: Efron et al. 2004, Least Angle Regression, Annals of Statistics 32(2)"


@lru_cache(maxsize=4)
def _rows(name: str, n_valid: int) -> Rows:
    from sklearn import datasets

    load = {
        "breast_cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "diabetes": datasets.load_diabetes,
        "iris": datasets.load_iris,
    }[name]
    data = load()
    return standardized(split_rows(data.data, data.target, n_valid, generator_from(name)))


def breast_cancer(batch_size: int = 32, steps: int = 100) -> Task:
    """Logistic regression, 30 features to 2 classes (369 train, 200 validation).

    Convex, with feature correlations up to 0.998: a Hessian with a long tail of small eigenvalues.
    """
    return supervised(
        "breast_cancer",
        lambda generator: mlp_init(generator, 30, 2),
        lambda params, x: linear(params, "0", x),
        _rows("breast_cancer", 200),
        batch_size=batch_size,
        steps=steps,
        sources=BREAST_CANCER,
    )


def wine_layernorm(batch_size: int = 32, steps: int = 80, hidden: int = 24) -> Task:
    """MLP 13-`hidden`-`hidden`-3 with layer norm before each ReLU (108 train, 70 validation)."""

    def init(generator: torch.Generator) -> Params:
        params = mlp_init(generator, 13, hidden, hidden, 3)
        for i in (0, 1):
            params |= {f"norm{i}.weight": torch.ones(hidden), f"norm{i}.bias": torch.zeros(hidden)}
        return params

    def forward(params: Params, x: Tensor) -> Tensor:
        for i in (0, 1):
            h = linear(params, str(i), x)
            x = torch.relu(F.layer_norm(h, (hidden,), params[f"norm{i}.weight"], params[f"norm{i}.bias"]))
        return linear(params, "2", x)

    return supervised(
        "wine_layernorm",
        init,
        forward,
        _rows("wine", 70),
        batch_size=batch_size,
        steps=steps,
        sources=WINE,
    )


def diabetes_deep_linear(batch_size: int = 32, steps: int = 80, hidden: int = 16, depth: int = 4) -> Task:
    """A linear map written as `depth` matrices in a row, 10 features to 1 (292 train, 150 validation).

    Convex in the product and not in the factors: saddles and plateaus without any non-linearity.
    """
    sizes = (10, *[hidden] * (depth - 1), 1)
    return supervised(
        "diabetes_deep_linear",
        lambda generator: mlp_init(generator, *sizes),
        lambda params, x: mlp(params, x, lambda h: h, depth).squeeze(-1),
        _rows("diabetes", 150),
        batch_size=batch_size,
        steps=steps,
        sources=DIABETES,
    )


def iris_tiny_batch(batch_size: int = 4, steps: int = 150, label_noise: float = 0.1, width: int = 16) -> Task:
    """ELU MLP 4-`width`-`width`-3 on a few rows a step, some wrongly labelled (90 train, 60 validation).

    Args:
        batch_size: rows a step: few, so that a gradient is mostly noise.
        steps: optimizer steps of the full budget.
        label_noise: share of training labels replaced by a random class (0 to 0.5).
        width: of both hidden layers.
    """
    knobs_within("iris_tiny_batch", label_noise=(label_noise, 0, 0.5))
    rows = _rows("iris", 60)
    fixed = generator_from("iris_tiny_batch", "wrong labels")
    wrong = torch.rand(rows.y.shape, generator=fixed) < label_noise
    y = torch.where(wrong, torch.randint(3, rows.y.shape, generator=fixed), rows.y)
    return supervised(
        "iris_tiny_batch",
        lambda generator: mlp_init(generator, 4, width, width, 3),
        lambda params, x: mlp(params, x, F.elu, 3),
        Rows(rows.x, y, rows.x_valid, rows.y_valid),
        batch_size=batch_size,
        steps=steps,
        sources=IRIS,
    )
