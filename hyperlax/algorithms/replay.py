"""Replay memory that is right under vmap: each lane its own capacity, uniform draws in constant time.

Transitions of all copies are written side by side: the ``k``-th step of a lane with ``n`` copies goes to the rows
``n·(k mod steps) … + n``, where ``steps`` is as many as its own capacity holds. So the lane's rows come first and
without gaps, whatever the program's arrays are, and a uniform draw is one remainder of random bits. The final
observation is kept with the transition, so that a cut episode can be bootstrapped.

Rows beyond the capacity are room for a padded block that is written at the end. The rows never pass through a
selection (``keep``): that would copy all of them at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperlax.algorithms import experience
from hyperlax.algorithms.experience import Copies
from hyperlax.algorithms.lane import Columns, keep, repeat
from hyperlax.algorithms.shape import Hyperparameters, Shape
from hyperlax.algorithms.statistics import RunningStatistics
from hyperlax.environments.protocol import Environment, observation_size
from hyperlax.errors import UserError

BRANCHES = 16


class ReplayHyperparameters(Hyperparameters):
    """What algorithms that learn from a replay have in common."""

    warmup_rollout_length: int
    total_buffer_size: int
    total_batch_size: int

    @property
    def batch_size(self) -> int:
        """Transitions in one gradient step."""
        return self.total_batch_size

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of one update."""
        return self.epochs

    @property
    def buffer_steps(self) -> int:
        """Steps of all environments that the replay holds."""
        return self.total_buffer_size // self.total_num_envs

    @property
    def learning_starts(self) -> int:
        """Environment steps of the warm-up."""
        return self.warmup_rollout_length * self.total_num_envs

    def check(self, env: Environment) -> None:
        """Raises UserError if the hyperparameters contradict one another or do not fit ``env``."""
        del env
        buffer, envs = self.total_buffer_size, self.total_num_envs
        for name, least in (("total_batch_size", self.total_batch_size), ("total_num_envs", envs)):
            if buffer < least:
                raise UserError(f"total_buffer_size {buffer} is smaller than {name} {least}; accepted: {least} or more")


class Memory(NamedTuple):
    """What a lane remembers.

    Attributes:
        rows: ``(capacity + num_envs, width)``, transitions.
        steps: int32, how many have been written; the next goes behind them, over the oldest if need be.
        priorities: levels of a :class:`SumTree`, None where nothing is prioritised.
        largest: float32, largest priority so far, which a new transition gets; None likewise.
    """

    rows: jax.Array
    steps: jax.Array
    priorities: Any = None
    largest: Any = None


class Collected(NamedTuple):
    """What interacting with the environment leaves: the memory, statistics of raw observations, the copies."""

    memory: Memory
    statistics: RunningStatistics
    copies: Copies


class Place(NamedTuple):
    """Which part of the memory a lane uses (traced): ``steps`` of ``num_envs`` rows each."""

    steps: jax.Array
    num_envs: jax.Array

    @staticmethod
    def of(lane: Any) -> Place:
        """Returns that of traced hyperparameters."""
        return Place(jax.lax.div(lane.total_buffer_size, lane.total_num_envs), lane.total_num_envs)

    def filled(self, memory: Memory) -> jax.Array:
        """Returns the number of transitions that can be drawn."""
        return jnp.minimum(memory.steps, self.steps) * self.num_envs


def exploring(lane: Any, updates: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns which period of one noise a step of an update lies in, and whether the warm-up is over."""
    steps = updates * lane.rollout_length + t
    return jax.lax.div(steps, lane.noise_period), steps >= lane.warmup_rollout_length


def gradient_steps(lane: Any, updates: jax.Array, active: jax.Array) -> jax.Array:
    """Returns the gradient steps of an update: none of a lane that is not active, or in its warm-up."""
    learns = active & ((updates + 1) * lane.rollout_length >= lane.warmup_rollout_length)
    return jnp.where(learns, lane.epochs, 0)


def bootstrapped(batch: dict[str, jax.Array], value: jax.Array) -> jax.Array:
    """Returns the targets of transitions: rewards, and what follows, ``(batch,)``, where it counts.

    Args:
        batch: by :meth:`Replay.transitions`.
        value: of the observations that end them; what ended an episode may be anything, even NaN.
    """
    discount = batch["discount"]
    return batch["reward"] + jnp.where(discount > 0, discount * value, 0.0)


class Replay:
    """The memory of one program.

    Args:
        env: the environment.
        shape: of the program.
        action_size: numbers of an action.
        prioritized: whether any lane draws by priority.
    """

    def __init__(self, env: Environment, shape: Shape, action_size: int, prioritized: bool = False) -> None:
        features = observation_size(env)
        widths = {"observation": features, "next_observation": features, "action": action_size}
        self.columns = Columns(**widths, reward=1, terminated=1, done=1)
        self.env, self.shape, self.num_envs = env, shape, shape.num_envs
        self.num_rows = shape.capacity + shape.num_envs
        self.tree = SumTree(self.num_rows) if prioritized else None

    def empty(self) -> Memory:
        """Returns a memory of nothing."""
        rows, steps = jnp.zeros((self.num_rows, self.columns.width)), jnp.int32(0)
        return Memory(rows, steps, self.tree.empty(), jnp.ones(())) if self.tree else Memory(rows, steps)

    def write(self, memory: Memory, place: Place, on: jax.Array, **groups: jax.Array) -> Memory:
        """Adds a step of all copies, groups ``(num_envs, columns)``; nothing if not ``on``."""
        start = jax.lax.rem(memory.steps, place.steps) * place.num_envs
        counts = (jnp.arange(self.num_envs) < place.num_envs) & on
        before = jax.lax.dynamic_slice_in_dim(memory.rows, start, self.num_envs)
        block = jnp.where(counts[:, None], self.columns.join(**groups).astype(before.dtype), before)
        rows = jax.lax.dynamic_update_slice_in_dim(memory.rows, block, start, axis=0)
        memory = memory._replace(rows=rows, steps=memory.steps + on)
        if self.tree is None:
            return memory
        indices = start + jnp.arange(self.num_envs)
        levels = self.tree.write(memory.priorities, indices, jnp.full(self.num_envs, memory.largest), counts)
        return memory._replace(priorities=levels)

    def uniform(self, key: jax.Array, memory: Memory, place: Place, number: int) -> jax.Array:
        """Returns row numbers drawn with replacement; draw ``i`` depends on key, ``i`` and what is filled only.

        The remainder of 32 random bits prefers none of ``n`` rows by more than ``n / 2**32``.
        """
        bits = jax.random.bits(key, (number,), jnp.uint32)
        filled = jnp.maximum(place.filled(memory), 1).astype(jnp.uint32)
        return jax.lax.rem(bits, filled).astype(jnp.int32)

    def by_priority(self, key: jax.Array, memory: Memory, place: Place, number: int) -> tuple[jax.Array, jax.Array]:
        """Returns row numbers drawn in proportion to their priorities, and their probabilities."""
        assert self.tree is not None
        indices, priority = self.tree.find(memory.priorities, jax.random.uniform(key, (number,)))
        indices = jnp.minimum(indices, jnp.maximum(place.filled(memory) - 1, 0))
        return indices, priority / self.tree.total(memory.priorities)

    def prioritize(self, memory: Memory, indices: jax.Array, priority: jax.Array, on: jax.Array) -> Memory:
        """Sets the priorities of some rows, where ``on``; rows that occur twice must have the same."""
        assert self.tree is not None
        largest = jnp.maximum(memory.largest, jnp.where(on, priority, 0.0).max())
        return memory._replace(priorities=self.tree.write(memory.priorities, indices, priority, on), largest=largest)

    def transitions(
        self, memory: Memory, place: Place, indices: jax.Array, gamma: jax.Array, n_step: jax.Array, longest: int
    ) -> dict[str, jax.Array]:
        """Returns the transitions that begin at some rows, each up to ``n_step`` steps long.

        A transition ends early where the episode does, and at the newest step there is.

        Args:
            memory: to read from.
            place: the lane's part of it.
            indices: ``(batch,)`` rows.
            gamma: discount.
            n_step: int32, of the lane.
            longest: static, the largest ``n_step`` of any lane.

        Returns:
            The columns of the first row, but the discounted sum of rewards as ``reward``, and of the last row
            ``next_observation`` and ``terminated``; ``discount`` is what its value counts with.
        """
        first = self.columns.split(memory.rows[indices])
        total, discount = first["reward"], jnp.broadcast_to(gamma, indices.shape)
        end = {"next_observation": first["next_observation"], "terminated": first["terminated"]}
        newest = jax.lax.rem(memory.steps - 1, place.steps)

        def step(i: jax.Array, on: jax.Array, carry: Any) -> Any:
            del i
            going, position, total, discount, end = carry
            going = going & (position != newest) & on
            position = jnp.where(position + 1 == place.steps, 0, position + 1)
            rows = position * place.num_envs + jax.lax.rem(indices, place.num_envs)
            row = self.columns.split(memory.rows[rows])
            total = total + jnp.where(going, discount * row["reward"], 0.0)
            discount = jnp.where(going, discount * gamma, discount)
            end = {name: jnp.where(going if x.ndim == 1 else going[:, None], row[name], x) for name, x in end.items()}
            return going & (row["done"] == 0), position, total, discount, end

        if longest > 1:
            carry = (first["done"] == 0, jax.lax.div(indices, place.num_envs), total, discount, end)
            _, _, total, discount, end = repeat(n_step - 1, step, carry)
        return {**first, **end, "reward": total, "discount": discount * (1.0 - end["terminated"])}

    @staticmethod
    def features(batch: dict[str, jax.Array], statistics: RunningStatistics, use: jax.Array) -> dict[str, jax.Array]:
        """Returns what networks see of both observations of transitions, ``(features, batch)`` each."""
        number = batch["reward"].shape[0]
        return {
            f"{name}features": experience.features(statistics, use, batch[f"{name}observation"].reshape(number, -1))
            for name in ("", "next_")
        }

    def collect(
        self,
        key: jax.Array,
        collected: Collected,
        lane: Any,
        length: jax.Array,
        act: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
        reward_limit: jax.Array | None = None,
    ) -> tuple[Collected, jax.Array]:
        """Steps all copies ``length`` times and remembers every transition.

        Args:
            key: of these steps.
            collected: before them.
            lane: traced ``total_num_envs``, ``total_buffer_size``, ``gamma``.
            length: int32, none for a lane that does nothing.
            act: maps (number of the step, raw observations) to actions as they are remembered,
                ``(num_envs, action_size)``, and as the environment takes them.
            reward_limit: remembered rewards are clipped at ± this.

        Returns:
            What has been collected, and sum and number of the returns of episodes that ended, ``(2,)``.
        """
        place, valid = Place.of(lane), jnp.arange(self.num_envs) < lane.total_num_envs

        def step(t: jax.Array, on: jax.Array, carry: Any) -> Any:
            (memory, statistics, copies), episodes = carry
            action, taken = act(t, copies.observation)
            after, stepped = experience.step(self.env, jax.random.fold_in(key, t), copies, taken, lane.gamma, valid)
            transition, reward = stepped.transition, stepped.transition.reward
            if reward_limit is not None:
                reward = jnp.clip(reward, -reward_limit, reward_limit)
            memory = self.write(
                memory,
                place,
                on,
                observation=copies.observation,
                next_observation=transition.observation,
                action=action,
                reward=reward,
                terminated=transition.terminated,
                done=stepped.done,
            )
            statistics = statistics.merge(copies.observation, valid & on)
            collected = Collected(memory, statistics, keep(on, after, copies))
            return collected, episodes + jnp.where(on, stepped.episodes, 0.0)

        result: tuple[Collected, jax.Array] = repeat(length, step, (collected, jnp.zeros(2)))
        return result


class SumTree:
    """Sums of non-negative numbers such that one is found in proportion to its share of the total.

    Each node has the sum of :data:`BRANCHES` below it, added anew whenever one of them changes, so that no
    rounding error builds up. More leaves are more levels above the same nodes: results do not depend on them.

    Args:
        size: number of leaves.
    """

    def __init__(self, size: int) -> None:
        self._sizes = [-(-size // BRANCHES) * BRANCHES]
        while self._sizes[-1] > BRANCHES:
            self._sizes.append(-(-self._sizes[-1] // BRANCHES**2) * BRANCHES)

    def empty(self) -> tuple[jax.Array, ...]:
        """Returns the levels of a tree of zeros, the leaves first."""
        return tuple(jnp.zeros(size) for size in self._sizes)

    def total(self, levels: tuple[jax.Array, ...]) -> jax.Array:
        """Returns the sum of all leaves."""
        return levels[-1].sum()

    def write(
        self, levels: tuple[jax.Array, ...], indices: jax.Array, values: jax.Array, on: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Sets leaves, ``(batch,)`` each, where ``on``."""
        out = []
        for level in levels:
            level = level.at[jnp.where(on, indices, level.size)].set(values, mode="drop")
            out.append(level)
            indices = jax.lax.div(indices, jnp.asarray(BRANCHES, indices.dtype))
            values = level.reshape(-1, BRANCHES)[jnp.minimum(indices, level.size // BRANCHES - 1)].sum(-1)
        return tuple(out)

    def find(self, levels: tuple[jax.Array, ...], uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns leaves and their values: under each falls a share ``(batch,)``, in [0, 1), of the total."""
        rest = uniform * self.total(levels)
        parent = jnp.zeros(uniform.shape, jnp.int32)
        value = rest
        for level in reversed(levels):
            children = level.reshape(-1, BRANCHES)[parent]
            ends = jnp.cumsum(children, axis=1)
            # Rounding may leave nothing that ends behind the share: then the last child that has any.
            ends = jnp.where(children > 0, ends, -1.0)
            behind = ends > rest[:, None]
            last = jnp.argmax(jnp.where(children > 0, jnp.arange(BRANCHES), -1), axis=1)
            child = jnp.where(behind.any(1), jnp.argmax(behind, axis=1), last).astype(jnp.int32)
            value = jnp.take_along_axis(children, child[:, None], axis=1)[:, 0]
            end = jnp.take_along_axis(ends, child[:, None], axis=1)[:, 0]
            rest = jnp.maximum(rest - (end - value), 0.0)
            parent = parent * BRANCHES + child
        return parent, value
