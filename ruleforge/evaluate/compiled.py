"""What a process keeps of a rule's text: probing, scaling and training parse and compile it once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ruleforge.backends.base import LaneGroup
from ruleforge.core.program import Program, compile_rule
from ruleforge.core.text import parse_ours


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rule as a backend runs it.

    Attributes:
        program: its program.
        defaults: hyperparameter defaults in the canonical rule's order.
        reads_scale: whether it reads the weights or lr, so that a factor of its update is no matter of lr.
    """

    program: Program
    defaults: tuple[float, ...]
    reads_scale: bool

    def lanes(self, n: int) -> LaneGroup:
        """The rule in `n` lanes, its hyperparameters at their defaults."""
        hypers = np.repeat(np.asarray(self.defaults, dtype=np.float64)[:, None], n, axis=1)
        return LaneGroup(self.program, n, hypers)


@lru_cache(maxsize=8192)
def compiled(text: str) -> Compiled:
    """Program and hyperparameter defaults of a text that `format` wrote, as all texts in jobs are."""
    rule = parse_ours(text)
    return Compiled(compile_rule(rule), rule.canonical.defaults, rule.reads("w") or rule.reads("lr"))
