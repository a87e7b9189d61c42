"""Soft actor-critic (Haarnoja et al., 2018), as one lane among others.

Twin critics, target networks, a temperature that is fixed or tuned to a target entropy. For continuous actions the
policy is a squashed normal distribution; for discrete ones a categorical distribution over which all expectations
are exact (Christodoulou, 2019). One update collects ``rollout_length`` steps of all environments and then takes
``epochs`` gradient steps. In each, critics, actor and temperature step at once, from the same parameters.

Exploration may keep its noise for some steps, as in generalised state-dependent exploration (Raffin et al., 2022),
without which rewards that only a long push reaches are never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
from hyperlax.algorithms.values import of_actions
from hyperlax.environments.protocol import Box, Discrete, Environment, num_actions, observation_size
from hyperlax.errors import UserError
from hyperlax.networks.alternatives import AlternativeNetworks, Alternatives
from hyperlax.networks.distributions import Categorical as CategoricalDistribution
from hyperlax.networks.distributions import SquashedGaussian
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
METRICS = ("critic_loss", "mean_value", "actor_loss", "entropy", "alpha", "episode_return")


@dataclass(frozen=True)
class SAC(ReplayHyperparameters):
    """Hyperparameters of SAC, each declared here and nowhere else."""

    ACTION_SPACES: ClassVar = (Discrete, Box)

    actor_network: Any = nested(lambda: MLP((64, 64), "relu", False))
    critic_network: Any = nested(lambda: MLP((64, 64), "relu", False))
    actor_lr: float = hyperparameter(
        1e-3, LogUniform(1e-5, 1e-3), kind="scalar", description="Adam step size of the actor", check=positive
    )
    q_lr: float = hyperparameter(
        1e-3, LogUniform(1e-5, 1e-3), kind="scalar", description="Adam step size of the critics", check=positive
    )
    alpha_lr: float = hyperparameter(
        1e-3, LogUniform(1e-5, 1e-3), kind="scalar", description="Adam step size of the log temperature",
        check=positive,
    )  # fmt: skip
    gamma: float = hyperparameter(
        0.99, Uniform(0.9, 0.999), kind="scalar", description="discount per step", check=fraction
    )
    tau: float = hyperparameter(
        0.005, LogUniform(0.001, 0.1), kind="scalar", description="step of the target critics towards the others",
        check=rate,
    )  # fmt: skip
    max_grad_norm: float = hyperparameter(
        10.0, LogUniform(0.1, 10.0), kind="scalar",
        description="clip of the gradient's norm: the actor's, and both critics' together", check=positive,
    )  # fmt: skip
    autotune: bool = hyperparameter(
        True, Fixed(True), kind="scalar", description="tune the temperature to the target entropy, or fix it"
    )
    init_alpha: float = hyperparameter(
        1.0, LogUniform(0.1, 10.0), kind="scalar", description="temperature at the start", check=positive
    )
    target_entropy_scale: float = hyperparameter(
        0.7, Uniform(0.1, 0.95), kind="scalar",
        description="target entropy over -size of continuous actions (more is less random), or over log number of "
        "discrete ones (more is more random)", check=non_negative,
    )  # fmt: skip
    noise_period: int = hyperparameter(
        1, Fixed(1), kind="scalar", description="steps for which exploration keeps its noise, random actions included",
        check=at_least(1),
    )  # fmt: skip
    rollout_length: int = hyperparameter(
        4, Categorical((2, 4, 8)), kind="structural", description="steps per environment and update",
        check=at_least(1),
    )  # fmt: skip
    epochs: int = hyperparameter(
        16, Categorical((4, 8, 16)), kind="structural", description="gradient steps per update", check=at_least(1)
    )
    total_num_envs: int = hyperparameter(
        4, Categorical((4, 8, 16)), kind="structural", description="environments stepped at once", check=at_least(1)
    )
    warmup_rollout_length: int = hyperparameter(
        256, Categorical((64, 128, 256)), kind="scalar",
        description="random steps per environment before learning starts", check=at_least(0),
    )  # fmt: skip
    total_buffer_size: int = hyperparameter(
        100_000, Categorical((50_000, 100_000)), kind="structural", description="transitions remembered",
        check=at_least(1),
    )  # fmt: skip
    total_batch_size: int = hyperparameter(
        256, Categorical((64, 128, 256)), kind="structural", description="transitions of a gradient step",
        check=at_least(1),
    )  # fmt: skip
    decay_learning_rates: bool = hyperparameter(
        False, Categorical((True, False)), kind="scalar", description="linearly to zero over the budget"
    )
    normalize_observations: bool = hyperparameter(
        False, Categorical((True, False)), kind="scalar", description="by running mean and deviation"
    )

    def shape(self, env: Environment) -> Shape:
        """Returns the static shape of exactly this configuration."""
        inputs, size = tuple(env.observation_shape), _action_size(env)
        if isinstance(env.action_space, Discrete):
            actor_outputs = critic_outputs = num_actions(env)
            critic_inputs = inputs
        else:
            actor_outputs = SquashedGaussian(size).num_parameters
            critic_outputs, critic_inputs = 1, (observation_size(env) + size,)
        actor = Alternatives.exact("actor", self.actor_network, inputs)
        critic = Alternatives.exact("critic", self.critic_network, critic_inputs)
        return self.exact_shape(
            roles=(
                Role("actor", actor, actor_outputs, gradient_passes=4),
                Role("critic", critic, critic_outputs, copies=2, has_target=True, rollout_passes=0, gradient_passes=14),
            ),
            joint=True,
            capacity=self.buffer_steps * self.total_num_envs,
            replay_width=2 * observation_size(env) + size + 3,
        )

    def check(self, env: Environment) -> None:
        """Raises UserError if the hyperparameters contradict one another or do not fit ``env``."""
        super().check(env)
        if self.autotune and isinstance(env.action_space, Discrete) and np.float32(self.target_entropy_scale) >= 1:
            raise UserError(
                f"target_entropy_scale {self.target_entropy_scale}: with discrete actions and autotune below 1 is "
                "accepted; at 1 the target is the largest entropy there is, and the policy would stay random"
            )

    def agent(self, env: Environment, shape: Shape) -> SACAgent:
        """Returns the functions that train lanes of ``shape``, of which this is one."""
        return SACAgent(env, shape)


def _action_size(env: Environment) -> int:
    return env.action_space.size if isinstance(env.action_space, Box) else 1


class SACState(NamedTuple):
    """All that changes while a lane trains."""

    learners: Learners  # of actor, critic (two, with targets) and alpha (the log temperature, a scalar)
    memory: Memory
    statistics: RunningStatistics  # of the raw observation
    copies: Copies
    updates: jax.Array  # int32


class ContinuousPolicy:
    """What SAC asks of a policy over continuous actions: expectations are estimated by one action each."""

    def __init__(self, size: int) -> None:
        self.distribution, self.action_size, self.noise_size = SquashedGaussian(size), size, size
        self.entropy_at_scale_one = -float(size)

    def explore(self, key: jax.Array, outputs: jax.Array, warm: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns actions to remember, ``(batch, action_size)``, and to take; random ones until ``warm``."""
        shape = (outputs.shape[1], self.action_size)
        action, _ = self.distribution.sample(jax.random.normal(jax.random.fold_in(key, 0), shape).T, outputs)
        anything = jax.random.uniform(jax.random.fold_in(key, 1), shape, minval=-1.0, maxval=1.0)
        action = jnp.where(warm, action.T, anything)
        return action, action

    def expected(self, outputs: jax.Array, noise: jax.Array, values: Any) -> tuple[jax.Array, jax.Array]:
        """Returns the policy's value under the least of ``values(actions)`` and its entropy, ``(batch,)`` each."""
        action, log_prob = self.distribution.sample(noise, outputs)
        first, second = values(action)[:, 0]
        # Not `min`: its gradient compares the values with their least, which XLA may have computed once more with other
        # rounding; where none is equal to it, that divides by zero.
        return jnp.where(first < second, first, second), -log_prob

    def of_action(self, values: Any, action: jax.Array) -> jax.Array:
        """Returns the values ``(copies, batch)`` of remembered actions ``(action_size, batch)``."""
        return values(action)[:, 0]

    def mode(self, outputs: jax.Array) -> jax.Array:
        """Returns the actions of no noise, as the environment takes them."""
        return self.distribution.mode(outputs).T


class DiscretePolicy:
    """What SAC asks of a policy over discrete actions: expectations are sums over all of them."""

    def __init__(self, number: int) -> None:
        self.distribution, self.action_size, self.noise_size = CategoricalDistribution(number), 1, 0
        self.entropy_at_scale_one = float(np.log(number))

    def explore(self, key: jax.Array, outputs: jax.Array, warm: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns actions to remember, ``(batch, 1)``, and to take; random ones until ``warm``."""
        logits = jnp.where(warm, outputs, 0.0)
        action = self.distribution.sample(self.distribution.noise(key, outputs.shape[1]), logits, jnp.zeros(0))
        return action.T, self.distribution.to_environment(action)

    def expected(self, outputs: jax.Array, noise: jax.Array, values: Any) -> tuple[jax.Array, jax.Array]:
        """Returns the policy's value under the least of ``values(None)`` and its entropy, ``(batch,)`` each."""
        del noise
        log_p = jax.nn.log_softmax(outputs, axis=0)
        return (jnp.exp(log_p) * values(None).min(0)).sum(0), -(jnp.exp(log_p) * log_p).sum(0)

    def of_action(self, values: Any, action: jax.Array) -> jax.Array:
        """Returns the values ``(copies, batch)`` of remembered actions ``(1, batch)``."""
        return of_actions(values(None), action)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """Returns the likeliest actions, as the environment takes them."""
        return jnp.argmax(outputs, axis=0).astype(jnp.int32)


class SACAgent(Agent):
    """SAC on one environment, compiled for one shape. Every method is for a single lane."""

    ACTING = "actor"

    def __init__(self, env: Environment, shape: Shape) -> None:
        self.env, self.shape = env, shape
        self.kind: ContinuousPolicy | DiscretePolicy
        discrete = isinstance(env.action_space, Discrete)
        self.kind = DiscretePolicy(num_actions(env)) if discrete else ContinuousPolicy(_action_size(env))
        self.meaning = self.kind.distribution.meaning
        self.actor = AlternativeNetworks.of(shape.role("actor"), 0.01, lane_max)
        self.critic = AlternativeNetworks.of(shape.role("critic"), 1.0, lane_max)
        self.networks = {"actor": self.actor, "critic": self.critic}
        self.replay = Replay(env, shape, self.kind.action_size)
        self.metric_names = METRICS

    # --- before training -------------------------------------------------------------------------

    def init_params(self, entropy: Sequence[int], hyperparams: SAC) -> Any:
        """Returns parameters initialised at exact size and padded (on the host), one vector a network."""
        critics = [self.critic.init([*entropy, i], hyperparams.critic_network) for i in (1, 2)]
        return {"actor": self.actor.init([*entropy, 0], hyperparams.actor_network), "critic": np.stack(critics)}

    def init(self, key: jax.Array, params: Any, lane: Any) -> SACState:
        """Returns the state before the first update."""
        everything = {**params, "alpha": jnp.log(lane.init_alpha)}
        optimizers = self._optimizers(lane, jnp.int32(0))
        learners = {name: Learner(x, optimizers[name].init(x)) for name, x in everything.items()}
        return SACState(
            learners=learners | {"critic": learners["critic"]._replace(target=params["critic"])},
            memory=self.replay.empty(),
            statistics=RunningStatistics.empty(observation_size(self.env)),
            copies=experience.begin(self.env, stream(key, RESET, jnp.int32(0)), self.shape.num_envs),
            updates=jnp.int32(0),
        )

    # --- one update ------------------------------------------------------------------------------

    def update(self, key: jax.Array, state: SACState, lane: Any, active: jax.Array) -> tuple[SACState, Metrics]:
        """Collects some steps and learns from all that is remembered; a lane that is not active stays as it is.

        Returns:
            The next state and training metrics; see :data:`hyperlax.algorithms.lane.Metrics`.
        """
        collected, episodes = self._collect(key, state, lane, active)
        learners, losses = self._learn(key, state, collected, lane, active)
        new = SACState(learners, *collected, state.updates + active)
        return new, jnp.concatenate([losses, episodes[:, None]], axis=1)

    def _collect(self, key: jax.Array, state: SACState, lane: Any, active: jax.Array) -> tuple[Collected, jax.Array]:
        """Steps every environment ``rollout_length`` times, at random during the warm-up."""
        actor = self.actor.unpack(state.learners["actor"].params)

        def act(t: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
            features = self._features(state.statistics, lane, observation)
            outputs = self.actor(actor, features, lane.actor)
            period, warm = exploring(lane, state.updates, t)
            return self.kind.explore(stream(key, ACT, period), outputs, warm)

        length = jnp.where(active, lane.rollout_length, 0)
        before = Collected(state.memory, state.statistics, state.copies)
        return self.replay.collect(stream(key, STEP, state.updates), before, lane, length, act)

    # --- gradient steps --------------------------------------------------------------------------

    @staticmethod
    def _optimizers(lane: Any, updates: jax.Array) -> dict[str, optax.GradientTransformation]:
        rates = {"actor": lane.actor_lr, "critic": lane.q_lr, "alpha": lane.alpha_lr}
        rates = {name: decayed(rate, lane, updates) for name, rate in rates.items()}
        return {
            "actor": adam(rates["actor"], lane.max_grad_norm),
            "critic": adam(rates["critic"], lane.max_grad_norm),
            "alpha": optax.chain(optax.scale_by_adam(eps=1e-5), optax.scale_by_learning_rate(rates["alpha"])),
        }

    @staticmethod
    def _critics(own: Own, tree: Any, features: jax.Array) -> Any:
        """Returns a function from actions (or None, where they are discrete) to values ``(copies, outputs, batch)``."""
        return lambda action: own(tree, features if action is None else jnp.concatenate([features, action]))

    def _critic_loss(
        self, tree: Any, own: Own, batch: dict[str, jax.Array], targets: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times the transitions' losses, and that of loss and mean value."""
        values = self.kind.of_action(self._critics(own, tree, batch["features"]), batch["action"])
        loss = (0.5 * (values - targets) ** 2 @ weight).sum()
        return loss, jax.lax.stop_gradient(jnp.stack([loss, values.mean(0) @ weight]))

    def _actor_loss(
        self, tree: Any, own: Own, critics: Any, alpha: jax.Array, batch: dict[str, jax.Array], weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of ``weight`` times the observations' losses, and that of loss and entropy."""
        value, entropy = self.kind.expected(own(tree, batch["features"]), batch["noise"], critics)
        loss = weight @ -(value + alpha * entropy)
        return loss, jax.lax.stop_gradient(jnp.stack([loss, weight @ entropy]))

    def _gradients(
        self, lane: Any, owns: Owns, learners: Learners, batch: dict[str, jax.Array], weight: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Returns the gradients of critics, actor and log temperature, and the sums of all but the last metric."""
        actor, critic, alpha = owns["actor"], owns["critic"], jnp.exp(learners["alpha"].params)
        policy = actor.unpack(learners["actor"].params)
        target_critics = self._critics(critic, critic.unpack(learners["critic"].target), batch["next_features"])
        value, entropy = self.kind.expected(actor(policy, batch["next_features"]), batch["next_noise"], target_critics)
        targets = bootstrapped(batch, value + alpha * entropy)
        of_critic, critic_news = critic.gradient(
            self._critic_loss, learners["critic"].params, critic, batch, targets, weight
        )
        critics = self._critics(critic, critic.unpack(learners["critic"].params), batch["features"])
        of_actor, actor_news = actor.gradient(
            self._actor_loss, learners["actor"].params, actor, critics, alpha, batch, weight
        )
        wanted = lane.target_entropy_scale * self.kind.entropy_at_scale_one
        of_alpha = jnp.where(lane.autotune, actor_news[1] - weight.sum() * wanted, 0.0)
        news = jnp.concatenate([critic_news, actor_news, (alpha * weight.sum())[None]])
        return {"actor": of_actor, "critic": of_critic, "alpha": of_alpha}, news

    def _learn(
        self, key: jax.Array, state: SACState, collected: Collected, lane: Any, active: jax.Array
    ) -> tuple[Learners, Metrics]:
        """Takes ``epochs`` gradient steps, none during the warm-up."""
        replay, memory, optimizers = self.replay, collected.memory, self._optimizers(lane, state.updates)
        place, sample_key = Place.of(lane), stream(key, SAMPLE, state.updates)
        one = jnp.int32(1)

        def draw(number: jax.Array, nothing: Any) -> Any:
            del nothing
            key, size = jax.random.fold_in(sample_key, number), self.shape.batch_sizes[1]
            noise = jax.random.normal(jax.random.fold_in(key, 1), (size, 2, self.kind.noise_size))
            return replay.uniform(jax.random.fold_in(key, 0), memory, place, size), noise

        def gradients(owns: Owns, learners: Learners, order: Any, weight: jax.Array, number: jax.Array) -> Any:
            del number
            indices, noise = order
            batch = replay.transitions(memory, place, indices, lane.gamma, one, 1)
            batch |= replay.features(batch, collected.statistics, lane.normalize_observations)
            batch["action"] = batch["action"].reshape(indices.size, -1).T
            batch["noise"], batch["next_noise"] = noise[:, 0].T, noise[:, 1].T
            return *self._gradients(lane, owns, learners, batch, weight), None

        def finish(learners: Learners, grads: dict[str, jax.Array], number: jax.Array) -> Learners:
            del number
            new = {name: learner.step(optimizers[name], grads[name]) for name, learner in learners.items()}
            return new | {"critic": new["critic"].follow(lane.tau)}

        num_steps = gradient_steps(lane, state.updates, active)
        steps = Steps(num_steps, lane.total_batch_size, one, len(METRICS) - 1, draw, gradients, finish)
        learners, losses, _ = take(self.shape, lambda names: steps, self.networks, lane, state.learners)
        weight = jnp.broadcast_to(num_steps.astype(jnp.float32), losses.shape)
        return learners, jnp.stack([losses, weight])

    # --- the policy ------------------------------------------------------------------------------

    def _greedy(self, outputs: jax.Array, free: jax.Array, lane: Any) -> jax.Array:
        del free, lane
        return self.kind.mode(outputs)
