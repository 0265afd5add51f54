"""Lion for optax: needs jax and optax alone.

Lion. Chen et al. 2023, arXiv:2302.06675.

beta1 mixes for the step, beta2 updates the state.

Each array w with gradient g moves by

    u ← sign(β₁·m + (1 − β₁)·g)
    m ← β₂·m + (1 − β₂)·g
    w ← w − lr·u

Written by ruleforge from the rule bec0fb424b6c5bc2099622e3061ca249:

    beta1: hyper(0, 1, one_minus_log) = 0.9
    beta2: hyper(0, 1, one_minus_log) = 0.99
    m: state = 0
    update = sign(lerp(g, m, beta1))
    m = lerp(g, m, beta2)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["lion", "scale_by_lion"]

Array = Any


def _rule(
    g: Array,
    exp_avg: Array,
    beta1: Any,
    beta2: Any,
) -> tuple[Any, ...]:
    """The rule: the update, to be subtracted times the learning rate, and the next states."""
    update = jnp.sign(g + beta1 * (exp_avg - g))
    exp_avg = g + beta2 * (exp_avg - g)
    return update, exp_avg


class LionState(NamedTuple):
    """Step and states."""

    count: Any
    exp_avg: optax.Updates


def scale_by_lion(
    beta1: float = 0.9,
    beta2: float = 0.99,
) -> optax.GradientTransformation:
    """The rule alone: no learning rate, no weight decay."""

    def init(params: optax.Params) -> LionState:
        return LionState(
            jnp.zeros([], jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
        )

    def update_fn(
        updates: optax.Updates,
        state: LionState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, LionState]:
        count = state.count + 1

        def one(g: Any, exp_avg: Any) -> tuple[Any, ...]:
            return _rule(g, exp_avg, beta1, beta2)

        found = jax.tree.map(one, updates, state.exp_avg)
        outer = jax.tree.structure(updates)
        inner = jax.tree.structure((0,) * 2)
        found = jax.tree.transpose(outer, inner, found)
        return _cast(found[0], updates), LionState(
            count,
            _cast(found[1], state.exp_avg),
        )

    return optax.GradientTransformation(init, update_fn)


def lion(
    learning_rate: optax.ScalarOrSchedule,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """The rule with decoupled weight decay and a learning rate."""
    return optax.chain(
        scale_by_lion(
            beta1,
            beta2,
        ),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def _cast(tree: Any, like: Any) -> Any:
    """Arrays in the shapes and dtypes of others."""
    return jax.tree.map(
        lambda x, y: jnp.broadcast_to(jnp.asarray(x, y.dtype), y.shape),
        tree,
        like,
    )
