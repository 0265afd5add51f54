"""Record what the upstream optimizers do, step by step, so that ordinary tests need none of them.

    python tests/golden/upstream/record.py --packages pytorch_optimizer optax timm tensorflow

runs every spec of the named packages on the four streams in float64 and writes `<package>.npz`
(one array per spec: weights after each step, (4, 50, 7, 5)) and that package's entry in
`record.json` (versions, date, digests of specs and streams). Run it in an environment of its own:

    python -m venv upstream-venv
    upstream-venv/bin/pip install torch==2.13.0          # first, or a CUDA build is pulled
    upstream-venv/bin/pip install pytorch_optimizer==4.1.0 optax==0.2.8 jax tensorflow==2.21.0
    upstream-venv/bin/pip install --no-deps timm==1.0.31

timm declares torchvision, which breaks beside a CPU build of torch, and `import timm` would import
all its models. Hence `--no-deps`, and only the modules under `timm/optim/` are imported here: an
empty package named `timm` that points at timm's folder stands in for its `__init__`.

torch's own classes are not recorded: the tests run them live.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import specs as upstream_specs
import streams as upstream_streams
from specs import SPECS, Spec
from streams import Stream

HERE = pathlib.Path(__file__).resolve().parent

PACKAGES = ("pytorch_optimizer", "optax", "timm", "tensorflow")
COMPANIONS = {
    "pytorch_optimizer": ("torch",),
    "timm": ("torch",),
    "optax": ("jax", "jaxlib"),
    "tensorflow": (),
}

Trainer = Callable[[Spec, Stream], np.ndarray]


def _without_init(package: str) -> None:
    """Make the submodules of an installed package importable without running its `__init__`."""
    if package in sys.modules:
        return
    parent, _, _ = package.rpartition(".")
    search = sys.modules[parent].__path__ if parent else None
    found = importlib.machinery.PathFinder.find_spec(package, search)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package!r} is not installed in this environment")
    stand_in = types.ModuleType(package)
    stand_in.__path__ = list(found.submodule_search_locations)
    sys.modules[package] = stand_in


def _timm_class(name: str) -> Any:
    """The class of that name from whichever module of timm.optim defines it."""
    _without_init("timm")
    _without_init("timm.optim")
    for path in sorted(pathlib.Path(sys.modules["timm.optim"].__path__[0]).glob("[a-z]*.py")):
        if f"class {name}(" in path.read_text():
            return getattr(importlib.import_module(f"timm.optim.{path.stem}"), name)
    raise SystemExit(f"timm.optim has no class {name!r}")


def _torch_like(spec: Spec, stream: Stream) -> np.ndarray:
    """Weights after each step of a class with torch's optimizer interface, (50, 7, 5)."""
    import torch

    torch.set_default_dtype(torch.float64)
    name = spec.upstream.rsplit(".", 1)[1]
    if spec.package == "timm":
        cls = _timm_class(name)
    else:
        cls = getattr(importlib.import_module(spec.package), name)
    param = torch.nn.Parameter(torch.tensor(stream.weights))
    optimizer = cls([param], lr=spec.lr, **spec.kwargs)
    after = []
    for gradient in stream.gradients:
        param.grad = torch.tensor(gradient)  # a copy: some upstream classes change it in place
        optimizer.step()
        after.append(param.detach().numpy().copy())
    return np.stack(after)


def _optax(spec: Spec, stream: Stream) -> np.ndarray:
    """Weights after each step of an optax transformation, (50, 7, 5).

    Optimizers take their lr themselves; bare transformations are scaled by it afterwards.
    """
    import inspect

    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    make: Any = optax
    for part in spec.upstream.split(".")[1:]:
        make = getattr(make, part)
    if "learning_rate" in inspect.signature(make).parameters:
        transform = make(learning_rate=spec.lr, **spec.kwargs)
    else:
        transform = optax.chain(make(**spec.kwargs), optax.scale_by_learning_rate(spec.lr))
    param = jax.numpy.asarray(stream.weights)
    state = transform.init(param)
    update = jax.jit(transform.update)
    after = []
    for gradient in stream.gradients:
        step, state = update(jax.numpy.asarray(gradient), state, param)
        param = optax.apply_updates(param, step)
        after.append(np.array(param))
    return np.stack(after)


def _tensorflow(spec: Spec, stream: Stream) -> np.ndarray:
    """Weights after each step of a TensorFlow training kernel, (50, 7, 5)."""
    import tensorflow as tf

    kernel = getattr(tf.raw_ops, spec.upstream.rsplit(".", 1)[1])
    param = tf.Variable(stream.weights, dtype=tf.float64)
    m = tf.Variable(np.zeros_like(stream.weights), dtype=tf.float64)
    numbers = {"lr": spec.lr, **spec.kwargs}
    scalars = {name: tf.constant(value, tf.float64) for name, value in numbers.items()}
    after = []
    for gradient in stream.gradients:
        kernel(var=param.handle, m=m.handle, grad=tf.constant(gradient), **scalars)
        after.append(param.numpy().copy())
    return np.stack(after)


TRAINERS: dict[str, Trainer] = {
    "pytorch_optimizer": _torch_like,
    "timm": _torch_like,
    "optax": _optax,
    "tensorflow": _tensorflow,
}


def record(package: str, out: pathlib.Path) -> dict[str, Any]:
    """Write `<package>.npz` into `out` and return the package's entry for `record.json`."""
    chosen = tuple(spec for spec in SPECS if spec.package == package)
    streams = upstream_streams.all_streams()
    arrays = {spec.id: np.stack([TRAINERS[package](spec, stream) for stream in streams]) for spec in chosen}
    for name, weights in arrays.items():
        if weights.dtype != np.float64 or not np.isfinite(weights).all():
            raise SystemExit(f"{name}: expected finite float64 weights, got {weights.dtype}")
    path = out / f"{package}.npz"
    np.savez_compressed(path, **arrays)
    return {
        "version": importlib.metadata.version(package),
        "companions": {name: importlib.metadata.version(name) for name in COMPANIONS[package]},
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "n_specs": len(chosen),
        "specs_digest": upstream_specs.digest(chosen),
        "streams_digest": upstream_streams.digest(streams),
        "file_digest": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
    }


def main() -> None:
    """Record the packages named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to")
    arguments = parser.parse_args()
    index = arguments.out / "record.json"
    entries = json.loads(index.read_text()) if index.exists() else {}
    for package in arguments.packages:
        entries[package] = record(package, arguments.out)
        print(f"{package} {entries[package]['version']}: {entries[package]['n_specs']} specs", flush=True)
        index.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
