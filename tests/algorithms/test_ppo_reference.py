"""PPO's update against the same written plainly: NumPy, one transition after another, no padding."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.algorithms import rng
from hyperlax.algorithms.lane import LANES, permutation, stream
from hyperlax.algorithms.ppo import LOSSES as LOSSES_OF
from hyperlax.algorithms.ppo import PPO, SHUFFLE
from hyperlax.networks.mlp import MLP

plain = runpy.run_path(str(Path(__file__).with_name("plain.py")))
network, spring_step = plain["network"], plain["spring_step"]

TOTAL_TIMESTEPS = 100
LOSSES = (*LOSSES_OF["actor"], *LOSSES_OF["critic"])
BASE = PPO(
    MLP((5, 4), "tanh", False), MLP((6,), "relu", True), actor_lr=3e-3, critic_lr=1e-2, gamma=0.9, gae_lambda=0.8,
    clip_eps=0.02, rollout_length=7, total_num_envs=3, num_minibatches=3, epochs=3, normalize_rewards=False,
)  # fmt: skip
LANE_HYPERPARAMS = [
    BASE,
    replace(BASE, standardize_advantages=False, decay_learning_rates=False, max_grad_norm=100.0, clip_eps=0.2),
    replace(BASE, normalize_rewards=True, normalize_observations=False, max_grad_norm=0.01, ent_coef=0.5),
    replace(BASE, gamma=1.0, gae_lambda=1.0, normalize_rewards=True, standardize_advantages=False, vf_coef=2.0),
]


# --- the reference ---------------------------------------------------------------------------------


def actor(params, x):
    return network(params["network"], x, jnp.tanh, False)


def critic(params, x):
    return network(params["network"], x, lambda x: jnp.maximum(x, 0), True)[:, 0]


def log_prob_and_entropy(params, x, action, discrete):
    outputs, log_std = actor(params, x), params["free"]
    if discrete:
        log_p = outputs - jnp.log(jnp.exp(outputs).sum(1, keepdims=True))
        return log_p[jnp.arange(len(x)), action[:, 0].astype(int)], -(jnp.exp(log_p) * log_p).sum(1)
    density = -((action - outputs) ** 2) / (2 * jnp.exp(2 * log_std)) - log_std - 0.5 * jnp.log(2 * jnp.pi)
    return density.sum(1), (log_std + 0.5 + 0.5 * jnp.log(2 * jnp.pi)).sum() * jnp.ones(len(x))


def losses(params, batch, coefficients, discrete):
    """The loss of a minibatch and the means that ``LOSSES`` names."""
    clip_eps, vf_coef, ent_coef = coefficients
    log_prob, entropy = log_prob_and_entropy(params["actor"], batch["x"], batch["action"], discrete)
    ratio = jnp.exp(log_prob - batch["log_prob"])
    clipped = jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps)
    policy = -jnp.minimum(ratio * batch["advantage"], clipped * batch["advantage"]).mean()
    value = 0.5 * ((critic(params["critic"], batch["x"]) - batch["target"]) ** 2).mean()
    kl = (ratio - 1 - jnp.log(ratio)).mean()
    outside = (abs(ratio - 1) > clip_eps).mean()
    total = policy + vf_coef * value - ent_coef * entropy.mean()
    return total, jnp.stack([policy, entropy.mean(), kl, outside, value])


gradient = jax.jit(jax.grad(losses, has_aux=True), static_argnums=3)


def generalised_advantage(delta, done, decay):
    """Equation 16 of Schulman et al. (2016), every advantage summed on its own: O(T²)."""
    advantage = np.zeros_like(delta)
    for env in range(delta.shape[1]):
        for t in range(len(delta)):
            for later in range(t, len(delta)):
                advantage[t, env] += decay ** (later - t) * delta[later, env]
                if done[later, env]:
                    break
    return advantage


class Reference:
    """One update; the attributes are what it leaves behind."""

    def __init__(self, hp, discrete, limit, before, observation, action, orders):
        self.hp, self.discrete, self.limit, self.before = hp, discrete, limit, before
        self.action = action.astype(np.float64)
        self.observation = observation.astype(np.float64)[: hp.rollout_length + 1]
        self.experience()
        self.statistics = self.merged_statistics()
        batch = self.batch()
        self.improve(batch, orders)

    def features(self, observation):
        count, mean, variance = (np.asarray(x, np.float64) for x in self.before["statistics"])
        deviation = np.sqrt((variance if count else np.ones_like(mean)) + 1e-8)
        scaled = np.clip((observation - mean[:-1]) / deviation[:-1], -10, 10)
        return scaled if self.hp.normalize_observations else observation

    def experience(self):
        """Plays the actions again: rewards, ends of episodes, final observations, running sums."""
        steps, envs = self.action.shape[:2]
        self.reward, self.discounted = np.zeros((2, steps, envs))
        self.terminated, self.truncated = np.zeros((2, steps, envs), bool)
        self.final = np.zeros((steps, envs, 3))
        self.running = np.array(self.before["discounted"], np.float64)
        self.episode_return = np.array(self.before["episode_return"], np.float64)
        self.finished = []
        for t in range(steps):
            for i in range(envs):
                after, reward, terminated, truncated = spring_step(
                    self.observation[t, i], self.action[t, i], self.discrete, self.limit
                )
                self.reward[t, i], self.terminated[t, i], self.truncated[t, i] = reward, terminated, truncated
                self.final[t, i] = after
                self.running[i] = self.hp.gamma * self.running[i] + reward
                self.discounted[t, i] = self.running[i]
                self.episode_return[i] += reward
                if terminated or truncated:
                    self.finished.append(self.episode_return[i])
                    self.running[i] = self.episode_return[i] = 0
                else:
                    np.testing.assert_allclose(after, self.observation[t + 1, i], atol=1e-6)

    def merged_statistics(self):
        """Count, mean and variance as if all rows ever seen lay side by side."""
        count, mean, variance = (np.asarray(x, np.float64) for x in self.before["statistics"])
        rows = np.concatenate([self.observation[:-1], self.discounted[..., None]], axis=2).reshape(-1, 4)
        total = count + len(rows)
        new_mean = (count * mean + rows.sum(0)) / total
        squares = count * (variance + (mean - new_mean) ** 2) + ((rows - new_mean) ** 2).sum(0)
        return total, new_mean, squares / total

    def batch(self):
        hp, params = self.hp, self.before["params"]
        reward = self.reward
        if hp.normalize_rewards:
            reward = np.clip(reward / np.sqrt(self.statistics[2][-1] + 1e-8), -10, 10)
        value_of = lambda o: np.asarray(critic(params["critic"], self.features(o.reshape(-1, 3)))).reshape(o.shape[:-1])  # noqa: E731
        value, following = value_of(self.observation[:-1]), value_of(self.final)
        delta = reward + hp.gamma * np.where(self.terminated, 0, following) - value
        advantage = generalised_advantage(delta, self.terminated | self.truncated, hp.gamma * hp.gae_lambda)
        target = advantage + value
        if hp.standardize_advantages:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        x, action = self.features(self.observation[:-1]).reshape(-1, 3), self.action.reshape(-1, self.action.shape[-1])
        log_prob, _ = log_prob_and_entropy(params["actor"], x, action, self.discrete)
        return {"x": x, "action": action, "log_prob": np.asarray(log_prob),
                "advantage": advantage.reshape(-1), "target": target.reshape(-1)}  # fmt: skip

    def improve(self, batch, orders):
        hp = self.hp
        params, (count, mu, nu) = self.before["params"], self.before["adam"]
        budget = -(-TOTAL_TIMESTEPS // hp.steps_per_update)
        left = 1 - self.before["updates"] / budget if hp.decay_learning_rates else 1.0
        rate = {"actor": hp.actor_lr * left, "critic": hp.critic_lr * left}
        coefficients, seen = np.array([hp.clip_eps, hp.vf_coef, hp.ent_coef]), []
        for order in orders:
            for rows in order.reshape(hp.num_minibatches, -1):
                minibatch = {name: x[rows] for name, x in batch.items()}
                grads, means = gradient(params, minibatch, coefficients, self.discrete)
                seen.append(means)
                count += 1
                for name in ("actor", "critic"):
                    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads[name])))
                    clip = min(1.0, hp.max_grad_norm / norm)
                    g = jax.tree.map(lambda g, clip=clip: g * clip, grads[name])
                    mu[name] = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu[name], g)
                    nu[name] = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, nu[name], g)
                    params[name] = jax.tree.map(
                        lambda p, m, v, name=name, count=count: p
                        - rate[name] * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-5),
                        params[name], mu[name], nu[name],
                    )  # fmt: skip
        self.params, self.losses = params, np.mean(seen, axis=0)


# --- the comparison --------------------------------------------------------------------------------


def as_dict(agent, state, lane):
    """One lane's state in float64, its vectors unpacked."""
    state = jax.tree.map(lambda x: np.asarray(x[lane]), state)
    wide = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)  # noqa: E731
    networks = agent.networks
    unpack = lambda vectors: {name: wide(networks[name].unpack(vectors[name])[0]) for name in networks}  # noqa: E731
    adam = {name: jax.tree.leaves(state.learners[name].optimizer) for name in networks}  # count, mean, square
    moments = [unpack({name: leaves[i] for name, leaves in adam.items()}) for i in (1, 2)]
    return {
        "params": unpack({name: learner.params for name, learner in state.learners.items()}),
        "adam": (int(adam["actor"][0]), *moments),
        "statistics": tuple(state.statistics),
        "discounted": state.copies.discounted,
        "episode_return": state.copies.episode_return,
        "updates": int(state.updates),
    }


@pytest.fixture(scope="module", params=[True, False], ids=["discrete", "continuous"])
def updates(request, make_spring):
    """Three updates of the lanes: agent, keys, and of each the state before, the rollout and what came out."""
    env = make_spring(request.param)
    agent = BASE.agent(env, BASE.shape(env))
    lanes = [hp.traced(agent.shape, TOTAL_TIMESTEPS) for hp in LANE_HYPERPARAMS]
    params = [agent.init_params([3, i], hp) for i, hp in enumerate(LANE_HYPERPARAMS)]
    lanes, params = (jax.tree.map(lambda *leaves: np.stack(leaves), *trees) for trees in (lanes, params))
    words = jnp.arange(2 * len(LANE_HYPERPARAMS), dtype=jnp.uint32).reshape(-1, 2)

    def init(words, params, lane):
        return agent.init(rng.wrap(words), params, lane)

    def update(words, state, lane):
        key, on = rng.wrap(words), jnp.bool_(True)
        _, rollout, _ = agent._collect(key, agent.critic.unpack(state.learners["critic"].params), state, lane, on)
        return rollout, *agent.update(key, state, lane, on)

    state = jax.jit(jax.vmap(init, axis_name=LANES))(words, params, lanes)
    update, done = jax.jit(jax.vmap(update, axis_name=LANES)), []
    for _ in range(3):
        rollout, after, metrics = update(words, state, lanes)
        done.append((state, rollout, after, np.asarray(metrics)))
        state = after
    return env, agent, words, done


def compare(reference, after, metrics):
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)  # noqa: E731
    jax.tree.map(close, after["params"], reference.params)
    jax.tree.map(close, after["statistics"], reference.statistics)
    close(after["discounted"], reference.running)
    close(after["episode_return"], reference.episode_return)
    sums, weights = metrics
    np.testing.assert_allclose(sums[:-1] / weights[:-1], reference.losses, rtol=1e-3, atol=1e-5, err_msg=str(LOSSES))
    close(sums[-1], np.sum(reference.finished))
    assert weights[-1] == len(reference.finished)


def test_update_equals_reference(updates):
    env, agent, words, done = updates
    discrete, count = agent.distribution.num_free == 0, BASE.steps_per_update
    for lane, hp in enumerate(LANE_HYPERPARAMS):
        ends = np.zeros(2)
        for number, (before, rollout, after, metrics) in enumerate(done):
            shuffle = stream(rng.wrap(words[lane]), SHUFFLE, jnp.int32(number))
            keys = [jax.random.fold_in(shuffle, epoch) for epoch in range(hp.epochs)]
            orders = [np.asarray(permutation(key, jnp.int32(count), count)) for key in keys]
            observation, action = np.asarray(rollout.observation[lane]), np.asarray(rollout.action[lane])
            with jax.enable_x64(True):
                start = as_dict(agent, before, lane)
                reference = Reference(hp, discrete, env.max_episode_steps, start, observation, action, orders)
            compare(reference, as_dict(agent, after, lane), metrics[lane])
            ends += [reference.terminated.sum(), reference.truncated.sum()]
        assert ends.min() > 0  # or nothing would have been tested


def test_reference_clips_ratios_and_gradients_in_some_lanes_and_not_in_others(updates):
    """Otherwise the comparison would say nothing about clipping."""
    *_, done = updates
    sums, weights = np.moveaxis(done[0][3], 1, 0)
    fraction = (sums / weights)[:, LOSSES.index("clip_fraction")]
    assert fraction.max() > 0.05 and fraction.min() < 0.05
