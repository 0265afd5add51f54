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

FLOAT64 = 1e-12
FLOAT32 = 2e-5

# Cases in which the order of overwriting matters.
TRICKY = {
    "swap": "a: state = 1\nb: state = 2\nold = a\nupdate = a * g + b\na = b + 0 * g\nb = old + 0 * g",
    "swap_bare": "a: state = 1\nb: state = 2\nkept = a\nupdate = a * g - b\na = b\nb = kept\n",
    "swap_tensors": "a: state = 1\nb: state = 2\nx = a\na = where(first, g, b)\nb = where(first, w, x)\n"
    "update = a - 2 * b",
    "chain": "update = g + prev(g) + prev(prev(g)) + prev(prev(prev(g)))",
    "new_and_old": "beta: hyper(0, 1) = 0.9\nupdate = ema(g, beta) - prev(ema(g, beta))",
    "hat_and_old": "beta: hyper(0, 1) = 0.9\nupdate = ema_hat(g, beta) - prev(ema_hat(g, beta))",
    "old_alias": "m: state = 0\nold = m\nm = 0.9 * m + g\nupdate = m + old",
    "old_through_where": "m: state = 1\nx = where(t > 3, m, g)\nm = 0.5 * m + g\nupdate = x * 2 + x",
    "old_through_orthogonalize": "m: state = 1\nx = orthogonalize(m)\nm = 0.5 * m + g\nupdate = x * x + x",
    "update_is_old": "m: state = 1\nupdate = m\nm = 0.5 * m + g",
    "update_is_new": "m: state = 1\nm = 0.5 * m + g\nupdate = m",
    "same_next": "a: state = 1\nb: state = 2\nx = a * b\na = g * g\nb = g * g\nupdate = x + a",
    "state_is_leaf": "k: state = 0\nupdate = k + g\nk = w",
    "state_of_state": "a: state = 0\nb: state = 0\nupdate = a + b * g\nb = a\na = g",
    "scalar_states": "n: state = 0\nupdate = g / (sqrt(n) + 1)\nn = 0.5 * n + dot(g, g)",
    "scalar_swap": "a: state = 0\nb: state = 1\nx = a\na = b\nb = norm(g)\nupdate = g * x + a",
    "host_states": "p: state = 1\nq: state = 2\nupdate = g * p + q\np = p * 0.9\nq = p / q",
    "host_old": "p: state = 1\nold = p\np = p * 0.9\nupdate = g * p + old",
    "host_fibonacci": "p: state = 1\nq: state = 1\nx = p\np = p + q\nq = x\nupdate = g * p / q",
    "constant_state": "k: state = lr0\nupdate = g * k",
    "init_expression": "beta: hyper(0, 1) = 0.25\nk: state = sqrt(beta) / lr0\nupdate = g + k\nk = k * 0.5 + g",
    "host_update": "update = 3 * t",
    "scalar_update": "update = norm(g)",
    "weights_alone": "update = w",
    "first_as_number": "update = g * first + (1 - first) * w",
    "progress": "update = g * (1 - progress)",
    "matrix": "update = where(is_matrix, orthogonalize(g), sign(g)) + is_matrix",
    "division_by_zero": "update = g * (1 / (t - 3)) + 1 / (first - 1)",
    "host_overflow": "update = g * exp(t * 100) + 2 ** (t * 100)",
    "host_invalid": "update = g * sqrt(3 - t) + log(5 - t) + asin(t) + (2 - t) ** 0.5 + sin(1 / (4 - t))",
    "host_nan_choice": "x = log(2 - t)\nupdate = where(x, g, w) + where(x < 0, 1, g) + minimum(x, 1) + sign(x)",
    "numbers_meet_tensors": "update = where(first, 1, g) + minimum(2, g) + maximum(g, 0.5) + atan2(g, 2) + hypot(3, g)"
    " + clip(g, -1, t) + clip(2, g, w) + where(g > 0, 1, 0.3) + (2 < g) + (g == g) + 2 ** g + lerp(1, g, 0.3)",
    "awkward_names": "l: hyper(0, 1) = 0.5\nparams: hyper(0, 1) = 0.25\nmaximize: state = 0\ntorch = g * l\n"
    "state_ = g * params\ngrad = torch + state_\nfloat = grad * 2\nmaximize = maximize * 0.5 + float\nupdate = maximize",
}  # fmt: skip


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


@pytest.mark.parametrize("number", range(40))
def test_random_rules(number: int, tmp_path: Path) -> None:
    text = RANDOM[number]
    exported = load_class(text, tmp_path)
    extra = options_for(text)
    assert_same_training(text, lambda p: exported(p, lr=LR, **extra), np.float64, FLOAT64)
    assert_same_training(text, lambda p: RuleOptimizer(p, text, lr=LR, **extra), np.float64, FLOAT64)


RANDOM = random_rules(40)


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
