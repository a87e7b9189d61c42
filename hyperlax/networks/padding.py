"""Parameters of a network: at their exact size, padded to the shape of a program, and as one vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = Mapping[str, Any]


def pad(exact: Params, padded: Params) -> dict[str, Any]:
    """Returns ``exact`` embedded at the origin of zeros shaped like ``padded``.

    Args:
        exact: nested dicts of arrays.
        padded: nested dicts of arrays or ``jax.ShapeDtypeStruct``; may hold entries (deeper
            layers) that ``exact`` lacks, which become zeros.
    """
    out: dict[str, Any] = {}
    for name, target in padded.items():
        source = exact.get(name)
        if isinstance(target, Mapping):
            out[name] = pad(source if source is not None else {}, target)
        else:
            full = np.zeros(target.shape, target.dtype)
            if source is not None:
                full[tuple(slice(0, n) for n in source.shape)] = np.asarray(source)
            out[name] = full
    return out


def cut(padded: Params, exact: Params) -> dict[str, Any]:
    """Returns the inverse of :func:`pad`: the corner of ``padded`` that has the shapes of ``exact``."""
    return {
        name: cut(padded[name], target)
        if isinstance(target, Mapping)
        else padded[name][tuple(slice(0, n) for n in target.shape)]
        for name, target in exact.items()
    }


class Vector:
    """A pytree of float32 arrays as one vector and back.

    An optimiser, a gradient norm or a selection over one vector is one loop for the compiler and one
    launch for the device; over the dozen arrays of two small networks it is a dozen of each.

    Args:
        example: pytree of arrays or ``jax.ShapeDtypeStruct``.
    """

    def __init__(self, example: Any) -> None:
        leaves, self._structure = jax.tree.flatten(example)
        self._shapes = [leaf.shape for leaf in leaves]
        self._ends = np.cumsum([math.prod(shape) for shape in self._shapes]).tolist()
        self.size = self._ends[-1]

    def pack(self, tree: Any) -> jax.Array:
        """Returns the leaves one after another, ``(size,)``; on the host if they are NumPy arrays."""
        leaves = jax.tree.leaves(tree)
        module = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
        return module.concatenate([leaf.reshape(-1) for leaf in leaves])

    def unpack(self, vector: jax.Array | np.ndarray) -> Any:
        """Returns the pytree of a vector ``(size,)``."""
        starts = [0, *self._ends[:-1]]
        parts = zip(starts, self._ends, self._shapes, strict=True)
        return jax.tree.unflatten(self._structure, [vector[a:b].reshape(shape) for a, b, shape in parts])


def leading(tree: Any, size: int) -> Any:
    """Returns the first ``size`` entries of every vector ``(…, n)`` of a pytree; scalars as they are."""
    return jax.tree.map(lambda x: x[..., :size] if x.ndim else x, tree)


def replace_leading(tree: Any, new: Any) -> Any:
    """Returns the vectors ``(…, n)`` of ``tree`` with their first entries replaced by ``new``, and its scalars."""
    return jax.tree.map(lambda old, x: x if old.shape == x.shape else old.at[..., : x.shape[-1]].set(x), tree, new)


def flat(tree: Params, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns nested dicts of arrays as one dict whose keys join theirs by slashes."""
    out: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        out |= flat(value, f"{path}/") if isinstance(value, Mapping) else {path: np.asarray(value)}
    return out


def nested_dict(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inverse of :func:`flat`."""
    tree: dict[str, Any] = {}
    for path, value in arrays.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return tree
