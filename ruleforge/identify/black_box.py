"""A torch optimizer as a black box: its updates along designed streams, and what probing it shows.

The optimizer runs in a child process with a time limit, so that one that hangs or kills its process is an
answer too. It is fed float64 tensors; weights are set before each step, so that the streams stay what
they are; the stream with the smallest gradients has weights of 0, where a small step can be seen.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ruleforge.errors import InputError, RunError
from ruleforge.explain.traces import Array, Inputs, Traces, make_inputs
from ruleforge.identify.child import main
from ruleforge.records import Json

FRESH_SEED = 1
NEAR = 1e-6


@dataclass(frozen=True)
class Seen:
    """What probing an optimizer shows, before anything is fitted.

    Attributes:
        name: of the class.
        lr: learning rate that its parameter group holds; 1 where it holds none.
        states: tensors that it keeps for a (4, 3) parameter, with their shapes.
        is_random: whether two runs from other seeds differ.
        needs_closure: whether `step()` refuses to work without a closure.
        is_elementwise: whether an element's update depends on no other element.
        reads_weights: whether weights change the update.
        decay: decoupled weight decay, as a multiple of the weights, where that is all they do.
        scale_degree: k with update(100·g) = 100^k · update(g), or None.
        is_odd: whether −g gives the update turned round.
        is_finite: share of finite updates.
    """

    name: str
    lr: float
    states: dict[str, list[int]]
    is_random: bool
    needs_closure: bool
    is_elementwise: bool
    reads_weights: bool
    decay: float | None
    scale_degree: float | None
    is_odd: bool
    is_finite: float

    @property
    def factored(self) -> list[str]:
        """States that are neither numbers nor shaped like the parameter."""
        return [name for name, shape in self.states.items() if shape not in ([], [1], [4, 3])]

    def as_json(self) -> dict[str, Json]:
        return {
            "class": self.name, "lr": self.lr, "states": {k: list(v) for k, v in self.states.items()},
            "random": self.is_random, "needs_closure": self.needs_closure, "elementwise": self.is_elementwise,
            "reads_weights": self.reads_weights, "decay": self.decay, "scale_degree": self.scale_degree,
            "odd": self.is_odd, "finite": self.is_finite,
        }  # fmt: skip


@dataclass(frozen=True)
class BlackBox:
    """An optimizer that was probed: traces to fit, traces to confirm with, and what was seen."""

    traces: Traces
    fresh: Traces
    seen: Seen


def streams(seed: int, lr: float) -> Inputs:
    """The streams, with weights of 0 where gradients are tiny."""
    plain = make_inputs(seed)
    weights = plain.weights.copy()
    weights[plain.names.index("scales")] = 0.0
    return Inputs(plain.names, plain.grads, weights, lr)


def probe(where: str, kwargs: dict[str, Any] | None = None, *, time_limit_s: float = 60.0) -> BlackBox:
    """Run an optimizer along the streams. This executes the file that holds it.

    Args:
        where: `path/to/file.py:Class` or `package.module:Class`.
        kwargs: arguments of the class besides the parameters.
        time_limit_s: for everything together.

    Raises:
        InputError: there is no such file, or the optimizer raises; with its own message.
        RunError: it ran past the time limit, or ended its process.
    """
    check_place(where)
    first, fresh = streams(0, 1.0), streams(FRESH_SEED, 1.0)
    g, w = first.grads, first.weights
    s = len(first.names)
    one = g.copy()
    one[0, :, 0] *= -3.0  # one element of one stream moves; do others?
    blocks = {
        "traces": (g, w),
        "fresh": (fresh.grads, fresh.weights),
        "scaled": (100 * g[[0, 2]], w[[0, 2]]),
        "turned": (-g[[0, 2]], -w[[0, 2]]),
        "elsewhere": (g[[0, 2]], w[[0, 2]] + 0.5),
        "one": (one[:1], w[:1]),
        "again": (g[:1], w[:1]),
    }
    grads = np.concatenate([block[0] for block in blocks.values()])
    weights = np.concatenate([block[1] for block in blocks.values()])
    seeds = np.zeros(len(grads), int)
    seeds[-1] = 7
    updates, told = _ask(where, kwargs or {}, grads, weights, seeds, time_limit_s)
    parts: dict[str, Array] = {}
    start = 0
    for key, (block, _) in blocks.items():
        parts[key] = updates[start : start + len(block)]
        start += len(block)
    base = parts["traces"]
    if not np.isfinite(base).mean() > 0.2:
        raise InputError("its updates are not finite on most of the streams", file=where)
    if not np.nan_to_num(base).any():
        raise InputError("it does not move the weights", file=where, hint="is its lr 0?")
    lr = float(told["lr"])
    seen = Seen(
        str(told["name"]), lr, dict(told["states"]),
        is_random=not _alike(parts["again"], base[:1]),
        needs_closure=bool(told["closure"]),
        is_elementwise=_alike(parts["one"][:, :, 1:], base[:1, :, 1:]),
        reads_weights=not _alike(parts["elsewhere"], base[[0, 2]]),
        decay=_decay(parts["elsewhere"] - base[[0, 2]]),
        scale_degree=_degree(base[[0, 2]], parts["scaled"]),
        is_odd=_alike(parts["turned"], -base[[0, 2]]),
        is_finite=float(np.isfinite(base).mean()),
    )  # fmt: skip
    assert s == len(base)
    return BlackBox(Traces(streams(0, lr), base), Traces(streams(FRESH_SEED, lr), parts["fresh"]), seen)


def check_place(where: str) -> None:
    """Refuse what cannot name a class, before anything is run.

    Raises:
        InputError: no class is named, or there is no such file.
    """
    place, _, name = where.rpartition(":")
    if not place or not name.isidentifier():
        raise InputError(f"{where!r} names no class", hint="write path/to/file.py:Class")
    if place.endswith(".py") and not Path(place).is_file():
        raise InputError("there is no such file", file=place)


def _alike(a: Array, b: Array) -> bool:
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return True
    size = float(np.sqrt(np.mean(np.square(b[both])))) or 1.0
    return bool(np.abs(a[both] - b[both]).max() <= NEAR * size)


def _decay(change: Array) -> float | None:
    """Weights moved by 0.5: what that adds to the update, if it is one number everywhere."""
    seen = change[np.isfinite(change)] / 0.5
    if not seen.size or np.abs(seen - np.median(seen)).max() > 1e-6 * max(1e-3, abs(float(np.median(seen)))):
        return None
    return float(np.median(seen))


def _degree(plain: Array, scaled: Array) -> float | None:
    both = np.isfinite(plain) & np.isfinite(scaled)
    a, b = plain[both], scaled[both]
    size_a, size_b = (float(np.sqrt(np.mean(np.square(x)))) for x in (a, b))
    if not (size_a > 0 and size_b > 0):
        return None
    k = float(np.log(size_b / size_a) / np.log(100.0))
    k = round(k) if abs(k - round(k)) < 0.01 else k
    apart = np.sqrt(np.mean(np.square(b - a * 100.0**k))) / size_b
    return k if apart < 1e-3 else None


def _ask(
    where: str, kwargs: dict[str, Any], grads: Array, weights: Array, seeds: Any, time_limit_s: float
) -> tuple[Array, dict[str, Any]]:
    import_module("torch._dynamo")  # every torch optimizer asks for it; once here, not in every child
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "request.npz", Path(folder) / "answer.npz"
        np.savez(
            request,
            where=where,
            kwargs=json.dumps(kwargs),
            grads=grads,
            weights=weights,
            seeds=np.asarray(seeds),
        )
        # A fork has torch loaded already; a fresh interpreter would spend seconds on importing it.
        child = get_context("fork").Process(target=main, args=(str(request), str(answer)), daemon=True)
        child.start()
        child.join(time_limit_s)
        if child.is_alive():
            child.kill()
            child.join()
            raise RunError(
                f"it did not finish within {time_limit_s:g} s",
                file=where,
                hint="it is run for some hundred steps on 17 numbers; --time-limit gives it more",
            )
        if not answer.is_file():
            raise RunError(f"it ended its process, with code {child.exitcode}", file=where)
        with np.load(answer, allow_pickle=False) as found:
            error = str(found["error"])
            if error:
                raise InputError(error, file=where, hint=_hint(error))
            return np.asarray(found["updates"]), json.loads(str(found["seen"]))


def _hint(error: str) -> str:
    if "SyntaxError" in error or "is no optimizer" in error:
        return "name a class of a Python file that is a torch.optim.Optimizer"
    if "argument" in error:
        return "give its arguments as --kwargs '{\"name\": value}'"
    if "has no class" in error:
        return "is the class's name right?"
    return "it is fed a (4, 3) and a (5,) parameter in float64"
