"""Which rules share a niche: those that answer nearly alike on the probes, however they are written.

A rule with another constant, another eps or a term that hardly matters is the same idea once more. Such
siblings are the cheapest way to draw luck again, and would fill a population.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REACH = 0.1
"""Distance from the founder's fingerprint, both at length 1. In a default run siblings of one rule lay within
0.03 of each other, other exponents and betas from 0.13 on."""


class Niches:
    """Each fingerprint belongs to the first niche whose founder is near, or founds one; so order matters, and
    candidates come in the order of their numbers."""

    def __init__(self) -> None:
        self._founders: list[int] = []
        self._directions: NDArray[np.float64] = np.empty((0, 0))
        self._of: dict[int, int] = {}

    def add(self, number: int, fingerprint: Sequence[float]) -> None:
        """Give a candidate its niche."""
        direction = np.asarray(fingerprint, dtype=np.float64)
        direction = direction / max(float(np.linalg.norm(direction)), np.finfo(np.float64).tiny)
        known = self._directions if self._founders else np.empty((0, len(direction)))
        near = np.flatnonzero(np.linalg.norm(known - direction, axis=1) <= REACH)
        if near.size:
            self._of[number] = self._founders[near[0]]
        else:
            self._of[number] = number
            self._founders.append(number)
            self._directions = np.vstack([known, direction])

    def of(self, number: int) -> str:
        """The number of its niche's founder as text; "" for a candidate without a fingerprint."""
        return str(self._of.get(number, ""))
