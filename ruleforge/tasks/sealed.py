"""The sealed suite: ten workloads that nobody can know before the default configuration is frozen.

They are drawn from one seed, family and knobs alike, within ranges that keep them learnable. The seed is
drawn once, by `python -m ruleforge.app.seal`, and lies in `sealed.json` beside this file from then on;
before that there is no such suite. Searches never load it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import TaskError
from .workload import Workload

SEALED = "sealed"
SEAL = Path(__file__).with_name("sealed.json")
N_WORKLOADS = 10

Knobs = dict[str, Any]


@dataclass(frozen=True)
class _Family:
    """What the sealed suite may draw: a function, how its knobs are drawn, and what it is."""

    place: str
    knobs: Callable[[random.Random], Knobs]
    architecture: str
    batch_sizes: tuple[int, ...] = (8, 16, 32, 48)
    steps: tuple[int, int] = (100, 200)


def _dense(rng: random.Random) -> Knobs:
    """A dense network's shape; deep ones are normalized or residual, so that they start to learn at once."""
    depth = rng.choice((1, 2, 3, 4))
    form = rng.choice(("plain", "residual", "gated")) if depth > 1 else "plain"
    norms = ("layer", "rms") if depth > 2 and form != "residual" else ("none", "layer", "rms")
    return {
        "width": rng.choice((12, 16, 24, 32)),
        "depth": depth,
        "activation": rng.choice(("relu", "tanh", "gelu", "silu", "elu")),
        "norm": rng.choice(norms),
        "form": form,
    }


def _classes(rng: random.Random) -> Knobs:
    geometry = rng.choice(("clouds", "spirals", "shells", "teacher"))
    return {
        "geometry": geometry,
        "n_features": rng.choice((6, 8, 12, 16)),
        "n_classes": rng.choice((3, 4)) if geometry in ("spirals", "shells") else rng.choice((3, 4, 6)),
        "label_noise": rng.choice((0.0, 0.05, 0.15)),
        "imbalance": rng.choice((1.0, 3.0, 8.0)),
        "condition": rng.choice((1.0, 3.0, 10.0)),
        "sparsity": rng.choice((0.0, 0.0, 0.3)) if geometry in ("clouds", "teacher") else 0.0,
        "shift": rng.choice((0.0, 0.0, 0.2)),
        **_dense(rng),
    }


def _mapping(rng: random.Random) -> Knobs:
    return {
        "n_features": rng.choice((8, 12, 20, 32)),
        "n_outputs": rng.choice((1, 2, 6)),
        "noise": rng.choice((0.1, 0.3, 0.7)),
        "tail": rng.choice((0.0, 0.2, 0.35)),
        "condition": rng.choice((1.0, 5.0, 20.0)),
        "sparsity": rng.choice((0.0, 0.5)),
        "shift": rng.choice((0.0, 0.2)),
        **_dense(rng),
    }


def _linear(rng: random.Random) -> Knobs:
    return {
        "n_features": rng.choice((12, 20, 32)),
        "n_outputs": rng.choice((4, 8, 16)),
        "noise": rng.choice((0.2, 0.5, 1.0)),
        "tail": rng.choice((0.0, 0.2, 0.35)),
        "condition": rng.choice((3.0, 10.0, 30.0)),
        "sparsity": rng.choice((0.0, 0.5)),
        "width": rng.choice((12, 16, 24)),
        "depth": rng.choice((1, 2, 3)),
    }


def _token_sets(rng: random.Random) -> Knobs:
    return {
        "n_symbols": rng.choice((32, 48, 64)),
        "length": rng.choice((4, 6, 10)),
        "n_classes": rng.choice((3, 4, 6)),
        "zipf": rng.choice((0.3, 0.8, 1.2)),
        "label_noise": rng.choice((0.0, 0.05, 0.1)),
        "width": rng.choice((8, 12, 16)),
    }


def _label_sets(rng: random.Random) -> Knobs:
    return {
        "n_symbols": rng.choice((32, 48, 80)),
        "length": rng.choice((4, 6, 10)),
        "n_labels": rng.choice((8, 12, 24)),
        "zipf": rng.choice((0.3, 0.8, 1.2)),
        "label_noise": rng.choice((0.0, 0.03)),
        "rarity": rng.choice((0.1, 0.2, 0.4)),
    }


def _next_symbol(rng: random.Random) -> Knobs:
    heads = rng.choice((1, 2, 4))
    return {
        "text": "chance",
        "length": rng.choice((8, 10, 12)),
        "n_symbols": rng.choice((8, 12, 16)),
        "n_chars": 20_000,
        "width": heads * rng.choice((4, 6)) * (2 if heads == 1 else 1),
        "heads": heads,
        "blocks": rng.choice((1, 1, 2)),
        "norm": rng.choice(("layer", "rms")),
    }


def _textures(rng: random.Random) -> Knobs:
    return {
        "net": rng.choice(("mixer", "conv")),
        "n_classes": rng.choice((4, 5, 7)),
        "noise": rng.choice((0.2, 0.4, 0.6)),
        "label_noise": rng.choice((0.0, 0.05, 0.1)),
        "imbalance": rng.choice((1.0, 4.0)),
        "width": rng.choice((8, 12, 16)),
        "activation": rng.choice(("relu", "gelu", "silu", "tanh")),
    }


def _strokes(rng: random.Random) -> Knobs:
    return {
        "n_strokes": rng.choice((1, 2, 3)),
        "noise": rng.choice((0.0, 0.2, 0.5)),
        "width": rng.choice((16, 24, 32)),
        "code": rng.choice((4, 6, 10)),
        "activation": rng.choice(("relu", "tanh", "silu", "elu")),
    }


def _adding(rng: random.Random) -> Knobs:
    return {
        "length": rng.choice((5, 6, 8)),
        "noise": rng.choice((0.0, 0.2)),
        "cell": rng.choice(("elman", "gru")),
        "width": rng.choice((12, 16, 20)),
    }


def _series(rng: random.Random) -> Knobs:
    return {
        "length": rng.choice((8, 10, 12)),
        "tones": rng.choice((1, 2, 3)),
        "noise": rng.choice((0.0, 0.1, 0.3)),
        "cell": rng.choice(("elman", "gru")),
        "width": rng.choice((12, 16, 24)),
    }


def _boundary_value(rng: random.Random) -> Knobs:
    return {
        "waves": rng.choice((1, 2)),
        "damping": rng.choice((0.0, 1.0, 5.0)),
        "stiffness": rng.choice((0.0, 5.0, 20.0)),
        "width": rng.choice((12, 16, 24)),
        "depth": rng.choice((1, 2, 3)),
    }


def _factorization(rng: random.Random) -> Knobs:
    return {
        "n_users": rng.choice((24, 32, 48)),
        "n_items": rng.choice((20, 30, 36)),
        "rank": rng.choice((4, 6, 10)),
        "observed": rng.choice((0.5, 0.6, 0.7)),
        "noise": rng.choice((0.1, 0.3)),
    }


def _image(rng: random.Random) -> Knobs:
    return {
        "side": rng.choice((24, 32)),
        "hidden": rng.choice((16, 24, 32)),
        "frequency": rng.choice((3.0, 5.0, 8.0)),
    }


_LATER = (150, 200)
FAMILIES = (
    _Family("vectors:classes", _classes, "dense network, drawn"),
    _Family("vectors:mapping", _mapping, "dense network for regression, drawn"),
    _Family("vectors:linear_map", _linear, "deep linear network, drawn"),
    _Family("symbols:token_sets", _token_sets, "embedding and attention pooling, drawn"),
    _Family("symbols:label_sets", _label_sets, "logistic regression, many labels, drawn"),
    _Family("symbols:next_symbol", _next_symbol, "transformer, drawn", (8, 16), _LATER),
    _Family("pictures:textures", _textures, "mixer or convnet, drawn", (16, 32)),
    _Family("pictures:strokes", _strokes, "autoencoder, drawn", (16, 32), _LATER),
    _Family("recurrent:adding", _adding, "recurrent network, drawn", (16, 32), _LATER),
    _Family("recurrent:series", _series, "recurrent network at every step, drawn", (16, 32), _LATER),
    _Family("equations:boundary_value", _boundary_value, "network with derivatives, drawn", (32, 48), _LATER),
    _Family("synthetic:matrix_factorization", _factorization, "embedding product, drawn", (32, 64), _LATER),
    _Family("synthetic:image_coords", _image, "sine network, drawn", (32, 64), _LATER),
)


def make_sealed(seed: int) -> tuple[Workload, ...]:
    """Ten workloads of different families, a pure function of the seed; counts their weights (imports torch).

    Args:
        seed: any integer; other seeds are other families, knobs and data.
    """
    rng = random.Random(f"ruleforge sealed suite {seed}")
    return tuple(_drawn(rng, family, seed) for family in rng.sample(FAMILIES, N_WORKLOADS))


def _drawn(rng: random.Random, family: _Family, seed: int) -> Workload:
    module, _, function = family.place.partition(":")
    knobs = family.knobs(rng)
    batch_size = rng.choice(family.batch_sizes)
    steps = 10 * rng.randint(family.steps[0] // 10, family.steps[1] // 10)
    name = f"{SEALED}_{function}"
    told = ", ".join(f"{key} {value}" for key, value in knobs.items())
    workload = Workload(
        name=name,
        target=f"{__package__}.{module}:{function}",
        folder="",
        # The name that the task gets holds the seed, and decides its data.
        arguments=tuple(
            {"batch_size": batch_size, "steps": steps, "name": f"{name}_{seed}", **knobs}.items()
        ),
        suite=SEALED,
        family=function.replace("_", " "),
        architecture=family.architecture,
        data_id=f"generated:{name}_{seed}",
        stresses=told,
        batch_size=batch_size,
        steps=steps,
        n_weights=0,
    )
    return _counted(workload)


def _counted(workload: Workload) -> Workload:
    weights = workload.data(0, 1).params
    return replace(workload, n_weights=sum(value.numel() for value in weights.values()))


def seal() -> dict[str, Any] | None:
    """What was recorded when the seed was drawn, or None while there is none.

    Raises:
        TaskError: the file is damaged.
    """
    try:
        record = json.loads(SEAL.read_text(encoding="utf-8"))
        seed = record["seed"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(
            f"the record of the sealed suite cannot be read: {type(error).__name__}",
            file=str(SEAL),
            hint="take it from version control: it was drawn once",
        ) from None
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TaskError(
            f"the sealed suite's seed is {seed!r}, no whole number",
            file=str(SEAL),
            hint="take it from version control: it was drawn once",
        )
    return dict(record)


def load_sealed() -> tuple[Workload, ...]:
    """The sealed suite.

    Raises:
        TaskError: no seed has been drawn yet, or its record is damaged.
    """
    record = seal()
    if record is None:
        raise TaskError(
            "the sealed suite does not exist yet: no seed has been drawn",
            hint="it is drawn once, after the default configuration is frozen: python -m ruleforge.app.seal",
        )
    return _made(record["seed"])


@lru_cache(maxsize=2)
def _made(seed: int) -> tuple[Workload, ...]:
    return make_sealed(seed)
