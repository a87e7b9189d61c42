"""Networks of several shapes in one program: a lane pays for its own shape only.

Lanes that run one after the other, or that share a shape while they run in lockstep, need no padding:
the program holds the code of every shape that occurs, and a real branch takes the lane's. That
compiles a little more and computes nothing that no sample asked for. Where lanes of different
shapes are to run in lockstep, the shapes are merged into one, whose arrays are padded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.errors import CannotShare, UserError
from hyperlax.networks.network import Network, TorsoFamily, TorsoShape
from hyperlax.networks.padding import Vector

Result = TypeVar("Result")


class AlternativesLane(NamedTuple):
    """A lane's network among the alternatives.

    Attributes:
        index: int32, which alternative; None where there is only one.
        torsos: for each alternative the torso's traced values, meaningless but for the lane's own.
    """

    index: Any
    torsos: tuple[Any, ...]


@dataclass(frozen=True)
class Alternatives:
    """The shapes of one network that a program has code for.

    Attributes:
        shapes: each of a torso.
        inputs: shape of one input: ``(features,)``, or ``(height, width, channels)`` of an image.
    """

    shapes: tuple[TorsoShape, ...]
    inputs: tuple[int, ...]

    @classmethod
    def exact(cls, role: str, family: TorsoFamily, inputs: tuple[int, ...]) -> Alternatives:
        """Returns one network by itself, at its exact size.

        Raises:
            UserError: its hyperparameters contradict one another or do not fit the inputs; names the ``role``.
        """
        try:
            return cls((family.shape(inputs),), inputs)
        except UserError as error:
            raise UserError(f"{role}_network: {error}") from None

    @property
    def num_inputs(self) -> int:
        """Numbers in one input."""
        return math.prod(self.inputs)

    def merge(self, other: Alternatives) -> Alternatives:
        """Returns the shapes of both; those whose arrays are alike become one."""
        shapes: list[Any] = list(self.shapes)
        for shape in other.shapes:
            alike = [i for i, known in enumerate(shapes) if known.is_alike(shape)]
            if alike:
                shapes[alike[0]] = shapes[alike[0]].merge(shape)
            else:
                shapes.append(shape)
        return Alternatives(tuple(sorted(shapes, key=repr)), self.inputs)

    def together(self) -> Alternatives:
        """Returns the one padded shape that holds all."""
        shapes: list[Any] = list(self.shapes)
        return Alternatives((reduce(lambda a, b: a.merge(b), shapes),), self.inputs)

    def index(self, family: TorsoFamily) -> int:
        """Returns which alternative a network uses."""
        return _index(self.shapes, family.shape(self.inputs))

    def only(self, index: int) -> Alternatives:
        """Returns one alternative by itself."""
        return Alternatives((self.shapes[index],), self.inputs)

    def traced(self, family: TorsoFamily) -> AlternativesLane:
        """Returns a network's place among the alternatives."""
        own = self.index(family)
        torsos = tuple(family.traced(s) if i == own else s.blank() for i, s in enumerate(self.shapes))
        return AlternativesLane(np.int32(own) if len(self.shapes) > 1 else None, torsos)

    def describe(self) -> str:
        """Returns the shapes in a few words."""
        return " or ".join(shape.describe() for shape in self.shapes)

    def flops(self, num_outputs: int) -> int:
        """Returns multiply-adds times two of one forward pass of one input, of the largest alternative."""
        return max(shape.flops(self.num_inputs, num_outputs) for shape in self.shapes)

    def flops_per_call(self) -> int:
        """Returns multiply-adds times two that a call costs whatever the number of its inputs, of the largest."""
        return max(shape.flops_per_call() for shape in self.shapes)

    def num_params(self, num_outputs: int) -> int:
        """Returns the number of parameters of the largest alternative."""
        return max(shape.num_params(self.num_inputs, num_outputs) for shape in self.shapes)

    def num_traced(self) -> int:
        """Returns the numbers that a lane brings beside its parameters, of all alternatives."""
        return sum(_num_traced(shape) for shape in self.shapes)

    def num_units(self) -> int:
        """Returns the hidden units of the largest alternative: activations of one input."""
        return max(shape.num_units() for shape in self.shapes)


@lru_cache(maxsize=4096)
def _index(shapes: tuple[Any, ...], exact: Any) -> int:
    return next(i for i, shape in enumerate(shapes) if _holds(shape, exact))


@lru_cache(maxsize=4096)
def _num_traced(shape: Any) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(shape.blank()))


def _holds(shape: Any, exact: Any) -> bool:
    try:
        return bool(shape.merge(exact) == shape)
    except CannotShare:
        return False


class Member:
    """One alternative, compiled.

    Attributes:
        network: maps ``(num_inputs, batch)`` to ``(num_outputs, batch)``.
        vector: packs and unpacks ``{"free": (num_free,), "network": …}``.
    """

    def __init__(self, network: Network, num_free: int) -> None:
        self.network = network
        free = jax.ShapeDtypeStruct((num_free,), jnp.float32)
        self.vector = Vector({"free": free, "network": network.abstract_params})


class AlternativeNetworks:
    """The networks of all alternatives; each lane has one, and its parameters as one vector.

    The vector is as long as that of the largest alternative. A lane's own parameters come first, those
    beside the network (a logarithmic standard deviation) before all others.

    Args:
        shape: the alternatives.
        num_outputs: size of the dense output layer.
        gain: of its orthogonal initialisation.
        common: makes of a number that lanes in lockstep agree on one number for all of them, so that a
            branch on it stays a branch.
        num_free: parameters beside the network; they begin at zero.
    """

    def __init__(
        self,
        shape: Alternatives,
        num_outputs: int,
        gain: float,
        common: Callable[[jax.Array], jax.Array],
        num_free: int = 0,
    ) -> None:
        self.shape, self.common, self.num_free = shape, common, num_free
        self.members = [Member(Network(s, shape.inputs, num_outputs, gain), num_free) for s in shape.shapes]
        self.size = max(member.vector.size for member in self.members)

    @classmethod
    def of(cls, role: Any, gain: float, common: Callable[[jax.Array], jax.Array]) -> AlternativeNetworks:
        """Returns the networks of a :class:`hyperlax.algorithms.shape.Role`."""
        return cls(role.networks, role.num_outputs, gain, common, role.num_free)

    def init(self, entropy: Sequence[int], family: TorsoFamily) -> np.ndarray:
        """Returns initial parameters ``(size,)`` drawn at the network's exact size, on the host."""
        member = self.members[self.shape.index(family)]
        free = np.zeros(self.num_free, np.float32)
        own = member.vector.pack({"free": free, "network": member.network.init(entropy, family)})
        return np.pad(own, (0, self.size - own.size))

    def unpack(self, vector: jax.Array) -> tuple[Any, ...]:
        """Returns the parameters as each alternative would read them; only the lane's own mean anything."""
        return tuple(member.vector.unpack(vector[: member.vector.size]) for member in self.members)

    def choose(self, lane: AlternativesLane, function: Callable[[int, Member, Any], Result]) -> Result:
        """Returns ``function(index, member, the torso's traced values)`` of the lane's alternative, and runs no other.

        All lanes in lockstep with this one must have the same alternative.
        """
        calls = [
            lambda i=i, member=member, torso=torso: function(i, member, torso)
            for i, (member, torso) in enumerate(zip(self.members, lane.torsos, strict=True))
        ]
        return calls[0]() if len(calls) == 1 else jax.lax.switch(self.common(lane.index), calls)

    def __call__(self, trees: tuple[Any, ...], x: jax.Array, lane: AlternativesLane) -> jax.Array:
        """Maps ``(num_inputs, batch)`` to ``(num_outputs, batch)`` by the lane's network."""
        return self.choose(lane, lambda i, member, torso: member.network(trees[i]["network"], x, torso))

    def free(self, vector: jax.Array) -> jax.Array:
        """Returns the parameters beside the network, ``(num_free,)``."""
        return vector[: self.num_free]

    def pack(self, network: Any, free: Any = ()) -> np.ndarray:
        """Returns the parameters ``(size,)`` of an exported network, where there is one alternative of its size."""
        free = np.asarray(free, np.float32)
        return np.asarray(self.members[0].vector.pack({"free": free, "network": jax.tree.map(np.asarray, network)}))

    def export(self, vector: np.ndarray, family: TorsoFamily) -> dict[str, Any]:
        """Returns ``{"free": …, "network": …}`` of one lane at exact size."""
        member = self.members[self.shape.index(family)]
        tree = member.vector.unpack(vector[: member.vector.size])
        return {**tree, "network": member.network.export(tree["network"], family)}
