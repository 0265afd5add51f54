"""When a lane is given up before its last step: it diverged, or it is far behind another of its rule's lanes.

Who is stopped depends on the lanes of the rule alone, so a rule's lanes are stopped alike whatever is
trained beside them. A stopped lane's loss counts as staying where it was.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ruleforge.evaluate.lanes import sample_steps

CHECKS: Final = ((0.25, 0.0), (0.5, 0.5))
"""After which share of the steps a lane has to have come which share of its rule's best lane's way down."""


def checks(n_steps: int) -> dict[int, float]:
    """Steps after which lanes may be stopped, each with the share of the best lane's way that it takes."""
    steps = sample_steps(n_steps)
    found = {min(t for t in steps if t >= when * n_steps): share for when, share in CHECKS}
    return {t: share for t, share in found.items() if t < n_steps}


def is_behind(
    start: NDArray[np.float64], now: NDArray[np.float64], rules: NDArray[np.int64], share: float
) -> NDArray[np.bool_]:
    """Which lanes have no hope.

    Args:
        start, now: validation loss of each lane before the first step and now, (L,).
        rules: number of each lane's rule, (L,).
        share: of the way that the best lane of a rule has come; where none has come any, none is behind.

    Returns:
        Whether a lane is behind, (L,); true where its loss is not finite.
    """
    way = np.where(np.isfinite(now), start - now, -np.inf)
    best = np.zeros(rules.max(initial=-1) + 1)
    np.maximum.at(best, rules, way)
    return np.isneginf(way) | ((best[rules] > 0) & (way < share * best[rules]))
