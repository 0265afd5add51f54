"""Whether a rule's direction depends on how large gradients are, or only its size does."""

from __future__ import annotations

from typing import Final

import numpy as np

from ruleforge.backends.base import Layout
from ruleforge.backends.numpy_block import NumpyBlock
from ruleforge.core.program import compile_rule
from ruleforge.core.rule import Rule

STEPS: Final = 8
SCALES: Final = (1e-3, 1.0, 1e3)
LAYOUT: Final = Layout(("matrix", "vector"), ((4, 3), (5,)))
SAME: Final = 0.98
"""Cosine from which on two answers point the same way: an eps may turn them a little."""


def turning(rule: Rule) -> float:
    """The least cosine between a rule's updates and those on gradients a thousand times as large, or small.

    1 for a rule whose update has a degree in the gradient, as those of SGD, Adam and Lion have: then the
    scale of the loss is a factor of the learning rate, or nothing. Updates of all tensors and steps are one
    vector, so tensors whose updates grow at different rates turn it too. 0 where one is not finite or zero.
    """
    rng = np.random.Generator(np.random.PCG64(1610))
    grads = rng.standard_normal((STEPS, 1, LAYOUT.n_weights))
    weights = rng.standard_normal((STEPS, 1, LAYOUT.n_weights))
    program, hypers = compile_rule(rule), np.array([rule.canonical.defaults]).T
    answers = []
    with np.errstate(all="ignore"):
        for scale in SCALES:
            block = NumpyBlock(program, LAYOUT, hypers, np.array([1e-3]))
            steps = [
                block.step(
                    weights[t], scale * grads[t], t=t + 1, lr=np.array([1e-3]), progress=(t + 1) / STEPS
                )
                for t in range(STEPS)
            ]
            answer = np.concatenate(steps).reshape(-1)
            answers.append(answer / np.linalg.norm(answer))
        found = min(float(answers[1] @ answers[0]), float(answers[1] @ answers[2]))
    return found if np.isfinite(found) else 0.0
