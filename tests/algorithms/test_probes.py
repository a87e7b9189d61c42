"""Environments whose values are known in closed form: every algorithm must find them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.algorithms import experience
from hyperlax.algorithms.dqn import DQN
from hyperlax.algorithms.gradients import Own
from hyperlax.algorithms.ppo import PPO
from hyperlax.algorithms.pqn import PQN
from hyperlax.algorithms.sac import SAC, SACAgent
from hyperlax.engine.devices import local_mesh
from hyperlax.engine.program import Program, Task
from hyperlax.environments.protocol import Box, Discrete, Transition
from hyperlax.networks.mlp import MLP

GAMMA = 0.8
REPLAY = dict(
    rollout_length=4, total_num_envs=8, epochs=8, warmup_rollout_length=16, total_buffer_size=4000, total_batch_size=64
)
HYPERPARAMS = {
    "ppo": PPO(
        MLP((16,)), MLP((16,)), gamma=GAMMA, actor_lr=1e-2, critic_lr=1e-2, ent_coef=0.0, normalize_rewards=False,
        rollout_length=16, total_num_envs=8, num_minibatches=2, epochs=4,
    ),
    "pqn": PQN(
        MLP((32,), "relu", True), gamma=GAMMA, critic_lr=1e-2, rollout_length=16, num_minibatches=2,
        training_epsilon=0.2,
    ),
    "dqn": DQN(MLP((32,), "relu"), gamma=GAMMA, critic_lr=5e-3, tau=0.05, training_epsilon=0.2, **REPLAY),
    "dqn with every switch": DQN(
        MLP((32,), "relu"), gamma=GAMMA, critic_lr=5e-3, tau=0.05, training_epsilon=0.2, use_dueling=True, n_step=3,
        use_prioritized_replay=True, huber_loss_parameter=0.5, **REPLAY,
    ),
    "sac": SAC(
        MLP((32,), "relu"), MLP((32,), "relu"), gamma=GAMMA, actor_lr=5e-3, q_lr=5e-3, tau=0.05, autotune=False,
        init_alpha=0.01, **REPLAY,
    ),
}  # fmt: skip


class ProbeState(NamedTuple):
    time: jax.Array
    sign: jax.Array


class Probe:
    """Episodes of ``length`` steps; observation: time and a random sign; ``reward(time, sign, action)``."""

    name, observation_shape = "test.probe", (2,)

    def __init__(self, length: int, reward: Any, truncates: bool = False, action_space: Any = None) -> None:
        self.length, self.reward, self.truncates = length, reward, truncates
        self.action_space, self.max_episode_steps = action_space or Discrete(2), length

    def reset(self, key):
        state = ProbeState(jnp.float32(0), jnp.where(jax.random.bernoulli(key), 1.0, -1.0))
        return state, jnp.stack(state)

    def step(self, key, state, action):
        del key
        reward = jnp.float32(self.reward(state.time, state.sign, action))
        state = state._replace(time=state.time + 1)
        ended = state.time >= self.length
        return state, Transition(jnp.stack(state), reward, ended & (not self.truncates), ended & self.truncates)


class Exploding(Probe):
    """Ends in one step: by its own rules, then with an observation of NaN, or cut, as the sign says."""

    def step(self, key, state, action):
        del key, action
        terminated = state.sign < 0
        observation = jnp.where(terminated, jnp.nan, jnp.stack(state))
        return state, Transition(observation, state.sign, terminated, ~terminated)


def values_of(agent, state, lane, observations):
    """The value of observations under the greedy policy, PPO's and SAC's own estimate of theirs."""
    critic = state.learners["critic"].params
    if agent.ACTING == "critic":
        return agent._values(agent.critic.unpack(critic), state.statistics, lane, observations).max(0)
    features = experience.features(state.statistics, lane.normalize_observations, observations)
    if not isinstance(agent, SACAgent):
        return agent._value(agent.critic.unpack(critic), lane, features)
    own = Own(agent.critic.members[0], lane.critic.torsos[0])
    outputs = agent.actor(agent.actor.unpack(state.learners["actor"].params), features, lane.actor)
    return agent.kind.expected(outputs, None, agent._critics(own, own.unpack(critic), features))[0]


def trained(env, hyperparams, steps=8000):
    """Returns the agent, its state after training, and the traced hyperparameters."""
    program = Program(
        hyperparams, env, hyperparams.shape(env), num_lanes=1, num_eval_episodes=1, run_seed=0, mesh=local_mesh(1),
        total_timesteps=steps,
    )  # fmt: skip
    program.compile()
    lanes = program.admit(program.empty(), [Task(0, 0, hyperparams)])
    lanes, _ = program.tick(lanes, np.array([hyperparams.num_updates(steps)]))
    lane = jax.tree.map(lambda x: x[0], lanes)
    return program.agent, lane.state, lane.hyperparams


def train(env, algorithm, steps=8000):
    """Returns the value function ``(observations) -> values`` and the greedy actions, both of NumPy arrays."""
    agent, state, lane = trained(env, HYPERPARAMS[algorithm], steps)
    return (
        lambda observations: values_of(agent, state, lane, jnp.asarray(observations, jnp.float32)),
        lambda observations: agent.act(agent.policy(state), lane, jnp.asarray(observations, jnp.float32)),
    )


def both_signs(times):
    return [[t, sign] for t in times for sign in (-1.0, 1.0)]


# name: length, reward of (time, sign), whether its end truncates, and the value at (time, sign)
VALUES = {
    "one step": (1, lambda t, s: 1.0, False, lambda t, s: 1.0),
    "seen in the observation": (1, lambda t, s: s, False, lambda t, s: s),
    "discount": (2, lambda t, s: t, False, lambda t, s: GAMMA ** (1 - t)),
    "termination": (3, lambda t, s: 1.0, False, lambda t, s: (1 - GAMMA ** (3 - t)) / (1 - GAMMA)),
    "truncation": (3, lambda t, s: 1.0, True, lambda t, s: 1 / (1 - GAMMA)),
}


class ValueState(NamedTuple):
    kind: jax.Array
    time: jax.Array
    sign: jax.Array


class AllValues:
    """Every episode is one line of ``VALUES``, drawn at random: one program, and none may spoil another."""

    name, action_space, max_episode_steps = "test.values", Discrete(2), 3
    observation_shape = (len(VALUES) + 2,)

    def reset(self, key):
        kind, sign = jax.random.randint(key, (2,), 0, jnp.array([len(VALUES), 2]))
        state = ValueState(kind, jnp.float32(0), 2.0 * sign - 1)
        return state, self.observe(*state)

    def observe(self, kind, time, sign):
        # A final observation that no episode goes on from would never be trained: hide the time where it matters.
        time = jnp.where(jnp.array([cut for _, _, cut, _ in VALUES.values()])[kind], 0.0, time)
        return jnp.concatenate([jax.nn.one_hot(kind, len(VALUES)), jnp.stack([time, sign])])

    def step(self, key, state, action):
        del key, action
        lengths, rewards, truncates, _ = zip(*VALUES.values(), strict=True)
        reward = jnp.stack([jnp.float32(reward(state.time, state.sign)) for reward in rewards])[state.kind]
        state = state._replace(time=state.time + 1)
        ended, cut = state.time >= jnp.array(lengths)[state.kind], jnp.array(truncates)[state.kind]
        return state, Transition(self.observe(*state), reward, ended & ~cut, ended & cut)


@pytest.mark.parametrize("algorithm", HYPERPARAMS)
def test_the_critic_learns_every_value(algorithm):
    env = AllValues()
    value, _ = train(env, algorithm, steps=25_000)
    for kind, (length, _, _, expected) in enumerate(VALUES.values()):
        places = both_signs(range(length))
        got = value(np.stack([env.observe(kind, *place) for place in places]))
        np.testing.assert_allclose(got, [expected(*place) for place in places], atol=0.15, err_msg=list(VALUES)[kind])


@pytest.mark.parametrize("algorithm", HYPERPARAMS)
def test_the_policy_learns_the_discrete_action_that_the_observation_asks_for(algorithm):
    value, act = train(Probe(1, lambda t, s, a: (a == (s > 0)) * 2.0 - 1.0), algorithm)
    np.testing.assert_array_equal(act(both_signs([0])), [0, 1])
    np.testing.assert_allclose(value(both_signs([0])), 1.0, atol=0.1)


@pytest.mark.parametrize("algorithm", HYPERPARAMS)
def test_the_policy_looks_ahead(algorithm):
    """Action 1 costs 0.2 at once and is worth 1 a step later: 0.8 · 1 > 0.2."""

    class Delayed(Probe):
        def step(self, key, state, action):
            state, transition = super().step(key, state, action)
            state = state._replace(sign=jnp.where(state.time == 1, 2.0 * action - 1, state.sign))
            return state, transition._replace(observation=jnp.stack(state))

    env = Delayed(2, lambda t, s, a: jnp.where(t == 0, -0.2 * a, 0.5 + 0.5 * s))
    value, act = train(env, algorithm)
    np.testing.assert_array_equal(act(both_signs([0])), [1, 1])
    np.testing.assert_allclose(value([[1.0, 1.0]]), [1.0], atol=0.1)
    np.testing.assert_allclose(value(both_signs([0])), GAMMA - 0.2, atol=0.1)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_policy_learns_a_continuous_action(algorithm):
    env = Probe(1, lambda t, s, a: -jnp.square(a - 0.5 * s).sum(), action_space=Box(2))
    _, act = train(env, algorithm)
    np.testing.assert_allclose(act(both_signs([0])), [[-0.5, -0.5], [0.5, 0.5]], atol=0.1)


def test_the_temperature_is_tuned_to_the_target_entropy():
    hyperparams = SAC(MLP((32,), "relu"), MLP((32,), "relu"), actor_lr=5e-3, q_lr=5e-3, alpha_lr=5e-3, **REPLAY)
    agent, state, lane = trained(Probe(1, lambda t, s, a: (a == (s > 0)) * 2.0 - 1.0), hyperparams)
    observations = jnp.asarray(both_signs([0]), jnp.float32)
    outputs = agent.actor(agent.actor.unpack(state.learners["actor"].params), observations.T, lane.actor)
    probabilities = np.asarray(jax.nn.softmax(outputs, axis=0))
    entropy = -(probabilities * np.log(probabilities)).sum(0).mean()
    np.testing.assert_allclose(entropy, hyperparams.target_entropy_scale * np.log(2), atol=0.1)
    np.testing.assert_array_equal(agent.act(agent.policy(state), lane, observations), [0, 1])


@pytest.mark.parametrize("algorithm", HYPERPARAMS)
def test_what_ended_an_episode_is_never_asked_for_its_value(algorithm):
    agent, state, lane = trained(Exploding(1, None), HYPERPARAMS[algorithm], 512)
    assert agent.is_finite(state)
    values = values_of(agent, state, lane, jnp.array([[0.0, -1.0], [0.0, 1.0]]))
    assert values[0] < values[1]
