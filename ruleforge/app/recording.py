"""What a rule does, recorded on the reference backend for the tests that go beside an exported file."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core.program import compile_rule
from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export.check_file import LR, SHAPES, Recording, number

STEPS = 20
AFTER = (1, 2, 5, 20)
FLOAT64 = 1e-12


def record(text: RuleText) -> Recording:
    """Weights after some of 20 steps, and how far apart correct programs may lie.

    That is 1e-12, or ten times the drift that moving each start and gradient by one ulp causes.

    Raises:
        ExportError: the rule diverges on these gradients.
    """
    kept = _train(text, None)
    if not all(np.isfinite(row).all() for row in kept):
        raise ExportError(
            "no tests can be recorded: the rule diverges on their gradients", hint="leave out --with-tests"
        )
    drift = 0.0
    for seed in range(3):
        for row, moved in zip(kept, _train(text, seed), strict=True):
            drift = max(drift, float(np.abs(row - moved).max() / max(1.0, np.abs(row).max())))
    if not math.isfinite(drift):
        drift = 0.0
    return Recording(
        STEPS, tuple(tuple(map(float, row)) for row in kept), AFTER, max(FLOAT64, 10 * drift),
        text.rule.reads("progress"),
    )  # fmt: skip


def _train(text: RuleText, ulp: int | None) -> list[np.ndarray]:
    rng = np.random.default_rng(ulp)

    def arrays(step: int) -> list[np.ndarray]:
        found = []
        for n, shape in enumerate(SHAPES):
            flat = np.array([number(n, i, step) for i in range(math.prod(shape))])
            if ulp is not None:
                up = np.where(rng.random(flat.shape) < 0.5, np.inf, -np.inf)
                flat = np.where(flat == 0, flat, np.nextafter(flat, up))
            found.append(flat.reshape(shape))
        return found

    program = compile_rule(text.rule)
    ctx = StepContext(t=0, lr=LR, lr0=LR, hypers=text.rule.canonical.defaults)
    params = arrays(0)
    state = reference.init_state(program, params, ctx)
    kept = []
    for t in range(1, STEPS + 1):
        ctx = replace(ctx, t=t, progress=t / STEPS)
        updates, state = reference.update(program, state, arrays(t), params, ctx)
        with np.errstate(all="ignore"):  # a rule that diverges is told so afterwards
            params = [reference.apply_update(w, u, LR) for w, u in zip(params, updates, strict=True)]
        if t in AFTER:
            kept.append(np.concatenate([w.ravel() for w in params]))
    return kept
