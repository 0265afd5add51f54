"""Niches: who shares one, whatever the scale of its fingerprint, and in which order they are founded."""

from __future__ import annotations

import numpy as np

from ruleforge.core.known import known
from ruleforge.evaluate.niches import REACH, Niches
from ruleforge.evaluate.probes import probe


def test_siblings_share_a_niche_and_other_rules_do_not() -> None:
    adam = str(known("adam").rule)
    texts = [
        adam,
        adam.replace("= 1e-08", "= 3e-08"),
        str(known("grams").rule),
        str(known("sgd").rule),
    ]
    assert texts[1] != adam
    niches = Niches()
    for number, seen in enumerate(probe(texts)):
        niches.add(number, seen.fingerprint)
    assert [niches.of(n) for n in range(5)] == ["0", "0", "2", "3", ""]


def test_a_niche_is_about_direction_and_its_founder_is_its_centre() -> None:
    niches, step = Niches(), 0.7 * REACH
    for number, angle in enumerate((0.0, step, 2 * step, 3 * step)):
        niches.add(number, 10.0**number * np.array([np.cos(angle), np.sin(angle)]))
    assert [niches.of(n) for n in range(4)] == ["0", "0", "2", "2"]


def test_there_is_room_for_many_niches_and_for_a_fingerprint_of_zeros() -> None:
    niches, n = Niches(), 192
    for number, direction in enumerate(np.eye(n)):
        niches.add(number, direction)
    niches.add(900, np.zeros(n))
    niches.add(901, 2 * np.eye(n)[-1])
    assert {niches.of(n) for n in range(n)} == {str(n) for n in range(n)}
    assert niches.of(900) == "900" and niches.of(901) == str(n - 1)
