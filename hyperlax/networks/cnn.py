"""Convolutional networks for small images, such as MinAtar's, whose sizes differ between lanes.

Convolutions without padding and stride, then dense layers as in a multilayer perceptron. A convolution is one
product of the kernel with all patches: with one kernel a lane, a convolution of the library's would have to be
grouped, which is slow. Lanes in lockstep may differ in channels and in the dense layers, but have the same number
of convolutions and kernels of one size, as otherwise their patches would lie in different places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hyperlax.errors import CannotShare, UserError
from hyperlax.networks.mlp import (
    ACTIVATIONS,
    MLP,
    MLPLane,
    MLPShape,
    MLPTorso,
    known_activation,
    layer_sizes_check,
    normalize_and_activate,
    orthogonal,
)
from hyperlax.spaces import Categorical, Check, Fixed, at_least, hyperparameter

_channels_check = Check(lambda sizes: len(sizes) > 0 and all(n >= 1 for n in sizes), "one or more, each at least 1")


@dataclass(frozen=True)
class CNN:
    """Hyperparameters of a convolutional network."""

    channels: tuple[int, ...] = hyperparameter(
        (16,), Categorical(((16,), (32,))), kind="structural", description="channels of each convolution",
        check=_channels_check,
    )  # fmt: skip
    kernel_size: int = hyperparameter(
        3, Fixed(3), kind="structural", description="height and width of every kernel", check=at_least(1)
    )
    layer_sizes: tuple[int, ...] = hyperparameter(
        (128,), Categorical(((64,), (128,))), kind="structural", description="units of each dense layer after them",
        check=layer_sizes_check,
    )  # fmt: skip
    activation: str = hyperparameter(
        "relu", Categorical(("tanh", "relu", "silu")), kind="structural",
        description=f"after each hidden layer: {', '.join(ACTIVATIONS)}", check=known_activation,
    )  # fmt: skip
    use_layer_norm: bool = hyperparameter(
        False, Categorical((True, False)), kind="structural", description="layer norm before each activation"
    )

    @property
    def dense(self) -> MLP:
        """The part after the convolutions."""
        return MLP(self.layer_sizes, self.activation, self.use_layer_norm)

    def shape(self, inputs: tuple[int, ...]) -> CNNShape:
        """Returns the static shape of exactly this network.

        Raises:
            UserError: the inputs are no images, or too small ones.
        """
        if len(inputs) != 3:
            raise UserError(f"a convolutional network needs images (height, width, channels), not inputs {inputs}")
        lost = len(self.channels) * (self.kernel_size - 1)
        if min(inputs[:2]) <= lost:
            raise UserError(
                f"{len(self.channels)} convolution{'s' * (len(self.channels) != 1)} with kernel_size "
                f"{self.kernel_size} do not fit images of {inputs[0]} × {inputs[1]}; accepted: kernel_size 1 … "
                f"{(min(inputs[:2]) - 1) // len(self.channels) + 1}"
            )
        return CNNShape(inputs, self.kernel_size, self.channels, self.channels, self.dense.shape(inputs))

    def traced(self, shape: CNNShape) -> CNNLane:
        """Returns this network's place inside ``shape`` as values that may differ between lanes."""
        return CNNLane(np.array(self.channels, np.int32), self.dense.traced(shape.dense))

    def finish(self, params: Any) -> Any:
        """Returns initial parameters as they are."""
        return params

    def initial(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator, inputs: tuple[int, ...]
    ) -> np.ndarray:
        """Returns the initial value of a parameter: orthogonal kernels, zero biases, unit scales."""
        if name == "kernel":
            return orthogonal((shape[0], math.prod(shape[1:])), np.sqrt(2), rng).reshape(shape)
        return np.full(shape, 1.0 if name == "scale" else 0.0)


@dataclass(frozen=True)
class CNNShape:
    """What a convolutional network of a program is compiled for.

    Attributes:
        inputs: height, width and channels of the images.
        kernel_size: of every convolution.
        channels: most of each convolution over the lanes.
        smallest: fewest of each.
        dense: of the layers after them.
    """

    inputs: tuple[int, ...]
    kernel_size: int
    channels: tuple[int, ...]
    smallest: tuple[int, ...]
    dense: MLPShape

    def describe(self) -> str:
        """Returns the shape in a few words."""
        size = self.kernel_size
        return f"convolutions {list(self.channels)} of {size} × {size}, {self.dense.describe()}"

    def merge(self, other: CNNShape) -> CNNShape:
        """Returns the least shape that holds both.

        Raises:
            CannotShare: they differ in the number of convolutions or the size of kernels.
        """
        if self.kernel_size != other.kernel_size or len(self.channels) != len(other.channels):
            raise CannotShare("convolutions of different number or size")
        return CNNShape(
            self.inputs,
            self.kernel_size,
            tuple(map(max, self.channels, other.channels)),
            tuple(map(min, self.smallest, other.smallest)),
            self.dense.merge(other.dense),
        )

    def is_alike(self, other: Any) -> bool:
        """Returns whether both have arrays of the same sizes, so that merging them pads nothing."""
        if not isinstance(other, CNNShape) or self.kernel_size != other.kernel_size:
            return False
        channels = {self.channels, self.smallest, other.channels, other.smallest}
        return len(channels) == 1 and self.dense.is_alike(other.dense)

    def blank(self) -> CNNLane:
        """Returns traced values of no network in particular."""
        return CNNLane(np.zeros(len(self.channels), np.int32), self.dense.blank())

    def areas(self) -> list[int]:
        """Returns the number of positions after each convolution."""
        height, width, _ = self.inputs
        lost = [(self.kernel_size - 1) * (layer + 1) for layer in range(len(self.channels))]
        return [(height - n) * (width - n) for n in lost]

    @property
    def _kernels(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each convolution's product."""
        incoming = [self.inputs[2], *self.channels[:-1]]
        return [(out, n * self.kernel_size**2) for out, n in zip(self.channels, incoming, strict=True)]

    @property
    def _flat(self) -> int:
        return self.channels[-1] * self.areas()[-1]

    def flops(self, num_inputs: int, num_outputs: int) -> int:
        """Returns multiply-adds times two of one forward pass of one input."""
        del num_inputs
        convolutions = sum(2 * a * b * area for (a, b), area in zip(self._kernels, self.areas(), strict=True))
        return convolutions + self.dense.flops(self._flat, num_outputs)

    def flops_per_call(self) -> int:
        """Returns what a call costs whatever the number of its inputs: nothing."""
        return 0

    def num_params(self, num_inputs: int, num_outputs: int) -> int:
        """Returns the number of parameters, padding included."""
        del num_inputs
        norms = 2 * sum(self._norms) if True in self.dense.layer_norms else 0
        return sum(a * (b + 1) for a, b in self._kernels) + norms + self.dense.num_params(self._flat, num_outputs)

    @property
    def _norms(self) -> list[int]:
        return [channels * area for channels, area in zip(self.channels, self.areas(), strict=True)]

    def num_units(self) -> int:
        """Returns the numbers that one input leaves: patches, channels, dense layers."""
        patches = sum(b * area for (_, b), area in zip(self._kernels, self.areas(), strict=True))
        return patches + sum(self._norms) + self.dense.num_units()

    def torso(self) -> CNNTorso:
        """Returns the flax module compiled for this shape."""
        return CNNTorso(self)


class CNNLane(NamedTuple):
    """Which part of a :class:`CNNShape` one lane uses (all traced).

    Attributes:
        channels: ``(convolutions,)`` int32.
        dense: of the layers after them.
    """

    channels: Any
    dense: MLPLane


class Convolution(nn.Module):
    """A convolution without padding and stride of ``(channels, height, width, batch)``."""

    channels: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, (incoming, height, width, batch) = self.kernel_size, x.shape
        height, width = height - size + 1, width - size + 1
        kernel = self.param("kernel", nn.initializers.zeros, (self.channels, incoming, size, size))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        patches = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        columns = jnp.stack(patches, axis=1).reshape(incoming * size**2, height * width * batch)
        return (kernel.reshape(self.channels, -1) @ columns + bias[:, None]).reshape(-1, height, width, batch)


class CNNTorso(nn.Module):
    """Convolutions, each with layer norm over all its units and activation, then dense layers."""

    shape: CNNShape

    @nn.compact
    def __call__(self, x: jax.Array, lane: CNNLane) -> jax.Array:
        """Maps ``(height · width · channels, batch)`` to ``(last width, batch)``; padded units are zero."""
        shape, size = self.shape, self.shape.kernel_size
        batch = x.shape[-1]
        x = x.reshape(*shape.inputs, batch).transpose(2, 0, 1, 3)
        for layer, (channels, area) in enumerate(zip(shape.channels, shape.areas(), strict=True)):
            x = Convolution(channels, size, name=f"conv_{layer}")(x)
            is_full = shape.smallest[layer] == channels
            valid = None if is_full else (jnp.arange(channels * area) < lane.channels[layer] * area)[:, None]
            units = x.reshape(-1, batch)
            units = normalize_and_activate(shape.dense, lane.dense, units, f"conv_norm_{layer}", valid, valid)
            x = units.reshape(x.shape)
        flat = x.reshape(-1, batch)
        output: jax.Array = MLPTorso(shape.dense, name="dense")(flat, lane.dense)
        return output
