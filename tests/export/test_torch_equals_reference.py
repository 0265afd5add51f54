"""Exported optimizers, and rules run in place, do what the reference does."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_rules(name: str, tmp_path: Path) -> None:
    text = KNOWN[name].rule
    exported = load_class(text, tmp_path)
    extra = options_for(text)
    assert_same_training(text, lambda p: exported(p, lr=LR, **extra), np.float64, FLOAT64)
    assert_same_training(text, lambda p: exported(p, lr=LR, **extra), np.float32, FLOAT32)


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
    for dtype, tolerance in ((np.float64, FLOAT64), (np.float32, FLOAT32)):
        assert_same_training(text, lambda p: exported(p, lr=LR, **extra), dtype, tolerance)
    assert_same_training(text, lambda p: RuleOptimizer(p, text, lr=LR, **extra), np.float64, FLOAT64)


@pytest.mark.parametrize("number", range(N_RANDOM))
def test_random_rules(number: int, tmp_path: Path) -> None:
    text = random_rules(N_RANDOM)[number]
    exported = load_class(text, tmp_path)
    extra = options_for(text)
    assert_same_training(text, lambda p: exported(p, lr=LR, **extra), np.float64, FLOAT64)
    assert_same_training(text, lambda p: RuleOptimizer(p, text, lr=LR, **extra), np.float64, FLOAT64)


@pytest.mark.parametrize("name", ["lion", "adam", "lamb"])
def test_weight_decay_is_decoupled(name: str, tmp_path: Path) -> None:
    text = KNOWN[name].rule
    exported = load_class(text, tmp_path)
    for make in (
        lambda p: exported(p, lr=LR, weight_decay=0.1),
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
