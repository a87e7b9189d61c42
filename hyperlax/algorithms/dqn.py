"""Deep Q-learning (Mnih et al., 2015), as one lane among others.

With double Q-learning (van Hasselt et al., 2016), duelling heads (Wang et al., 2016; linear, without hidden layers of
their own), n-step returns and prioritised replay (Schaul et al., 2016) as switches. One update collects
``rollout_length`` steps of all environments and then takes ``epochs`` gradient steps, each on a batch drawn from the
replay.

The network has one output more than there are actions: the value of the state, which a network that does not
duel leaves alone. A prioritised lane's importance exponent rises linearly to one over the budget. Exploration may
keep its random actions for some steps (Dabney et al., 2021).
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
from hyperlax.algorithms.gradients import Learner, Learners, Own, Owns, Steps, adam, decayed, take
from hyperlax.algorithms.lane import Metrics, lane_max, stream
from hyperlax.algorithms.replay import (
    Collected,
    Memory,
    Place,
    Replay,
    ReplayHyperparameters,
    bootstrapped,
    exploring,
    gradient_steps,
)
from hyperlax.algorithms.shape import Role, Shape
from hyperlax.algorithms.statistics import RunningStatistics
from hyperlax.algorithms.values import epsilon, epsilon_greedy, linear, of_actions
from hyperlax.environments.protocol import Discrete, Environment, num_actions, observation_size
from hyperlax.errors import UserError
from hyperlax.networks.alternatives import AlternativeNetworks, Alternatives
from hyperlax.networks.mlp import MLP
from hyperlax.spaces import (
    Categorical,
    Fixed,
    LogUniform,
    Uniform,
    at_least,
    fraction,
    hyperparameter,
    nested,
    non_negative,
    positive,
    rate,
)

RESET, ACT, STEP, SAMPLE = range(4)  # purposes of random numbers
METRICS = ("value_loss", "mean_value", "episode_return")


@dataclass(frozen=True)
class DQN(ReplayHyperparameters):
    """Hyperparameters of DQN, each declared here and nowhere else."""

    ACTION_SPACES: ClassVar = (Discrete,)

    critic_network: Any = nested(lambda: MLP((64, 64), "relu", True))
    critic_lr: float = hyperparameter(
        2.5e-4, LogUniform(1e-5, 1e-3), kind="scalar", description="Adam step size", check=positive
    )
    gamma: float = hyperparameter(
        0.99, Uniform(0.9, 0.9999), kind="scalar", description="discount per step", check=fraction
    )
    tau: float = hyperparameter(
        0.02, LogUniform(0.001, 1.0), kind="scalar",
        description="step of the target network towards the other; 1 copies it", check=rate,
    )  # fmt: skip
    target_update_interval: int = hyperparameter(
        1, Fixed(1), kind="scalar", description="gradient steps from one step of the target network to the next",
        check=at_least(1),
    )  # fmt: skip
    max_grad_norm: float = hyperparameter(
        1000.0, LogUniform(0.1, 1000.0), kind="scalar", description="clip of the gradient's norm", check=positive
    )
    huber_loss_parameter: float = hyperparameter(
        0.0, Uniform(0.0, 1.0), kind="scalar", description="error from which on the loss is linear; 0 for never",
        check=non_negative,
    )  # fmt: skip
    max_abs_reward: float = hyperparameter(
        1e9, Fixed(1e9), kind="scalar", description="rewards are clipped at ± this", check=positive
    )
    initial_epsilon: float = hyperparameter(
        1.0, Uniform(0.2, 1.0), kind="scalar", description="share of random actions at the start", check=fraction
    )
    training_epsilon: float = hyperparameter(
        0.05, Uniform(0.01, 0.2), kind="scalar", description="share of random actions in the end", check=fraction
    )
    exploration_fraction: float = hyperparameter(
        0.3, Uniform(0.05, 0.5), kind="scalar", description="part of the budget over which it changes linearly",
        check=fraction,
    )  # fmt: skip
    noise_period: int = hyperparameter(
        1, Fixed(1), kind="scalar", description="steps for which exploration keeps its random actions",
        check=at_least(1),
    )  # fmt: skip
    use_double_q: bool = hyperparameter(
        True, Categorical((True, False)), kind="structural", description="choose the next action by the other network"
    )
    use_dueling: bool = hyperparameter(
        False,
        Categorical((True, False)),
        kind="scalar",
        description="linear heads for state and actions apart",
    )
    n_step: int = hyperparameter(
        1, Categorical((1, 3, 5)), kind="structural", description="steps of a transition", check=at_least(1)
    )
    use_prioritized_replay: bool = hyperparameter(
        False, Categorical((True, False)), kind="structural", description="draw transitions of large error more often"
    )
    priority_exponent: float = hyperparameter(
        0.6, Uniform(0.3, 1.0), kind="scalar", description="α: priority is |error| to this power", check=fraction
    )
    importance_exponent: float = hyperparameter(
        0.4, Uniform(0.2, 0.8), kind="scalar", description="β: correction at the start; it rises to 1", check=fraction
    )
    rollout_length: int = hyperparameter(
        8, Categorical((2, 4, 8)), kind="structural", description="steps per environment and update",
        check=at_least(1),
    )  # fmt: skip
    epochs: int = hyperparameter(
        8, Categorical((4, 8, 16)), kind="structural", description="gradient steps per update", check=at_least(1)
    )
    total_num_envs: int = hyperparameter(
        8, Categorical((4, 8, 16, 32)), kind="structural", description="environments stepped at once",
        check=at_least(1),
    )  # fmt: skip
    warmup_rollout_length: int = hyperparameter(
        128, Categorical((32, 64, 128)), kind="scalar",
        description="random steps per environment before learning starts", check=at_least(0),
    )  # fmt: skip
    total_buffer_size: int = hyperparameter(
        10_000, Categorical((10_000, 50_000, 100_000)), kind="structural", description="transitions remembered",
        check=at_least(1),
    )  # fmt: skip
    total_batch_size: int = hyperparameter(
        128, Categorical((32, 64, 128, 256)), kind="structural", description="transitions of a gradient step",
        check=at_least(1),
    )  # fmt: skip
    decay_learning_rates: bool = hyperparameter(
        True, Categorical((True, False)), kind="scalar", description="linearly to zero over the budget"
    )
    normalize_observations: bool = hyperparameter(
        False, Categorical((True, False)), kind="scalar", description="by running mean and deviation"
    )

    def shape(self, env: Environment) -> Shape:
        """Returns the static shape of exactly this configuration."""
        critic = Alternatives.exact("critic", self.critic_network, tuple(env.observation_shape))
        role = Role("critic", critic, num_actions(env) + 1, has_target=True, gradient_passes=4 + self.use_double_q)
        options = {"double_q": self.use_double_q, "prioritized": self.use_prioritized_replay}
        return self.exact_shape(
            roles=(role,),
            capacity=self.buffer_steps * self.total_num_envs,
            replay_width=2 * observation_size(env) + 4 + self.use_prioritized_replay,
            n_step=self.n_step,
            options=tuple(sorted(name for name, used in options.items() if used)),
        )

    def trained_outputs(self, role: Role) -> int:
        """Returns the size of the output layer as far as it is trained: the state's value is by duelling only."""
        return role.num_outputs - (not self.use_dueling)

    def check(self, env: Environment) -> None:
        """Raises UserError if the hyperparameters contradict one another or do not fit ``env``."""
        super().check(env)
        if self.n_step > self.buffer_steps:
            raise UserError(
                f"n_step {self.n_step} is more than the {self.buffer_steps} steps of total_num_envs "
                f"{self.total_num_envs} that total_buffer_size {self.total_buffer_size} holds; accepted: 1 … "
                f"{self.buffer_steps}"
            )

    def agent(self, env: Environment, shape: Shape) -> DQNAgent:
        """Returns the functions that train lanes of ``shape``, of which this is one."""
        return DQNAgent(env, shape)


class DQNState(NamedTuple):
    """All that changes while a lane trains."""

    learners: Learners  # of the critic, with its target
    memory: Memory
    statistics: RunningStatistics  # of the raw observation
    copies: Copies
    updates: jax.Array  # int32


class DQNAgent(Agent):
    """DQN on one environment, compiled for one shape. Every method is for a single lane."""

    ACTING = "critic"
    meaning = "values of the actions"

    def __init__(self, env: Environment, shape: Shape) -> None:
        self.env, self.shape = env, shape
        self.critic = AlternativeNetworks.of(shape.role("critic"), 1.0, lane_max)
        self.networks = {"critic": self.critic}
        self.prioritized = "prioritized" in shape.options
        self.replay = Replay(env, shape, 1, self.prioritized)
        self.metric_names = METRICS

    # --- before training -------------------------------------------------------------------------

    def init_params(self, entropy: Sequence[int], hyperparams: DQN) -> Any:
        """Returns parameters initialised at exact size and padded (on the host), one vector a network."""
        return {"critic": self.critic.init([*entropy, 0], hyperparams.critic_network)}

    def init(self, key: jax.Array, params: Any, lane: Any) -> DQNState:
        """Returns the state before the first update."""
        optimizer, critic = self._optimizer(lane, jnp.int32(0)), params["critic"]
        return DQNState(
            learners={"critic": Learner(critic, optimizer.init(critic), critic)},
            memory=self.replay.empty(),
            statistics=RunningStatistics.empty(observation_size(self.env)),
            copies=experience.begin(self.env, stream(key, RESET, jnp.int32(0)), self.shape.num_envs),
            updates=jnp.int32(0),
        )

    # --- one update ------------------------------------------------------------------------------

    def update(self, key: jax.Array, state: DQNState, lane: Any, active: jax.Array) -> tuple[DQNState, Metrics]:
        """Collects some steps and learns from all that is remembered; a lane that is not active stays as it is.

        Returns:
            The next state and training metrics; see :data:`hyperlax.algorithms.lane.Metrics`.
        """
        collected, episodes = self._collect(key, state, lane, active)
        learners, losses, memory = self._learn(key, state, collected, lane, active)
        new = DQNState(learners, memory, collected.statistics, collected.copies, state.updates + active)
        return new, jnp.concatenate([losses, episodes[:, None]], axis=1)

    def meant(self, outputs: jax.Array, lane: Any) -> jax.Array:
        """Returns the values of all actions."""
        return self._combined(lane, outputs)

    def _combined(self, lane: Any, outputs: jax.Array) -> jax.Array:
        """Returns the values of all actions of a network's outputs ``(actions + 1, batch)``."""
        actions, state = outputs[:-1], outputs[-1:]
        return actions + jnp.where(lane.use_dueling, state - actions.mean(0, keepdims=True), 0.0)

    def _values(self, critic: Any, statistics: RunningStatistics, lane: Any, observation: jax.Array) -> jax.Array:
        features = self._features(statistics, lane, observation)
        return self._combined(lane, self.critic(critic, features, lane.critic))

    def _collect(self, key: jax.Array, state: DQNState, lane: Any, active: jax.Array) -> tuple[Collected, jax.Array]:
        """Steps every environment ``rollout_length`` times, ε-greedily after the warm-up."""
        critic = self.critic.unpack(state.learners["critic"].params)

        def act(t: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
            values = self._values(critic, state.statistics, lane, observation)
            period, warm = exploring(lane, state.updates, t)
            share = jnp.where(warm, epsilon(lane, state.updates + t / lane.rollout_length), 1.0)
            action = epsilon_greedy(stream(key, ACT, period), values, share)
            return action[:, None], action

        length = jnp.where(active, lane.rollout_length, 0)
        before = Collected(state.memory, state.statistics, state.copies)
        return self.replay.collect(stream(key, STEP, state.updates), before, lane, length, act, lane.max_abs_reward)

    # --- gradient steps --------------------------------------------------------------------------

    @staticmethod
    def _optimizer(lane: Any, updates: jax.Array) -> optax.GradientTransformation:
        return adam(decayed(lane.critic_lr, lane, updates), lane.max_grad_norm)

    def _targets(self, own: Own, learner: Learner, lane: Any, batch: dict[str, jax.Array]) -> jax.Array:
        """Returns the values that transitions ought to have, ``(batch,)``."""
        target = self._combined(lane, own(own.unpack(learner.target), batch["next_features"]))
        chooser = target
        if "double_q" in self.shape.options:
            online = self._combined(lane, own(own.unpack(learner.params), batch["next_features"]))
            chooser = jnp.where(lane.use_double_q, online, target)
        return bootstrapped(batch, of_actions(target, jnp.argmax(chooser, axis=0)))

    def _loss(
        self, params: Any, own: Own, lane: Any, batch: dict[str, jax.Array], targets: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Returns the sum of ``weight`` times each transition's loss; sums of loss and value; all errors."""
        value = of_actions(self._combined(lane, own(params, batch["features"])), batch["action"])
        error, limit = value - targets, lane.huber_loss_parameter
        squared, size = 0.5 * error**2, jnp.abs(error)
        losses = jnp.where((limit > 0) & (size > limit), limit * (size - 0.5 * limit), squared)
        loss = weight * batch["importance"] @ losses
        return loss, jax.lax.stop_gradient((jnp.stack([loss, weight @ value]), error))

    def _learn(
        self, key: jax.Array, state: DQNState, collected: Collected, lane: Any, active: jax.Array
    ) -> tuple[Learners, Metrics, Memory]:
        """Takes ``epochs`` gradient steps, none during the warm-up."""
        shape, replay, memory = self.shape, self.replay, collected.memory
        place, optimizer = Place.of(lane), self._optimizer(lane, state.updates)
        sample_key = stream(key, SAMPLE, state.updates)

        def with_priorities(priorities: Any) -> Memory:
            return memory if priorities is None else memory._replace(priorities=priorities[0], largest=priorities[1])

        def draw(number: jax.Array, priorities: Any) -> Any:
            key, size = jax.random.fold_in(sample_key, number), shape.batch_sizes[1]
            indices, importance = replay.uniform(key, memory, place, size), jnp.ones(size)
            if priorities is None:
                return indices, importance
            preferred, probability = replay.by_priority(key, with_priorities(priorities), place, size)
            progress = state.updates / lane.num_updates
            exponent = linear(lane.importance_exponent, jnp.float32(1), progress, jnp.float32(1))
            weight = (place.filled(memory) * jnp.maximum(probability, 1e-12)) ** -exponent
            weight = weight / jnp.where(jnp.arange(size) < lane.total_batch_size, weight, 0.0).max()
            wanted = lane.use_prioritized_replay
            return jnp.where(wanted, preferred, indices), jnp.where(wanted, weight, importance)

        def gradients(owns: Owns, learners: Learners, order: Any, weight: jax.Array, number: jax.Array) -> Any:
            del number
            (indices, importance), own, learner = order, owns["critic"], learners["critic"]
            batch = replay.transitions(memory, place, indices, lane.gamma, lane.n_step, shape.n_step)
            batch["importance"] = importance
            batch |= replay.features(batch, collected.statistics, lane.normalize_observations)
            targets = self._targets(own, learner, lane, batch)
            grads, (losses, errors) = own.gradient(self._loss, learner.params, own, lane, batch, targets, weight)
            return {"critic": grads}, losses, errors

        def finish(learners: Learners, grads: dict[str, jax.Array], number: jax.Array) -> Learners:
            learner = learners["critic"].step(optimizer, grads["critic"])
            due = jax.lax.rem(state.updates * lane.epochs + number + 1, lane.target_update_interval) == 0
            return {"critic": learner.follow(jnp.where(due, lane.tau, 0.0))}

        def remember(priorities: Any, order: Any, errors: jax.Array, on: jax.Array) -> Any:
            priority = (jnp.abs(errors) + 1e-6) ** lane.priority_exponent
            on = on & lane.use_prioritized_replay
            after = replay.prioritize(with_priorities(priorities), order[0], priority, on)
            return after.priorities, after.largest

        num_steps = gradient_steps(lane, state.updates, active)
        remembered = remember if self.prioritized else None
        one = jnp.int32(1)
        steps = Steps(num_steps, lane.total_batch_size, one, 2, draw, gradients, finish, remembered)
        priorities = (memory.priorities, memory.largest) if self.prioritized else None
        learners, losses, priorities = take(shape, lambda names: steps, self.networks, lane, state.learners, priorities)
        weight = jnp.broadcast_to(num_steps.astype(jnp.float32), losses.shape)
        return learners, jnp.stack([losses, weight]), with_priorities(priorities)

    # --- the policy ------------------------------------------------------------------------------

    def _greedy(self, outputs: jax.Array, free: jax.Array, lane: Any) -> jax.Array:
        del free
        return jnp.argmax(self._combined(lane, outputs), axis=0).astype(jnp.int32)
