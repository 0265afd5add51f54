"""What a rule answers to given gradients, in float64: the loop of the probes that ask one question.

`probes` has a loop of its own, for its source is part of what tuned baselines are kept under.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends.base import Layout
from ruleforge.backends.numpy_block import NumpyBlock
from ruleforge.core.program import compile_rule
from ruleforge.core.rule import Rule

LAYOUT: Final = Layout(("matrix", "vector"), ((4, 3), (5,)))
LR: Final = 1e-3


def answers(
    rule: Rule, grads: NDArray[np.float64], weights: NDArray[np.float64], progress: Sequence[float]
) -> NDArray[np.float64]:
    """Updates at the rule's defaults, (T, L, P); not finite where the rule is not.

    Args:
        rule: any.
        grads, weights: at each step, a lane a stream, (T, L, P) in `LAYOUT`.
        progress: at each step, (T,).
    """
    n_lanes = grads.shape[1]
    lr = np.full(n_lanes, LR)
    hypers = np.array([rule.canonical.defaults]).T.repeat(n_lanes, 1)
    block = NumpyBlock(compile_rule(rule), LAYOUT, hypers, lr)
    with np.errstate(all="ignore"):
        return np.stack(
            [
                block.step(w, g, t=t, lr=lr, progress=share)
                for t, (g, w, share) in enumerate(zip(grads, weights, progress, strict=True), start=1)
            ]
        )
