"""All built-in workloads and the suites they belong to: one row each.

Knows names, sizes and what each workload is for; builds nothing and imports no torch. A test holds
that the sizes stated here are true and that suites share neither data nor architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import TaskError
from ..words import did_you_mean
from .sealed import SEALED, load_sealed
from .workload import Workload, load_user_workload


def _row(
    name: str,
    place: str,
    suite: str,
    *,
    family: str,
    architecture: str,
    data_id: str,
    batch_size: int,
    steps: int,
    n_weights: int,
    stresses: str,
    adam_over_sgd: float | None = None,
    knobs: Mapping[str, Any] | None = None,
) -> Workload:
    """One row; `place` is a module with a function of the workload's name, or "module:family" with knobs."""
    module, _, family = place.partition(":")
    arguments: dict[str, Any] = {"batch_size": batch_size, "steps": steps}
    if family:
        arguments |= {"name": name, **(knobs or {})}
    return Workload(
        name=name,
        target=f"{__package__}.{module}:{family or name}",
        folder="",
        arguments=tuple(arguments.items()),
        suite=suite,
        family=family,
        architecture=architecture,
        data_id=data_id,
        stresses=stresses,
        batch_size=batch_size,
        steps=steps,
        n_weights=n_weights,
        adam_over_sgd=adam_over_sgd,
    )


# A rung that asks for k workloads takes the first k. The search suite begins with the eight whose first steps
# say most about the full budget, and ends with the two that cost most.
_ROWS = (
    _row(
        "teacher_student",
        "synthetic",
        "search",
        family="regression",
        architecture="tanh MLP, 1 hidden layer",
        data_id="generated:teacher_student",
        batch_size=32,
        steps=200,
        n_weights=817,
        adam_over_sgd=2.53,
        stresses="correlated features: input variances 900 : 1 along rotated axes",
    ),
    _row(
        "noisy_labels",
        "synthetic",
        "search",
        family="classification",
        architecture="ReLU MLP, 2 hidden layers",
        data_id="generated:noisy_labels",
        batch_size=64,
        steps=200,
        n_weights=1926,
        adam_over_sgd=1.27,
        stresses="15 % wrong labels and classes 10 : 1: gradients that should not all be believed",
    ),
    _row(
        "forces",
        "functions:potential",
        "search",
        family="physics",
        architecture="potential, 2 softplus layers, through its gradient",
        data_id="generated:forces",
        batch_size=24,
        steps=200,
        n_weights=500,
        adam_over_sgd=2.18,
        stresses="no noise, low errors wanted: the loss goes on falling as long as the steps let it",
        knobs={"n_inputs": 2, "wells": 3, "width": 20},
    ),
    _row(
        "poisson_counts",
        "vectors:counts",
        "search",
        family="counts",
        architecture="Poisson regression",
        data_id="generated:poisson_counts",
        batch_size=4,
        steps=200,
        n_weights=136,
        adam_over_sgd=0.86,
        stresses="4 rows a step, correlated features, convex: noise that must be averaged out",
    ),
    _row(
        "spirals_residual",
        "vectors:classes",
        "search",
        family="classification",
        architecture="residual SiLU MLP, 4 hidden layers",
        data_id="generated:spirals_residual",
        batch_size=32,
        steps=150,
        n_weights=1011,
        adam_over_sgd=2.38,
        stresses="depth: square matrices in a row, features that must be bent before they separate",
        knobs={
            "geometry": "spirals",
            "n_features": 8,
            "n_classes": 3,
            "condition": 4.0,
            "label_noise": 0.05,
            "width": 16,
            "depth": 4,
            "activation": "silu",
            "form": "residual",
        },
    ),
    _row(
        "surface_fourier",
        "functions:surface",
        "search",
        family="regression",
        architecture="ReLU network on Fourier features",
        data_id="generated:surface_fourier",
        batch_size=32,
        steps=200,
        n_weights=681,
        adam_over_sgd=2.68,
        stresses="no noise, low errors wanted, features of many frequencies",
    ),
    _row(
        "digits_tied",
        "digits",
        "search",
        family="autoencoder",
        architecture="autoencoder, tied weights",
        data_id="digits[0:1200]",
        batch_size=16,
        steps=150,
        n_weights=844,
        adam_over_sgd=0.60,
        stresses="one matrix used twice: a loss of degree four, saddles, small batches of real data",
    ),
    _row(
        "parity_softplus",
        "vectors:classes",
        "search",
        family="classification",
        architecture="softplus MLP, 2 hidden layers",
        data_id="generated:parity_softplus",
        batch_size=16,
        steps=200,
        n_weights=866,
        adam_over_sgd=4.73,
        stresses="a plateau, then a fall: no feature alone says anything",
        knobs={
            "geometry": "parity",
            "n_features": 8,
            "n_classes": 2,
            "label_noise": 0.1,
            "width": 24,
            "depth": 2,
            "activation": "softplus",
        },
    ),
    _row(
        "token_attention",
        "symbols:token_sets",
        "search",
        family="classification of sets",
        architecture="embedding and attention pooling",
        data_id="generated:token_attention",
        batch_size=32,
        steps=150,
        n_weights=965,
        adam_over_sgd=2.91,
        stresses="rare tokens: rows of the embedding with no gradient in most steps; a softmax inside",
        knobs={"label_noise": 0.05},
    ),
    _row(
        "odd_clouds",
        "vectors:classes",
        "search",
        family="classification",
        architecture="softmax regression",
        data_id="generated:odd_clouds",
        batch_size=4,
        steps=150,
        n_weights=100,
        adam_over_sgd=0.63,
        stresses="convex, four rows a step, a tenth of the labels wrong, half of the feature values zero",
        knobs={
            "geometry": "clouds",
            "n_features": 24,
            "n_classes": 4,
            "label_noise": 0.1,
            "sparsity": 0.5,
            "depth": 0,
        },
    ),
    _row(
        "breast_cancer",
        "tables",
        "search",
        family="classification",
        architecture="logistic regression",
        data_id="breast_cancer",
        batch_size=32,
        steps=100,
        n_weights=62,
        adam_over_sgd=1.82,
        stresses="convex, nearly collinear features, an optimum that recedes to infinity",
    ),
    _row(
        "digits_mlp",
        "digits",
        "search",
        family="image classification",
        architecture="ReLU MLP, 1 hidden layer",
        data_id="digits[0:1200]",
        batch_size=32,
        steps=120,
        n_weights=2410,
        adam_over_sgd=1.45,
        stresses="real data, small batches, fast early progress",
    ),
    _row(
        "echo_lstm",
        "recurrent:echo",
        "search",
        family="sequence regression",
        architecture="LSTM, unrolled",
        data_id="generated:echo_lstm",
        batch_size=24,
        steps=200,
        n_weights=370,
        adam_over_sgd=2.81,
        stresses="what is remembered for one and two steps and for longer: gates that must open in turn",
        knobs={"length": 6, "width": 8},
    ),
    _row(
        "char_mlp",
        "sequences",
        "search",
        family="language model",
        architecture="embedding and tanh MLP",
        data_id="pydoc_topics",
        batch_size=64,
        steps=200,
        n_weights=3577,
        adam_over_sgd=1.53,
        stresses="rare symbols: heavy-tailed gradients in the embedding, a loss that never flattens",
    ),
    _row(
        "digits_conv",
        "digits",
        "validation",
        family="image classification",
        architecture="convnet, 2-D",
        data_id="digits[1200:1797]",
        batch_size=64,
        steps=200,
        n_weights=1258,
        adam_over_sgd=0.70,
        stresses="shared weights: gradients summed over positions, layers of very different scale",
    ),
    _row(
        "quadratic",
        "synthetic",
        "validation",
        family="quadratic",
        architecture="noisy quadratic",
        data_id="generated:quadratic",
        batch_size=32,
        steps=200,
        n_weights=400,
        adam_over_sgd=1.39,
        stresses="condition number 1000, rotated, with gradient noise that must be averaged out",
    ),
    _row(
        "heavy_tails",
        "vectors:linear_map",
        "validation",
        family="regression",
        architecture="linear regression, many outputs",
        data_id="generated:heavy_tails",
        batch_size=8,
        steps=150,
        n_weights=252,
        adam_over_sgd=1.90,
        stresses="8 rows a step with heavy-tailed noise, correlated features: single gradients mislead",
        knobs={"noise": 1.0, "tail": 0.4, "condition": 10.0},
    ),
    _row(
        "series_elman",
        "recurrent:series",
        "validation",
        family="time series",
        architecture="Elman network, unrolled",
        data_id="generated:series_elman",
        batch_size=32,
        steps=150,
        n_weights=481,
        adam_over_sgd=2.49,
        stresses="one matrix applied ten times: gradients that grow or vanish along the sequence",
    ),
    _row(
        "teacher_rmsnorm",
        "vectors:classes",
        "validation",
        family="classification",
        architecture="RMS-norm GELU MLP, 4 hidden layers",
        data_id="generated:teacher_rmsnorm",
        batch_size=48,
        steps=150,
        n_weights=2404,
        adam_over_sgd=1.34,
        stresses="depth with normalized layers, classes 20 : 1, correlated features",
        knobs={
            "geometry": "teacher",
            "n_features": 16,
            "n_classes": 4,
            "imbalance": 20.0,
            "condition": 10.0,
            "width": 24,
            "depth": 4,
            "activation": "gelu",
            "norm": "rms",
        },
    ),
    _row(
        "textures_mixer",
        "pictures:textures",
        "validation",
        family="image classification",
        architecture="MLP mixer",
        data_id="generated:textures_mixer",
        batch_size=32,
        steps=150,
        n_weights=614,
        adam_over_sgd=1.57,
        stresses="weights shared over places and channels, pooling, endless noisy data",
        knobs={"width": 12, "activation": "relu"},
    ),
    _row(
        "names_conv",
        "symbols:next_symbol",
        "validation",
        family="language model",
        architecture="gated causal convolutions",
        data_id="names of characters",
        batch_size=16,
        steps=150,
        n_weights=1229,
        adam_over_sgd=1.74,
        stresses="real text, rare letters, embeddings and gates",
        knobs={"text": "names", "net": "conv", "length": 8, "width": 10},
    ),
    _row(
        "wine_layernorm",
        "tables",
        "held_out",
        family="classification",
        architecture="layer-norm MLP",
        data_id="wine",
        batch_size=32,
        steps=80,
        n_weights=1107,
        adam_over_sgd=1.15,
        stresses="scale-invariant layers: the effective step depends on the weights' norm",
    ),
    _row(
        "diabetes_deep_linear",
        "tables",
        "held_out",
        family="regression",
        architecture="deep linear network",
        data_id="diabetes",
        batch_size=32,
        steps=80,
        n_weights=737,
        adam_over_sgd=0.65,
        stresses="a plateau at the start, and a noise floor at which to stop",
    ),
    _row(
        "image_coords",
        "synthetic",
        "held_out",
        family="regression",
        architecture="sine network",
        data_id="generated:image_coords",
        batch_size=64,
        steps=200,
        n_weights=1251,
        adam_over_sgd=2.44,
        stresses="periodic activations: a bumpy loss, low errors wanted",
    ),
    _row(
        "matrix_factorization",
        "synthetic",
        "held_out",
        family="recommendation",
        architecture="embedding product",
        data_id="generated:matrix_factorization",
        batch_size=64,
        steps=200,
        n_weights=560,
        adam_over_sgd=1.54,
        stresses="sparse gradients, rare rows, a saddle at zero",
    ),
    _row(
        "signals_conv",
        "sequences",
        "held_out",
        family="signal classification",
        architecture="convnet, 1-D",
        data_id="generated:signals_conv",
        batch_size=64,
        steps=200,
        n_weights=833,
        adam_over_sgd=2.45,
        stresses="endless noisy data, slow start, pooling",
    ),
    _row(
        "attention_recall",
        "sequences",
        "held_out",
        family="sequence recall",
        architecture="attention, 1 head",
        data_id="generated:attention_recall",
        batch_size=32,
        steps=150,
        n_weights=1552,
        adam_over_sgd=1.64,
        stresses="a long plateau, then a sudden drop; products of weight matrices",
    ),
    _row(
        "adding_gru",
        "recurrent:adding",
        "held_out",
        family="sequence regression",
        architecture="GRU, unrolled",
        data_id="generated:adding_gru",
        batch_size=32,
        steps=200,
        n_weights=977,
        adam_over_sgd=3.26,
        stresses="gates and memory: a plateau until two marked numbers are remembered",
    ),
    _row(
        "code_transformer",
        "symbols:next_symbol",
        "held_out",
        family="language model",
        architecture="transformer, 1 block",
        data_id="python_sources",
        batch_size=16,
        steps=200,
        n_weights=3702,
        adam_over_sgd=1.99,
        stresses="attention, layer norm and embedding in one: parts of very different scale",
    ),
    _row(
        "strokes_autoencoder",
        "pictures:strokes",
        "held_out",
        family="denoising",
        architecture="autoencoder, ELU",
        data_id="generated:strokes_autoencoder",
        batch_size=32,
        steps=200,
        n_weights=3576,
        adam_over_sgd=1.33,
        stresses="a narrow middle, low errors wanted, matrices alone",
        knobs={"noise": 0.3},
    ),
    _row(
        "equation_pinn",
        "equations:boundary_value",
        "held_out",
        family="differential equation",
        architecture="tanh network with derivatives in its loss",
        data_id="generated:equation_pinn",
        batch_size=48,
        steps=200,
        n_weights=481,
        adam_over_sgd=2.69,
        stresses="an ill-conditioned loss: its steepest directions are a network's second derivative",
    ),
    _row(
        "sparse_labels",
        "symbols:label_sets",
        "held_out",
        family="classification, many labels",
        architecture="logistic regression, many labels",
        data_id="generated:sparse_labels",
        batch_size=32,
        steps=120,
        n_weights=976,
        adam_over_sgd=0.74,
        stresses="rare binary features, labels 10 : 1 against, wrong ones among them; convex",
        knobs={"label_noise": 0.03},
    ),
    _row(
        "iris_tiny_batch",
        "tables",
        "held_out",
        family="classification",
        architecture="ELU MLP, 2 hidden layers",
        data_id="iris",
        batch_size=4,
        steps=150,
        n_weights=403,
        adam_over_sgd=1.85,
        stresses="4 rows a step and wrong labels: gradients that are mostly noise",
    ),
    _row(
        "shells_gated",
        "vectors:classes",
        "held_out",
        family="classification",
        architecture="gated MLP, 2 hidden layers",
        data_id="generated:shells_gated",
        batch_size=32,
        steps=150,
        n_weights=900,
        adam_over_sgd=2.97,
        stresses="products of layers, correlated features, validation rows off the training rows",
        knobs={
            "geometry": "shells",
            "n_features": 8,
            "n_classes": 4,
            "condition": 4.0,
            "shift": 0.3,
            "width": 16,
            "depth": 2,
            "activation": "silu",
            "form": "gated",
        },
    ),
)

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _ROWS}

SUITES: dict[str, tuple[str, ...]] = {
    suite: tuple(workload.name for workload in _ROWS if workload.suite == suite)
    for suite in ("search", "validation", "held_out")
}


def load_workload(
    name_or_ref: str,
    base: str | Path | None = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
) -> Workload:
    """The workload of a registry name, or of a user's "file.py:factory" or "package.module:factory".

    Args:
        name_or_ref: as written in a config.
        base: folder against which relative paths are resolved (the config's); the current one if None.
        batch_size: rows a batch in place of the workload's own.
        steps: budget in place of the workload's own.

    Raises:
        TaskError: no such workload, or a task that cannot be used; with place and remedy.
    """
    if name_or_ref in WORKLOADS:
        found = WORKLOADS[name_or_ref]
    elif name_or_ref.startswith(f"{SEALED}_"):
        found = _among_sealed(name_or_ref)
    elif ":" in name_or_ref:
        found = load_user_workload(name_or_ref, base)
    else:
        rest = "`ruleforge tasks` lists them; your own is path/to/file.py:factory"
        raise TaskError(f"no workload {name_or_ref!r}", hint=did_you_mean(name_or_ref, WORKLOADS, rest))
    return found.resized(batch_size=batch_size, steps=steps)


def load_suite(name: str) -> tuple[Workload, ...]:
    """The workloads of a suite, in the registry's order; "sealed" too, once its seed has been drawn.

    Raises:
        TaskError: no such suite.
    """
    if name == SEALED:
        return load_sealed()
    if name not in SUITES:
        raise TaskError(f"no suite {name!r}", hint=f"suites: {', '.join((*SUITES, SEALED))}")
    return tuple(WORKLOADS[each] for each in SUITES[name])


def _among_sealed(name: str) -> Workload:
    found = {workload.name: workload for workload in load_sealed()}
    if name not in found:
        raise TaskError(f"no workload {name!r}", hint=did_you_mean(name, found, ", ".join(found)))
    return found[name]


_DATA_ID = re.compile(r"(?P<source>[^\[\]]+)(\[(?P<low>\d+):(?P<high>\d+)\])?")


def shares_data(a: str, b: str) -> bool:
    """Whether two data ids name overlapping rows; an id without a range is the whole source.

    Example:
        >>> shares_data("digits[0:1200]", "digits[1200:1797]"), shares_data("digits", "digits[0:10]")
        (False, True)
    """
    left, right = _DATA_ID.fullmatch(a), _DATA_ID.fullmatch(b)
    if left is None or right is None:
        raise TaskError(
            f"{(a if left is None else b)!r} is no data id", hint="write source or source[low:high]"
        )
    if left["source"] != right["source"]:
        return False
    if left["low"] is None or right["low"] is None:
        return True
    return int(left["low"]) < int(right["high"]) and int(right["low"]) < int(left["high"])
