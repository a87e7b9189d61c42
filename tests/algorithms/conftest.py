"""An environment small enough to be written twice, in JAX here and in NumPy where it is checked."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from hyperlax.environments.protocol import Box, Discrete, Transition


class SpringState(NamedTuple):
    position: jax.Array
    velocity: jax.Array
    time: jax.Array


class Spring:
    """A mass on a spring: leaving [-1, 1] terminates, ``max_episode_steps`` truncates; of any float type.

    The observation ``(position, velocity, time)`` is the whole state, and a step is deterministic. A
    discrete action 0, 1, 2 is a force of -1, 0, 1.
    """

    name, observation_shape = "test.spring", (3,)

    def __init__(self, discrete: bool, max_episode_steps: int = 5) -> None:
        self.action_space = Discrete(3) if discrete else Box(2)
        self.max_episode_steps = max_episode_steps

    def reset(self, key):
        position, velocity = 0.6 * jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        state = SpringState(position, velocity, jnp.zeros_like(position))
        return state, jnp.stack(state)

    def step(self, key, state, action):
        del key
        discrete = isinstance(self.action_space, Discrete)
        force = action - 1.0 if discrete else jnp.clip(action, -1.0, 1.0).sum()
        velocity = 0.9 * state.velocity - 0.2 * state.position + 0.3 * force
        state = SpringState(state.position + 0.5 * velocity, velocity, state.time + 1)
        terminated = jnp.abs(state.position) > 1
        reward = 1 - state.position**2 - 0.1 * force**2
        truncated = (state.time >= self.max_episode_steps) & ~terminated
        return state, Transition(jnp.stack(state), reward, terminated, truncated)


@pytest.fixture(scope="session")
def make_spring():
    return Spring
