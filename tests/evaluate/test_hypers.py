"""Settings of hyperparameters: as many for every rule, within bounds, around the defaults."""

from __future__ import annotations

import pytest

from ruleforge.core.known import KNOWN, known
from ruleforge.core.rule import Hyper
from ruleforge.core.text import parse
from ruleforge.evaluate.hypers import moved, settings_of


@pytest.mark.parametrize("name", KNOWN)
def test_settings_differ_in_defaults_alone_and_stay_within_bounds(name: str) -> None:
    text = known(name).rule
    settings = settings_of(str(text), 4)
    assert len(settings) == (4 if text.rule.hypers else 0)
    for setting in settings:
        rule = parse(setting).rule
        assert rule.key == text.rule.key
        assert all(h.low < h.default < h.high for h in rule.hypers)
    assert len({str(text), *settings}) == len(settings) + 1


def test_a_move_keeps_to_the_scale_of_its_hyperparameter() -> None:
    beta, eps = Hyper(0.0, 1.0, 0.99, "one_minus_log"), Hyper(0.0, 1.0, 1e-8, "log")
    assert [moved(beta, by) for by in (-1.0, 0.0, 1.0)] == [0.9975, 0.99, 0.96]
    assert [moved(eps, by) for by in (-1.0, 1.0)] == [1e-10, 1e-6]
    assert moved(Hyper(0.0, 1.0, 0.7, "linear"), 1.0) == 0.7  # 1.4 is out of bounds


def test_every_setting_is_as_likely_above_as_below() -> None:
    lines = "beta: hyper(0, 1, one_minus_log) = 0.9\nupdate = ema(g, beta)\n"
    values = [parse(text).rule.hypers[0].default for text in settings_of(lines, 6)]
    assert sum(value > 0.9 for value in values) == 3 and sum(value < 0.9 for value in values) == 3
