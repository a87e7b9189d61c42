"""How a value-based algorithm explores, and how it acts when it does not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.algorithms.gradients import is_finite
from hyperlax.algorithms.statistics import RunningStatistics
from hyperlax.networks.alternatives import AlternativeNetworks
from hyperlax.networks.padding import flat, nested_dict


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


class GreedyPolicy:
    """The policy of an agent that takes the action of greatest value."""

    critic: AlternativeNetworks

    def _values(self, critic: Any, statistics: RunningStatistics, lane: Any, observation: jax.Array) -> jax.Array:
        """Returns the values of all actions, ``(actions, batch)``, for raw observations ``(batch, features)``."""
        raise NotImplementedError

    def is_finite(self, state: Any) -> jax.Array:
        """Returns whether everything that is learnt is finite."""
        return is_finite(state.learners)

    def policy(self, state: Any) -> Any:
        """Returns the part of the state that acting needs."""
        return {"critic": state.learners["critic"].params, "statistics": state.statistics}

    def act(self, policy: Any, lane: Any, observation: jax.Array) -> jax.Array:
        """Returns greedy actions for raw observations ``(batch, features)``, as the environment takes them."""
        values = self._values(self.critic.unpack(policy["critic"]), policy["statistics"], lane, observation)
        return jnp.argmax(values, axis=0).astype(jnp.int32)

    def export(self, policy: Any, hyperparams: Any) -> dict[str, np.ndarray]:
        """Returns one lane's policy at its exact size as flat arrays, ``critic/head/bias`` and so on."""
        critic = self.critic.export(policy["critic"], hyperparams.critic_network)["network"]
        return flat({"critic": critic, "statistics": policy["statistics"]._asdict()})

    def restore(self, arrays: dict[str, np.ndarray]) -> Any:
        """Returns the policy of exported arrays, for an agent of exactly their shape."""
        tree = nested_dict(arrays)
        return {
            "critic": jnp.asarray(self.critic.pack(tree["critic"])),
            "statistics": RunningStatistics.of(tree["statistics"]),
        }
