"""Proximal policy optimisation (Schulman et al., 2017), as one lane among others.

Read top to bottom: the hyperparameters, what they need room for, then one update: collect a
rollout, estimate advantages, improve actor and critic over epochs of minibatches.

Where publications differ, this file does the following. Advantages are standardised over the whole
rollout (a minibatch of two has no useful deviation). The value loss is not clipped. Actor and critic
are separate networks with an optimiser and a gradient clip each. Observation statistics are frozen
within an update, so that the first ratio of an update is exactly one. On truncation the value of the
final observation is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperlax.algorithms import experience
from hyperlax.algorithms.agent import Agent
from hyperlax.algorithms.experience import Copies
from hyperlax.algorithms.gradients import (
    Learner,
    Learners,
    Own,
    Owns,
    Steps,
    adam,
    decayed,
    minibatches,
    take,
)
from hyperlax.algorithms.lane import (
    Columns,
    Metrics,
    keep,
    lane_max,
    masked_mean,
    repeat,
    stream,
)
from hyperlax.algorithms.shape import MinibatchHyperparameters, Role, Shape
from hyperlax.algorithms.statistics import RunningStatistics
from hyperlax.environments.protocol import Box, Discrete, Environment, observation_size
from hyperlax.networks.alternatives import AlternativeNetworks, Alternatives
from hyperlax.networks.distributions import distribution_for
from hyperlax.networks.mlp import MLP
from hyperlax.spaces import (
    Categorical,
    LogUniform,
    Uniform,
    at_least,
    fraction,
    hyperparameter,
    nested,
    non_negative,
    positive,
)

RESET, ACT, STEP, SHUFFLE = range(4)  # purposes of random numbers


@dataclass(frozen=True)
class PPO(MinibatchHyperparameters):
    """Hyperparameters of PPO, each declared here and nowhere else."""

    ACTION_SPACES: ClassVar = (Discrete, Box)

    actor_network: Any = nested(MLP)
    critic_network: Any = nested(MLP)
    actor_lr: float = hyperparameter(
        1e-3, LogUniform(1e-5, 1e-3), kind="scalar", description="Adam step size of the actor", check=positive
    )
    critic_lr: float = hyperparameter(
        1e-3, LogUniform(1e-5, 1e-3), kind="scalar", description="Adam step size of the critic", check=positive
    )
    gamma: float = hyperparameter(
        0.99, Uniform(0.9, 0.999), kind="scalar", description="discount per step", check=fraction
    )
    gae_lambda: float = hyperparameter(
        0.95, Uniform(0.9, 1.0), kind="scalar", description="λ of generalised advantage estimation", check=fraction
    )
    clip_eps: float = hyperparameter(
        0.2, Uniform(0.1, 0.3), kind="scalar", description="clip of the probability ratio at 1 ± this", check=positive
    )
    ent_coef: float = hyperparameter(
        0.005, LogUniform(1e-4, 1e-1), kind="scalar", description="weight of the entropy bonus", check=non_negative
    )
    vf_coef: float = hyperparameter(
        0.5, Uniform(0.25, 0.75), kind="scalar", description="weight of the value loss", check=non_negative
    )
    max_grad_norm: float = hyperparameter(
        0.5, Uniform(0.1, 1.0), kind="scalar", description="clip of each network's gradient norm", check=positive
    )
    rollout_length: int = hyperparameter(
        64, Categorical((16, 32, 64, 128)), kind="structural", description="steps per environment and update",
        check=at_least(1),
    )  # fmt: skip
    epochs: int = hyperparameter(
        8, Categorical((1, 2, 4, 8)), kind="structural", description="passes over a rollout", check=at_least(1)
    )
    num_minibatches: int = hyperparameter(
        8, Categorical((2, 4, 8, 16)), kind="structural", description="minibatches per epoch; must divide the rollout",
        check=at_least(1),
    )  # fmt: skip
    total_num_envs: int = hyperparameter(
        16, Categorical((8, 16, 32)), kind="structural", description="environments stepped at once", check=at_least(1)
    )
    standardize_advantages: bool = hyperparameter(
        True, Categorical((True, False)), kind="scalar", description="to mean 0 and deviation 1 over the rollout"
    )
    decay_learning_rates: bool = hyperparameter(
        True, Categorical((True, False)), kind="scalar", description="linearly to zero over the budget"
    )
    normalize_observations: bool = hyperparameter(
        True, Categorical((True, False)), kind="scalar", description="by running mean and deviation"
    )
    normalize_rewards: bool = hyperparameter(
        True, Categorical((True, False)), kind="scalar", description="by the running deviation of discounted returns"
    )

    def shape(self, env: Environment) -> Shape:
        """Returns the static shape of exactly this configuration."""
        distribution, inputs = distribution_for(env.action_space), tuple(env.observation_shape)
        outputs, features = distribution.num_parameters, observation_size(env)
        actor, critic = (Alternatives.exact(n, getattr(self, f"{n}_network"), inputs) for n in ("actor", "critic"))
        return self.exact_shape(
            roles=(Role("actor", actor, outputs, distribution.num_free), Role("critic", critic, 1)),
            rollout_width=6 * features + 4 * outputs + 20,
        )

    def agent(self, env: Environment, shape: Shape) -> PPOAgent:
        """Returns the functions that train lanes of ``shape``, of which this is one."""
        return PPOAgent(env, shape)


LOSSES = {"actor": ("policy_loss", "entropy", "approx_kl", "clip_fraction"), "critic": ("value_loss",)}


class PPOState(NamedTuple):
    """All that changes while a lane trains."""

    learners: Learners  # of actor and critic, parameters (n,), see networks.alternatives.AlternativeNetworks
    statistics: RunningStatistics  # of the raw observation and, last, of the discounted sum of rewards
    copies: Copies
    updates: jax.Array  # int32


class Rollout(NamedTuple):
    """What was collected; rows ``(rollout_length, num_envs)``, padding behind the lane's own."""

    observation: jax.Array  # (at least rollout_length + 1, num_envs, features), raw
    action: jax.Array  # (rollout_length, num_envs, action_size)
    log_prob: jax.Array
    reward: jax.Array
    discounted: jax.Array  # discounted sum of the episode's rewards so far
    done: jax.Array
    bootstrap: jax.Array  # value of the final observation where truncated, else zero
    valid: jax.Array  # bool


class PPOAgent(Agent):
    """PPO on one environment, compiled for one shape. Every method is for a single lane."""

    ACTING = "actor"

    def __init__(self, env: Environment, shape: Shape) -> None:
        self.env, self.shape = env, shape
        self.distribution = distribution_for(env.action_space)
        self.meaning = self.distribution.meaning
        self.actor = AlternativeNetworks.of(shape.role("actor"), 0.01, lane_max)
        self.critic = AlternativeNetworks.of(shape.role("critic"), 1.0, lane_max)
        self.networks = {"actor": self.actor, "critic": self.critic}
        features, size = observation_size(env), self.distribution.action_size
        self.collected = Columns(action=size, log_prob=1, reward=1, discounted=1, done=1, bootstrap=1)
        self.batch = Columns(features=features, action=size, log_prob=1, advantage=1, target=1)
        self.metric_names = (*LOSSES["actor"], *LOSSES["critic"], "episode_return")
        # Values are computed in blocks of time steps that stay in a core's cache.
        steps, most = shape.rollout_length + 1, max(1, 256 // shape.num_envs)
        self.block = min(range(1, most + 1), key=lambda k: (-(-steps // k) * k, -k))
        self.observed_steps = -(-steps // self.block) * self.block

    # --- before training -------------------------------------------------------------------------

    def init_params(self, entropy: Sequence[int], hyperparams: PPO) -> Any:
        """Returns parameters initialised at exact size and padded (on the host), one vector a network."""
        return {
            "actor": self.actor.init([*entropy, 0], hyperparams.actor_network),
            "critic": self.critic.init([*entropy, 1], hyperparams.critic_network),
        }

    def init(self, key: jax.Array, params: Any, lane: Any) -> PPOState:
        """Returns the state before the first update."""
        optimizers = self._optimizers(lane, jnp.int32(0))
        return PPOState(
            learners={
                name: Learner(params[name], optimizer.init(params[name])) for name, optimizer in optimizers.items()
            },
            statistics=RunningStatistics.empty(observation_size(self.env) + 1),
            copies=experience.begin(self.env, stream(key, RESET, jnp.int32(0)), self.shape.num_envs),
            updates=jnp.int32(0),
        )

    # --- one update ------------------------------------------------------------------------------

    def update(self, key: jax.Array, state: PPOState, lane: Any, active: jax.Array) -> tuple[PPOState, Metrics]:
        """Collects one rollout and improves on it; a lane that is not active stays as it is.

        Returns:
            The next state and training metrics; see :data:`hyperlax.algorithms.lane.Metrics`.
        """
        critic = self.critic.unpack(state.learners["critic"].params)
        new, rollout, episodes = self._collect(key, critic, state, lane, active)
        features = self._features(state.statistics, lane, rollout.observation)
        values = self._values(critic, lane, features, active)
        statistics = self._merge_statistics(state.statistics, rollout, active)
        reward = self._scaled_reward(statistics, rollout, lane)
        advantage = self._advantages(rollout._replace(reward=reward), values, lane)
        rows = self._rows(features, rollout, values, advantage, lane)
        learners, losses = self._improve(key, state, rows, lane, active)
        new = new._replace(learners=learners, statistics=statistics, updates=state.updates + active)
        return new, jnp.concatenate([losses, episodes[:, None]], axis=1)

    def _value(self, critic: Any, lane: Any, features: jax.Array) -> jax.Array:
        return self.critic(critic, features, lane.critic)[0]

    def _values(self, critic: Any, lane: Any, features: jax.Array, active: jax.Array) -> jax.Array:
        """Returns the values of all observations, ``(observed steps, num_envs)``."""
        size = self.block * self.shape.num_envs

        def block(i: jax.Array, on: jax.Array, values: jax.Array) -> jax.Array:
            del on  # what is written behind a lane's own steps is padding
            columns = jax.lax.dynamic_slice_in_dim(features, i * size, size, axis=1)
            return jax.lax.dynamic_update_slice(values, self._value(critic, lane, columns), (i * size,))

        blocks = jnp.where(active, jax.lax.div(lane.rollout_length, jnp.int32(self.block)) + 1, 0)
        values = repeat(blocks, block, jnp.zeros(features.shape[1]))
        return values.reshape(self.observed_steps, self.shape.num_envs)

    def _collect(
        self, key: jax.Array, critic: Any, state: PPOState, lane: Any, active: jax.Array
    ) -> tuple[PPOState, Rollout, jax.Array]:
        """Steps every environment ``rollout_length`` times with the current policy.

        Returns:
            The state after the last step, the rollout, and sum and number of the returns of episodes
            that ended, ``(2,)``.
        """
        shape, distribution = self.shape, self.distribution
        params = state.learners["actor"].params
        actor, log_std = self.actor.unpack(params), self.actor.free(params)
        action_key, step_key = stream(key, ACT, state.updates), stream(key, STEP, state.updates)
        steps = jnp.arange(shape.rollout_length)
        valid = jnp.arange(shape.num_envs) < lane.total_num_envs

        def value(observation: jax.Array) -> jax.Array:
            return self._value(critic, lane, self._features(state.statistics, lane, observation))

        def step(t: jax.Array, on: jax.Array, carry: Any) -> Any:
            copies, observations, rows, episodes = carry
            features = self._features(state.statistics, lane, copies.observation)
            outputs = self.actor(actor, features, lane.actor)
            noise = distribution.noise(jax.random.fold_in(action_key, t), shape.num_envs)
            action = distribution.sample(noise, outputs, log_std)
            taken = distribution.to_environment(action)
            after, stepped = experience.step(
                self.env, jax.random.fold_in(step_key, t), copies, taken, lane.gamma, valid
            )
            row = self.collected.join(
                action=action.T,
                log_prob=distribution.log_prob(outputs, log_std, action),
                reward=stepped.transition.reward,
                discounted=stepped.discounted,
                done=stepped.done,
                bootstrap=experience.bootstrap(stepped, valid, value),
            )
            episodes = episodes + jnp.where(on, stepped.episodes, 0.0)
            observations = observations.at[t + 1].set(after.observation)
            return keep(on, after, copies), observations, rows.at[t].set(row), episodes

        first = state.copies.observation
        observations = jnp.zeros((self.observed_steps, *first.shape)).at[0].set(first)
        rows = jnp.zeros((shape.rollout_length, shape.num_envs, self.collected.width))
        length = jnp.where(active, lane.rollout_length, 0)
        copies, observations, rows, episodes = repeat(length, step, (state.copies, observations, rows, jnp.zeros(2)))
        valid = (steps[:, None] < lane.rollout_length) & valid
        groups = self.collected.split(rows)
        groups["action"] = groups["action"].reshape(*valid.shape, -1)
        return state._replace(copies=copies), Rollout(observation=observations, valid=valid, **groups), episodes

    @staticmethod
    def _merge_statistics(statistics: RunningStatistics, rollout: Rollout, active: jax.Array) -> RunningStatistics:
        """Adds the rollout's observations and discounted returns."""
        observed = rollout.observation[: rollout.valid.shape[0]]
        rows = jnp.concatenate([observed, rollout.discounted[..., None]], axis=-1)
        return statistics.merge(rows.reshape(rollout.valid.size, -1), (rollout.valid & active).reshape(-1))

    @staticmethod
    def _scaled_reward(statistics: RunningStatistics, rollout: Rollout, lane: Any) -> jax.Array:
        """Divides rewards by the running deviation of the discounted return, this rollout included."""
        scaled = jnp.clip(rollout.reward / statistics.deviation()[-1], -10.0, 10.0)
        return jnp.where(lane.normalize_rewards, scaled, rollout.reward)

    def _advantages(self, rollout: Rollout, values: jax.Array, lane: Any) -> jax.Array:
        """Returns generalised advantages ``(rollout_length, num_envs)`` (Schulman et al., 2016, eq. 16)."""
        steps = self.shape.rollout_length
        value, next_value = values[:steps], values[1 : steps + 1]
        following = jnp.where(rollout.done > 0, rollout.bootstrap, next_value)
        delta = jnp.where(rollout.valid, rollout.reward + lane.gamma * following - value, 0.0)
        decay = lane.gamma * lane.gae_lambda * jnp.where((rollout.done > 0) | ~rollout.valid, 0.0, 1.0)

        def step(advantage: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            advantage = row[0] + row[1] * advantage
            return advantage, advantage

        return jax.lax.scan(step, jnp.zeros(self.shape.num_envs), (delta, decay), reverse=True)[1]

    def _rows(
        self, features: jax.Array, rollout: Rollout, values: jax.Array, advantage: jax.Array, lane: Any
    ) -> jax.Array:
        """Returns all that the losses need, one row a transition, so that a minibatch is one gather."""
        mean = masked_mean(advantage, rollout.valid)
        deviation = jnp.sqrt(masked_mean((advantage - mean) ** 2, rollout.valid))
        standardized = (advantage - mean) / (deviation + 1e-8)
        count = rollout.valid.size
        return self.batch.join(
            features=features[:, :count].T,
            action=rollout.action.reshape(count, -1),
            log_prob=rollout.log_prob.reshape(-1),
            advantage=jnp.where(lane.standardize_advantages, standardized, advantage).reshape(-1),
            target=(advantage + values[: rollout.valid.shape[0]]).reshape(-1),
        )

    # --- gradient steps --------------------------------------------------------------------------

    def _optimizers(self, lane: Any, updates: jax.Array) -> dict[str, optax.GradientTransformation]:
        rates = {"actor": lane.actor_lr, "critic": lane.critic_lr}
        return {name: adam(decayed(rate, lane, updates), lane.max_grad_norm) for name, rate in rates.items()}

    def _minibatch(self, rows: jax.Array) -> dict[str, jax.Array]:
        """Returns the named columns of rows, features and actions as ``(size, batch)``."""
        groups = self.batch.split(rows)
        columns = {name: groups[name].reshape(rows.shape[0], -1).T for name in ("features", "action")}
        return groups | columns

    def _actor_loss(
        self, params: Any, own: Own, lane: Any, batch: dict[str, jax.Array], weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times each transition's loss, and the sums of the actor's LOSSES."""
        distribution, log_std, advantage = self.distribution, params["free"], batch["advantage"]
        outputs = own(params, batch["features"])
        log_ratio = distribution.log_prob(outputs, log_std, batch["action"]) - batch["log_prob"]
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1.0 - lane.clip_eps, 1.0 + lane.clip_eps)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage)
        entropy = distribution.entropy(outputs, log_std)
        is_clipped = jnp.abs(ratio - 1.0) > lane.clip_eps
        losses = jnp.stack([policy_loss, entropy, ratio - 1.0 - log_ratio, is_clipped])
        return weight @ (policy_loss - lane.ent_coef * entropy), jax.lax.stop_gradient(losses) @ weight

    def _critic_loss(
        self, params: Any, own: Own, lane: Any, batch: dict[str, jax.Array], weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times each transition's loss, and that of the critic's LOSSES."""
        loss = 0.5 * (own(params, batch["features"])[0] - batch["target"]) ** 2 @ weight
        return lane.vf_coef * loss, loss[None]

    def _improve(
        self, key: jax.Array, state: PPOState, rows: jax.Array, lane: Any, active: jax.Array
    ) -> tuple[Learners, Metrics]:
        """Takes ``epochs × num_minibatches`` gradient steps with actor and critic, which know nothing of each other."""
        optimizers = self._optimizers(lane, state.updates)
        functions = {"actor": self._actor_loss, "critic": self._critic_loss}

        def gradients(owns: Owns, learners: Learners, indices: jax.Array, weight: jax.Array, number: jax.Array) -> Any:
            del number
            batch, grads, news = self._minibatch(rows[indices]), {}, []
            for name, own in owns.items():
                grads[name], losses = own.gradient(functions[name], learners[name].params, own, lane, batch, weight)
                news.append(losses)
            return grads, jnp.concatenate(news), None

        def finish(learners: Learners, grads: dict[str, jax.Array], number: jax.Array) -> Learners:
            del number
            return {name: learner.step(optimizers[name], grads[name]) for name, learner in learners.items()}

        def steps(names: tuple[str, ...]) -> Steps:
            num_losses = sum(len(LOSSES[name]) for name in names)
            shuffling = stream(key, SHUFFLE, state.updates)
            return minibatches(shuffling, self.shape, lane, active, num_losses, gradients, finish)

        learners, losses, _ = take(self.shape, steps, self.networks, lane, state.learners)
        weight = jnp.where(active, lane.epochs * lane.num_minibatches, 0).astype(jnp.float32)
        return learners, jnp.stack([losses, jnp.broadcast_to(weight, losses.shape)])

    # --- the policy ------------------------------------------------------------------------------

    def _greedy(self, outputs: jax.Array, free: jax.Array, lane: Any) -> jax.Array:
        del lane
        return self.distribution.to_environment(self.distribution.mode(outputs, free))
