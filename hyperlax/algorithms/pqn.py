"""Parallelised Q-network (Gallici et al., 2024), as one lane among others.

Q-learning without replay and without target network: many copies of the environment, layer norm in the network,
λ-returns as targets, several epochs of minibatches over each rollout.

The recursion of the λ-returns begins with the greedy value of the observation after the last step. Where an
episode was cut, the value of its final observation takes the place of the λ-return that does not exist.
Targets are computed once, before the first gradient step of an update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperlax.algorithms import experience
from hyperlax.algorithms.agent import Agent
from hyperlax.algorithms.experience import Copies
from hyperlax.algorithms.gradients import Learner, Learners, Own, Owns, Steps, decayed, minibatches, take
from hyperlax.algorithms.lane import Columns, Metrics, keep, lane_max, repeat, stream
from hyperlax.algorithms.shape import MinibatchHyperparameters, Role, Shape
from hyperlax.algorithms.statistics import RunningStatistics
from hyperlax.algorithms.values import epsilon, epsilon_greedy, of_actions
from hyperlax.environments.protocol import Discrete, Environment, num_actions, observation_size
from hyperlax.networks.alternatives import AlternativeNetworks, Alternatives
from hyperlax.networks.mlp import MLP
from hyperlax.spaces import (
    Categorical,
    LogUniform,
    Uniform,
    at_least,
    fraction,
    hyperparameter,
    nested,
    positive,
)

RESET, ACT, STEP, SHUFFLE = range(4)  # purposes of random numbers
METRICS = ("value_loss", "mean_value", "episode_return")


@dataclass(frozen=True)
class PQN(MinibatchHyperparameters):
    """Hyperparameters of PQN, each declared here and nowhere else."""

    ACTION_SPACES: ClassVar = (Discrete,)

    critic_network: Any = nested(lambda: MLP((128, 128), "relu", True))
    critic_lr: float = hyperparameter(
        2.5e-4, LogUniform(1e-5, 1e-3), kind="scalar", description="RAdam step size", check=positive
    )
    gamma: float = hyperparameter(
        0.99, Uniform(0.9, 0.999), kind="scalar", description="discount per step", check=fraction
    )
    q_lambda: float = hyperparameter(
        0.65, Uniform(0.3, 1.0), kind="scalar", description="λ of the returns: 0 is one step, 1 the whole rollout",
        check=fraction,
    )  # fmt: skip
    max_grad_norm: float = hyperparameter(
        10.0, LogUniform(0.1, 10.0), kind="scalar", description="clip of the gradient's norm", check=positive
    )
    initial_epsilon: float = hyperparameter(
        1.0, Uniform(0.2, 1.0), kind="scalar", description="share of random actions at the start", check=fraction
    )
    training_epsilon: float = hyperparameter(
        0.05, Uniform(0.01, 0.2), kind="scalar", description="share of random actions in the end", check=fraction
    )
    exploration_fraction: float = hyperparameter(
        0.5, Uniform(0.1, 0.8), kind="scalar", description="part of the budget over which it changes linearly",
        check=fraction,
    )  # fmt: skip
    rollout_length: int = hyperparameter(
        32, Categorical((8, 16, 32, 64)), kind="structural", description="steps per environment and update",
        check=at_least(1),
    )  # fmt: skip
    epochs: int = hyperparameter(
        4, Categorical((1, 2, 4)), kind="structural", description="passes over a rollout", check=at_least(1)
    )
    num_minibatches: int = hyperparameter(
        4, Categorical((2, 4, 8)), kind="structural", description="minibatches per epoch; must divide the rollout",
        check=at_least(1),
    )  # fmt: skip
    total_num_envs: int = hyperparameter(
        8, Categorical((8, 16, 32)), kind="structural", description="environments stepped at once", check=at_least(1)
    )
    decay_learning_rates: bool = hyperparameter(
        True, Categorical((True, False)), kind="scalar", description="linearly to zero over the budget"
    )
    normalize_observations: bool = hyperparameter(
        False, Categorical((True, False)), kind="scalar", description="by running mean and deviation"
    )

    def shape(self, env: Environment) -> Shape:
        """Returns the static shape of exactly this configuration."""
        critic = Alternatives.exact("critic", self.critic_network, tuple(env.observation_shape))
        return self.exact_shape(
            roles=(Role("critic", critic, num_actions(env)),),
            rollout_width=6 * observation_size(env) + 20,
        )

    def agent(self, env: Environment, shape: Shape) -> PQNAgent:
        """Returns the functions that train lanes of ``shape``, of which this is one."""
        return PQNAgent(env, shape)


class PQNState(NamedTuple):
    """All that changes while a lane trains."""

    learners: Learners  # of the critic
    statistics: RunningStatistics  # of the raw observation
    copies: Copies
    updates: jax.Array  # int32


class Rollout(NamedTuple):
    """What was collected; rows ``(rollout_length, num_envs)``, padding behind the lane's own."""

    observation: jax.Array  # (rollout_length, num_envs, features), raw
    action: jax.Array
    reward: jax.Array
    done: jax.Array
    value: jax.Array  # of the best action there
    bootstrap: jax.Array  # value of the final observation where truncated, else zero
    last_value: jax.Array  # (num_envs,), of the observation after the last step
    valid: jax.Array  # bool


class PQNAgent(Agent):
    """PQN on one environment, compiled for one shape. Every method is for a single lane."""

    ACTING = "critic"
    meaning = "values of the actions"

    def __init__(self, env: Environment, shape: Shape) -> None:
        self.env, self.shape = env, shape
        self.critic = AlternativeNetworks.of(shape.role("critic"), 1.0, lane_max)
        self.networks = {"critic": self.critic}
        features = observation_size(env)
        self.collected = Columns(observation=features, action=1, reward=1, done=1, value=1, bootstrap=1)
        self.batch = Columns(features=features, action=1, target=1)
        self.metric_names = METRICS

    # --- before training -------------------------------------------------------------------------

    def init_params(self, entropy: Sequence[int], hyperparams: PQN) -> Any:
        """Returns parameters initialised at exact size and padded (on the host), one vector a network."""
        return {"critic": self.critic.init([*entropy, 0], hyperparams.critic_network)}

    def init(self, key: jax.Array, params: Any, lane: Any) -> PQNState:
        """Returns the state before the first update."""
        optimizer = self._optimizer(lane, jnp.int32(0))
        return PQNState(
            learners={"critic": Learner(params["critic"], optimizer.init(params["critic"]))},
            statistics=RunningStatistics.empty(observation_size(self.env)),
            copies=experience.begin(self.env, stream(key, RESET, jnp.int32(0)), self.shape.num_envs),
            updates=jnp.int32(0),
        )

    # --- one update ------------------------------------------------------------------------------

    def update(self, key: jax.Array, state: PQNState, lane: Any, active: jax.Array) -> tuple[PQNState, Metrics]:
        """Collects one rollout and learns from it; a lane that is not active stays as it is.

        Returns:
            The next state and training metrics; see :data:`hyperlax.algorithms.lane.Metrics`.
        """
        copies, rollout, episodes = self._collect(key, state, lane, active)
        target = self._targets(rollout, lane)
        flat_rollout = rollout.observation.reshape(self.shape.rows, -1)
        rows = self.batch.join(
            features=self._features(state.statistics, lane, flat_rollout).T,
            action=rollout.action.reshape(-1),
            target=target.reshape(-1),
        )
        learners, losses = self._improve(key, state, rows, lane, active)
        statistics = state.statistics.merge(flat_rollout, (rollout.valid & active).reshape(-1))
        new = PQNState(learners, statistics, copies, state.updates + active)
        return new, jnp.concatenate([losses, episodes[:, None]], axis=1)

    def _values(self, critic: Any, statistics: RunningStatistics, lane: Any, observation: jax.Array) -> jax.Array:
        """Returns the values of all actions, ``(actions, batch)``, for raw observations ``(batch, features)``."""
        return self.critic(critic, self._features(statistics, lane, observation), lane.critic)

    def _collect(
        self, key: jax.Array, state: PQNState, lane: Any, active: jax.Array
    ) -> tuple[Copies, Rollout, jax.Array]:
        """Steps every environment ``rollout_length`` times, ε-greedily.

        Returns:
            The environments after the last step, the rollout, and sum and number of the returns of
            episodes that ended, ``(2,)``.
        """
        shape = self.shape
        critic = self.critic.unpack(state.learners["critic"].params)
        values = partial(self._values, critic, state.statistics, lane)
        action_key, step_key = stream(key, ACT, state.updates), stream(key, STEP, state.updates)
        valid = jnp.arange(shape.num_envs) < lane.total_num_envs

        def step(t: jax.Array, on: jax.Array, carry: Any) -> Any:
            copies, rows, episodes = carry
            every = values(copies.observation)
            share = epsilon(lane, state.updates + t / lane.rollout_length)
            action = epsilon_greedy(jax.random.fold_in(action_key, t), every, share)
            after, stepped = experience.step(
                self.env, jax.random.fold_in(step_key, t), copies, action, lane.gamma, valid
            )
            row = self.collected.join(
                observation=copies.observation,
                action=action,
                reward=stepped.transition.reward,
                done=stepped.done,
                value=every.max(0),
                bootstrap=experience.bootstrap(stepped, valid, lambda x: values(x).max(0)),
            )
            return keep(on, after, copies), rows.at[t].set(row), episodes + jnp.where(on, stepped.episodes, 0.0)

        rows = jnp.zeros((shape.rollout_length, shape.num_envs, self.collected.width))
        length = jnp.where(active, lane.rollout_length, 0)
        copies, rows, episodes = repeat(length, step, (state.copies, rows, jnp.zeros(2)))
        groups = self.collected.split(rows)
        groups["observation"] = groups["observation"].reshape(*rows.shape[:2], -1)
        valid = (jnp.arange(shape.rollout_length)[:, None] < lane.rollout_length) & valid
        rollout = Rollout(**groups, last_value=values(copies.observation).max(0), valid=valid)
        return copies, rollout, episodes

    def _targets(self, rollout: Rollout, lane: Any) -> jax.Array:
        """Returns λ-returns ``(rollout_length, num_envs)`` (Gallici et al., 2024, eq. 7; Peng's Q(λ))."""
        steps = self.shape.rollout_length
        is_last = jnp.arange(steps)[:, None] == lane.rollout_length - 1
        after = jnp.concatenate([rollout.value[1:], rollout.last_value[None]])
        done = rollout.done > 0
        following = jnp.where(done, rollout.bootstrap, jnp.where(is_last, rollout.last_value, after))
        # Where nothing follows within the rollout or the episode, the value alone is the rest of the return.
        weight = jnp.where(done | is_last | ~rollout.valid, 0.0, lane.q_lambda)

        def step(later: jax.Array, row: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            reward, following, weight = row
            target = reward + lane.gamma * jnp.where(weight > 0, (1 - weight) * following + weight * later, following)
            return target, target

        rows = (rollout.reward, following, weight)
        return jax.lax.scan(step, jnp.zeros(self.shape.num_envs), rows, reverse=True)[1]

    # --- gradient steps --------------------------------------------------------------------------

    @staticmethod
    def _optimizer(lane: Any, updates: jax.Array) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(lane.max_grad_norm),
            optax.scale_by_radam(eps=1e-5),
            optax.scale_by_learning_rate(decayed(lane.critic_lr, lane, updates)),
        )

    @staticmethod
    def _loss(params: Any, own: Own, batch: dict[str, jax.Array], weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times each transition's loss, and that of the loss and of the value."""
        value = of_actions(own(params, batch["features"]), batch["action"])
        loss = 0.5 * (value - batch["target"]) ** 2 @ weight
        return loss, jax.lax.stop_gradient(jnp.stack([loss, value @ weight]))

    def _improve(
        self, key: jax.Array, state: PQNState, rows: jax.Array, lane: Any, active: jax.Array
    ) -> tuple[Learners, Metrics]:
        """Takes ``epochs × num_minibatches`` gradient steps."""
        optimizer = self._optimizer(lane, state.updates)

        def gradients(owns: Owns, learners: Learners, indices: jax.Array, weight: jax.Array, number: jax.Array) -> Any:
            del number
            groups, own = self.batch.split(rows[indices]), owns["critic"]
            batch = groups | {"features": groups["features"].reshape(indices.size, -1).T}
            grads, losses = own.gradient(self._loss, learners["critic"].params, own, batch, weight)
            return {"critic": grads}, losses, None

        def finish(learners: Learners, grads: dict[str, jax.Array], number: jax.Array) -> Learners:
            del number
            return {"critic": learners["critic"].step(optimizer, grads["critic"])}

        def steps(names: tuple[str, ...]) -> Steps:
            del names
            shuffling = stream(key, SHUFFLE, state.updates)
            return minibatches(shuffling, self.shape, lane, active, 2, gradients, finish)

        learners, losses, _ = take(self.shape, steps, self.networks, lane, state.learners)
        weight = jnp.where(active, lane.epochs * lane.num_minibatches, 0).astype(jnp.float32)
        return learners, jnp.stack([losses, jnp.broadcast_to(weight, losses.shape)])

    # --- the policy ------------------------------------------------------------------------------

    def _greedy(self, outputs: jax.Array, free: jax.Array, lane: Any) -> jax.Array:
        del free, lane
        return jnp.argmax(outputs, axis=0).astype(jnp.int32)
