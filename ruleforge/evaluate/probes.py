"""Cheap looks at a rule before it is trained: its behaviour, its scale, whether it descends.

A fingerprint is what a rule answers to fixed gradient streams over several steps, divided by its
own size (lr is tuned, so a positive factor is no difference, unless the rule reads the weights or
lr). Rules with one fingerprint behave alike, however they are written.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ruleforge.backends import load_plane
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.backends.torch_lanes import TorchLanes
from ruleforge.evaluate.compiled import Compiled, compiled
from ruleforge.evaluate.threads import training_thread
from ruleforge.tasks import Workload

Array = NDArray[np.float64]

STEPS = 12
LAYOUT = Layout(("matrix", "vector"), ((4, 3), (5,)))
TOLERANCE = 1e-6
N_PROJECTIONS = 32
PROBE_LR = 1e-3
WALK_STEPS = 16
WALK_SEED = 10**6
WALK_RATE = 3e-3
QUADRATIC_STEPS = 40
QUADRATIC_LRS = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
DESCENT = 0.9
SCALE_BATCH = 64
SCALES_KEPT = 16384


@lru_cache(maxsize=1)
def _streams() -> tuple[Array, Array]:
    """Gradients and weights, (S, T, P) each: noise, small noise, sparse, drifting with sign flips."""
    rng = np.random.Generator(np.random.PCG64(20170923))
    p = LAYOUT.n_weights
    noise = rng.standard_normal((4, STEPS, p))
    noise[1] *= 1e-3
    noise[2] *= np.exp(2.0 * rng.standard_normal(p)) * (rng.random((STEPS, p)) > 0.4)
    noise[3] = (
        0.5 * noise[3] + rng.standard_normal(p) * np.where(np.arange(STEPS) % 6 < 4, 1.0, -0.5)[:, None]
    )
    return noise, rng.standard_normal((4, STEPS, p))


@lru_cache(maxsize=1)
def _projection() -> Array:
    rng = np.random.Generator(np.random.PCG64(14126980))
    made = rng.standard_normal((4 * STEPS * LAYOUT.n_weights, N_PROJECTIONS))
    return np.asarray(made / np.sqrt(made.shape[0]))


@dataclass(frozen=True)
class ProbeResult:
    """What the probes saw.

    Attributes:
        fingerprint: (32,) projections of the scale-normalised answer, or () if it was refused.
        reason: why the rule is not worth training, or "".
    """

    fingerprint: tuple[float, ...]
    reason: str


def probe(texts: Sequence[str]) -> list[ProbeResult]:
    """Fingerprint rules and refuse those that cannot work: a function of each text alone."""
    with training_thread():
        rules = [compiled(text) for text in texts]
        results, sizes = _fingerprints(rules)
        alive = [i for i, result in enumerate(results) if not result.reason]
        falls = _descends([rules[i] for i in alive], [sizes[i] for i in alive])
    for i, descends in zip(alive, falls, strict=True):
        if not descends:
            results[i] = ProbeResult(results[i].fingerprint, "does not descend on a quadratic at any lr")
    return results


def fingerprints(texts: Sequence[str]) -> list[ProbeResult]:
    """What `probe` sees, without asking whether the rules descend."""
    with training_thread():
        return _fingerprints([compiled(text) for text in texts])[0]


def _fingerprints(rules: Sequence[Compiled]) -> tuple[list[ProbeResult], list[float]]:
    """Fingerprints, and the RMS of each rule's answer to plain noise."""
    results, sizes = [], []
    for rule, answer in zip(rules, _answers(rules), strict=True):
        size = _rms(answer)
        sizes.append(_rms(answer[0]))
        if not np.isfinite(size):
            results.append(ProbeResult((), "non-finite update on the probe streams"))
        elif size < 1e-30 or np.ptp(answer) <= 1e-12 * size:
            results.append(ProbeResult((), "the update is zero or constant on the probe streams"))
        else:
            fixed = rule.reads_scale
            scaled = answer if fixed else answer / size
            results.append(ProbeResult(tuple(float(v) for v in scaled.reshape(-1) @ _projection()), ""))
    return results, sizes


def _rms(values: Array) -> float:
    """Root mean square; not finite where a value, or its square, is not."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(np.mean(np.square(values))))


def _groups(rules: Sequence[Compiled], n_lanes: int) -> list[LaneGroup]:
    return [
        LaneGroup(rule.program, n_lanes, np.repeat(np.asarray(rule.defaults, float)[:, None], n_lanes, 1))
        for rule in rules
    ]


def _answers(rules: Sequence[Compiled]) -> list[Array]:
    """Updates of each rule on the streams, (S, T, P) each, float64."""
    if not rules:
        return []
    grads, weights = _streams()
    n = len(rules)
    lanes = TorchLanes(_groups(rules, len(grads)), LAYOUT, np.full(4 * n, PROBE_LR), torch.float64)
    out = np.empty((4 * n, STEPS, LAYOUT.n_weights))
    lr = np.full(4 * n, PROBE_LR)
    for t in range(STEPS):
        w = torch.from_numpy(np.tile(weights[:, t], (n, 1)))
        g = torch.from_numpy(np.tile(grads[:, t], (n, 1)))
        u = torch.empty_like(w)
        lanes.step(w, g, t=t + 1, lr=lr, progress=(t + 1) / STEPS, updates=u)
        out[:, t] = u.numpy()
    return [out[4 * i : 4 * i + 4] for i in range(n)]


def _descends(rules: Sequence[Compiled], sizes: Sequence[float]) -> list[bool]:
    """Whether each rule, at some lr, lowers a noisy quadratic from a point and from its mirror image."""
    if not rules:
        return []
    k = len(QUADRATIC_LRS)
    layout = Layout(("matrix", "vector"), ((4, 3), (4,)))
    rng = np.random.Generator(np.random.PCG64(1951))
    curvature = torch.from_numpy(np.logspace(0, 1.3, layout.n_weights))
    start = torch.from_numpy(rng.standard_normal(layout.n_weights))
    noise = torch.from_numpy(0.1 * rng.standard_normal((QUADRATIC_STEPS, layout.n_weights)))
    lr = np.concatenate([np.tile(QUADRATIC_LRS, 2) / max(size, 1e-30) for size in sizes])
    lanes = TorchLanes(_groups(rules, 2 * k), layout, lr, torch.float64)
    w = torch.stack([start, -start]).repeat_interleave(k, 0).repeat(len(rules), 1)
    for t in range(QUADRATIC_STEPS):
        progress = (t + 1) / QUADRATIC_STEPS
        lanes.step(w, curvature * w + noise[t], t=t + 1, lr=lr * (1.0 - progress + 0.1), progress=progress)
    losses = (curvature * w.square()).sum(1) / (curvature * start.square()).sum()
    worst = torch.nan_to_num(losses, nan=torch.inf).reshape(len(rules), 2, k).amax(1)
    return [bool(value < DESCENT) for value in worst.amin(1)]


class Behaviours:
    """Fingerprints seen so far, compared within a tolerance."""

    def __init__(self) -> None:
        self._order: list[tuple[float, int]] = []
        self._known: dict[int, Array] = {}

    def twin(self, fingerprint: Sequence[float]) -> int | None:
        """Number of the earliest rule that behaves alike, or None."""
        mine = np.asarray(fingerprint)
        reach = TOLERANCE * max(1.0, float(np.abs(mine).max()))
        found = []
        place = bisect_left(self._order, (mine[0] - reach, -1))
        while place < len(self._order) and self._order[place][0] <= mine[0] + reach:
            number = self._order[place][1]
            if np.abs(self._known[number] - mine).max() <= reach:
                found.append(number)
            place += 1
        return min(found, default=None)

    def add(self, number: int, fingerprint: Sequence[float]) -> None:
        self._known[number] = np.asarray(fingerprint)
        insort(self._order, (float(fingerprint[0]), number))


@lru_cache(maxsize=32)
def walk(workload: Workload) -> tuple[Layout, torch.Tensor, torch.Tensor]:
    """Weights and gradients along a plain descent on a workload, (T, P) each: what a rule will meet."""
    from ruleforge.evaluate.gradients import GradientPlane, flatten, layout_of

    data = workload.data(WALK_SEED, WALK_STEPS)
    layout = layout_of(data.params)
    plane = GradientPlane(workload.task, layout)
    w = flatten(data.params)[None]
    weights, grads = [], []
    for t in range(WALK_STEPS):
        g = torch.empty_like(w)
        plane.step(w, tuple(column[t] for column in data.batches), t + 1, g)
        weights.append(w[0].clone())
        grads.append(g[0])
        w = w - WALK_RATE * g / g.square().mean().sqrt().clamp(min=1e-30)
    return layout, torch.stack(weights), torch.stack(grads)


def update_scale(workload: Workload, text: str, plane: str = "torch") -> float:
    """`update_scales` of one rule."""
    return update_scales(workload, [text], plane)[0]


def update_scales(workload: Workload, texts: Sequence[str], plane: str = "torch") -> list[float]:
    """RMS of each rule's update on a workload's own gradients, the unit of one over lr.

    Median over the second half of the walk; 1 where a rule does not answer with finite numbers.

    Args:
        workload: where.
        texts: rules; those not asked for before are measured together, a lane each.
        plane: update plane that measures, the recorded plan's: another one gives other last bits.
    """
    known = _scales(workload, plane)
    found = {text: known.get(text) for text in texts}
    missing = [text for text, size in found.items() if size is None]
    for start in range(0, len(missing), SCALE_BATCH):
        batch = missing[start : start + SCALE_BATCH]
        found.update(zip(batch, _measured_scales(workload, batch, plane), strict=True))
    if len(known) + len(missing) > SCALES_KEPT:
        known.clear()
    known.update((text, found[text]) for text in missing)
    return [size for text in texts if (size := found[text]) is not None]


@lru_cache(maxsize=64)
def _scales(workload: Workload, plane: str) -> dict[str, float | None]:
    """What is known in this process."""
    return {}


def _measured_scales(workload: Workload, texts: Sequence[str], plane: str) -> list[float]:
    layout, weights, grads = walk(workload)
    n = len(texts)
    lr = np.full(n, PROBE_LR)
    lanes = load_plane(plane)(_groups([compiled(text) for text in texts], 1), layout, lr, torch.float32)
    sizes = []
    u = torch.empty(n, layout.n_weights)
    for t in range(WALK_STEPS):
        w, g = weights[t].repeat(n, 1), grads[t].repeat(n, 1)
        lanes.step(w, g, t=t + 1, lr=lr, progress=1.0, updates=u)
        if t >= WALK_STEPS // 2:
            sizes.append(np.sqrt(np.square(u.numpy(), dtype=np.float64).mean(1)))
    found = np.median(sizes, axis=0)
    return [float(size) if np.isfinite(size) and size > 1e-30 else 1.0 for size in found]
