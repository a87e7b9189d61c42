"""Multilayer perceptrons whose square layers are tensor networks: matrix product operators (Novikov et al., 2015).

A dense layer leads to ``hidden_dim`` units; then come ``num_mpo_layers`` layers of as many units, the weight of each
a chain of ``num_nodes_to_decompose`` cores. Core ``k`` has axes (left bond, output digit, input digit, right bond):
a unit's number, written in mixed radix with one digit a core, says which entries make up its weights.

The chain is contracted to the matrix that it stands for, halves first, and then multiplied: for two or more
inputs that is less work than to lead each of them through the chain.

Why such layers are said to explode, and what is done about it. With cores drawn from a standard normal
distribution, as in hyperlax-quantum, the variance of the whole weight is ``bond_dim ** (cores - 1)``: with 7 cores
and bond 16 activations grow ten-thousandfold a layer. Here the product is given the scale of a dense layer, exactly.
And a step of Adam changes every entry of every core by the learning rate at once, which changes the whole weight
``cores / size of an entry`` times as much: so the entries of cores are stored ``cores`` times as large as those of a
dense layer and scaled where they are used, by which a step changes the weight as much, relatively, as it does there.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hyperlax.errors import UserError
from hyperlax.networks.mlp import ACTIVATIONS, Dense, known_activation, normalize_and_activate, orthogonal
from hyperlax.spaces import Categorical, Fixed, at_least, hyperparameter

GAIN = math.sqrt(2)  # of a layer's weight, as in a dense network
CoreShape = tuple[int, int, int, int]


@dataclass(frozen=True)
class TMLP:
    """Hyperparameters of a tensorised multilayer perceptron."""

    hidden_dim: int = hyperparameter(
        64, Categorical((32, 64, 128)), kind="structural", description="units of every hidden layer",
        check=at_least(1),
    )  # fmt: skip
    num_nodes_to_decompose: int = hyperparameter(
        0, Fixed(0), kind="structural",
        description="cores of each tensorised weight; 0 is as many as hidden_dim has prime factors", check=at_least(0),
    )  # fmt: skip
    bond_dim: int = hyperparameter(
        8, Categorical((4, 8, 16)), kind="structural", description="size of the bonds between cores",
        check=at_least(1),
    )  # fmt: skip
    num_mpo_layers: int = hyperparameter(
        2, Categorical((1, 2, 3)), kind="structural", description="tensorised layers after the first, dense one",
        check=at_least(0),
    )  # fmt: skip
    activation: str = hyperparameter(
        "tanh", Categorical(("tanh", "relu", "silu")), kind="structural",
        description=f"after each hidden layer: {', '.join(ACTIVATIONS)}", check=known_activation,
    )  # fmt: skip
    use_layer_norm: bool = hyperparameter(
        False, Fixed(False), kind="structural", description="layer norm before each activation"
    )

    @cached_property
    def factors(self) -> tuple[int, ...]:
        """Digits of each core, whose product is ``hidden_dim``: as even as its prime factors allow, descending."""
        primes, rest, p = [], self.hidden_dim, 2
        while rest > 1:
            p = p if p * p <= rest else rest  # what is left without a small factor is prime
            if rest % p:
                p += 1
            else:
                primes.append(p)
                rest //= p
        cores = self.num_nodes_to_decompose or max(len(primes), 1)
        if cores > max(len(primes), 1):
            raise UserError(
                f"num_nodes_to_decompose {cores} does not fit hidden_dim {self.hidden_dim}, which has "
                f"{len(primes)} prime factors; accepted: 0 … {max(len(primes), 1)}"
            )
        factors = [1] * cores
        for prime in reversed(primes):
            factors[factors.index(min(factors))] *= prime
        return tuple(sorted(factors, reverse=True))

    def cores(self) -> tuple[CoreShape, ...]:
        """Returns the shapes of the cores of one layer.

        Raises:
            UserError: the bonds are larger than any matrix of this size can use.
        """
        factors, count, bond = self.factors, len(self.factors), self.bond_dim
        cuts = [min(math.prod(factors[:k]), math.prod(factors[k:])) ** 2 for k in range(1, count)]
        if bond > max(cuts, default=1):
            raise UserError(
                f"bond_dim {bond} does not fit a layer of {self.hidden_dim} units in {count} core{'s' * (count != 1)}; "
                f"accepted: 1 … {max(cuts, default=1)}"
            )
        bonds = [1, *[bond] * (count - 1), 1]
        return tuple((bonds[k], f, f, bonds[k + 1]) for k, f in enumerate(factors))

    def shape(self, inputs: tuple[int, ...]) -> TMLPShape:
        """Returns the static shape of exactly this network; inputs are flattened."""
        del inputs
        return TMLPShape(
            self.hidden_dim, self.hidden_dim, self.cores(), True, self.num_mpo_layers, self.num_mpo_layers,
            (self.activation,), (self.use_layer_norm,),
        )  # fmt: skip

    def traced(self, shape: TMLPShape) -> TMLPLane:
        """Returns this network's place inside ``shape`` as values that may differ between lanes."""
        digits = np.stack(np.unravel_index(np.arange(self.hidden_dim), self.factors))
        padded = [core[1] for core in shape.cores]
        first = len(padded) - len(self.factors)
        order = np.zeros(shape.hidden_dim, np.int32)
        order[: self.hidden_dim] = np.ravel_multi_index([*np.zeros((first, self.hidden_dim), int), *digits], padded)
        return TMLPLane(
            width=np.int32(self.hidden_dim),
            order=order,
            first_core=np.int32(first),
            sizes=np.array([(1, 1, 1, 1)] * first + [*self.cores()], np.int32),
            scale=np.float32(self.scale),
            depth=np.int32(self.num_mpo_layers),
            activation=np.int32(shape.activations.index(self.activation)),
            use_layer_norm=np.bool_(self.use_layer_norm),
        )

    @property
    def stored(self) -> float:
        """Standard deviation of the entries of cores as they are stored."""
        return len(self.factors) * GAIN / math.sqrt(self.hidden_dim)

    @property
    def scale(self) -> float:
        """What stored entries are multiplied by, so that the whole weight has a dense layer's variance."""
        count = len(self.factors)
        bonds = self.bond_dim ** (count - 1)
        return (GAIN**2 / (self.hidden_dim * bonds)) ** (1 / (2 * count)) / self.stored

    def initial(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator, inputs: tuple[int, ...]
    ) -> np.ndarray:
        """Returns the initial value of a parameter; cores are drawn from a normal distribution."""
        if name == "kernel":
            return orthogonal(shape, GAIN, rng)
        if "_core_" in name:
            return self.stored * rng.standard_normal(shape)
        return np.full(shape, 1.0 if name == "scale" else 0.0)

    def finish(self, params: Any) -> Any:
        """Returns initial parameters such that every tensorised weight has exactly the norm of an orthogonal one."""
        torso = dict(params["torso"])
        for layer in range(self.num_mpo_layers):
            cores = {name: torso[name] for name in core_names(layer, len(self.factors))}
            weight = contract([self.scale * core for core in cores.values()])
            factor = (GAIN * math.sqrt(self.hidden_dim) / np.linalg.norm(weight)) ** (1 / len(cores))
            torso |= {name: (factor * core).astype(np.float32) for name, core in cores.items()}
        return {**params, "torso": torso}


def core_names(layer: int, number: int) -> list[str]:
    """Returns the names of a layer's cores, numbered from the last, as fewer cores are padded at the front."""
    return [f"mpo_{layer}_core_{k}" for k in reversed(range(number))]


def contract(cores: Any) -> Any:
    """Returns the matrix ``(outputs, inputs)`` that a chain of cores stands for; NumPy or JAX arrays."""
    return _halves(list(cores))[0, :, :, 0]


def _halves(cores: list[Any]) -> Any:
    """Contracts a part of a chain; the sum over the bond in its middle is the only large one."""
    if len(cores) == 1:
        return cores[0]
    left, right = _halves(cores[: len(cores) // 2]), _halves(cores[len(cores) // 2 :])
    a, i, j, bond = left.shape
    _, k, m, c = right.shape
    product = left.reshape(a * i * j, bond) @ right.reshape(bond, k * m * c)
    return product.reshape(a, i, j, k, m, c).transpose(0, 1, 3, 2, 4, 5).reshape(a, i * k, j * m, c)


def _halves_cost(cores: tuple[CoreShape, ...]) -> tuple[tuple[int, ...], int]:
    """Returns the shape that a part of a chain is contracted to, and the multiply-adds of doing so."""
    if len(cores) == 1:
        return cores[0], 0
    (left, before), (right, after) = (_halves_cost(x) for x in (cores[: len(cores) // 2], cores[len(cores) // 2 :]))
    (a, i, j, bond), (_, k, m, c) = left, right
    return (a, i * k, j * m, c), before + after + a * i * j * bond * k * m * c


def _joined(a: tuple[CoreShape, ...], b: tuple[CoreShape, ...]) -> tuple[CoreShape, ...]:
    """Returns the least cores that hold both chains, their last cores in the same place."""
    length = max(len(a), len(b))
    first, second = ([*[(1, 1, 1, 1)] * (length - len(x)), *x] for x in (a, b))
    return tuple(tuple(map(max, x, y)) for x, y in zip(first, second, strict=True))  # type: ignore[misc]


@dataclass(frozen=True)
class TMLPShape:
    """What a tensorised MLP of a program is compiled for.

    Attributes:
        hidden_dim: most units of any lane.
        smallest: fewest units of any lane.
        cores: largest shape of each core over the lanes, counted from the last.
        uniform: every lane has exactly these cores.
        num_layers: most tensorised layers.
        min_layers: every lane has at least this many.
        activations: names of all activations that occur.
        layer_norms: whether layer norm is on: the values that occur.
    """

    hidden_dim: int
    smallest: int
    cores: tuple[CoreShape, ...]
    uniform: bool
    num_layers: int
    min_layers: int
    activations: tuple[str, ...]
    layer_norms: tuple[bool, ...]

    def describe(self) -> str:
        """Returns the shape in a few words."""
        bond = max(core[3] for core in self.cores)
        layers = self.num_layers if self.num_layers == self.min_layers else f"{self.min_layers} … {self.num_layers}"
        return f"{layers} × {self.hidden_dim} in {len(self.cores)} cores of bond {bond} {'/'.join(self.activations)}"

    def merge(self, other: TMLPShape) -> TMLPShape:
        """Returns the least shape that holds both."""
        return TMLPShape(
            max(self.hidden_dim, other.hidden_dim),
            min(self.smallest, other.smallest),
            _joined(self.cores, other.cores),
            self.uniform and other.uniform and self.cores == other.cores,
            max(self.num_layers, other.num_layers),
            min(self.min_layers, other.min_layers),
            tuple(sorted({*self.activations, *other.activations})),
            tuple(sorted({*self.layer_norms, *other.layer_norms})),
        )

    def is_alike(self, other: Any) -> bool:
        """Returns whether both have arrays of the same sizes, so that merging them pads nothing."""
        if not isinstance(other, TMLPShape):
            return False
        layers = {self.num_layers, self.min_layers, other.num_layers, other.min_layers}
        return self.cores == other.cores and self.uniform and other.uniform and len(layers) == 1

    def blank(self) -> TMLPLane:
        """Returns traced values of no network in particular."""
        zero = np.int32(0)
        order, sizes = np.zeros(self.hidden_dim, np.int32), np.zeros((len(self.cores), 4), np.int32)
        return TMLPLane(zero, order, zero, sizes, np.float32(0), zero, zero, np.bool_(False))

    def flops(self, num_inputs: int, num_outputs: int) -> int:
        """Returns multiply-adds times two of one forward pass of one input, the contraction apart."""
        layers = itertools.pairwise([num_inputs, *[self.hidden_dim] * (1 + self.num_layers), num_outputs])
        return 2 * sum(a * b for a, b in layers)

    def flops_per_call(self) -> int:
        """Returns multiply-adds times two of the contraction of all layers, once a call."""
        return 2 * self.num_layers * _halves_cost(self.cores)[1]

    def num_params(self, num_inputs: int, num_outputs: int) -> int:
        """Returns the number of parameters, padding included."""
        cores = sum(math.prod(core) for core in self.cores) + self.hidden_dim
        norms = 2 * self.hidden_dim * (1 + self.num_layers) if True in self.layer_norms else 0
        dense = (num_inputs + 1) * self.hidden_dim + (self.hidden_dim + 1) * num_outputs
        return dense + self.num_layers * cores + norms

    def num_units(self) -> int:
        """Returns the number of hidden units: the activations of one input."""
        return self.hidden_dim * (1 + self.num_layers)

    def torso(self) -> TMLPTorso:
        """Returns the flax module compiled for this shape."""
        return TMLPTorso(self)


class TMLPLane(NamedTuple):
    """Which part of a :class:`TMLPShape` one lane uses (all traced).

    Attributes:
        width: int32, units of each hidden layer.
        order: ``(hidden_dim,)`` int32, where among the padded chain's numbers each unit is.
        first_core: int32, how many cores at the front it does without.
        sizes: ``(cores, 4)`` int32, its own part of each core.
        scale: float32, of stored cores.
        depth: int32, number of tensorised layers.
        activation: int32 index into ``TMLPShape.activations``.
        use_layer_norm: bool.
    """

    width: Any
    order: Any
    first_core: Any
    sizes: Any
    scale: Any
    depth: Any
    activation: Any
    use_layer_norm: Any


class TMLPTorso(nn.Module):
    """A dense layer and tensorised ones, each followed by layer norm and activation."""

    shape: TMLPShape

    @nn.compact
    def __call__(self, x: jax.Array, lane: TMLPLane) -> jax.Array:
        """Maps ``(features, batch)`` to ``(hidden_dim, batch)``; padded units are zero."""
        shape = self.shape
        is_full = shape.smallest == shape.hidden_dim
        valid = None if is_full else (jnp.arange(shape.hidden_dim) < lane.width)[:, None]
        x = Dense(shape.hidden_dim, name="hidden_0")(x)
        x = normalize_and_activate(shape, lane, x, "norm_0", valid, valid)
        for layer in range(shape.num_layers):
            bias = self.param(f"mpo_{layer}_bias", nn.initializers.zeros, (shape.hidden_dim,))
            hidden = self._weight(layer, lane) @ x + bias[:, None]
            hidden = normalize_and_activate(shape, lane, hidden, f"norm_{layer + 1}", valid, valid)
            x = hidden if layer < shape.min_layers else jnp.where(layer < lane.depth, hidden, x)
        return x

    def _weight(self, layer: int, lane: TMLPLane) -> jax.Array:
        """Returns the matrix ``(hidden_dim, hidden_dim)`` of a layer."""
        cores, names = [], core_names(layer, len(self.shape.cores))
        for k, (name, core_shape) in enumerate(zip(names, self.shape.cores, strict=True)):
            core = lane.scale * self.param(name, nn.initializers.zeros, core_shape)
            if not self.shape.uniform:  # a core that the lane does without is the number one
                one = jnp.zeros(core_shape).at[0, 0, 0, 0].set(1.0)
                axes = [
                    jax.lax.broadcasted_iota(jnp.int32, core_shape, axis) < lane.sizes[k, axis] for axis in range(4)
                ]
                own = axes[0] & axes[1] & axes[2] & axes[3]
                core = jnp.where(k < lane.first_core, one, jnp.where(own, core, 0.0))
            cores.append(core)
        matrix: jax.Array = contract(cores)
        return matrix if self.shape.uniform else matrix[lane.order][:, lane.order]
