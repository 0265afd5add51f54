"""Exports to numpy and optax do what the reference does, step after step."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ruleforge.core.format import name_rule
from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText
from ruleforge.export.numpy import export_numpy
from ruleforge.export.optax import export_optax
from ruleforge.search.children import random_child
from ruleforge.search.grammar import grammar_names, load_grammar
from ruleforge.search.vocabulary import Vocabulary
from tests.export.harness import (
    LR,
    assert_same_training,
    load,
    load_class,
    options_for,
    train_numpy,
    train_optax,
)
from tests.export.tricky import TRICKY

FLOAT64 = 1e-12
FLOAT32 = 2e-5
N_RANDOM = 200


def numpy_class(text: RuleText, folder: Path) -> Any:
    module = load(export_numpy(text), folder)
    return getattr(module, module.__all__[0])


def check_numpy(text: RuleText, folder: Path, dtype: Any = np.float64, tolerance: float = FLOAT64) -> None:
    made, extra = numpy_class(text, folder), options_for(text)
    assert_same_training(text, lambda p: made(p, lr=LR, **extra), dtype, tolerance, train=train_numpy)


def check_optax(text: RuleText, folder: Path) -> None:
    module, extra = load(export_optax(text), folder), options_for(text)
    made = getattr(module, module.__all__[0])
    assert_same_training(
        text, lambda: made(LR, **extra), np.float64, FLOAT64, train=lambda m, g, w: train_optax(m, g, w)
    )


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_rules_in_numpy(name: str, tmp_path: Path) -> None:
    check_numpy(KNOWN[name].rule, tmp_path)
    check_numpy(KNOWN[name].rule, tmp_path, np.float32, FLOAT32)


@pytest.mark.parametrize("name", TRICKY)
def test_order_and_kinds_in_numpy(name: str, tmp_path: Path) -> None:
    check_numpy(RuleText.parse(TRICKY[name]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_rules_in_optax(name: str, tmp_path: Path) -> None:
    pytest.importorskip("optax")
    check_optax(KNOWN[name].rule, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TRICKY if n not in ("host_invalid", "host_nan_choice")])
def test_order_and_kinds_in_optax(name: str, tmp_path: Path) -> None:
    pytest.importorskip("optax")
    check_optax(RuleText.parse(TRICKY[name]), tmp_path)


@pytest.mark.slow
def test_hyperparameters_are_injected() -> None:
    """Traced hyperparameters, a schedule, vmap over learning rates, and a scan over steps."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    import tempfile

    import jax.numpy as jnp

    with tempfile.TemporaryDirectory() as folder:
        module = load(export_optax(KNOWN["adam"].rule), Path(folder))
    injected = optax.inject_hyperparams(module.adam_rule)(
        learning_rate=optax.linear_schedule(0.1, 0.0, 10), beta1=0.8
    )
    theirs = optax.adam(optax.linear_schedule(0.1, 0.0, 10), b1=0.8)
    w = jnp.ones(3)
    ours, state = [w, w], [injected.init(w), theirs.init(w)]
    for t in range(5):
        g = jnp.arange(3.0) - t
        for i, each in enumerate((injected, theirs)):
            updates, state[i] = each.update(g, state[i], ours[i])
            ours[i] = optax.apply_updates(ours[i], updates)
    np.testing.assert_allclose(ours[0], ours[1], rtol=2e-5)

    def trained(rate: Any) -> Any:
        made = module.adam_rule(rate)

        def step(carry: Any, g: Any) -> Any:
            updates, kept = made.update(g, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), kept), None

        return jax.lax.scan(step, (w, made.init(w)), jnp.ones((4, 3)))[0][0]

    many = jax.vmap(trained)(jnp.asarray([0.1, 0.2]))
    np.testing.assert_allclose(many, [trained(0.1), trained(0.2)], rtol=1e-6)


@functools.cache
def random_rules_of(grammar: str) -> tuple[RuleText, ...]:
    """Distinct rules that a search with this grammar would begin with."""
    vocabulary = Vocabulary(load_grammar(grammar))
    rng = np.random.default_rng(0)
    found: dict[str, RuleText] = {}
    while len(found) < N_RANDOM:
        text = name_rule(random_child(rng, vocabulary).rule)
        found.setdefault(text.rule.key, text)
    return tuple(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("grammar", grammar_names())
def test_random_rules_of_every_grammar(grammar: str, tmp_path: Path) -> None:
    """Torch by tensor and by list, and numpy, as the reference."""
    for text in random_rules_of(grammar):
        exported, extra = load_class(text, tmp_path), options_for(text)
        for way in ({"foreach": False}, {"foreach": True}):
            assert_same_training(
                text, lambda p, e=exported, x=extra, y=way: e(p, lr=LR, **x, **y), np.float64, FLOAT64
            )
        check_numpy(text, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("grammar", grammar_names())
def test_random_rules_of_every_grammar_in_optax(grammar: str, tmp_path: Path) -> None:
    """The same rules under jit, each compiled."""
    pytest.importorskip("optax")
    import jax

    for text in random_rules_of(grammar):
        check_optax(text, tmp_path)
        jax.clear_caches()
