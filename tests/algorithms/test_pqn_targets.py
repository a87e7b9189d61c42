"""λ-returns against brute force: every return is walked from its definition, over terminations and cuts."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.algorithms.pqn import PQN, Rollout
from hyperlax.networks.mlp import MLP

LENGTH, ENVS = 9, 5


def brute_force(rewards, values, terminated, truncated, final, last, gamma, q_lambda, t):
    """The λ-return from step ``t`` of one environment, as a weighted mean of n-step returns (Sutton & Barto, 12.3)."""
    returns, total, discount = [], 0.0, 1.0
    for step in range(t, len(rewards)):
        total += discount * rewards[step]
        discount *= gamma
        if terminated[step]:
            returns.append(total)
            break
        if truncated[step]:
            returns.append(total + discount * final[step])
            break
        following = values[step + 1] if step + 1 < len(rewards) else last
        returns.append(total + discount * following)
    weights = [(1 - q_lambda) * q_lambda ** (n - 1) for n in range(1, len(returns))]
    weights.append(q_lambda ** (len(returns) - 1))  # the longest has all that is left
    return sum(w * r for w, r in zip(weights, returns, strict=True))


@pytest.mark.parametrize("length", [1, 4, 9])
@pytest.mark.parametrize("gamma, q_lambda", [(0.9, 0.65), (1.0, 1.0), (0.99, 0.0)])
@pytest.mark.parametrize("ends", [0.0, 0.3])
def test_targets_are_lambda_returns(make_spring, length, gamma, q_lambda, ends):
    env, rng = make_spring(True), np.random.default_rng(3)
    hyperparams = PQN(
        MLP((4,)), gamma=gamma, q_lambda=q_lambda, rollout_length=length, total_num_envs=4, num_minibatches=1
    )
    largest = PQN(MLP((4,)), rollout_length=LENGTH, total_num_envs=ENVS, num_minibatches=1)
    shape = hyperparams.shape(env).merge(largest.shape(env))
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    rewards, values, final, last = draw(LENGTH, ENVS), draw(LENGTH, ENVS), draw(LENGTH, ENVS), draw(ENVS)
    done = rng.random((LENGTH, ENVS)) < ends
    terminated = done & (rng.random((LENGTH, ENVS)) < 0.5)
    truncated = done & ~terminated
    valid = (np.arange(LENGTH)[:, None] < length) & (np.arange(ENVS) < 4)
    rollout = Rollout(
        observation=None, action=None, reward=rewards, done=done.astype(np.float32), value=values,
        bootstrap=np.where(truncated, final, 0), last_value=last, valid=valid,
    )  # fmt: skip
    agent, lane = hyperparams.agent(env, shape), hyperparams.traced(shape, 1000)
    got = agent._targets(Rollout(*[x if x is None else jnp.asarray(x) for x in rollout]), lane)
    for env_number in range(4):
        own = [x[:length, env_number] for x in (rewards, values, terminated, truncated, final)]
        for t in range(length):
            expected = brute_force(*own, last[env_number], gamma, q_lambda, t)
            np.testing.assert_allclose(got[t, env_number], expected, rtol=1e-4, atol=1e-5)
