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
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hyperlax.algorithms.lane import Columns, Metrics, any_lane, keep, masked_mean, permutation, repeat, stream
from hyperlax.algorithms.statistics import RunningStatistics, normalize
from hyperlax.environments import vector
from hyperlax.environments.protocol import Environment, observation_size
from hyperlax.errors import UserError
from hyperlax.networks.distributions import distribution_for
from hyperlax.networks.mlp import MLP
from hyperlax.networks.network import Network
from hyperlax.networks.padding import Vector, flat, nested_dict
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
class PPO:
    """Hyperparameters of PPO, each declared here and nowhere else."""

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

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one update."""
        return self.rollout_length * self.total_num_envs

    @property
    def minibatch_size(self) -> int:
        """Transitions in one gradient step."""
        return self.steps_per_update // self.num_minibatches

    def check(self, env: Environment) -> None:
        """Raises UserError if the hyperparameters contradict one another or do not fit ``env``."""
        if self.steps_per_update % self.num_minibatches:
            raise UserError(
                f"num_minibatches {self.num_minibatches} does not divide rollout_length {self.rollout_length} × "
                f"total_num_envs {self.total_num_envs} = {self.steps_per_update}"
            )

    def shape(self, env: Environment) -> PPOShape:
        """Returns the static shape of exactly this configuration."""
        del env
        return PPOShape(
            num_envs=self.total_num_envs,
            rollout_length=self.rollout_length,
            minibatch_sizes=(self.minibatch_size, self.minibatch_size),
            chunk=min(self.minibatch_size, MAX_CHUNK),
            actor=self.actor_network.shape(),
            critic=self.critic_network.shape(),
        )

    def traced(self, shape: PPOShape, total_timesteps: int) -> PPOLane:
        """Returns this configuration's place inside ``shape``."""
        f, i, b = np.float32, np.int32, np.bool_
        return PPOLane(
            actor=self.actor_network.traced(shape.actor),
            critic=self.critic_network.traced(shape.critic),
            actor_lr=f(self.actor_lr),
            critic_lr=f(self.critic_lr),
            gamma=f(self.gamma),
            gae_lambda=f(self.gae_lambda),
            clip_eps=f(self.clip_eps),
            ent_coef=f(self.ent_coef),
            vf_coef=f(self.vf_coef),
            max_grad_norm=f(self.max_grad_norm),
            rollout_length=i(self.rollout_length),
            epochs=i(self.epochs),
            num_minibatches=i(self.num_minibatches),
            num_envs=i(self.total_num_envs),
            standardize_advantages=b(self.standardize_advantages),
            decay_learning_rates=b(self.decay_learning_rates),
            normalize_observations=b(self.normalize_observations),
            normalize_rewards=b(self.normalize_rewards),
            num_updates=i(self.num_updates(total_timesteps)),
        )

    def num_updates(self, total_timesteps: int) -> int:
        """Updates of a run of so many environment steps; the last may overshoot."""
        return -(-total_timesteps // self.steps_per_update)

    def work(self, shape: PPOShape) -> tuple[Work, Work]:
        """Returns what one update does in a program of ``shape``: environment steps, gradient evaluations."""
        chunks = self.num_minibatches * -(-self.minibatch_size // shape.chunk)
        return Work(self.rollout_length, shape.num_envs), Work(self.epochs * chunks, shape.chunk)

    def agent(self, env: Environment, shape: PPOShape) -> PPOAgent:
        """Returns the functions that train lanes of ``shape``, of which this is one."""
        return PPOAgent(env, shape, self)


class Work(NamedTuple):
    """A loop of one update: so many iterations, each over a batch of so many inputs."""

    iterations: int
    batch: int


MAX_CHUNK = 1024
LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


@dataclass(frozen=True)
class PPOShape:
    """What a program of PPO lanes is compiled for.

    A minibatch is worked off in chunks of one size for all lanes, a lane with larger minibatches
    taking more chunks before it steps. So lanes of very different minibatch sizes cost no padding.

    Attributes:
        num_envs: most environments of any lane.
        rollout_length: longest rollout of any lane.
        minibatch_sizes: smallest and largest minibatch of any lane.
        chunk: transitions in one gradient evaluation.
        actor: shape of the actor's torso.
        critic: shape of the critic's torso.
    """

    num_envs: int
    rollout_length: int
    minibatch_sizes: tuple[int, int]
    chunk: int
    actor: Any
    critic: Any

    @property
    def rows(self) -> int:
        """Transitions of the largest rollout, padding included."""
        return self.num_envs * self.rollout_length

    def merge(self, other: PPOShape) -> PPOShape:
        """Returns the least shape that holds both; the chunk is that of the first."""
        return PPOShape(
            num_envs=max(self.num_envs, other.num_envs),
            rollout_length=max(self.rollout_length, other.rollout_length),
            minibatch_sizes=(
                min(self.minibatch_sizes[0], other.minibatch_sizes[0]),
                max(self.minibatch_sizes[1], other.minibatch_sizes[1]),
            ),
            chunk=self.chunk,
            actor=self.actor.merge(other.actor),
            critic=self.critic.merge(other.critic),
        )

    def describe(self) -> str:
        """Returns the shape in a few words."""
        return (
            f"{self.num_envs} environments × {self.rollout_length} steps, minibatches of {self.minibatch_sizes[0]} … "
            f"{self.minibatch_sizes[1]} by {self.chunk}, actor {self.actor.describe()}, critic {self.critic.describe()}"
        )

    def variants(self) -> list[PPOShape]:
        """Returns shapes for the same lanes among which the planner may choose: other chunk sizes."""
        smallest, largest = self.minibatch_sizes
        sizes = {min(smallest, MAX_CHUNK), min(largest, MAX_CHUNK)}
        sizes |= {2**k for k in range(1, 11) if smallest <= 2**k <= largest}
        return [replace(self, chunk=chunk) for chunk in sorted(sizes)]

    def flops(self, num_inputs: int, num_outputs: int) -> tuple[int, int]:
        """Returns floating-point operations per environment step and per transition of a gradient.

        Backward takes twice forward; in a rollout the critic sees every observation once as well.
        """
        forward = self.actor.flops(num_inputs, num_outputs) + self.critic.flops(num_inputs, 1)
        return forward, 3 * forward

    def num_params(self, num_inputs: int, num_outputs: int) -> int:
        """Returns the number of parameters of actor and critic, padding included."""
        return self.actor.num_params(num_inputs, num_outputs) + self.critic.num_params(num_inputs, 1)

    def memory(self, num_inputs: int, num_outputs: int, state_numbers: int) -> tuple[int, int]:
        """Returns bytes that one lane keeps, and bytes that it needs while it works.

        Args:
            num_inputs: features of an observation.
            num_outputs: outputs of the actor.
            state_numbers: numbers in the state of one environment.
        """
        params = self.num_params(num_inputs, num_outputs)
        kept = 3 * params + self.num_envs * (num_inputs + state_numbers + 2)
        rows = (self.rollout_length + 1) * self.num_envs
        rollout = rows * (6 * num_inputs + 4 * num_outputs + 20 + state_numbers)
        widths = sum(self.actor.layer_sizes) + sum(self.critic.layer_sizes)
        activations = 4 * max(self.chunk, min(rows, max(256, self.num_envs))) * (widths + num_inputs + num_outputs)
        return 4 * 2 * kept, 4 * (rollout + activations + 6 * params)


class PPOLane(NamedTuple):
    """Hyperparameters as traced values; see :class:`PPO`. ``num_updates`` is the lane's whole budget."""

    actor: Any
    critic: Any
    actor_lr: Any
    critic_lr: Any
    gamma: Any
    gae_lambda: Any
    clip_eps: Any
    ent_coef: Any
    vf_coef: Any
    max_grad_norm: Any
    rollout_length: Any
    epochs: Any
    num_minibatches: Any
    num_envs: Any
    standardize_advantages: Any
    decay_learning_rates: Any
    normalize_observations: Any
    normalize_rewards: Any
    num_updates: Any


class PPOState(NamedTuple):
    """All that changes while a lane trains."""

    params: Any  # {"actor": (n,), "critic": (m,)}, see networks.padding.Vector
    optimizer: Any  # {"actor": …, "critic": …}
    statistics: RunningStatistics  # of the raw observation and, last, of the discounted sum of rewards
    env_states: Any
    observation: jax.Array  # (num_envs, features), raw
    discounted: jax.Array  # (num_envs,), running discounted sum of rewards
    episode_return: jax.Array  # (num_envs,), undiscounted, so far
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


class PPOAgent:
    """PPO on one environment, compiled for one shape. Every method is for a single lane."""

    def __init__(self, env: Environment, shape: PPOShape, example: PPO) -> None:
        self.env, self.shape = env, shape
        self.distribution = distribution_for(env.action_space)
        features = observation_size(env)
        self.actor = Network(shape.actor, features, self.distribution.num_parameters, gain=0.01)
        self.critic = Network(shape.critic, features, 1, gain=1.0)
        log_std = np.zeros(self.distribution.num_free, np.float32)
        actor = {"network": self.actor.abstract_params(example.actor_network), "log_std": log_std}
        critic = self.critic.abstract_params(example.critic_network)
        self.vectors = {"actor": Vector(actor), "critic": Vector(critic)}
        size = self.distribution.action_size
        self.collected = Columns(action=size, log_prob=1, reward=1, discounted=1, done=1, bootstrap=1)
        self.batch = Columns(features=features, action=size, log_prob=1, advantage=1, target=1)
        self.metric_names = (*LOSSES, "episode_return")
        # Values are computed in blocks of time steps that stay in a core's cache.
        steps, most = shape.rollout_length + 1, max(1, 256 // shape.num_envs)
        self.block = min(range(1, most + 1), key=lambda k: (-(-steps // k) * k, -k))
        self.observed_steps = -(-steps // self.block) * self.block

    # --- before training -------------------------------------------------------------------------

    def init_params(self, entropy: Sequence[int], hyperparams: PPO) -> Any:
        """Returns parameters initialised at exact size and padded (on the host), one vector a network."""
        actor = {
            "network": self.actor.init([*entropy, 0], hyperparams.actor_network),
            "log_std": np.zeros(self.distribution.num_free, np.float32),
        }
        critic = self.critic.init([*entropy, 1], hyperparams.critic_network)
        return {"actor": self.vectors["actor"].pack(actor), "critic": self.vectors["critic"].pack(critic)}

    def init(self, key: jax.Array, params: Any, lane: PPOLane) -> PPOState:
        """Returns the state before the first update."""
        shape = self.shape
        env_states, observation = vector.reset(self.env, stream(key, RESET, jnp.int32(0)), shape.num_envs)
        zeros = jnp.zeros(shape.num_envs)
        optimizers = self._optimizers(lane, jnp.int32(0))
        return PPOState(
            params=params,
            optimizer={name: optimizer.init(params[name]) for name, optimizer in optimizers.items()},
            statistics=RunningStatistics.empty(observation_size(self.env) + 1),
            env_states=env_states,
            observation=observation.reshape(shape.num_envs, -1),
            discounted=zeros,
            episode_return=zeros,
            updates=jnp.int32(0),
        )

    def _unpack(self, params: Any) -> Any:
        return {name: vector.unpack(params[name]) for name, vector in self.vectors.items()}

    # --- one update ------------------------------------------------------------------------------

    def update(self, key: jax.Array, state: PPOState, lane: PPOLane, active: jax.Array) -> tuple[PPOState, Metrics]:
        """Collects one rollout and improves on it; a lane that is not active stays as it is.

        Returns:
            The next state and training metrics; see :data:`hyperlax.algorithms.lane.Metrics`.
        """
        params = self._unpack(state.params)
        new, rollout, episodes = self._collect(key, params, state, lane, active)
        features = self._features(state.statistics, lane, rollout.observation)
        values = self._values(params, lane, features, active)
        statistics = self._merge_statistics(state.statistics, rollout, active)
        reward = self._scaled_reward(statistics, rollout, lane)
        advantage = self._advantages(rollout._replace(reward=reward), values, lane)
        rows = self._rows(features, rollout, values, advantage, lane)
        vectors, optimizer, losses = self._improve(key, state, rows, lane, active)
        new = new._replace(params=vectors, optimizer=optimizer, statistics=statistics, updates=state.updates + active)
        return new, jnp.concatenate([losses, episodes[:, None]], axis=1)

    def _features(self, statistics: RunningStatistics, lane: PPOLane, observation: jax.Array) -> jax.Array:
        """Returns what the networks see of raw observations ``(…, features)``: ``(features, batch)``."""
        columns = observation.reshape(-1, observation.shape[-1]).T
        normalized = normalize(columns, statistics.mean[:-1], statistics.deviation()[:-1])
        return jnp.where(lane.normalize_observations, normalized, columns)

    def _value(self, params: Any, lane: PPOLane, features: jax.Array) -> jax.Array:
        return self.critic(params["critic"], features, lane.critic)[0]

    def _values(self, params: Any, lane: PPOLane, features: jax.Array, active: jax.Array) -> jax.Array:
        """Returns the values of all observations, ``(observed steps, num_envs)``."""
        size = self.block * self.shape.num_envs

        def block(i: jax.Array, on: jax.Array, values: jax.Array) -> jax.Array:
            del on  # what is written behind a lane's own steps is padding
            columns = jax.lax.dynamic_slice_in_dim(features, i * size, size, axis=1)
            return jax.lax.dynamic_update_slice(values, self._value(params, lane, columns), (i * size,))

        blocks = jnp.where(active, jax.lax.div(lane.rollout_length, jnp.int32(self.block)) + 1, 0)
        values = repeat(blocks, block, jnp.zeros(features.shape[1]))
        return values.reshape(self.observed_steps, self.shape.num_envs)

    def _collect(
        self, key: jax.Array, params: Any, state: PPOState, lane: PPOLane, active: jax.Array
    ) -> tuple[PPOState, Rollout, jax.Array]:
        """Steps every environment ``rollout_length`` times with the current policy.

        Returns:
            The state after the last step, the rollout, and sum and number of the returns of episodes
            that ended, ``(2,)``.
        """
        shape, distribution, actor = self.shape, self.distribution, params["actor"]
        action_key, step_key = stream(key, ACT, state.updates), stream(key, STEP, state.updates)
        steps = jnp.arange(shape.rollout_length)
        valid = jnp.arange(shape.num_envs) < lane.num_envs

        def step(t: jax.Array, on: jax.Array, carry: Any) -> Any:
            state, observations, rows, episodes = carry
            features = self._features(state.statistics, lane, state.observation)
            outputs = self.actor(actor["network"], features, lane.actor)
            noise = distribution.noise(jax.random.fold_in(action_key, t), shape.num_envs)
            action = distribution.sample(noise, outputs, actor["log_std"])
            env_states, observation, transition = vector.step(
                self.env,
                vector.draw(self.env, jax.random.fold_in(step_key, t), shape.num_envs),
                state.env_states,
                distribution.to_environment(action),
                valid,
                any_lane,
            )
            observation = observation.reshape(shape.num_envs, -1)
            done = transition.terminated | transition.truncated
            discounted = state.discounted * lane.gamma + transition.reward
            episode_return = state.episode_return + transition.reward
            row = self.collected.join(
                action=action.T,
                log_prob=distribution.log_prob(outputs, actor["log_std"], action),
                reward=transition.reward,
                discounted=discounted,
                done=done,
                bootstrap=self._bootstrap(params, state, lane, transition, valid),
            )
            ended = done & valid & on
            episodes = episodes + jnp.stack([jnp.where(ended, episode_return, 0.0), ended]).sum(1)
            new = state._replace(
                env_states=env_states,
                observation=observation,
                discounted=jnp.where(done, 0.0, discounted),
                episode_return=jnp.where(done, 0.0, episode_return),
            )
            return keep(on, new, state), observations.at[t + 1].set(observation), rows.at[t].set(row), episodes

        observations = jnp.zeros((self.observed_steps, *state.observation.shape)).at[0].set(state.observation)
        rows = jnp.zeros((shape.rollout_length, shape.num_envs, self.collected.width))
        length = jnp.where(active, lane.rollout_length, 0)
        state, observations, rows, episodes = repeat(length, step, (state, observations, rows, jnp.zeros(2)))
        valid = (steps[:, None] < lane.rollout_length) & valid
        groups = self.collected.split(rows)
        groups["action"] = groups["action"].reshape(*valid.shape, -1)
        return state, Rollout(observation=observations, valid=valid, **groups), episodes

    def _bootstrap(self, params: Any, state: PPOState, lane: PPOLane, transition: Any, valid: jax.Array) -> jax.Array:
        """Returns the value of the final observation where an episode was cut, ``(num_envs,)``, else zero."""
        truncated = transition.truncated & ~transition.terminated

        def final_value() -> jax.Array:
            final = transition.observation.reshape(self.shape.num_envs, -1)
            return self._value(params, lane, self._features(state.statistics, lane, final)) * truncated

        # Most steps cut no episode in any lane: then the second pass through the critic is skipped.
        return jax.lax.cond(any_lane((truncated & valid).any()), final_value, lambda: jnp.zeros(self.shape.num_envs))

    @staticmethod
    def _merge_statistics(statistics: RunningStatistics, rollout: Rollout, active: jax.Array) -> RunningStatistics:
        """Adds the rollout's observations and discounted returns."""
        observed = rollout.observation[: rollout.valid.shape[0]]
        rows = jnp.concatenate([observed, rollout.discounted[..., None]], axis=-1)
        return statistics.merge(rows.reshape(rollout.valid.size, -1), (rollout.valid & active).reshape(-1))

    @staticmethod
    def _scaled_reward(statistics: RunningStatistics, rollout: Rollout, lane: PPOLane) -> jax.Array:
        """Divides rewards by the running deviation of the discounted return, this rollout included."""
        scaled = jnp.clip(rollout.reward / statistics.deviation()[-1], -10.0, 10.0)
        return jnp.where(lane.normalize_rewards, scaled, rollout.reward)

    def _advantages(self, rollout: Rollout, values: jax.Array, lane: PPOLane) -> jax.Array:
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
        self, features: jax.Array, rollout: Rollout, values: jax.Array, advantage: jax.Array, lane: PPOLane
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

    def _optimizers(self, lane: PPOLane, updates: jax.Array) -> dict[str, optax.GradientTransformation]:
        left = 1.0 - updates / lane.num_updates
        decay = jnp.where(lane.decay_learning_rates, left, 1.0)

        def adam(learning_rate: jax.Array) -> optax.GradientTransformation:
            return optax.chain(
                optax.clip_by_global_norm(lane.max_grad_norm),
                optax.scale_by_adam(eps=1e-5),
                optax.scale_by_learning_rate(learning_rate * decay),
            )

        return {"actor": adam(lane.actor_lr), "critic": adam(lane.critic_lr)}

    def _loss(self, params: Any, lane: PPOLane, rows: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times each transition's loss, and the sums that :data:`LOSSES` names."""
        distribution, batch = self.distribution, self.batch.split(rows)
        features, action = batch["features"].reshape(rows.shape[0], -1).T, batch["action"].reshape(rows.shape[0], -1).T
        advantage, log_std = batch["advantage"], params["actor"]["log_std"]
        outputs = self.actor(params["actor"]["network"], features, lane.actor)
        log_ratio = distribution.log_prob(outputs, log_std, action) - batch["log_prob"]
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1.0 - lane.clip_eps, 1.0 + lane.clip_eps)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage)
        entropy = distribution.entropy(outputs, log_std)
        value_loss = 0.5 * (self._value(params, lane, features) - batch["target"]) ** 2
        loss = policy_loss + lane.vf_coef * value_loss - lane.ent_coef * entropy
        is_clipped = jnp.abs(ratio - 1.0) > lane.clip_eps
        losses = jnp.stack([policy_loss, value_loss, entropy, ratio - 1.0 - log_ratio, is_clipped])
        return weight @ loss, jax.lax.stop_gradient(losses) @ weight

    def _improve(
        self, key: jax.Array, state: PPOState, rows: jax.Array, lane: PPOLane, active: jax.Array
    ) -> tuple[Any, Any, Metrics]:
        """Takes ``epochs × num_minibatches`` gradient steps, each over all chunks of its minibatch."""
        shape, div, rem = self.shape, jax.lax.div, jax.lax.rem
        count = lane.rollout_length * lane.num_envs
        minibatch_size = div(count, lane.num_minibatches)
        chunks = div(minibatch_size + shape.chunk - 1, jnp.int32(shape.chunk))
        chunks_per_epoch = lane.num_minibatches * chunks
        shuffle_key = stream(key, SHUFFLE, state.updates)
        optimizers = self._optimizers(lane, state.updates)
        accumulates = shape.minibatch_sizes[1] > shape.chunk
        transitions = jnp.arange(rows.shape[0], dtype=jnp.int32)
        row_of = div(transitions, lane.num_envs) * shape.num_envs + rem(transitions, lane.num_envs)

        def shuffle(epoch: jax.Array) -> jax.Array:
            return row_of[permutation(jax.random.fold_in(shuffle_key, epoch), count, rows.shape[0])]

        def step(i: jax.Array, on: jax.Array, carry: Any) -> Any:
            params, optimizer, order, summed, losses = carry
            epoch, position = div(i, chunks_per_epoch), rem(i, chunks_per_epoch)
            minibatch, chunk = div(position, chunks), rem(position, chunks)
            begins = on & (position == 0)
            order = jax.lax.cond(any_lane(begins), lambda: jnp.where(begins, shuffle(epoch), order), lambda: order)
            within = chunk * shape.chunk + jnp.arange(shape.chunk)
            weight = (within < minibatch_size) / minibatch_size.astype(jnp.float32)
            batch = rows[order[jnp.minimum(minibatch * minibatch_size + within, count - 1)]]
            grads, chunk_losses = jax.grad(self._loss, has_aux=True)(self._unpack(params), lane, batch, weight)
            grads = {name: vector.pack(grads[name]) for name, vector in self.vectors.items()}
            if accumulates:
                grads = jax.tree.map(lambda a, b: jnp.where(chunk == 0, 0.0, a) + b, summed, grads)
                summed = grads
            new = self._apply(optimizers, params, optimizer, grads)
            params, optimizer = keep(on & (chunk == chunks - 1), new, (params, optimizer))
            return params, optimizer, order, summed, losses + jnp.where(on, chunk_losses, 0.0)

        carry = (
            state.params,
            state.optimizer,
            jnp.zeros(rows.shape[0], jnp.int32),
            jax.tree.map(jnp.zeros_like, state.params) if accumulates else None,
            jnp.zeros(len(LOSSES)),
        )
        iterations = jnp.where(active, lane.epochs * chunks_per_epoch, 0)
        params, optimizer, _, _, losses = repeat(iterations, step, carry)
        steps = jnp.where(active, lane.epochs * lane.num_minibatches, 0).astype(jnp.float32)
        return params, optimizer, jnp.stack([losses, jnp.broadcast_to(steps, losses.shape)])

    @staticmethod
    def _apply(optimizers: dict[str, optax.GradientTransformation], params: Any, states: Any, grads: Any) -> Any:
        new_params, new_states = {}, {}
        for name, optimizer in optimizers.items():
            updates, new_states[name] = optimizer.update(grads[name], states[name], params[name])
            new_params[name] = optax.apply_updates(params[name], updates)
        return new_params, new_states

    def is_finite(self, state: PPOState) -> jax.Array:
        """Returns whether everything that is learnt is finite."""
        return jnp.isfinite(state.params["actor"]).all() & jnp.isfinite(state.params["critic"]).all()

    # --- the policy ------------------------------------------------------------------------------

    def policy(self, state: PPOState) -> Any:
        """Returns the part of the state that acting needs."""
        return {"actor": state.params["actor"], "statistics": state.statistics}

    def act(self, policy: Any, lane: PPOLane, observation: jax.Array) -> jax.Array:
        """Returns greedy actions for raw observations ``(batch, features)``, as the environment takes them."""
        actor = self.vectors["actor"].unpack(policy["actor"])
        features = self._features(policy["statistics"], lane, observation)
        outputs = self.actor(actor["network"], features, lane.actor)
        return self.distribution.to_environment(self.distribution.mode(outputs, actor["log_std"]))

    def export(self, policy: Any, hyperparams: PPO) -> dict[str, np.ndarray]:
        """Returns one lane's policy at its exact size as flat arrays, ``actor/head/bias`` and so on."""
        actor = self.vectors["actor"].unpack(policy["actor"])
        exact = {"actor": self.actor.export(actor["network"], hyperparams.actor_network), "log_std": actor["log_std"]}
        return {**flat(exact), **flat({"statistics": policy["statistics"]._asdict()})}

    def restore(self, arrays: dict[str, np.ndarray]) -> Any:
        """Returns the policy of exported arrays, for an agent of exactly their shape."""
        tree = nested_dict(arrays)
        actor = {"network": tree["actor"], "log_std": tree["log_std"]}
        statistics = RunningStatistics(**{name: jnp.asarray(x) for name, x in tree["statistics"].items()})
        return {"actor": self.vectors["actor"].pack(actor), "statistics": statistics}
