"""Train a known rule on the reference backend and measure how far it lies from upstream.

Shared by the tests and by `regenerate`, so that the record and the check of the record are one
measurement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core.known import KNOWN, KnownRule
from ruleforge.core.program import compile_rule
from tests.golden.upstream.specs import SPECS, Spec
from tests.golden.upstream.streams import Stream, all_streams

UPSTREAM = Path(__file__).resolve().parent.parent / "golden" / "upstream"


@cache
def streams() -> tuple[Stream, ...]:
    """The four streams."""
    return all_streams()


def as_seen_by(spec: Spec, stream: Stream) -> Stream:
    """The stream, turned on its side where the spec asks for wide matrices."""
    if not spec.transpose:
        return stream
    return replace(
        stream,
        weights=np.ascontiguousarray(stream.weights.T),
        gradients=np.ascontiguousarray(stream.gradients.transpose(0, 2, 1)),
    )


def train(known: KnownRule, spec: Spec, stream: Stream) -> np.ndarray:
    """Weights after each step of the rule in float64, (50, 7, 5) or (50, 5, 7)."""
    text = known.rule
    unknown = set(spec.hypers) - set(text.hypers)
    if unknown:
        raise ValueError(f"{spec.id}: {known.name} has no hyperparameter {sorted(unknown)}")
    values = tuple(
        spec.hypers.get(name, default) for name, default in zip(text.hypers, text.rule.defaults, strict=True)
    )
    rule = text.rule.with_defaults(values)
    program = compile_rule(rule)
    context = StepContext(t=0, lr=spec.lr, lr0=spec.lr, hypers=rule.canonical.defaults)
    weights = stream.weights
    state = reference.init_state(program, [weights], context)
    after = []
    for t, gradient in enumerate(stream.gradients, start=1):
        context = replace(context, t=t, progress=t / len(stream.gradients))
        (update,), state = reference.update(program, state, [gradient], [weights], context)
        weights = reference.apply_update(weights, update, spec.lr, spec.weight_decay)
        after.append(weights)
    return np.stack(after)


def upstream(spec: Spec) -> list[np.ndarray]:
    """Upstream's weights after each step, one array for each stream: recorded, or torch's own live."""
    if spec.package == "torch":
        return [_train_torch(spec, as_seen_by(spec, stream)) for stream in streams()]
    return list(recording(spec.package)[spec.id])


@cache
def recording(package: str) -> dict[str, np.ndarray]:
    """All recorded trajectories of a package by spec id, each (4, 50, 7, 5)."""
    with np.load(UPSTREAM / f"{package}.npz") as stored:
        return {name: stored[name] for name in stored.files}


@cache
def record_index() -> dict[str, dict[str, Any]]:
    """`record.json`: versions and digests by package."""
    return json.loads((UPSTREAM / "record.json").read_text())


def version(package: str) -> str:
    """The version that was recorded, or that of the torch which runs."""
    if package == "torch":
        import torch

        return str(torch.__version__).split("+", 1)[0]
    return str(record_index()[package]["version"])


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest |difference of weights| over all steps, divided by max(1, largest |w|); inf for a NaN."""
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: {ours.shape} and {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


@cache
def measure(spec_id: str) -> float:
    """Largest difference between a spec's rule and its upstream, over steps and streams."""
    spec = next(spec for spec in SPECS if spec.id == spec_id)
    ours = [train(KNOWN[spec.rule], spec, as_seen_by(spec, stream)) for stream in streams()]
    return max(difference(a, b) for a, b in zip(ours, upstream(spec), strict=True))


@contextmanager
def _torch_as_upstream_runs(lift_bfloat16: bool) -> Iterator[Any]:
    """torch with float64 as its default dtype, and with casts to bfloat16 undone if asked for."""
    import torch

    default, cast = torch.get_default_dtype(), torch.Tensor.bfloat16
    torch.set_default_dtype(torch.float64)
    try:
        if lift_bfloat16:
            torch.Tensor.bfloat16 = lambda self: self  # type: ignore[assignment,method-assign]
        yield torch
    finally:
        torch.Tensor.bfloat16 = cast  # type: ignore[method-assign]
        torch.set_default_dtype(default)


def _train_torch(spec: Spec, stream: Stream) -> np.ndarray:
    with _torch_as_upstream_runs(spec.lift_bfloat16) as torch:
        param = torch.nn.Parameter(torch.tensor(stream.weights))
        optimizer = getattr(torch.optim, spec.upstream.rsplit(".", 1)[1])([param], lr=spec.lr, **spec.kwargs)
        after = []
        for gradient in stream.gradients:
            param.grad = torch.tensor(gradient)
            optimizer.step()
            after.append(param.detach().numpy().copy())
    return np.stack(after)
