"""Cheap looks at a rule before it is trained: its behaviour, its scale, whether it descends.

A fingerprint is what a rule answers to fixed gradient streams over several steps, divided by its
own size (lr is tuned, so a positive factor is no difference, unless the rule reads the weights or
lr). Rules with one fingerprint behave alike, however they are written.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ruleforge.backends import load_plane
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.backends.numpy_block import NumpyBlock
from ruleforge.core.program import Program
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
def _silent_streams() -> tuple[Array, Array]:
    """Gradients and weights, (S, T, P) each; every gradient is 0 at the first steps, or later for a while."""
    grads, weights = (each[:2].copy() for each in _streams())
    grads[0, :2] = grads[1, 5:8] = 0.0
    return grads, weights


@lru_cache(maxsize=1)
def _all_streams() -> tuple[Array, Array]:
    """The streams of a fingerprint, and behind them those without a gradient."""
    grads, weights = (np.concatenate(pair) for pair in zip(_streams(), _silent_streams(), strict=True))
    return grads, weights


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


def probe(texts: Sequence[str], plane: str = "torch") -> list[ProbeResult]:
    """Fingerprint rules and refuse those that cannot work: a function of each text and the plane alone."""
    rules = [compiled(text) for text in texts]
    with training_thread():
        seen = [_look(rule) for rule in rules]
        results = [result for result, _ in seen]
        alive = [i for i, result in enumerate(results) if not result.reason]
        falls = _descends([rules[i] for i in alive], [seen[i][1] for i in alive], plane)
    for i, descends in zip(alive, falls, strict=True):
        if not descends:
            results[i] = ProbeResult(results[i].fingerprint, "does not descend on a quadratic at any lr")
    return results


def probe_on_numba(texts: Sequence[str]) -> list[ProbeResult]:
    """`probe` on numba's plane, as a function that can be sent by name."""
    return probe(texts, "numba")


def fingerprints(texts: Sequence[str]) -> list[ProbeResult]:
    """What `probe` sees, without asking whether the rules descend."""
    return [fingerprint_variants(text, [compiled(text).defaults])[0] for text in texts]


def fingerprint_variants(text: str, variants: Sequence[Sequence[float]]) -> list[ProbeResult]:
    """What `fingerprints` sees of one rule with other hyperparameters, all at once.

    Args:
        text: a rule.
        variants: hyperparameters, in the canonical rule's order.
    """
    rule = compiled(text)
    hypers = np.asarray(variants, float).reshape(len(variants), len(rule.defaults))
    with training_thread():
        answers = _answer(rule.program, hypers, *_streams())
    return [_fingerprint(answer, rule.reads_scale) for answer in answers]


def _look(rule: Compiled) -> tuple[ProbeResult, float]:
    """A rule's fingerprint, or why it is refused, and the RMS of its answer to plain noise.

    Refused is also what does not stay finite where a whole tensor's gradient is 0, as in an unused layer.
    """
    (answer,) = _answer(rule.program, np.asarray(rule.defaults, float)[None], *_all_streams())
    heard, silent = np.split(answer, [len(_streams()[0])])
    result = _fingerprint(heard, rule.reads_scale)
    if not result.reason and not np.isfinite(silent).all():
        result = ProbeResult((), "non-finite update where a tensor's gradient is 0")
    return result, _rms(heard[0])


def _fingerprint(answer: Array, fixed: bool) -> ProbeResult:
    """The fingerprint of an answer to the streams, (S, T, P); `fixed` says that its scale matters."""
    size = _rms(answer)
    if not np.isfinite(size):
        return ProbeResult((), "non-finite update on the probe streams")
    if size < 1e-30 or np.ptp(answer) <= 1e-12 * size:
        return ProbeResult((), "the update is zero or constant on the probe streams")
    scaled = answer if fixed else answer / size
    return ProbeResult(tuple((scaled.reshape(-1) @ _projection()).tolist()), "")


def _rms(values: Array) -> float:
    """Root mean square; not finite where a value, or its square, is not."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(np.mean(np.square(values))))


def _answer(program: Program, hypers: Array, grads: Array, weights: Array) -> Array:
    """Updates of variants of one program on streams, (V, S, T, P), float64.

    Args:
        program: compiled rule.
        hypers: hyperparameters of each variant, (V, n_hypers).
        grads, weights: the streams, (S, T, P) each.
    """
    n_variants, n_streams = len(hypers), len(grads)
    lr = np.full(n_variants * n_streams, PROBE_LR)
    block = NumpyBlock(program, LAYOUT, hypers.repeat(n_streams, 0).T, lr)
    out = np.empty((len(lr), STEPS, LAYOUT.n_weights))
    w, g = (np.tile(each, (n_variants, 1, 1)) for each in (weights, grads))
    with np.errstate(all="ignore"):
        for t in range(STEPS):
            out[:, t] = block.step(w[:, t], g[:, t], t=t + 1, lr=lr, progress=(t + 1) / STEPS)
    return out.reshape(n_variants, n_streams, STEPS, -1)


@lru_cache(maxsize=1)
def _quadratic() -> tuple[Layout, Array, Array, Array]:
    """Layout, curvature (P,), start (P,) and gradient noise (T, P)."""
    layout = Layout(("matrix", "vector"), ((4, 3), (4,)))
    rng = np.random.Generator(np.random.PCG64(1951))
    curvature = np.logspace(0, 1.3, layout.n_weights)
    start = rng.standard_normal(layout.n_weights)
    return layout, curvature, start, 0.1 * rng.standard_normal((QUADRATIC_STEPS, layout.n_weights))


def _descends(rules: Sequence[Compiled], sizes: Sequence[float], plane: str) -> list[bool]:
    """Whether each rule, at some lr, lowers a noisy quadratic from a point and from its mirror image.

    On numba's plane all rules together, in the float32 of training, for which its kernel is compiled
    already; otherwise one after another in float64.
    """
    run = _descent_together if plane == "numba" else _descent_alone
    _, curvature, start, _ = _quadratic()
    n_lrs = len(QUADRATIC_LRS)
    lr0 = np.tile(QUADRATIC_LRS, 2) / np.maximum(sizes, 1e-30)[:, None]
    with np.errstate(all="ignore"):
        w = (
            run(rules, lr0, np.stack([start, -start]).repeat(n_lrs, 0))
            if rules
            else np.zeros((0, len(start)))
        )
        losses = (curvature * w * w).sum(1) / (curvature * start * start).sum()
    worst = np.where(np.isnan(losses), np.inf, losses).reshape(len(rules), 2, n_lrs).max(1)
    return [bool(value < DESCENT) for value in worst.min(1)]


def _descent_alone(rules: Sequence[Compiled], lr0: Array, start: Array) -> Array:
    """Weights after the descent, (C·L, P), float64.

    Args:
        rules: compiled.
        lr0: initial learning rates, (C, L).
        start: weights of each rule's lanes, (L, P).
    """
    layout, curvature, _, noise = _quadratic()
    found = []
    for rule, rates in zip(rules, lr0, strict=True):
        hypers = np.asarray(rule.defaults, float)[:, None].repeat(len(rates), 1)
        block = NumpyBlock(rule.program, layout, hypers, rates)
        w = start
        for t, share, progress in _quadratic_steps():
            lr = rates * share
            update = block.step(w, curvature * w + noise[t], t=t + 1, lr=lr, progress=progress)
            w = w - lr[:, None] * update
        found.append(w)
    return np.concatenate(found)


def _descent_together(rules: Sequence[Compiled], lr0: Array, start: Array) -> Array:
    """`_descent_alone` on numba's plane in float32."""
    layout, curvature, _, noise = _quadratic()
    rates = lr0.reshape(-1)
    lanes = load_plane("numba")(_groups(rules, len(start)), layout, rates, torch.float32)
    w = torch.from_numpy(np.tile(start.astype(np.float32), (len(rules), 1)))
    bend, shaken = (torch.from_numpy(each.astype(np.float32)) for each in (curvature, noise))
    for t, share, progress in _quadratic_steps():
        lanes.step(w, bend * w + shaken[t], t=t + 1, lr=rates * share, progress=progress)
    return np.asarray(w.double().numpy())


def _quadratic_steps() -> Iterator[tuple[int, float, float]]:
    """Step from 0, share of the initial lr, progress."""
    for t in range(QUADRATIC_STEPS):
        progress = (t + 1) / QUADRATIC_STEPS
        yield t, 1.0 - progress + 0.1, progress


def _groups(rules: Sequence[Compiled], n_lanes: int) -> list[LaneGroup]:
    return [
        LaneGroup(rule.program, n_lanes, np.asarray(rule.defaults, float)[:, None].repeat(n_lanes, 1))
        for rule in rules
    ]


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
    from ruleforge.evaluate.gradients import eager_plane, flatten, layout_of

    data = workload.data(WALK_SEED, WALK_STEPS)
    layout = layout_of(data.params)
    plane = eager_plane(workload, layout)
    w = flatten(data.params)[None]
    weights, grads = [], []
    for t in range(WALK_STEPS):
        _, g = plane.step(w, tuple(column[t] for column in data.batches), t + 1)
        weights.append(w[0].clone())
        grads.append(g[0])
        w = w - WALK_RATE * g / g.square().mean().sqrt().clamp(min=1e-30)
    return layout, torch.stack(weights), torch.stack(grads)


def update_scales(workload: Workload, texts: Sequence[str], plane: str = "torch") -> list[float]:
    """RMS of each rule's update on a workload's own gradients, the unit of one over lr.

    Median over the second half of the walk; 1 where a rule does not answer with finite numbers.

    Args:
        workload: where.
        texts: rules; those not asked for before are measured together, a lane each.
        plane: update plane that measures, the recorded plan's: another one gives other last bits.
    """
    known = _scales(workload, plane)
    if len(known) + len(texts) > SCALES_KEPT:
        known.clear()
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    for start in range(0, len(missing), SCALE_BATCH):
        batch = missing[start : start + SCALE_BATCH]
        known.update(zip(batch, _measured_scales(workload, batch, plane), strict=True))
    return [known[text] for text in texts]


@lru_cache(maxsize=64)
def _scales(workload: Workload, plane: str) -> dict[str, float]:
    """What is known in this process."""
    return {}


def _measured_scales(workload: Workload, texts: Sequence[str], plane: str) -> list[float]:
    layout, weights, grads = walk(workload)
    n = len(texts)
    lr = np.full(n, PROBE_LR)
    lanes = load_plane(plane)(_groups([compiled(text) for text in texts], 1), layout, lr, torch.float32)
    sizes = []
    device = getattr(lanes, "device", torch.device("cpu"))
    weights, grads, u = weights.to(device), grads.to(device), torch.empty(n, layout.n_weights, device=device)
    for t in range(WALK_STEPS):
        w, g = weights[t].repeat(n, 1), grads[t].repeat(n, 1)
        lanes.step(w, g, t=t + 1, lr=lr, progress=1.0, updates=u)
        if t >= WALK_STEPS // 2:
            sizes.append(np.sqrt(np.square(u.cpu().numpy(), dtype=np.float64).mean(1)))
    found = np.median(sizes, axis=0)
    return [float(size) if np.isfinite(size) and size > 1e-30 else 1.0 for size in found]
