"""Measured time of a rule's step on this machine: of the plane that trains, for one model alone.

A clock's reading is no part of what must repeat, so a deterministic run never takes one.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from ruleforge.backends import load_plane
from ruleforge.backends.base import Layout
from ruleforge.evaluate.compiled import compiled
from ruleforge.evaluate.threads import training_thread

LAYOUT = Layout(("matrix", "vector"), ((256, 256), (256,)))
WARM_UP = 2
REPEATS = 7


def latency_ns(text: str, plane: str) -> float:
    """Nanoseconds of one step for one weight: the shortest of a few steps, after some to warm up.

    Args:
        text: rule text.
        plane: update plane that runs it.
    """
    lr = np.array([1e-3])
    generator = torch.Generator().manual_seed(0)
    weights, grads = (torch.randn(1, LAYOUT.n_weights, generator=generator) for _ in range(2))
    shortest = float("inf")
    with training_thread():
        update = load_plane(plane)([compiled(text).lanes(1)], LAYOUT, lr, weights.dtype)
        for k in range(WARM_UP + REPEATS):
            began = time.perf_counter()
            update.step(weights, grads, t=k + 1, lr=lr, progress=0.5)
            if k >= WARM_UP:
                shortest = min(shortest, time.perf_counter() - began)
    return 1e9 * shortest / LAYOUT.n_weights
