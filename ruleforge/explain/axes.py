"""The coordinates of a fit: each hyperparameter on the scale on which it is tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ruleforge.core.rule import Hyper
from ruleforge.explain.traces import Array

LEAST_EPS = 1e-17


@dataclass(frozen=True)
class Axis:
    """One hyperparameter of a fit, seen on its scale."""

    hyper: Hyper

    @property
    def scale(self) -> str:
        """A wide linear range that starts at 0 is looked through on a log scale."""
        h = self.hyper
        wide = h.scale == "linear" and h.low >= 0 and h.high - h.low > 2
        return "wide" if wide else h.scale

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest coordinate."""
        h = self.hyper
        if h.scale == "one_minus_log":
            return math.log10(max(1 - h.high, 1e-5)), math.log10(1 - max(h.low, 0.0) - 1e-12)
        if self.scale == "log":
            return math.log10(max(h.low, LEAST_EPS)), math.log10(h.high)
        if self.scale == "wide":
            return math.log10(max(h.low, 1e-4)), math.log10(h.high)
        return h.low, h.high

    def drawn(self, rng: np.random.Generator, n: int) -> Array:
        """(n,) random coordinates; over a wide range within a factor of 30 of the default."""
        low, high = self.ends
        if self.scale != "wide":
            return rng.uniform(low, high, n)
        near = math.log10(max(abs(self.hyper.default), 0.1))
        return np.clip(near + rng.uniform(-1.5, 1.5, n), low, high)

    def to(self, value: float) -> float:
        """The coordinate of a value."""
        h = self.hyper
        if h.scale == "one_minus_log":
            return math.log10(max(1 - value, 1e-12))
        return math.log10(max(value, 1e-300)) if self.scale in ("log", "wide") else value

    def back(self, z: Array) -> Array:
        """The values at coordinates, kept strictly inside the range."""
        h = self.hyper
        low, high = self.ends
        inside = np.clip(z, low, high)
        if h.scale == "one_minus_log":
            value = 1 - 10.0**inside
        else:
            value = 10.0**inside if self.scale in ("log", "wide") else inside
        margin = 1e-12 * max(1.0, abs(h.high - h.low)) if h.scale == "linear" else 0.0
        return np.asarray(
            np.clip(value, np.nextafter(h.low, 1e300) + margin, np.nextafter(h.high, -1e300) - margin)
        )
