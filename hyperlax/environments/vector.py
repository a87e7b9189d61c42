"""Many copies of an environment in step, reset where an episode ended, the final observation kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperlax.environments.protocol import Environment, Transition


def reset(env: Environment, key: jax.Array, num_envs: int) -> tuple[Any, jax.Array]:
    """Returns states and observations ``(num_envs, …)`` of new episodes.

    Copy ``i`` depends on ``key`` and ``i`` only, so the first copies are the same whatever ``num_envs``.
    """
    return jax.vmap(env.reset)(jax.random.split(key, num_envs))


class Draws(NamedTuple):
    """What one step of all copies needs of randomness; leaves ``(num_envs, …)``.

    Attributes:
        step_keys: for the step.
        reset_keys: for the reset that may follow it.
        episodes: states and observations of those resets if they are cheap, else None.
    """

    step_keys: jax.Array
    reset_keys: jax.Array
    episodes: Any


def draw(env: Environment, key: jax.Array, num_envs: int) -> Draws:
    """Returns the draws for one step; entry ``i`` depends on ``key`` and ``i`` only."""
    keys = jax.random.split(key, (num_envs, 2))
    step_keys, reset_keys = keys[:, 0], keys[:, 1]
    episodes = jax.vmap(env.reset)(reset_keys) if _resets_cheaply(env) else None
    return Draws(step_keys, reset_keys, episodes)


def _resets_cheaply(env: Environment, most_operations: int = 300, most_numbers: int = 64) -> bool:
    """Returns whether resetting at every step, needed or not, costs less than asking whether it is needed.

    A classic control task draws a few numbers. A physics engine computes the kinematics of the whole body.
    """
    state, observation = jax.eval_shape(env.reset, jax.random.key(0))
    numbers = sum(math.prod(x.shape) for x in jax.tree.leaves((state, observation)))
    return numbers <= most_numbers and count_operations(env.reset, jax.random.key(0)) <= most_operations


def count_operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns how many primitive operations a call does, loops with a known length counted out."""

    def count(jaxpr: Any) -> int:
        total = len(jaxpr.eqns)
        for equation in jaxpr.eqns:
            inner = [p for p in jax.tree.leaves(list(equation.params.values())) if hasattr(p, "jaxpr")]
            total += equation.params.get("length", 1) * sum(count(p.jaxpr) for p in inner)
        return total

    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


def step(
    env: Environment,
    draws: Draws,
    states: Any,
    actions: jax.Array,
    valid: jax.Array,
    any_lane: Callable[[jax.Array], jax.Array] = lambda flag: flag,
) -> tuple[Any, jax.Array, Transition]:
    """Steps every copy and starts a new episode where one ended.

    Args:
        env: the single environment.
        draws: of this step.
        states: ``(num_envs, …)``.
        actions: ``(num_envs, …)``.
        valid: ``(num_envs,)`` bool; padded copies may go without a reset.
        any_lane: whether a flag is true in any lane of a vmapped program: costly resets are computed
            only in steps in which some episode ended.

    Returns:
        The next states, their observations (of the new episode where one began), and the
        transitions, whose observation is the final one where an episode ended.
    """
    next_states, transition = jax.vmap(env.step)(draws.step_keys, states, actions)
    done = transition.terminated | transition.truncated
    ongoing = (next_states, transition.observation)

    def restart() -> tuple[Any, jax.Array]:
        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(done.reshape(done.shape + (1,) * (new.ndim - 1)), new, old)

        fresh = draws.episodes if draws.episodes is not None else jax.vmap(env.reset)(draws.reset_keys)
        return jax.tree.map(choose, fresh, ongoing)

    if draws.episodes is not None:
        states, observations = restart()
    else:
        states, observations = jax.lax.cond(any_lane((done & valid).any()), restart, lambda: ongoing)
    return states, observations, transition
