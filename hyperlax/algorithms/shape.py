"""What a program of lanes is compiled for: the same description for every algorithm.

An algorithm says of each of its networks how often it is evaluated (:class:`Role`), and of itself how many
numbers it keeps of a transition; from that follow the estimates that the planner compares.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from hyperlax.environments.protocol import Environment
from hyperlax.errors import CannotShare, UserError
from hyperlax.networks.alternatives import Alternatives

MAX_CHUNK = 1024

_TRACED = {bool: np.bool_, int: np.int32, float: np.float32}


@cache
def _lane_type(name: str, names: tuple[str, ...]) -> type:
    return namedtuple(name, names)


class Hyperparameters:
    """What all algorithms' dataclasses have in common; the engine asks for more, as :mod:`hyperlax.algorithms.pqn` has.

    A subclass has fields ``rollout_length``, ``total_num_envs`` and ``epochs``, a network ``name_network`` for every
    :class:`Role` of its ``shape``, and says what ``batch_size`` (transitions in one gradient step) and
    ``gradient_steps`` (of one update) are.
    """

    rollout_length: int
    total_num_envs: int
    epochs: int
    batch_size: Any
    shape: Any

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one update."""
        return self.rollout_length * self.total_num_envs

    @property
    def learning_starts(self) -> int:
        """Environment steps before the first gradient step can be taken."""
        return 0

    def num_updates(self, total_timesteps: int) -> int:
        """Updates of a run of so many environment steps; the last may overshoot."""
        return -(-total_timesteps // self.steps_per_update)

    def exact_shape(self, roles: tuple[Role, ...], **more: Any) -> Shape:
        """Returns the shape of exactly this configuration, with what else the algorithm says of it."""
        return Shape(
            num_envs=self.total_num_envs,
            rollout_length=self.rollout_length,
            batch_sizes=(self.batch_size, self.batch_size),
            chunks=(min(self.batch_size, MAX_CHUNK),),
            roles=roles,
            **more,
        )

    def num_params(self, env: Environment) -> int:
        """Returns the number of trained parameters, of all networks; of twin critics both count."""
        roles = self.shape(env).roles
        return sum(replace(role, num_outputs=self.trained_outputs(role)).num_params() for role in roles)

    def trained_outputs(self, role: Role) -> int:
        """Returns the size of a network's dense output layer as far as it is trained."""
        return role.num_outputs

    def traced(self, shape: Shape, total_timesteps: int) -> Any:
        """Returns this configuration's place inside ``shape``, what is called a lane's hyperparameters.

        A named tuple of every number of the dataclass as a scalar of 32 bits, every network under its role's name,
        ``num_updates`` of the whole budget, and ``chunk``, an index into the shape's chunks, None if there is one.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        networks = {role.name: role.networks.traced(values.pop(f"{role.name}_network")) for role in shape.roles}
        values |= {
            "num_updates": self.num_updates(total_timesteps),
            "chunk": shape.chunk_index(self.batch_size) if len(shape.chunks) > 1 else None,
        }
        scalars = {k: None if value is None else _TRACED[type(value)](value) for k, value in values.items()}
        return _lane_type(f"{type(self).__name__}Lane", (*networks, *scalars))(**networks, **scalars)


class MinibatchHyperparameters(Hyperparameters):
    """What algorithms that take epochs of minibatches over a rollout have in common."""

    num_minibatches: int

    @property
    def batch_size(self) -> int:
        """Transitions in one gradient step."""
        return self.steps_per_update // self.num_minibatches

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of one update."""
        return self.epochs * self.num_minibatches

    def check(self, env: Environment) -> None:
        """Raises UserError if the hyperparameters contradict one another or do not fit ``env``."""
        del env
        if self.steps_per_update % self.num_minibatches:
            steps, given = self.steps_per_update, self.num_minibatches
            below = next(n for n in range(min(given, steps), 0, -1) if steps % n == 0)
            above = next((n for n in range(given, steps + 1) if steps % n == 0), below)
            near = f"{below} or {above}" if below < above else f"{below}"
            raise UserError(
                f"num_minibatches {given} does not divide rollout_length {self.rollout_length} × total_num_envs "
                f"{self.total_num_envs} = {steps}; accepted: its divisors, such as {near}"
            )


@dataclass(frozen=True)
class Role:
    """One network of an algorithm, and how often it is evaluated.

    Attributes:
        name: of the network; the hyperparameter is ``name_network``.
        networks: shapes of its torso, with the shape of its inputs.
        num_outputs: size of its dense output layer.
        num_free: parameters beside the network.
        copies: sets of parameters that are trained together: 2 for twin critics.
        has_target: whether a slowly moving copy of the parameters is kept.
        rollout_passes: forward passes per environment step.
        gradient_passes: forward passes per transition of a gradient; a gradient counts as three of them.
    """

    name: str
    networks: Alternatives
    num_outputs: int
    num_free: int = 0
    copies: int = 1
    has_target: bool = False
    rollout_passes: int = 1
    gradient_passes: int = 3

    def flops(self) -> int:
        """Returns floating-point operations of one forward pass of one input."""
        return self.networks.flops(self.num_outputs)

    def num_params(self) -> int:
        """Returns the number of trained parameters, padding included."""
        return self.copies * (self.networks.num_params(self.num_outputs) + self.num_free)

    def num_units(self) -> int:
        """Returns the numbers that one pass of one input leaves: inputs, activations, outputs."""
        return self.networks.num_inputs + self.networks.num_units() + self.num_outputs


class Work(NamedTuple):
    """A loop of one update: so many iterations, each over a batch of so many inputs."""

    iterations: int
    batch: int


class Choice(NamedTuple):
    """Which alternatives a lane uses: of each network, and of the chunk size."""

    networks: tuple[int, ...]
    chunk: int


@dataclass(frozen=True)
class Shape:
    """Static maxima of lanes.

    A batch is worked off in chunks, a lane with larger batches taking more of them before it steps. So lanes
    of very different batch sizes in lockstep, which have chunks of one size, cost little padding; lanes by
    themselves have a choice of sizes.

    Attributes:
        num_envs: most environments of any lane.
        rollout_length: most steps of any lane in one update.
        batch_sizes: smallest and largest batch of a gradient step of any lane.
        chunks: transitions in one gradient evaluation: the choice there is, ascending.
        roles: the networks.
        joint: whether a gradient step needs all networks at once.
        rollout_width: numbers kept of each transition of a rollout, until it has been learnt from.
        capacity: most transitions in any lane's replay.
        replay_width: numbers of one of them.
        n_step: most steps of any lane's transitions.
        options: names of what some lanes do and others may not, for which there is code only if one does.
    """

    num_envs: int
    rollout_length: int
    batch_sizes: tuple[int, int]
    chunks: tuple[int, ...]
    roles: tuple[Role, ...]
    joint: bool = False
    rollout_width: int = 0
    capacity: int = 0
    replay_width: int = 0
    n_step: int = 1
    options: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Transitions of the largest rollout, padding included."""
        return self.num_envs * self.rollout_length

    def role(self, name: str) -> Role:
        """Returns a network by name."""
        return next(role for role in self.roles if role.name == name)

    def merge(self, other: Shape) -> Shape:
        """Returns the least shape that holds both, different networks side by side, with the chunks of the first."""
        return replace(
            self,
            num_envs=max(self.num_envs, other.num_envs),
            rollout_length=max(self.rollout_length, other.rollout_length),
            batch_sizes=(
                min(self.batch_sizes[0], other.batch_sizes[0]),
                max(self.batch_sizes[1], other.batch_sizes[1]),
            ),
            roles=tuple(
                replace(mine, networks=mine.networks.merge(theirs.networks))
                for mine, theirs in zip(self.roles, other.roles, strict=True)
            ),
            capacity=max(self.capacity, other.capacity),
            replay_width=max(self.replay_width, other.replay_width),
            n_step=max(self.n_step, other.n_step),
            options=tuple(sorted({*self.options, *other.options})),
        )

    def describe(self) -> str:
        """Returns the shape in a few words."""
        smallest, largest = self.batch_sizes
        networks = ", ".join(f"{role.name} {role.networks.describe()}" for role in self.roles)
        sizes = f"{smallest} … {largest}" if smallest < largest else str(largest)
        chunks = "/".join(map(str, self.chunks))
        chunks = f" by {chunks}" if chunks != sizes else ""
        replay = f", replay of {self.capacity}" if self.capacity else ""
        steps = f"{self.num_envs} environments × {self.rollout_length} steps"
        return f"{steps}, batches of {sizes}{chunks}{replay}, {networks}"

    # --- alternatives --------------------------------------------------------------------------------

    def _with(self, change: Callable[[int, Alternatives], Alternatives], **changes: Any) -> Shape:
        roles = [replace(role, networks=change(i, role.networks)) for i, role in enumerate(self.roles)]
        return replace(self, roles=tuple(roles), **changes)

    def together(self) -> Shape:
        """Returns the shape in which networks of different sizes share arrays, so that any lanes may be in lockstep."""
        return self._with(lambda i, networks: networks.together())

    def chunk_index(self, batch_size: int) -> int:
        """Returns which chunk size suits a batch: an iteration costs as much besides as some 16 transitions."""
        costs = [-(-batch_size // chunk) * (chunk + 16) for chunk in self.chunks]
        return costs.index(min(costs))

    def accumulates(self, chunk: int) -> bool:
        """Returns whether any batch takes several chunks of this size."""
        sizes = range(chunk + 1, self.batch_sizes[1] + 1)
        return any(self.chunks[self.chunk_index(size)] == chunk for size in sizes)

    def choice(self, hyperparams: Any) -> Choice:
        """Returns which alternatives a configuration uses: lanes in lockstep must agree on them."""
        networks = (role.networks.index(getattr(hyperparams, f"{role.name}_network")) for role in self.roles)
        return Choice(tuple(networks), self.chunk_index(hyperparams.batch_size))

    def only(self, choice: Choice) -> Shape:
        """Returns the shape with one choice of alternatives: what a lane with that choice costs."""
        return self._with(lambda i, networks: networks.only(choice.networks[i]), chunks=(self.chunks[choice.chunk],))

    @property
    def num_alternatives(self) -> int:
        """Alternatives of the networks' gradient steps: how much code there is to compile."""
        counts = [len(role.networks.shapes) for role in self.roles]
        together = math.prod(counts) * len(counts) if self.joint else sum(counts)
        return together * len(self.chunks)

    @property
    def num_choices(self) -> int:
        """Choices of alternatives: lanes in lockstep must agree on one."""
        return math.prod(len(role.networks.shapes) for role in self.roles) * len(self.chunks)

    def variants(self) -> list[Shape]:
        """Returns shapes for the same lanes among which the planner may choose: other chunks, padded networks."""
        smallest, largest = (min(size, MAX_CHUNK) for size in self.batch_sizes)
        sizes = sorted({smallest, largest} | {2**k for k in range(1, 11) if smallest <= 2**k <= largest})
        one = [(size,) for size in sizes]
        several = [tuple(sizes[::step]) for step in (1, 2) if len(sizes[::step]) > 1]
        try:
            together = {self.together()} - {self}
        except CannotShare:
            together = set()
        padded = [replace(shape, chunks=chunks) for shape in together for chunks in one]
        return [replace(self, chunks=chunks) for chunks in one + several] + padded

    # --- estimates -----------------------------------------------------------------------------------

    def work(self, hyperparams: Any) -> tuple[Work, Work]:
        """Returns what one update of a configuration does: environment steps, gradient evaluations."""
        chunk = self.chunks[self.chunk_index(hyperparams.batch_size)]
        chunks = hyperparams.gradient_steps * -(-hyperparams.batch_size // chunk)
        return Work(hyperparams.rollout_length, self.num_envs), Work(chunks, chunk)

    def flops(self) -> tuple[int, int]:
        """Returns floating-point operations per environment step and per transition of a gradient."""
        step = sum(role.rollout_passes * role.flops() for role in self.roles)
        return step, sum(role.gradient_passes * role.flops() for role in self.roles)

    def flops_per_call(self) -> tuple[int, int]:
        """Returns those of a step of all environments and of a gradient that do not depend on how many they are."""
        costs = [(role, role.copies * role.networks.flops_per_call()) for role in self.roles]
        step = sum((role.rollout_passes > 0) * cost for role, cost in costs)
        return step, sum(3 * cost for _, cost in costs)

    def num_params(self) -> int:
        """Returns the number of trained parameters, padding included."""
        return sum(role.num_params() for role in self.roles)

    def most_memory(self) -> str:
        """Returns the words in which a message says what to make smaller."""
        if sum(role.networks.num_traced() + 4 * role.networks.num_units() for role in self.roles) > 2**20:
            return "the size of the networks decides"
        return "total_buffer_size decides" if self.capacity else "total_num_envs and rollout_length decide"

    def memory(self, env_numbers: int, num_episodes: int) -> tuple[int, int]:
        """Returns bytes that one lane keeps, and bytes that it needs while it works.

        Args:
            env_numbers: numbers in the state and the observation of one environment.
            num_episodes: episodes of an evaluation.
        """
        params = self.num_params()
        targets = sum(role.num_params() for role in self.roles if role.has_target)
        replay = (self.capacity + self.num_envs) * self.replay_width if self.capacity else 0
        kept = 3 * params + targets + self.num_envs * (env_numbers + 3)
        rows = (self.rollout_length + 1) * self.num_envs
        units = sum(role.copies * role.num_units() for role in self.roles)
        batch = max(*self.chunks, min(rows, max(256, self.num_envs)))
        training = rows * (self.rollout_width + env_numbers) + 4 * batch * units + 6 * params
        kept += sum(role.networks.num_traced() for role in self.roles)
        return 4 * (2 * kept + replay), 4 * max(training, 4 * num_episodes * (units + env_numbers))
