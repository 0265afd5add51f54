"""Exported optimizers, and rules run in place, do what the reference does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText
from ruleforge.optim import RuleOptimizer
from tests.export import harness
from tests.export.harness import LR, assert_same_training, load_class, options_for, random_rules
from tests.export.tricky import TRICKY

FLOAT64 = 1e-12
FLOAT32 = 2e-5
N_RANDOM = 40
WAYS: tuple[dict[str, Any], ...] = (
    {"foreach": False},
    {"foreach": True},
    {"foreach": True, "capturable": True},
)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_rules(name: str, tmp_path: Path) -> None:
    text = KNOWN[name].rule
    exported = load_class(text, tmp_path)
    for way in WAYS:
        extra = options_for(text) | way
        assert_same_training(text, lambda p, extra=extra: exported(p, lr=LR, **extra), np.float64, FLOAT64)
        assert_same_training(text, lambda p, extra=extra: exported(p, lr=LR, **extra), np.float32, FLOAT32)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_rules_without_export(name: str) -> None:
    text = KNOWN[name].rule
    extra = options_for(text)
    assert_same_training(text, lambda p: RuleOptimizer(p, text, lr=LR, **extra), np.float64, FLOAT64)


@pytest.mark.parametrize("name", TRICKY)
def test_order_and_kinds(name: str, tmp_path: Path) -> None:
    text = RuleText.parse(TRICKY[name])
    exported = load_class(text, tmp_path)
    extra = options_for(text)
    for way, (dtype, tolerance) in itertools.product(WAYS, ((np.float64, FLOAT64), (np.float32, FLOAT32))):
        if "capturable" in way and dtype is np.float32:
            continue  # a float64 number widens a parameter without dimensions, which may not overflow then
        assert_same_training(text, lambda p, way=way: exported(p, lr=LR, **extra, **way), dtype, tolerance)
    assert_same_training(text, lambda p: RuleOptimizer(p, text, lr=LR, **extra), np.float64, FLOAT64)


@pytest.mark.parametrize("number", range(N_RANDOM))
def test_random_rules(number: int, tmp_path: Path) -> None:
    text = random_rules(N_RANDOM)[number]
    exported = load_class(text, tmp_path)
    extra = options_for(text)
    for way in WAYS:
        assert_same_training(text, lambda p, way=way: exported(p, lr=LR, **extra, **way), np.float64, FLOAT64)
    assert_same_training(text, lambda p: RuleOptimizer(p, text, lr=LR, **extra), np.float64, FLOAT64)


@pytest.mark.parametrize("name", ["lion", "adam", "lamb"])
def test_weight_decay_is_decoupled(name: str, tmp_path: Path) -> None:
    text = KNOWN[name].rule
    exported = load_class(text, tmp_path)
    for make in (
        *(lambda p, way=way: exported(p, lr=LR, weight_decay=0.1, **way) for way in WAYS),
        lambda p: RuleOptimizer(p, text, lr=LR, weight_decay=0.1),
    ):
        assert_same_training(text, make, np.float64, FLOAT64, weight_decay=0.1)


def test_a_wrong_rule_is_seen(tmp_path: Path) -> None:
    """The comparison itself must be able to fail."""
    lion = KNOWN["lion"].rule
    other = load_class(KNOWN["signum"].rule, tmp_path)
    with pytest.raises(AssertionError, match="drift"):
        assert_same_training(lion, lambda p: other(p, lr=LR), np.float64, FLOAT64)
    assert harness.largest([np.array([np.nan])], [np.array([1.0])]) == float("inf")
    assert harness.largest([np.array([np.inf])], [np.array([-np.inf])]) == float("inf")
