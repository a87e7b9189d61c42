"""A torso of any family with a dense output layer: what an algorithm calls an actor or a critic.

A family (multilayer perceptron, …) is a dataclass of declared hyperparameters with four methods,
and its shape another, :class:`TorsoShape`; :mod:`hyperlax.networks.mlp` is the pattern. An algorithm never
asks which family it has.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hyperlax.networks.mlp import Dense, orthogonal
from hyperlax.networks.padding import Params, cut, pad


class TorsoShape(Hashable, Protocol):
    """Static maxima of one family, for which a program is compiled; hashable."""

    def merge(self, other: Self) -> Self: ...
    def is_alike(self, other: Any) -> bool: ...
    def blank(self) -> Any: ...
    def describe(self) -> str: ...
    def torso(self) -> nn.Module: ...
    def flops(self, num_inputs: int, num_outputs: int) -> int: ...
    def flops_per_call(self) -> int: ...
    def num_params(self, num_inputs: int, num_outputs: int) -> int: ...
    def num_units(self) -> int: ...


class TorsoFamily(Protocol):
    """Hyperparameters of one network of a family."""

    def shape(self, inputs: tuple[int, ...]) -> Any: ...
    def traced(self, shape: Any) -> Any: ...
    def initial(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator, inputs: tuple[int, ...]
    ) -> np.ndarray: ...
    def finish(self, params: Any) -> Any: ...


class _TorsoAndHead(nn.Module):
    torso: nn.Module
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, lane: Any) -> jax.Array:
        return Dense(self.num_outputs, name="head")(self.torso(x, lane))


@lru_cache(maxsize=4096)
def _abstract_params(shape: TorsoShape, num_inputs: int, num_outputs: int) -> Params:
    module = _TorsoAndHead(shape.torso(), num_outputs)
    x = jax.ShapeDtypeStruct((num_inputs, 1), jnp.float32)
    return jax.eval_shape(lambda x, lane: module.init(jax.random.key(0), x, lane)["params"], x, shape.blank())


class Network:
    """A network compiled for one shape; lanes choose their own part of it.

    Args:
        shape: the family's shape.
        inputs: shape of one input; networks take it flat.
        num_outputs: size of the dense output layer.
        gain: of its orthogonal initialisation.
    """

    def __init__(self, shape: TorsoShape, inputs: tuple[int, ...], num_outputs: int, gain: float) -> None:
        self.shape, self.inputs, self.num_outputs, self.gain = shape, inputs, num_outputs, gain
        self.num_inputs = math.prod(inputs)
        self.module = _TorsoAndHead(shape.torso(), num_outputs)

    @property
    def abstract_params(self) -> Params:
        """Shapes and dtypes of the padded parameters."""
        return _abstract_params(self.shape, self.num_inputs, self.num_outputs)

    def exact(self, family: TorsoFamily) -> Network:
        """Returns the network of exactly this size."""
        return Network(family.shape(self.inputs), self.inputs, self.num_outputs, self.gain)

    def init(self, entropy: Sequence[int], family: TorsoFamily) -> Params:
        """Returns parameters drawn at the network's exact size, then padded to the shape (on the host).

        NumPy draws them: nothing has to be compiled for every new size.

        Args:
            entropy: non-negative integers from which all values derive.
            family: hyperparameters of the network.
        """
        exact = jax.tree_util.tree_map_with_path(
            lambda path, leaf: self._initial([p.key for p in path], leaf.shape, entropy, family),
            self.exact(family).abstract_params,
        )
        return pad(family.finish(exact), self.abstract_params)

    def _initial(
        self, path: list[str], shape: tuple[int, ...], entropy: Sequence[int], family: TorsoFamily
    ) -> np.ndarray:
        rng = np.random.default_rng([*entropy, zlib.crc32("/".join(path).encode())])
        if path == ["head", "kernel"]:
            return orthogonal(shape, self.gain, rng)
        if path == ["head", "bias"]:
            return np.zeros(shape, np.float32)
        return family.initial(path[-1], shape, rng, self.inputs).astype(np.float32)

    def export(self, params: Params, family: TorsoFamily) -> Params:
        """Returns the parameters of one lane cut to the network's exact size."""
        return cut(params, self.exact(family).abstract_params)

    def __call__(self, params: Params, x: jax.Array, lane: Any) -> jax.Array:
        """Maps ``(num_inputs, batch)`` to ``(num_outputs, batch)``."""
        outputs: Any = self.module.apply({"params": params}, x, lane)
        return outputs
