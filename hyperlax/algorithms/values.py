"""What value-based algorithms share: schedules, the values of actions, ε-greedy exploration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def linear(start: jax.Array, end: jax.Array, progress: jax.Array, fraction: jax.Array) -> jax.Array:
    """Returns ``start`` at progress 0, ``end`` from progress ``fraction`` on, and a straight line between."""
    way = jnp.where(fraction > 0, jnp.clip(progress / jnp.maximum(fraction, 1e-9), 0.0, 1.0), 1.0)
    return start + (end - start) * way


def epsilon(lane: Any, updates: jax.Array) -> jax.Array:
    """Returns the share of random actions after so many updates, whole or not."""
    return linear(lane.initial_epsilon, lane.training_epsilon, updates / lane.num_updates, lane.exploration_fraction)


def of_actions(values: jax.Array, actions: jax.Array) -> jax.Array:
    """Returns the values ``(…, batch)`` of actions ``(batch,)`` out of those of all, ``(…, actions, batch)``."""
    taken = jnp.arange(values.shape[-2])[:, None] == actions.astype(jnp.int32)
    return jnp.where(taken, values, 0.0).sum(-2)


def epsilon_greedy(key: jax.Array, values: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Returns the best action, or with probability ``epsilon`` any; column ``i`` depends on key and ``i`` only.

    Args:
        key: of this step.
        values: ``(actions, batch)``.
        epsilon: from 0 to 1.

    Returns:
        ``(batch,)`` int32.
    """
    number, batch = values.shape
    explore, which = jax.random.uniform(key, (batch, 2)).T
    any_action = jnp.minimum(jnp.floor(which * number), number - 1)
    return jnp.where(explore < epsilon, any_action, jnp.argmax(values, axis=0)).astype(jnp.int32)
