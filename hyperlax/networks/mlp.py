"""Multilayer perceptrons whose widths, depth, activation and layer norm differ between lanes.

A lane's network is stored in arrays of the program's shape, filled up with zeros. Three rules keep
it exactly the network that it would be alone:

* a hidden unit beyond the lane's width is multiplied by zero after the activation, so that
  neither it nor a gradient through it exists;
* layer norm takes mean and variance over the lane's own units;
* a layer beyond the lane's depth passes its input on unchanged.

Activations are ``(features, batch)``: with the batch contiguous, a gradient of two 64-unit networks
takes 2.9 ms where ``(batch, features)`` takes 3.6 (16 lanes, batch 256, one CPU core).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hyperlax.spaces import Categorical, Check, hyperparameter

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "silu": nn.silu,
    "gelu": nn.gelu,
    "elu": nn.elu,
    "leaky_relu": nn.leaky_relu,
    "sigmoid": nn.sigmoid,
}


layer_sizes_check = Check(lambda sizes: all(n >= 1 for n in sizes), "layer sizes of at least 1")
known_activation = Check(lambda name: name in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class MLP:
    """Hyperparameters of a multilayer perceptron."""

    layer_sizes: tuple[int, ...] = hyperparameter(
        (64, 64),
        Categorical(((32, 32), (64, 64), (128, 128))),
        kind="structural",
        description="units of each hidden layer, any depth; [] is a linear network",
        check=layer_sizes_check,
    )
    activation: str = hyperparameter(
        "tanh",
        Categorical(("tanh", "relu", "silu")),
        kind="structural",
        description=f"after each hidden layer: {', '.join(ACTIVATIONS)}",
        check=known_activation,
    )
    use_layer_norm: bool = hyperparameter(
        False,
        Categorical((True, False)),
        kind="structural",
        description="layer norm before each activation",
    )

    def shape(self, inputs: tuple[int, ...]) -> MLPShape:
        """Returns the static shape of exactly this network; inputs are flattened."""
        del inputs
        sizes = self.layer_sizes
        return MLPShape(sizes, sizes, len(sizes), (self.activation,), (self.use_layer_norm,))

    def traced(self, shape: MLPShape) -> MLPLane:
        """Returns this network's place inside ``shape`` as values that may differ between lanes."""
        widths = np.zeros(len(shape.layer_sizes), np.int32)
        widths[: len(self.layer_sizes)] = self.layer_sizes
        return MLPLane(
            widths=widths,
            depth=np.int32(len(self.layer_sizes)),
            activation=np.int32(shape.activations.index(self.activation)),
            use_layer_norm=np.bool_(self.use_layer_norm),
        )

    def finish(self, params: Any) -> Any:
        """Returns initial parameters as they are."""
        return params

    def initial(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator, inputs: tuple[int, ...]
    ) -> np.ndarray:
        """Returns the initial value of a parameter: orthogonal kernels, zero biases, unit scales."""
        if name == "kernel":
            return orthogonal(shape, np.sqrt(2), rng)
        return np.full(shape, 1.0 if name == "scale" else 0.0)


def orthogonal(shape: tuple[int, ...], gain: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a matrix with orthonormal rows or columns times ``gain`` (Saxe et al., 2014), float32."""
    rows, columns = shape
    normal = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices
    return (gain * (q if rows >= columns else q.T)).astype(np.float32)


@dataclass(frozen=True)
class MLPShape:
    """What an MLP of a program is compiled for.

    Attributes:
        layer_sizes: largest width of each hidden layer over the lanes.
        smallest: smallest width of each hidden layer that all lanes have.
        min_depth: every lane has at least this many hidden layers.
        activations: names of all activations that occur.
        layer_norms: whether layer norm is on: the values that occur.
    """

    layer_sizes: tuple[int, ...]
    smallest: tuple[int, ...]
    min_depth: int
    activations: tuple[str, ...]
    layer_norms: tuple[bool, ...]

    def describe(self) -> str:
        """Returns the widths, depths and activations in a few words."""
        depth = "" if self.min_depth == len(self.layer_sizes) else f" from {self.min_depth} layers"
        return f"{list(self.layer_sizes)}{depth} {'/'.join(self.activations)}"

    def merge(self, other: MLPShape) -> MLPShape:
        """Returns the least shape that holds both."""
        depth = max(len(self.layer_sizes), len(other.layer_sizes))
        widths = [max(s.layer_sizes[i] for s in (self, other) if i < len(s.layer_sizes)) for i in range(depth)]
        return MLPShape(
            tuple(widths),
            tuple(min(pair) for pair in zip(self.smallest, other.smallest, strict=False)),
            min(self.min_depth, other.min_depth),
            tuple(sorted({*self.activations, *other.activations})),
            tuple(sorted({*self.layer_norms, *other.layer_norms})),
        )

    def is_alike(self, other: Any) -> bool:
        """Returns whether both have arrays of the same sizes, so that merging them pads nothing."""
        sizes = {self.layer_sizes, self.smallest, getattr(other, "layer_sizes", None), getattr(other, "smallest", None)}
        return len(sizes) == 1 and {self.min_depth, other.min_depth} == {len(self.layer_sizes)}

    def blank(self) -> MLPLane:
        """Returns traced values of no network in particular."""
        return MLPLane(np.zeros(len(self.layer_sizes), np.int32), np.int32(0), np.int32(0), np.bool_(False))

    def is_full(self, layer: int, width: int) -> bool:
        """Returns whether every lane uses all ``width`` units of a layer, so that nothing needs a mask."""
        return layer < len(self.smallest) and self.smallest[layer] == width

    def widths(self, num_inputs: int) -> list[int]:
        """Returns the array width of each hidden layer.

        A layer that some lanes skip must be able to pass its whole input on.
        """
        widths: list[int] = []
        previous = num_inputs
        for layer, size in enumerate(self.layer_sizes):
            previous = max(size, previous) if layer >= self.min_depth else size
            widths.append(previous)
        return widths

    def flops(self, num_inputs: int, num_outputs: int) -> int:
        """Returns multiply-adds times two of one forward pass of one input."""
        sizes = [num_inputs, *self.widths(num_inputs), num_outputs]
        return 2 * sum(a * b for a, b in itertools.pairwise(sizes))

    def flops_per_call(self) -> int:
        """Returns what a call costs whatever the number of its inputs: nothing."""
        return 0

    def num_params(self, num_inputs: int, num_outputs: int) -> int:
        """Returns the number of parameters, padding included."""
        sizes = [num_inputs, *self.widths(num_inputs), num_outputs]
        norms = 2 * sum(sizes[1:-1]) if True in self.layer_norms else 0
        return sum((a + 1) * b for a, b in itertools.pairwise(sizes)) + norms

    def num_units(self) -> int:
        """Returns the number of hidden units: the activations of one input."""
        return sum(self.layer_sizes)

    def torso(self) -> MLPTorso:
        """Returns the flax module compiled for this shape."""
        return MLPTorso(self)


class MLPLane(NamedTuple):
    """Which part of an :class:`MLPShape` one lane uses (all traced).

    Attributes:
        widths: ``(max depth,)`` int32, units of each hidden layer, 0 beyond the depth.
        depth: int32, number of hidden layers.
        activation: int32 index into ``MLPShape.activations``.
        use_layer_norm: bool.
    """

    widths: Any
    depth: Any
    activation: Any
    use_layer_norm: Any


class Dense(nn.Module):
    """An affine map of columns, ``(inputs, batch)`` to ``(outputs, batch)``; the kernel is ``(outputs, inputs)``.

    Stored this way round neither the map nor its gradient transposes the kernel, which costs a CPU
    five times the product itself at batches of 8. Flax's initial values are zeros: the real ones are
    drawn by :meth:`hyperlax.networks.network.Network.init`.
    """

    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.zeros, (self.num_outputs, x.shape[0]))
        bias = self.param("bias", nn.initializers.zeros, (self.num_outputs,))
        return kernel @ x + bias[:, None]


class LayerNorm(nn.Module):
    """Layer norm (Ba et al., 2016) of columns ``(features, batch)`` over some of their features, if it is wanted."""

    @nn.compact
    def __call__(self, x: jax.Array, counted: jax.Array | None, use: Any) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[0],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[0],))

        def norm() -> jax.Array:
            mean = jnp.mean(x, axis=0, where=counted)
            # The mean of squares less the square of the mean would lose the digits of a small variance.
            variance = jnp.mean((x - mean) ** 2, axis=0, where=counted)
            return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale[:, None]) + bias[:, None]

        return norm() if use is True else jax.lax.cond(use, norm, lambda: x)


def normalize_and_activate(
    shape: Any, lane: Any, x: jax.Array, norm: str, valid: jax.Array | None, counted: jax.Array | None
) -> jax.Array:
    """Applies what follows a layer in a torso: layer norm if the lane wants it, then its activation.

    Args:
        shape: whose ``layer_norms`` and ``activations`` are those that occur.
        lane: whose ``use_layer_norm`` and ``activation`` choose from them.
        x: ``(units, batch)``.
        norm: name of the layer norm.
        valid: ``(units, 1)`` bool, the lane's units; the others become zero. None for all.
        counted: likewise, those that layer norm is over, at least one.
    """
    if True in shape.layer_norms:
        x = LayerNorm(name=norm)(x, counted, True if len(shape.layer_norms) == 1 else lane.use_layer_norm)
    functions = [ACTIVATIONS[name] for name in shape.activations]
    x = functions[0](x) if len(functions) == 1 else jax.lax.switch(lane.activation, functions, x)
    return x if valid is None else x * valid


class MLPTorso(nn.Module):
    """Hidden layers, each Dense, layer norm, activation, in that order."""

    shape: MLPShape

    @nn.compact
    def __call__(self, x: jax.Array, lane: MLPLane) -> jax.Array:
        """Maps ``(features, batch)`` to ``(width of the last layer, batch)``; padded units are zero."""
        shape = self.shape
        for layer, width in enumerate(shape.widths(x.shape[0])):
            valid = None if shape.is_full(layer, width) else (jnp.arange(width) < lane.widths[layer])[:, None]
            # A layer that the lane skips has no valid unit, and the mean of nothing is NaN.
            counted = None if valid is None else valid | (layer >= lane.depth)
            hidden = Dense(width, name=f"hidden_{layer}")(x)
            hidden = normalize_and_activate(shape, lane, hidden, f"norm_{layer}", valid, counted)
            if layer >= shape.min_depth:
                passed = jnp.pad(x, [(0, width - x.shape[0]), (0, 0)])
                hidden = jnp.where(layer < lane.depth, hidden, passed)
            x = hidden
        return x
