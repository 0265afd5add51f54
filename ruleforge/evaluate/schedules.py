"""Learning-rate schedules: the factor on lr as a function of progress in (0, 1].

Every rule and every baseline is offered the same ones; none belongs to a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable

WARMUP = 0.1

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "warmup_cosine": lambda progress: (
        progress / WARMUP
        if progress < WARMUP
        else 0.5 * (1.0 + math.cos(math.pi * (progress - WARMUP) / (1.0 - WARMUP)))
    ),
}


def factor(name: str, t: int, n_steps: int) -> float:
    """The schedule's factor at step `t` of `n_steps`; the last step still moves."""
    progress = (t - 1) / n_steps if name != "warmup_cosine" else t / (n_steps + 1)
    return SCHEDULES[name](progress)
