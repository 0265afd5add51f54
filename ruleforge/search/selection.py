"""Who becomes a parent, and who is unlike the others. Pure functions of numbers and a generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ruleforge.search.vocabulary import Rng, draw_index

NEIGHBOURS = 5  # of which the mean distance says how novel a behaviour is


def epsilons(cases: NDArray[np.float64]) -> NDArray[np.float64]:
    """What counts as equal on each case: the median absolute deviation over the population, (K,).

    Args:
        cases: how good each individual is on each case, (N, K).
    """
    return np.asarray(np.median(np.abs(cases - np.median(cases, axis=0)), axis=0))


def epsilon_lexicase(rng: Rng, cases: NDArray[np.float64], epsilon: NDArray[np.float64]) -> int:
    """The index of one parent: cases in a random order, each keeps who is within epsilon of the best.

    Specialists become parents, who would be average on every mean.

    Args:
        rng: decides the order, and between those who are left.
        cases: how good each individual is on each case, (N, K).
        epsilon: of each case, (K,).

    Source:
        La Cava et al. 2016, Epsilon-lexicase selection for regression (the variant with an epsilon of the
        whole population, and the best of those who are left).
    """
    left = np.arange(len(cases))
    order = sorted(range(cases.shape[1]), key=[rng.random() for _ in range(cases.shape[1])].__getitem__)
    for case in order:
        values = cases[left, case]
        left = left[values >= values.max() - epsilon[case]]
        if len(left) == 1:
            break
    return int(left[draw_index(rng, len(left))])


def novelties(behaviours: Sequence[Sequence[float]]) -> list[float]:
    """Mean distance of each behaviour to its nearest others, in units of the population's median one.

    Fingerprints that are missing, or of another length, count as not novel.
    """
    width = max((len(each) for each in behaviours), default=0)
    known = [i for i, each in enumerate(behaviours) if width and len(each) == width]
    found = [0.0] * len(behaviours)
    if len(known) < 2:
        return found
    table = np.array([behaviours[i] for i in known])
    sizes = np.linalg.norm(table, axis=1, keepdims=True)
    table = table / np.where(sizes > 0, sizes, 1.0)
    # (N, N) by dot products of unit vectors: 2 - 2 cos
    square = np.clip(2.0 - 2.0 * (table @ table.T), 0.0, None)
    np.fill_diagonal(square, np.inf)
    near = np.sqrt(np.sort(square, axis=1)[:, : min(NEIGHBOURS, len(known) - 1)]).mean(axis=1)
    middle = float(np.median(near))
    for i, value in zip(known, near / middle if middle > 0 else near, strict=True):
        found[i] = float(value)
    return found
