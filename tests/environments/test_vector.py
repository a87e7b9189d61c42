"""Copies in step against one environment stepped by hand: what happens where an episode ends."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.environments import make, vector
from hyperlax.environments.protocol import Discrete, Transition


class ClockState(NamedTuple):
    time: jax.Array
    limit: jax.Array
    ballast: jax.Array


class Clock:
    """Counts to a limit drawn at reset: odd limits terminate, even ones truncate. Heavy ones are dear to reset."""

    name, observation_shape, action_space, max_episode_steps = "test.clock", (2,), Discrete(2), 6

    def __init__(self, heavy: bool) -> None:
        self.ballast = 100 if heavy else 1

    def reset(self, key):
        limit = jax.random.randint(key, (), 1, 7).astype(jnp.float32)
        state = ClockState(jnp.float32(0), limit, jnp.zeros(self.ballast))
        return state, jnp.stack(state[:2])

    def step(self, key, state, action):
        del key
        state = state._replace(time=state.time + 1)
        ended, odd = state.time >= state.limit, state.limit % 2 == 1
        return state, Transition(jnp.stack(state[:2]), action * state.time, ended & odd, ended & ~odd)


def assert_close(got, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), got, expected)


@pytest.mark.parametrize(
    "env", [Clock(False), Clock(True), make("gymnax.cartpole", max_episode_steps=7)], ids=["cheap", "dear", "cartpole"]
)
def test_copies_do_what_one_environment_does_and_start_again_where_an_episode_ended(env):
    num_envs, ends = 5, 0
    states, observations = vector.reset(env, jax.random.key(0), num_envs)
    for t in range(15):
        draws = vector.draw(env, jax.random.key(100 + t), num_envs)
        actions = jnp.arange(num_envs) % 2
        after = vector.step(env, draws, states, actions, jnp.ones(num_envs, bool))
        for i in range(num_envs):
            own = jax.tree.map(lambda x, i=i: x[i], states)
            state, transition = env.step(draws.step_keys[i], own, actions[i])
            assert_close(jax.tree.map(lambda x, i=i: x[i], after[2]), transition)
            if transition.terminated or transition.truncated:  # the transition keeps the last observation
                ends += 1
                assert not np.array_equal(after[1][i], transition.observation)
                expected = env.reset(draws.reset_keys[i])
            else:
                expected = state, transition.observation
            assert_close(jax.tree.map(lambda x, i=i: x[i], after[:2]), expected)
        states, observations = after[0], after[1]
    assert ends >= 10 and observations.shape == (num_envs, *env.observation_shape)


def test_padded_copies_do_not_ask_for_a_reset_that_is_dear():
    env = Clock(True)
    states, _ = vector.reset(env, jax.random.key(1), 3)
    states = states._replace(time=jnp.array([0.0, 0.0, 9.0]), limit=jnp.array([5.0, 5.0, 5.0]))
    draws = vector.draw(env, jax.random.key(2), 3)
    assert draws.episodes is None
    after, _, transition = vector.step(env, draws, states, jnp.zeros(3, int), jnp.array([True, True, False]))
    assert transition.terminated[2] and after.time[2] == 10
