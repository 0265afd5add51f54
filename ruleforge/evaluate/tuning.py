"""Which setting to believe: what a lane is judged by while tuning, and what its neighbours add to that.

Speed is read between half and all of the budget (`targets`), so a lane is judged by its mean validation
loss over that half: the last loss alone is one noisy number, and rewards what is slow until then. The grid
of learning rates is coarse; where the best lane has a neighbour on either side, the parabola through the
three, over log lr, says where between them the best learning rate lies, to a quarter of the grid's step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ruleforge.evaluate.lanes import LaneSpec
from ruleforge.evaluate.targets import smooth

QUARTERS: Final = 4  # to which the grid's step is divided: finer is not worth a setting of its own


def tuning_loss(curve: NDArray[np.float64], diverged_at: int) -> float:
    """Mean of the smoothed loss over the second half of a lane; infinite where it diverged."""
    value = float(np.mean(smooth(curve)[len(curve) // 2 :]))
    return value if np.isfinite(value) and not diverged_at else math.inf


def best_lane(losses: Sequence[float]) -> int | None:
    """The lane with the least loss, the first of equals; None where all diverged."""
    at = int(np.argmin(losses))
    return at if math.isfinite(losses[at]) else None


def best_setting(specs: Sequence[LaneSpec], losses: Sequence[float], step: float) -> LaneSpec | None:
    """The setting that the lanes point to.

    Args:
        specs: settings that were trained.
        losses: of each, see `tuning_loss`.
        step: of the grid, as a ratio of learning rates.

    Returns:
        The best lane's schedule with the learning rate at the parabola's bottom; the best lane's own one
        where it has no neighbour on either side that did not diverge. None where all lanes diverged.
    """
    best = best_lane(losses)
    if best is None:
        return None
    spec = specs[best]
    near = sorted(
        (math.log(other.lr), loss)
        for other, loss in zip(specs, losses, strict=True)
        if other.schedule == spec.schedule
    )
    at = near.index((math.log(spec.lr), losses[best]))
    if not 0 < at < len(near) - 1 or not all(math.isfinite(loss) for _, loss in near[at - 1 : at + 2]):
        return spec
    shift = _bottom(*near[at - 1 : at + 2]) / math.log(step)
    return LaneSpec(spec.lr * step ** (round(QUARTERS * shift) / QUARTERS), spec.schedule)


def _bottom(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> float:
    """How far from the middle one of three points, the lowest, their parabola has its bottom."""
    before, after = left[0] - middle[0], right[0] - middle[0]
    fall, rise = left[1] - middle[1], right[1] - middle[1]
    bend = before * rise - after * fall
    return (before * before * rise - after * after * fall) / (2 * bend) if bend else 0.0
