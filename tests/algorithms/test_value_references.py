"""DQN, SAC and PQN against the same written plainly: lists, loops and optax, one transition after another, no padding.

Each reference is given what an update collected and the numbers that it drew, checks the former against the
environment written in NumPy, and learns from it by losses of its own.
"""

from __future__ import annotations

import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperlax.algorithms import dqn, pqn, rng, sac
from hyperlax.algorithms.dqn import DQN
from hyperlax.algorithms.lane import permutation, stream
from hyperlax.algorithms.pqn import PQN
from hyperlax.algorithms.sac import SAC
from hyperlax.networks.mlp import MLP

plain = runpy.run_path(str(Path(__file__).with_name("plain.py")))
network, spring_step = plain["network"], plain["spring_step"]

TOTAL_TIMESTEPS, UPDATES = 200, 5
RELU, TANH = (lambda x: jnp.maximum(x, 0)), jnp.tanh
SHAPES = dict(rollout_length=4, total_num_envs=3, epochs=3)
REPLAY = dict(SHAPES, warmup_rollout_length=5, total_buffer_size=45, total_batch_size=7)

DQNS = {
    "plain": DQN(
        MLP((6,), "relu", True), critic_lr=1e-2, use_double_q=False, huber_loss_parameter=0.0, tau=0.3,
        target_update_interval=1, noise_period=3, **REPLAY,
    ),
    "double, huber": DQN(
        MLP((6,), "relu", True), critic_lr=1e-2, huber_loss_parameter=0.3, gamma=0.9, tau=0.1,
        target_update_interval=1, **REPLAY,
    ),
    "duelling, three steps": DQN(
        MLP((6,), "relu", True), critic_lr=1e-2, use_dueling=True, n_step=3, tau=0.3, target_update_interval=2,
        decay_learning_rates=True, max_abs_reward=0.5, **REPLAY,
    ),
    "prioritised, normalised": DQN(
        MLP((6,), "relu", True), critic_lr=1e-2, use_prioritized_replay=True, normalize_observations=True,
        max_grad_norm=0.05, tau=1.0, target_update_interval=3, **REPLAY,
    ),
}  # fmt: skip
SACS = {
    "tuned": SAC(
        MLP((5,), "tanh", False), MLP((6,), "relu", True), alpha_lr=1e-2, q_lr=1e-2, tau=0.2,
        noise_period=3, decay_learning_rates=True, **REPLAY,
    ),
    "fixed, normalised": SAC(
        MLP((5,), "tanh", False), MLP((6,), "relu", True), autotune=False, init_alpha=0.3, gamma=0.9,
        normalize_observations=True, max_grad_norm=0.05, **REPLAY,
    ),
}  # fmt: skip
PQNS = {
    "default": PQN(MLP((6,), "relu", True), critic_lr=1e-2, **SHAPES, num_minibatches=3),
    "normalised": PQN(
        MLP((6,), "relu", True), normalize_observations=True, decay_learning_rates=False, max_grad_norm=0.05,
        **SHAPES, num_minibatches=2,
    ),
}  # fmt: skip


def q_network(tree, x):
    return network(tree["network"], x, RELU, True)


def copied(tree):
    return jax.tree.map(np.asarray, tree)


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype == np.float32 else x, tree)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


class Trained:
    """What one lane went through: the state before and after each update, and what was collected in between."""

    def __init__(self, hp, env):
        self.hp, self.env, self.shape = hp, env, hp.shape(env)
        self.agent, self.lane = hp.agent(env, self.shape), wide(hp.traced(self.shape, TOTAL_TIMESTEPS))
        self.key = rng.wrap(jnp.array([5, 32], jnp.uint32))
        params = wide(self.agent.init_params([3], hp))
        if "actor" in params:  # the initial policy would be hard to tell from the random one of the warm-up
            params["actor"] = params["actor"] + np.random.default_rng(0).normal(0, 0.7, params["actor"].shape)
        self.states = [jax.jit(self.agent.init)(self.key, params, self.lane)]
        on, update, collect = jnp.bool_(True), jax.jit(self.agent.update), jax.jit(self.agent._collect)
        self.collected, self.losses = [], []
        for _ in range(UPDATES):
            self.collected.append(copied(collect(self.key, self.states[-1], self.lane, on)))
            after, metrics = update(self.key, self.states[-1], self.lane, on)
            self.states.append(after)
            sums, weights = np.asarray(metrics)
            self.losses.append(sums / np.maximum(weights, 1))

    def tree(self, update, name, which="params"):
        """The parameters of a network as a pytree, after so many updates."""
        vector, member = getattr(self.states[update].learners[name], which), self.agent.networks[name].members[0]
        unpack = member.vector.unpack
        return copied(unpack(vector) if vector.ndim == 1 else jax.vmap(unpack)(vector))


def features(hp, statistics, observation):
    count, mean, variance = (np.asarray(x, np.float64) for x in statistics)
    deviation = np.sqrt((variance if count else np.ones_like(mean)) + 1e-8)
    return np.clip((observation - mean) / deviation, -10, 10) if hp.normalize_observations else observation


def check_transition(observation, action, reward, terminated, done, following, discrete, env, limit=1e9):
    after, expected, ended, cut = spring_step(observation, action, discrete, env.max_episode_steps)
    np.testing.assert_allclose(following, after, atol=1e-8)
    np.testing.assert_allclose(reward, np.clip(expected, -limit, limit), atol=1e-8)
    assert (terminated, done) == (ended, ended or cut)


def remembered(trained, number):
    """All transitions up to an update, as a list of steps of dicts, each checked against the environment."""
    hp, discrete = trained.hp, trained.agent.replay.columns.width == 2 * 3 + 4
    memory = trained.collected[number][0].memory
    groups = trained.agent.replay.columns.split(memory.rows)
    steps, newest = trained.hp.buffer_steps, int(memory.steps) - 1
    out = {}
    for t in range(max(0, newest - steps + 1), newest + 1):
        for env in range(hp.total_num_envs):
            row = {name: x[t % steps * hp.total_num_envs + env] for name, x in groups.items()}
            action = np.atleast_1d(row["action"])
            check_transition(
                row["observation"], action, row["reward"], bool(row["terminated"]), bool(row["done"]),
                row["next_observation"], discrete, trained.env, getattr(hp, "max_abs_reward", 1e9),
            )  # fmt: skip
            out[t, env] = row
    return out, newest


def entries(trained, number, gradient_step, rows, newest, uniform_key):
    """The (step, environment) pairs that a gradient step drew uniformly."""
    hp = trained.hp
    bits = np.asarray(jax.random.bits(uniform_key, (hp.total_batch_size,), jnp.uint32))
    filled = min(newest + 1, hp.buffer_steps) * hp.total_num_envs
    return [place_of(trained, newest, int(index)) for index in bits % filled]


def place_of(trained, newest, index):
    hp = trained.hp
    slot, env = divmod(index, hp.total_num_envs)
    return max(t for t in range(newest + 1) if t % hp.buffer_steps == slot), env


def walked(hp, rows, start, env, newest):
    """Reward, discount of the next value and last observation of a transition of up to ``n_step`` steps."""
    reward, discount, t = 0.0, 1.0, start
    while True:
        row = rows[t, env]
        reward, discount = reward + discount * row["reward"], discount * hp.gamma
        if row["done"] or t == newest or t - start + 1 == getattr(hp, "n_step", 1):
            return reward, 0.0 if row["terminated"] else discount, row["next_observation"]
        t += 1


def adam(rate, clip):
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(rate, eps=1e-5))


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8), a, b)


# --- acting ----------------------------------------------------------------------------------------


def newest_steps(trained, number, rows):
    """Observations ``(steps, environments, …)`` and actions of an update, out of the transitions remembered."""
    hp = trained.hp
    steps, envs = range(number * hp.rollout_length, (number + 1) * hp.rollout_length), range(hp.total_num_envs)
    return (np.array([[rows[t, env][name] for env in envs] for t in steps]) for name in ("observation", "action"))


def check_exploration(trained, number, observations, actions, values, keys, warmup=0):
    """The actions of an update are those of an ε-greedy policy that is random during the warm-up.

    Returns how many were random, and how many the best.
    """
    hp, best = trained.hp, 0
    for t, (observation, action, key) in enumerate(zip(observations, actions, keys, strict=True)):
        progress = (number + t / hp.rollout_length) / hp.num_updates(TOTAL_TIMESTEPS) / hp.exploration_fraction
        epsilon = hp.initial_epsilon + (hp.training_epsilon - hp.initial_epsilon) * min(1, progress)
        epsilon = 1.0 if number * hp.rollout_length + t < warmup else epsilon
        draws = np.asarray(jax.random.uniform(key, (hp.total_num_envs, 2)))
        greedy = np.asarray(values(features(hp, trained.states[number].statistics, observation))).argmax(1)
        expected = np.where(draws[:, 0] < epsilon, (draws[:, 1] * 3).astype(int), greedy)
        np.testing.assert_array_equal(action, expected)
        best += int((draws[:, 0] >= epsilon).sum())
    return np.array([actions.size - best, best])


# --- DQN -------------------------------------------------------------------------------------------


def dqn_values(hp, tree, x):
    outputs = q_network(tree, x)
    actions, state = outputs[:, :-1], outputs[:, -1:]
    return actions + state - actions.mean(1, keepdims=True) if hp.use_dueling else actions


def dqn_loss(tree, hp, x, action, target, importance):
    value = dqn_values(hp, tree, x)[jnp.arange(len(x)), action]
    error, limit = value - target, hp.huber_loss_parameter
    huber = jnp.where(jnp.abs(error) <= limit, 0.5 * error**2, limit * (jnp.abs(error) - limit / 2))
    return (importance * (huber if limit else 0.5 * error**2)).mean(), error


@pytest.mark.parametrize("name", DQNS)
def test_dqn_equals_its_reference(make_spring, name):
    hp = DQNS[name]
    trained = Trained(hp, make_spring(True))
    params, target = trained.tree(0, "critic"), trained.tree(0, "critic", "target")
    priorities, largest = {}, 1.0
    optimizer_state, budget, ends, explored = None, hp.num_updates(TOTAL_TIMESTEPS), 0, np.zeros(2, int)
    for number in range(UPDATES):
        rows, newest = remembered(trained, number)
        periods = [(number * hp.rollout_length + t) // hp.noise_period for t in range(hp.rollout_length)]
        keys = [stream(trained.key, dqn.ACT, jnp.int32(period)) for period in periods]
        values_now = partial(dqn_values, hp, params)
        explored += check_exploration(
            trained, number, *newest_steps(trained, number, rows), values_now, keys, hp.warmup_rollout_length
        )
        for t in range(newest - hp.rollout_length + 1, newest + 1):
            priorities |= {(t, env): largest for env in range(hp.total_num_envs)}
        optimizer = adam(hp.critic_lr * (1 - number / budget if hp.decay_learning_rates else 1), hp.max_grad_norm)
        optimizer_state = optimizer_state or optimizer.init(params)
        statistics, losses = trained.collected[number][0].statistics, []
        learns = (number + 1) * hp.rollout_length >= hp.warmup_rollout_length
        for step in range(hp.epochs if learns else 0):
            key = jax.random.fold_in(stream(trained.key, dqn.SAMPLE, jnp.int32(number)), step)
            drawn, importance = entries(trained, number, step, rows, newest, key), np.ones(hp.total_batch_size)
            if hp.use_prioritized_replay:
                slots = range(min(newest + 1, hp.buffer_steps) * hp.total_num_envs)
                places = [place_of(trained, newest, slot) for slot in slots]
                weights = np.array([priorities[place] for place in places])
                uniform = np.asarray(jax.random.uniform(key, (hp.total_batch_size,)))
                chosen = np.searchsorted(np.cumsum(weights), uniform * weights.sum(), side="right")
                drawn = [places[i] for i in chosen]
                beta = hp.importance_exponent + (1 - hp.importance_exponent) * number / budget
                importance = (len(places) * weights[chosen] / weights.sum()) ** -beta
                importance = importance / importance.max()
            x = features(hp, statistics, np.stack([rows[place]["observation"] for place in drawn]))
            walks = [walked(hp, rows, t, env, newest) for t, env in drawn]
            following = features(hp, statistics, np.stack([w[2] for w in walks]))
            values = np.asarray(dqn_values(hp, target, following))
            chooser = np.asarray(dqn_values(hp, params, following)) if hp.use_double_q else values
            best = values[np.arange(len(drawn)), chooser.argmax(1)]
            wanted = np.array([w[0] for w in walks]) + np.array([w[1] for w in walks]) * best
            action = np.array([int(rows[place]["action"]) for place in drawn])
            (loss, error), grads = jax.value_and_grad(dqn_loss, has_aux=True)(params, hp, x, action, wanted, importance)
            changes, optimizer_state = optimizer.update(grads, optimizer_state, params)
            params = copied(optax.apply_updates(params, changes))
            if (number * hp.epochs + step + 1) % hp.target_update_interval == 0:
                target = jax.tree.map(lambda t, p: (1 - hp.tau) * t + hp.tau * p, target, params)
            if hp.use_prioritized_replay:
                new = (np.abs(error) + 1e-6) ** hp.priority_exponent
                priorities |= dict(zip(drawn, new, strict=True))
                largest = max(largest, new.max())
            losses.append(float(loss))
            ends += sum(w[1] == 0 for w in walks)
        close(trained.tree(number + 1, "critic"), params)
        close(trained.tree(number + 1, "critic", "target"), target)
        np.testing.assert_allclose(trained.losses[number][0], np.mean(losses) if losses else 0, rtol=1e-6, atol=1e-8)
    assert ends > 0  # or terminations would not have been tested
    assert explored.min() > 0


# --- SAC -------------------------------------------------------------------------------------------


def policy(tree, x, noise, discrete):
    """Discrete: probabilities and their logarithms; continuous: an action and its log-probability."""
    outputs = network(tree["network"], x, TANH, False)
    if discrete:
        log_p = jax.nn.log_softmax(outputs)
        return jnp.exp(log_p), log_p
    size = outputs.shape[1] // 2
    mean, log_std = outputs[:, :size], -5 + 3.5 * (jnp.tanh(outputs[:, size:]) + 1)
    before = mean + jnp.exp(log_std) * noise
    # 1 / cosh² is the slope of tanh; 1 - tanh² would lose its digits at large actions
    density = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi) + 2 * jnp.log(jnp.cosh(before))
    return jnp.tanh(before), density.sum(1)


def critics(tree, x, action, discrete):
    """Values ``(2, batch)`` of actions, or ``(2, batch, actions)``."""
    inputs = x if discrete else jnp.concatenate([x, action], axis=1)
    values = jnp.stack([q_network(jax.tree.map(lambda leaf, i=i: leaf[i], tree), inputs) for i in (0, 1)])
    return values if discrete else values[..., 0]


def soft_value(critic, actor, alpha, x, noise, discrete):
    """The expected value under the policy with and without its entropy, and the entropy, ``(batch,)``."""
    a, log_p = policy(actor, x, noise, discrete)
    least = critics(critic, x, a, discrete).min(0)
    value, entropy = ((a * least).sum(1), -(a * log_p).sum(1)) if discrete else (least, -log_p)
    return value + alpha * entropy, entropy


def check_policy(trained, number, rows, actor, discrete):
    """The actions remembered of an update are the policy's, of one noise a period, and random during the warm-up.

    Returns how many policy and warm-up would choose differently, during the warm-up and after it.
    """
    hp, different = trained.hp, np.zeros(2, int)
    for t, (observation, action) in enumerate(zip(*newest_steps(trained, number, rows), strict=True)):
        step = number * hp.rollout_length + t
        key = stream(trained.key, sac.ACT, jnp.int32(step // hp.noise_period))
        x = features(hp, trained.states[number].statistics, observation)
        if discrete:
            uniform = np.asarray(jax.random.uniform(key, (hp.total_num_envs,)))
            anything = (3 * uniform).astype(int)
            below = np.cumsum(policy(actor, x, None, True)[0], axis=1)
            chosen = np.array([np.searchsorted(b, u, side="right") for b, u in zip(below, uniform, strict=True)])
        else:
            noise = jax.random.normal(jax.random.fold_in(key, 0), (hp.total_num_envs, 2))
            chosen = np.asarray(policy(actor, x, noise, False)[0])
            anything = 2 * np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (hp.total_num_envs, 2))) - 1
        warm = step >= hp.warmup_rollout_length
        np.testing.assert_allclose(action, chosen if warm else anything, rtol=1e-6, atol=1e-8)
        different[int(warm)] += (chosen != anything).sum()
    return different


def test_sac_keeps_the_noise_of_exploration_for_its_period(make_spring):
    hp = replace(SACS["tuned"], noise_period=3, warmup_rollout_length=100)
    rows, newest = remembered(Trained(hp, make_spring(False)), UPDATES - 1)
    actions = {t: np.stack([rows[t, env]["action"] for env in range(hp.total_num_envs)]) for t, _ in rows}
    same = [np.array_equal(actions[t], actions[t - 1]) for t in range(min(actions) + 1, newest + 1)]
    assert same == [t % 3 != 0 for t in range(min(actions) + 1, newest + 1)]


@pytest.mark.parametrize(
    "name, discrete",
    [
        pytest.param(name, discrete, marks=() if discrete == (i % 2 == 0) else pytest.mark.slow)
        for i, name in enumerate(SACS)
        for discrete in (True, False)
    ],
)
def test_sac_equals_its_reference(make_spring, name, discrete):
    hp = SACS[name]
    trained = Trained(hp, make_spring(discrete))
    size = 1 if discrete else 2
    params = {"actor": trained.tree(0, "actor"), "critic": trained.tree(0, "critic"), "alpha": np.log(hp.init_alpha)}
    target = params["critic"]
    wanted_entropy = trained.lane.target_entropy_scale * (np.log(3) if discrete else -2)
    moments, learnt, ends, acted = None, 0, np.zeros(2), np.zeros(2, int)
    for number in range(UPDATES):
        left = 1 - number / hp.num_updates(TOTAL_TIMESTEPS) if hp.decay_learning_rates else 1
        optimizers = {"actor": adam(hp.actor_lr * left, hp.max_grad_norm), "critic": adam(hp.q_lr * left,
                      hp.max_grad_norm), "alpha": optax.adam(hp.alpha_lr * left, eps=1e-5)}  # fmt: skip
        moments = moments or {name: optimizer.init(params[name]) for name, optimizer in optimizers.items()}
        rows, newest = remembered(trained, number)
        acted += check_policy(trained, number, rows, params["actor"], discrete)
        statistics = trained.collected[number][0].statistics
        learns = (number + 1) * hp.rollout_length >= hp.warmup_rollout_length
        for step in range(hp.epochs if learns else 0):
            key = jax.random.fold_in(stream(trained.key, sac.SAMPLE, jnp.int32(number)), step)
            drawn = entries(trained, number, step, rows, newest, jax.random.fold_in(key, 0))
            noise = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (hp.total_batch_size, 2, size)))
            x = features(hp, statistics, np.stack([rows[place]["observation"] for place in drawn]))
            walks = [walked(hp, rows, t, env, newest) for t, env in drawn]
            following = features(hp, statistics, np.stack([w[2] for w in walks]))
            action = np.stack([np.atleast_1d(rows[place]["action"]) for place in drawn])
            alpha = np.exp(params["alpha"])
            value, _ = soft_value(target, params["actor"], alpha, following, noise[:, 1], discrete)
            targets = np.array([w[0] for w in walks]) + np.array([w[1] for w in walks]) * value

            def critic_loss(tree, x=x, action=action, targets=targets):
                values = critics(tree, x, action, discrete)
                if discrete:
                    values = values[:, jnp.arange(len(x)), action[:, 0].astype(int)]
                return (0.5 * (values - targets) ** 2).mean(1).sum()

            def actor_loss(tree, x=x, noise=noise, alpha=alpha, critic=params["critic"]):
                value, entropy = soft_value(critic, tree, alpha, x, noise[:, 0], discrete)
                return -value.mean(), entropy.mean()

            grads = {"critic": jax.grad(critic_loss)(params["critic"])}
            grads["actor"], entropy = jax.grad(actor_loss, has_aux=True)(params["actor"])
            grads["alpha"] = np.asarray(entropy - wanted_entropy if hp.autotune else 0.0)
            for part, optimizer in optimizers.items():
                changes, moments[part] = optimizer.update(grads[part], moments[part], params[part])
                params[part] = copied(optax.apply_updates(params[part], changes))
            target = jax.tree.map(lambda t, p: (1 - hp.tau) * t + hp.tau * p, target, params["critic"])
            learnt += 1
            flags = [(rows[place]["terminated"], rows[place]["done"] - rows[place]["terminated"]) for place in drawn]
            ends += np.sum(flags, axis=0)
        for part in ("actor", "critic"):
            close(trained.tree(number + 1, part), params[part])
        close(trained.tree(number + 1, "critic", "target"), target)
        close(trained.states[number + 1].learners["alpha"].params, params["alpha"])
    assert learnt == hp.epochs * (UPDATES - 1)
    assert ends.min() > 0 and acted.min() > 0  # or terminations, cuts, or either way to act would not have been tested


# --- PQN -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PQNS)
def test_pqn_equals_its_reference(make_spring, name):
    """The targets are taken from the agent: :mod:`test_pqn_targets` checks them against their definition."""
    hp = PQNS[name]
    trained = Trained(hp, make_spring(True))
    params, optimizer_state, ends, explored = trained.tree(0, "critic"), None, 0, np.zeros(2, int)
    for number in range(UPDATES):
        copies, rollout, _ = trained.collected[number]
        acting = stream(trained.key, pqn.ACT, jnp.int32(number))
        keys = [jax.random.fold_in(acting, t) for t in range(hp.rollout_length)]
        values_now = partial(q_network, params)
        explored += check_exploration(trained, number, rollout.observation, rollout.action, values_now, keys)
        before, budget = trained.states[number], hp.num_updates(TOTAL_TIMESTEPS)
        follows = np.concatenate([rollout.observation[1:], copies.observation[None]])
        for t, env in np.ndindex(rollout.reward.shape):
            after, reward, terminated, truncated = spring_step(
                rollout.observation[t, env], rollout.action[t, env, None], True, trained.env.max_episode_steps
            )
            np.testing.assert_allclose(rollout.reward[t, env], reward, atol=1e-8)
            assert bool(rollout.done[t, env]) == (terminated or truncated)
            x = features(hp, before.statistics, after[None])
            expected = q_network(params, x).max() if truncated else 0.0
            np.testing.assert_allclose(rollout.bootstrap[t, env], expected, rtol=1e-6, atol=1e-8)
            if not (terminated or truncated):
                np.testing.assert_allclose(follows[t, env], after, atol=1e-8)
            ends += truncated
        x = features(hp, before.statistics, rollout.observation.reshape(-1, 3))
        np.testing.assert_allclose(rollout.value.reshape(-1), q_network(params, x).max(1), rtol=1e-6, atol=1e-8)
        targets = np.asarray(trained.agent._targets(rollout, trained.lane)).reshape(-1)
        rate = hp.critic_lr * (1 - number / budget if hp.decay_learning_rates else 1)
        optimizer = optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.radam(rate, eps=1e-5))
        optimizer_state = optimizer_state or optimizer.init(params)
        for epoch in range(hp.epochs):
            key = jax.random.fold_in(stream(trained.key, pqn.SHUFFLE, jnp.int32(number)), epoch)
            order = np.asarray(permutation(key, jnp.int32(hp.steps_per_update), hp.steps_per_update))
            for rows in order.reshape(hp.num_minibatches, -1):
                action = rollout.action.reshape(-1)[rows].astype(int)

                def loss(tree, rows=rows, action=action, x=x, targets=targets):
                    return (0.5 * (q_network(tree, x[rows])[jnp.arange(len(rows)), action] - targets[rows]) ** 2).mean()

                changes, optimizer_state = optimizer.update(jax.grad(loss)(params), optimizer_state, params)
                params = copied(optax.apply_updates(params, changes))
        close(trained.tree(number + 1, "critic"), params)
    assert ends > 0 and explored.min() > 0


def test_the_references_differ_where_the_hyperparameters_do():
    """No switch of DQN has the same value in all of the configurations above."""
    for switch in ("use_double_q", "use_dueling", "n_step", "use_prioritized_replay", "normalize_observations"):
        assert len({getattr(hp, switch) for hp in DQNS.values()}) == 2, switch
