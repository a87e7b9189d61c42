"""Copies of an environment that a lane steps, and what it keeps of them between updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperlax.algorithms.lane import any_lane
from hyperlax.algorithms.statistics import RunningStatistics, normalize
from hyperlax.environments import vector
from hyperlax.environments.protocol import Environment, Transition


class Copies(NamedTuple):
    """Copies of the environment in step; leaves ``(num_envs, …)``.

    Attributes:
        env_states: of the environment.
        observation: ``(num_envs, features)``, raw, what is to be acted upon next.
        discounted: running discounted sum of the episode's rewards.
        episode_return: undiscounted, so far.
    """

    env_states: Any
    observation: jax.Array
    discounted: jax.Array
    episode_return: jax.Array


class Stepped(NamedTuple):
    """What one step of all copies gave; leaves ``(num_envs, …)``.

    Attributes:
        transition: its observation ``(num_envs, features)`` is the final one where an episode ended.
        done: whether an episode ended, by its own rules or because it was cut.
        discounted: discounted sum of the episode's rewards, this one included.
        episodes: ``(2,)``, sum and number of the returns of episodes that ended.
    """

    transition: Transition
    done: jax.Array
    discounted: jax.Array
    episodes: jax.Array


def begin(env: Environment, key: jax.Array, num_envs: int) -> Copies:
    """Returns copies at the start of episodes; copy ``i`` depends on ``key`` and ``i`` only."""
    env_states, observation = vector.reset(env, key, num_envs)
    zeros = jnp.zeros(num_envs)
    return Copies(env_states, observation.reshape(num_envs, -1), zeros, zeros)


def step(
    env: Environment, key: jax.Array, copies: Copies, actions: jax.Array, gamma: jax.Array, valid: jax.Array
) -> tuple[Copies, Stepped]:
    """Steps all copies, starting new episodes where one ended.

    Args:
        env: the environment.
        key: of this step.
        copies: before it.
        actions: as the environment takes them, ``(num_envs, …)``.
        gamma: discount of ``discounted``.
        valid: ``(num_envs,)`` bool, which copies count.
    """
    num_envs = valid.shape[0]
    draws = vector.draw(env, key, num_envs)
    env_states, observation, transition = vector.step(env, draws, copies.env_states, actions, valid, any_lane)
    done = transition.terminated | transition.truncated
    discounted = copies.discounted * gamma + transition.reward
    episode_return = copies.episode_return + transition.reward
    ended = done & valid
    stepped = Stepped(
        transition._replace(observation=transition.observation.reshape(num_envs, -1)),
        done,
        discounted,
        jnp.stack([jnp.where(ended, episode_return, 0.0), ended]).sum(1),
    )
    after = Copies(
        env_states,
        observation.reshape(num_envs, -1),
        jnp.where(done, 0.0, discounted),
        jnp.where(done, 0.0, episode_return),
    )
    return after, stepped


def bootstrap(stepped: Stepped, valid: jax.Array, value: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns the values of final observations where an episode was cut, ``(num_envs,)``, elsewhere zero.

    Args:
        stepped: by :func:`step`.
        valid: ``(num_envs,)`` bool, which copies count.
        value: of raw observations, ``(num_envs,)``; most steps cut no episode in any lane, and then it is not asked.
    """
    truncated = stepped.transition.truncated & ~stepped.transition.terminated
    return jax.lax.cond(
        any_lane((truncated & valid).any()),
        lambda: jnp.where(truncated, value(stepped.transition.observation), 0.0),
        lambda: jnp.zeros(valid.shape),
    )


def features(statistics: RunningStatistics, use: jax.Array, observation: jax.Array) -> jax.Array:
    """Returns what networks see of raw observations ``(…, features)``: ``(features, batch)``.

    Args:
        statistics: of observations; what it has beyond them (a scale of rewards) is not used.
        use: whether to normalise by them.
        observation: raw.
    """
    columns = observation.reshape(-1, observation.shape[-1]).T
    size = columns.shape[0]
    normalized = normalize(columns, statistics.mean[:size], statistics.deviation()[:size])
    return jnp.where(use, normalized, columns)
