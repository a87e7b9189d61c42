"""What an algorithm needs to run as one lane among others that do not do the same number of anything.

An algorithm is written for one configuration and vmapped over lanes under the axis name
:data:`LANES`. Under vmap, a loop whose trip count differs between lanes would copy its whole carry
in every iteration. So loops run to the largest trip count of all lanes, which is the same for all
and keeps them real loops, and each iteration is told whether it counts for this lane.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

LANES = "lanes"

Tree = TypeVar("Tree")

# Training metrics of one update, ``(2, metrics)``: sums and their weights, so that the mean over any
# number of updates is the quotient of two sums. The agent has their names.
Metrics = jax.Array


def in_lockstep() -> bool:
    """Returns whether this lane is one of several that are vmapped."""
    try:
        jax.lax.axis_index(LANES)
    except NameError:
        return False
    return True


def lane_max(x: jax.Array) -> jax.Array:
    """Returns the largest value over all lanes in lockstep with this one: the same for every one of them."""
    return jax.lax.pmax(x, LANES) if in_lockstep() else x


def any_lane(flag: jax.Array) -> jax.Array:
    """Returns whether ``flag`` is true in any lane; a ``lax.cond`` on it runs one branch only."""
    return lane_max(flag.astype(jnp.int32)) > 0


def repeat(count: jax.Array, body: Callable[[jax.Array, jax.Array, Tree], Tree], carry: Tree) -> Tree:
    """Calls ``carry = body(i, active, carry)`` for ``i`` below the largest count of all lanes.

    Args:
        count: int32 scalar, this lane's number of iterations.
        body: must leave alone what matters when ``active`` (``i < count``) is false. It may write
            into padding: an array's entry ``i`` is padding for exactly the lanes that are not active.
        carry: initial value.
    """
    return jax.lax.fori_loop(0, lane_max(count), lambda i, c: body(i, i < count, c), carry)


def keep(active: jax.Array, new: Tree, old: Tree) -> Tree:
    """Returns ``new`` where the lane is active, else ``old``, leaf by leaf."""
    return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, old)


def stream(key: jax.Array, purpose: int, step: jax.Array) -> jax.Array:
    """Returns the key for one of eight purposes at one logical step, whatever else the program does."""
    return jax.random.fold_in(key, 8 * step + purpose)


def permutation(key: jax.Array, count: jax.Array, size: int) -> jax.Array:
    """Returns a random order of ``0 … count-1``, in the first ``count`` of ``size`` entries.

    The order depends on ``key`` and ``count`` only, never on ``size``. Random bits above, the index
    below, in one word: sorting single words is seven times faster than sorting pairs on a CPU. Two
    entries whose random bits are equal (there are 17 such bits for 2**15 entries) stay in order.

    Args:
        key: PRNG key.
        count: int32 scalar, at most ``size``.
        size: static; the entries from ``count`` on mean nothing, but are valid indices.
    """
    index = jnp.arange(size, dtype=jnp.uint32)
    index_bits = (32 - jax.lax.clz(jnp.maximum(count - 1, 1).astype(jnp.uint32))).astype(jnp.uint32)
    word = (jax.random.bits(key, (size,), jnp.uint32) << index_bits) | index
    word = jnp.where(index < count.astype(jnp.uint32), word, jnp.uint32(0xFFFFFFFF))
    order = jax.lax.sort(word) & ((jnp.uint32(1) << index_bits) - 1)
    return jnp.minimum(order, (count - 1).astype(jnp.uint32)).astype(jnp.int32)


def masked_mean(x: jax.Array, valid: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Returns the mean of the valid entries of ``x``; padding may hold anything, NaN included."""
    weight = valid.astype(x.dtype)
    return jnp.where(valid, x, 0).sum(axis) / weight.sum(axis)


class Columns:
    """Named groups of columns of one array: many small arrays are written or gathered at once.

    Args:
        widths: number of columns of each group, in order.
    """

    def __init__(self, **widths: int) -> None:
        ends = list(itertools.accumulate(widths.values()))
        self._slices = {name: slice(end - widths[name], end) for name, end in zip(widths, ends, strict=True)}
        self.width = ends[-1]

    def join(self, **groups: jax.Array) -> jax.Array:
        """Returns ``(rows, width)`` of groups ``(rows, columns)``; a group of one column may be ``(rows,)``."""
        arrays = [groups[name].astype(float) for name in self._slices]
        return jnp.concatenate([x if x.ndim == 2 else x[:, None] for x in arrays], axis=1)

    def split(self, rows: jax.Array) -> dict[str, jax.Array]:
        """Returns the groups of ``(..., width)``, each ``(..., columns)``, or ``(...)`` if it has one column."""
        parts = {name: rows[..., columns] for name, columns in self._slices.items()}
        return {name: part[..., 0] if part.shape[-1] == 1 else part for name, part in parts.items()}
