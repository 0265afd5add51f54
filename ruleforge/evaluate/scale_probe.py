"""Whether a rule's direction depends on how large gradients are, or only its size does."""

from __future__ import annotations

from typing import Final

import numpy as np

from ruleforge.core.rule import Rule
from ruleforge.evaluate.answers import LAYOUT, answers

STEPS: Final = 8
SCALES: Final = (1.0, 1e-3, 1e3)
SAME: Final = 0.98
"""Cosine from which on two answers point the same way: an eps may turn them a little."""


def turning(rule: Rule) -> float:
    """The least cosine between a rule's updates and those on gradients a thousand times as large, or small.

    1 for a rule whose update has a degree in the gradient, as those of SGD, Adam and Lion have: then the
    scale of the loss is a factor of the learning rate, or nothing. Updates of all tensors and steps are one
    vector, so tensors whose updates grow at different rates turn it too. 0 where one is not finite or zero.
    """
    rng = np.random.Generator(np.random.PCG64(1610))
    grads = rng.standard_normal((STEPS, 1, LAYOUT.n_weights)) * np.array(SCALES)[:, None]
    weights = rng.standard_normal((STEPS, 1, LAYOUT.n_weights)).repeat(len(SCALES), 1)
    given = answers(rule, grads, weights, [(t + 1) / STEPS for t in range(STEPS)])
    with np.errstate(all="ignore"):
        each = given.swapaxes(0, 1).reshape(len(SCALES), -1)
        plain, *others = each / np.linalg.norm(each, axis=1, keepdims=True)
        found = min(float(plain @ other) for other in others)
    return found if np.isfinite(found) else 0.0
