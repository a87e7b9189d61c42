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
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hyperlax.algorithms.lane import (
    Columns,
    Metrics,
    any_lane,
    in_lockstep,
    keep,
    lane_max,
    masked_mean,
    permutation,
    repeat,
    stream,
)
from hyperlax.algorithms.statistics import RunningStatistics, normalize
from hyperlax.environments import vector
from hyperlax.environments.protocol import Environment, observation_size
from hyperlax.errors import UserError
from hyperlax.networks.alternatives import AlternativeNetworks, Alternatives, Member
from hyperlax.networks.distributions import distribution_for
from hyperlax.networks.mlp import MLP
from hyperlax.networks.network import Network
from hyperlax.networks.padding import flat, head, nested_dict, replace_head
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
            chunks=(min(self.minibatch_size, MAX_CHUNK),),
            actor=Alternatives((self.actor_network.shape(),)),
            critic=Alternatives((self.critic_network.shape(),)),
        )

    def traced(self, shape: PPOShape, total_timesteps: int) -> PPOLane:
        """Returns this configuration's place inside ``shape``."""
        f, i, b = np.float32, np.int32, np.bool_
        return PPOLane(
            actor=shape.actor.traced(self.actor_network),
            critic=shape.critic.traced(self.critic_network),
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
            chunk=i(shape.chunk_index(self.minibatch_size)) if len(shape.chunks) > 1 else None,
        )

    def num_updates(self, total_timesteps: int) -> int:
        """Updates of a run of so many environment steps; the last may overshoot."""
        return -(-total_timesteps // self.steps_per_update)

    def work(self, shape: PPOShape) -> tuple[Work, Work]:
        """Returns what one update does in a program of ``shape``: environment steps, gradient evaluations."""
        chunk = shape.chunks[shape.chunk_index(self.minibatch_size)]
        chunks = self.num_minibatches * -(-self.minibatch_size // chunk)
        return Work(self.rollout_length, shape.num_envs), Work(self.epochs * chunks, chunk)

    def agent(self, env: Environment, shape: PPOShape) -> PPOAgent:
        """Returns the functions that train lanes of ``shape``, of which this is one."""
        return PPOAgent(env, shape)


class Work(NamedTuple):
    """A loop of one update: so many iterations, each over a batch of so many inputs."""

    iterations: int
    batch: int


MAX_CHUNK = 1024
LOSSES = ("policy_loss", "entropy", "approx_kl", "clip_fraction", "value_loss")


@dataclass(frozen=True)
class PPOShape:
    """What a program of PPO lanes is compiled for.

    A minibatch is worked off in chunks, a lane with larger minibatches taking more of them before it
    steps. So lanes of very different minibatch sizes in lockstep, which have chunks of one size, cost
    little padding; lanes by themselves have a choice of sizes.

    Attributes:
        num_envs: most environments of any lane.
        rollout_length: longest rollout of any lane.
        minibatch_sizes: smallest and largest minibatch of any lane.
        chunks: transitions in one gradient evaluation: the choice there is, ascending.
        actor: shapes of the actor's torso.
        critic: shapes of the critic's torso.
    """

    num_envs: int
    rollout_length: int
    minibatch_sizes: tuple[int, int]
    chunks: tuple[int, ...]
    actor: Alternatives
    critic: Alternatives

    @property
    def rows(self) -> int:
        """Transitions of the largest rollout, padding included."""
        return self.num_envs * self.rollout_length

    def merge(self, other: PPOShape) -> PPOShape:
        """Returns the least shape that holds both, different networks side by side, with the chunks of the first."""
        return PPOShape(
            num_envs=max(self.num_envs, other.num_envs),
            rollout_length=max(self.rollout_length, other.rollout_length),
            minibatch_sizes=(
                min(self.minibatch_sizes[0], other.minibatch_sizes[0]),
                max(self.minibatch_sizes[1], other.minibatch_sizes[1]),
            ),
            chunks=self.chunks,
            actor=self.actor.merge(other.actor),
            critic=self.critic.merge(other.critic),
        )

    def describe(self) -> str:
        """Returns the shape in a few words."""
        smallest, largest = self.minibatch_sizes
        return (
            f"{self.num_envs} environments × {self.rollout_length} steps, minibatches of {smallest} … {largest} by "
            f"{'/'.join(map(str, self.chunks))}, actor {self.actor.describe()}, critic {self.critic.describe()}"
        )

    def together(self) -> PPOShape:
        """Returns the shape in which networks of different sizes share arrays, so that any lanes may be in lockstep."""
        return replace(self, actor=self.actor.together(), critic=self.critic.together())

    def chunk_index(self, minibatch_size: int) -> int:
        """Returns which chunk size suits a minibatch: an iteration costs as much besides as some 16 transitions."""
        costs = [-(-minibatch_size // chunk) * (chunk + 16) for chunk in self.chunks]
        return costs.index(min(costs))

    def accumulates(self, chunk: int) -> bool:
        """Returns whether any minibatch takes several chunks of this size."""
        sizes = range(chunk + 1, self.minibatch_sizes[1] + 1)
        return any(self.chunks[self.chunk_index(size)] == chunk for size in sizes)

    def choice(self, hyperparams: PPO) -> tuple[int, int, int]:
        """Returns which alternatives a configuration uses: lanes in lockstep must agree on them."""
        return (
            self.actor.index(hyperparams.actor_network),
            self.critic.index(hyperparams.critic_network),
            self.chunk_index(hyperparams.minibatch_size),
        )

    def only(self, choice: tuple[int, int, int]) -> PPOShape:
        """Returns the shape with one choice of alternatives: what a lane with that choice costs."""
        actor, critic, chunk = choice
        return replace(
            self, actor=self.actor.only(actor), critic=self.critic.only(critic), chunks=(self.chunks[chunk],)
        )

    @property
    def num_alternatives(self) -> int:
        """Alternatives of the actor's and of the critic's gradient steps: how much code there is to compile."""
        return (len(self.actor.shapes) + len(self.critic.shapes)) * len(self.chunks)

    def variants(self) -> list[PPOShape]:
        """Returns shapes for the same lanes among which the planner may choose: other chunks, padded networks."""
        smallest, largest = (min(size, MAX_CHUNK) for size in self.minibatch_sizes)
        sizes = sorted({smallest, largest} | {2**k for k in range(1, 11) if smallest <= 2**k <= largest})
        one = [(size,) for size in sizes]
        several = [tuple(sizes[::step]) for step in (1, 2) if len(sizes[::step]) > 1]
        together = {self.together()} - {self}
        padded = [replace(shape, chunks=chunks) for shape in together for chunks in one]
        return [replace(self, chunks=chunks) for chunks in one + several] + padded

    def flops(self, num_inputs: int, num_outputs: int) -> tuple[int, int]:
        """Returns floating-point operations per environment step and per transition of a gradient.

        Backward takes twice forward; in a rollout the critic sees every observation once as well.
        """
        forward = self.actor.flops(num_inputs, num_outputs) + self.critic.flops(num_inputs, 1)
        return forward, 3 * forward

    def num_params(self, num_inputs: int, num_outputs: int) -> int:
        """Returns the number of parameters of actor and critic, padding included."""
        return self.actor.num_params(num_inputs, num_outputs) + self.critic.num_params(num_inputs, 1)

    def memory(self, num_inputs: int, num_outputs: int, state_numbers: int, num_episodes: int) -> tuple[int, int]:
        """Returns bytes that one lane keeps, and bytes that it needs while it works.

        Args:
            num_inputs: features of an observation.
            num_outputs: outputs of the actor.
            state_numbers: numbers in the state of one environment.
            num_episodes: episodes of an evaluation.
        """
        params = self.num_params(num_inputs, num_outputs)
        kept = 3 * params + self.num_envs * (num_inputs + state_numbers + 2)
        rows = (self.rollout_length + 1) * self.num_envs
        rollout = rows * (6 * num_inputs + 4 * num_outputs + 20 + state_numbers)
        units = self.actor.num_units() + self.critic.num_units()
        batch = max(*self.chunks, min(rows, max(256, self.num_envs)))
        activations = 4 * batch * (units + num_inputs + num_outputs)
        evaluation = 4 * num_episodes * (units + num_inputs + num_outputs + state_numbers)
        return 4 * 2 * kept, 4 * max(rollout + activations + 6 * params, evaluation)


class PPOLane(NamedTuple):
    """Hyperparameters as traced values; see :class:`PPO`.

    ``num_updates`` is the lane's whole budget, ``chunk`` an index into the shape's chunks, None if there is one.
    """

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
    chunk: Any


class PPOState(NamedTuple):
    """All that changes while a lane trains."""

    params: Any  # {"actor": (n,), "critic": (m,)}, see networks.alternatives.AlternativeNetworks
    optimizer: Any  # {"actor": …, "critic": …}
    statistics: RunningStatistics  # of the raw observation and, last, of the discounted sum of rewards
    env_states: Any
    observation: jax.Array  # (num_envs, features), raw
    discounted: jax.Array  # (num_envs,), running discounted sum of rewards
    episode_return: jax.Array  # (num_envs,), undiscounted, so far
    updates: jax.Array  # int32


class Learner(NamedTuple):
    """One network's parameters ``(n,)`` and its optimiser's state."""

    params: jax.Array
    optimizer: Any

    def step(self, optimizer: optax.GradientTransformation, grads: jax.Array) -> Learner:
        """Returns the learner after a step along ``grads``."""
        changes, state = optimizer.update(grads, self.optimizer, self.params)
        return Learner(jnp.asarray(optax.apply_updates(self.params, changes)), state)


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

    def __init__(self, env: Environment, shape: PPOShape) -> None:
        self.env, self.shape = env, shape
        self.distribution = distribution_for(env.action_space)
        features, outputs = observation_size(env), self.distribution.num_parameters
        self.actor = AlternativeNetworks(shape.actor, features, outputs, 0.01, lane_max, self.distribution.num_free)
        self.critic = AlternativeNetworks(shape.critic, features, 1, 1.0, lane_max)
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
        return {
            "actor": self.actor.init([*entropy, 0], hyperparams.actor_network),
            "critic": self.critic.init([*entropy, 1], hyperparams.critic_network),
        }

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

    # --- one update ------------------------------------------------------------------------------

    def update(self, key: jax.Array, state: PPOState, lane: PPOLane, active: jax.Array) -> tuple[PPOState, Metrics]:
        """Collects one rollout and improves on it; a lane that is not active stays as it is.

        Returns:
            The next state and training metrics; see :data:`hyperlax.algorithms.lane.Metrics`.
        """
        critic = self.critic.unpack(state.params["critic"])
        new, rollout, episodes = self._collect(key, critic, state, lane, active)
        features = self._features(state.statistics, lane, rollout.observation)
        values = self._values(critic, lane, features, active)
        statistics = self._merge_statistics(state.statistics, rollout, active)
        reward = self._scaled_reward(statistics, rollout, lane)
        advantage = self._advantages(rollout._replace(reward=reward), values, lane)
        rows = self._rows(features, rollout, values, advantage, lane)
        learners, losses = self._improve(key, state, rows, lane, active)
        new = new._replace(
            params={name: learner.params for name, learner in learners.items()},
            optimizer={name: learner.optimizer for name, learner in learners.items()},
            statistics=statistics,
            updates=state.updates + active,
        )
        return new, jnp.concatenate([losses, episodes[:, None]], axis=1)

    def _features(self, statistics: RunningStatistics, lane: PPOLane, observation: jax.Array) -> jax.Array:
        """Returns what the networks see of raw observations ``(…, features)``: ``(features, batch)``."""
        columns = observation.reshape(-1, observation.shape[-1]).T
        normalized = normalize(columns, statistics.mean[:-1], statistics.deviation()[:-1])
        return jnp.where(lane.normalize_observations, normalized, columns)

    def _value(self, critic: Any, lane: PPOLane, features: jax.Array) -> jax.Array:
        return self.critic(critic, features, lane.critic)[0]

    def _values(self, critic: Any, lane: PPOLane, features: jax.Array, active: jax.Array) -> jax.Array:
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
        self, key: jax.Array, critic: Any, state: PPOState, lane: PPOLane, active: jax.Array
    ) -> tuple[PPOState, Rollout, jax.Array]:
        """Steps every environment ``rollout_length`` times with the current policy.

        Returns:
            The state after the last step, the rollout, and sum and number of the returns of episodes
            that ended, ``(2,)``.
        """
        shape, distribution = self.shape, self.distribution
        actor, log_std = self.actor.unpack(state.params["actor"]), self.actor.free(state.params["actor"])
        action_key, step_key = stream(key, ACT, state.updates), stream(key, STEP, state.updates)
        steps = jnp.arange(shape.rollout_length)
        valid = jnp.arange(shape.num_envs) < lane.num_envs

        def step(t: jax.Array, on: jax.Array, carry: Any) -> Any:
            state, observations, rows, episodes = carry
            features = self._features(state.statistics, lane, state.observation)
            outputs = self.actor(actor, features, lane.actor)
            noise = distribution.noise(jax.random.fold_in(action_key, t), shape.num_envs)
            action = distribution.sample(noise, outputs, log_std)
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
                log_prob=distribution.log_prob(outputs, log_std, action),
                reward=transition.reward,
                discounted=discounted,
                done=done,
                bootstrap=self._bootstrap(critic, state, lane, transition, valid),
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

    def _bootstrap(self, critic: Any, state: PPOState, lane: PPOLane, transition: Any, valid: jax.Array) -> jax.Array:
        """Returns the value of the final observation where an episode was cut, ``(num_envs,)``, else zero."""
        truncated = transition.truncated & ~transition.terminated

        def final_value() -> jax.Array:
            final = transition.observation.reshape(self.shape.num_envs, -1)
            return self._value(critic, lane, self._features(state.statistics, lane, final)) * truncated

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

    def _minibatch(self, rows: jax.Array) -> dict[str, jax.Array]:
        """Returns the named columns of rows, features and actions as ``(size, batch)``."""
        groups = self.batch.split(rows)
        columns = {name: groups[name].reshape(rows.shape[0], -1).T for name in ("features", "action")}
        return groups | columns

    def _actor_loss(
        self, network: Network, params: Any, torso: Any, lane: PPOLane, batch: dict[str, jax.Array], weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times each transition's loss, and the sums of all but the last of LOSSES."""
        distribution, log_std, advantage = self.distribution, params["free"], batch["advantage"]
        outputs = network(params["network"], batch["features"], torso)
        log_ratio = distribution.log_prob(outputs, log_std, batch["action"]) - batch["log_prob"]
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1.0 - lane.clip_eps, 1.0 + lane.clip_eps)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage)
        entropy = distribution.entropy(outputs, log_std)
        is_clipped = jnp.abs(ratio - 1.0) > lane.clip_eps
        losses = jnp.stack([policy_loss, entropy, ratio - 1.0 - log_ratio, is_clipped])
        return weight @ (policy_loss - lane.ent_coef * entropy), jax.lax.stop_gradient(losses) @ weight

    def _critic_loss(
        self, network: Network, params: Any, torso: Any, lane: PPOLane, batch: dict[str, jax.Array], weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times each transition's loss, and that of the last of LOSSES."""
        value = network(params["network"], batch["features"], torso)[0]
        loss = 0.5 * (value - batch["target"]) ** 2 @ weight
        return lane.vf_coef * loss, loss[None]

    def _improve(
        self, key: jax.Array, state: PPOState, rows: jax.Array, lane: PPOLane, active: jax.Array
    ) -> tuple[dict[str, Learner], Metrics]:
        """Takes ``epochs × num_minibatches`` gradient steps with actor and critic, which know nothing of each other.

        In lockstep they learn together, sharing the gathering of minibatches. A lane by itself, or one with
        a choice of networks, learns one after the other: that is faster (1.5 times with minibatches of 4,
        as fast with 256), and a branch is taken once, where one in every step would copy all parameters.
        """
        networks = {"actor": self.actor, "critic": self.critic}
        places = {"actor": lane.actor, "critic": lane.critic}
        learners = {name: Learner(state.params[name], state.optimizer[name]) for name in networks}
        steps = partial(self._gradient_steps, key, state.updates, rows, lane, active)
        if in_lockstep() and self.shape.num_alternatives == len(networks):
            parts = {name: (network.members[0], places[name].torsos[0]) for name, network in networks.items()}
            learners, losses = steps(self.shape.chunks[0], parts, learners)
        else:
            losses = jnp.zeros(0)
            for name, network in networks.items():

                def learn(index: int, member: Member, torso: Any, name: str = name) -> tuple[Learner, jax.Array]:
                    del index
                    mine = {name: head(learners[name], member.vector.size)}
                    calls = [partial(steps, chunk, {name: (member, torso)}, mine) for chunk in self.shape.chunks]
                    learnt, news = calls[0]() if len(calls) == 1 else jax.lax.switch(lane_max(lane.chunk), calls)
                    return replace_head(learners[name], learnt[name]), news

                learners[name], news = network.choose(places[name], learn)
                losses = jnp.concatenate([losses, news])
        weight = jnp.where(active, lane.epochs * lane.num_minibatches, 0).astype(jnp.float32)
        return learners, jnp.stack([losses, jnp.broadcast_to(weight, losses.shape)])

    def _gradient_steps(
        self,
        key: jax.Array,
        updates: jax.Array,
        rows: jax.Array,
        lane: PPOLane,
        active: jax.Array,
        chunk_size: int,
        parts: dict[str, tuple[Member, Any]],
        learners: dict[str, Learner],
    ) -> tuple[dict[str, Learner], jax.Array]:
        """Takes all gradient steps of an update with some of the networks.

        Args:
            key: of the lane.
            updates: done so far.
            rows: all transitions.
            lane: hyperparameters.
            active: whether the lane does anything.
            chunk_size: transitions of one gradient evaluation.
            parts: networks to train, with their torsos' traced values, by name.
            learners: of the same names, vectors as long as the networks' own.

        Returns:
            The learners, and the sums over all steps of their losses, in the order of :data:`LOSSES`.
        """
        shape, div, rem = self.shape, jax.lax.div, jax.lax.rem
        count = lane.rollout_length * lane.num_envs
        minibatch_size = div(count, lane.num_minibatches)
        chunks = div(minibatch_size + chunk_size - 1, jnp.int32(chunk_size))
        chunks_per_epoch = lane.num_minibatches * chunks
        shuffle_key = stream(key, SHUFFLE, updates)
        transitions = jnp.arange(rows.shape[0], dtype=jnp.int32)
        row_of = div(transitions, lane.num_envs) * shape.num_envs + rem(transitions, lane.num_envs)
        functions = {"actor": self._actor_loss, "critic": self._critic_loss}
        optimizers = self._optimizers(lane, updates)
        accumulates = shape.accumulates(chunk_size)

        def shuffle(epoch: jax.Array) -> jax.Array:
            return row_of[permutation(jax.random.fold_in(shuffle_key, epoch), count, rows.shape[0])]

        def step(i: jax.Array, on: jax.Array, carry: Any) -> Any:
            learners, summed, order, losses = carry
            epoch, position = div(i, chunks_per_epoch), rem(i, chunks_per_epoch)
            minibatch, chunk = div(position, chunks), rem(position, chunks)
            begins = on & (position == 0)
            order = jax.lax.cond(any_lane(begins), lambda: jnp.where(begins, shuffle(epoch), order), lambda: order)
            within = chunk * chunk_size + jnp.arange(chunk_size)
            weight = (within < minibatch_size) / minibatch_size.astype(jnp.float32)
            batch = self._minibatch(rows[order[jnp.minimum(minibatch * minibatch_size + within, count - 1)]])
            grads, news = {}, []
            for name, (member, torso) in parts.items():
                gradient = jax.grad(partial(functions[name], member.network), has_aux=True)
                params = member.vector.unpack(learners[name].params)
                tree, chunk_losses = gradient(params, torso, lane, batch, weight)
                grads[name] = member.vector.pack(tree)
                news.append(chunk_losses)
            if accumulates:
                grads = summed = jax.tree.map(lambda a, b: jnp.where(chunk == 0, 0.0, a) + b, summed, grads)
            new = {name: learner.step(optimizers[name], grads[name]) for name, learner in learners.items()}
            learners = keep(on & (chunk == chunks - 1), new, learners)
            return learners, summed, order, losses + jnp.where(on, jnp.concatenate(news), 0.0)

        summed = {name: jnp.zeros_like(learner.params) for name, learner in learners.items()} if accumulates else None
        num_losses = sum(len(LOSSES) - 1 if name == "actor" else 1 for name in parts)
        carry = (learners, summed, jnp.zeros(rows.shape[0], jnp.int32), jnp.zeros(num_losses))
        iterations = jnp.where(active, lane.epochs * chunks_per_epoch, 0)
        learners, _, _, losses = repeat(iterations, step, carry)
        return learners, losses

    def is_finite(self, state: PPOState) -> jax.Array:
        """Returns whether everything that is learnt is finite."""
        return jnp.isfinite(state.params["actor"]).all() & jnp.isfinite(state.params["critic"]).all()

    # --- the policy ------------------------------------------------------------------------------

    def policy(self, state: PPOState) -> Any:
        """Returns the part of the state that acting needs."""
        return {"actor": state.params["actor"], "statistics": state.statistics}

    def act(self, policy: Any, lane: PPOLane, observation: jax.Array) -> jax.Array:
        """Returns greedy actions for raw observations ``(batch, features)``, as the environment takes them."""
        features = self._features(policy["statistics"], lane, observation)
        outputs = self.actor(self.actor.unpack(policy["actor"]), features, lane.actor)
        return self.distribution.to_environment(self.distribution.mode(outputs, self.actor.free(policy["actor"])))

    def export(self, policy: Any, hyperparams: PPO) -> dict[str, np.ndarray]:
        """Returns one lane's policy at its exact size as flat arrays, ``actor/head/bias`` and so on."""
        actor = self.actor.export(policy["actor"], hyperparams.actor_network)
        exact = {"actor": actor["network"], "log_std": actor["free"], "statistics": policy["statistics"]._asdict()}
        return flat(exact)

    def restore(self, arrays: dict[str, np.ndarray]) -> Any:
        """Returns the policy of exported arrays, for an agent of exactly their shape."""
        tree = nested_dict(arrays)
        actor = self.actor.members[0].vector.pack({"network": tree["actor"], "free": tree["log_std"]})
        statistics = RunningStatistics(**{name: jnp.asarray(x) for name, x in tree["statistics"].items()})
        return {"actor": jnp.asarray(actor), "statistics": statistics}
