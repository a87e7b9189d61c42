"""Threefry keys whose rounds are unrolled: the same random numbers as JAX's default keys.

On a CPU, JAX compiles each threefry hash into a loop of five rounds with some ten little kernels. A
train loop hashes in many places and hashes little at a time, so these kernels were a third of all
that a program compiled and launched. Unrolled, a hash is one kernel, and fuses with what uses it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(key: jax.Array, high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns threefry-2x32 with 20 rounds of the counters ``(high, low)`` (Salmon et al., 2011)."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    x, y = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = ((y << rotation) | (y >> (32 - rotation))) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def _counters(shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns the high and low words of the row-major index of each entry."""
    low = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        low = low + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    if stride > 2**32:
        raise ValueError(f"cannot draw {stride} random words at once, at most 2**32")
    return jnp.zeros(shape, jnp.uint32), low


def _seed(seed: jax.Array) -> jax.Array:
    return jnp.stack([jnp.zeros((), jnp.uint32), seed.astype(jnp.uint32)])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_threefry(key, *_counters(shape)), axis=-1)


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    return jnp.stack(_threefry(key, *_seed(data)))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    high, low = _threefry(key, *_counters(shape))
    if bit_width == 64:
        return (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)
    bits = high ^ low
    return bits.astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bit_width])


UNROLLED = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,  # type: ignore[arg-type]  # JAX passes an array, whatever its annotation says
    name="threefry2x32_unrolled",
    tag="tfu",
)


def wrap(key_data: jax.Array) -> jax.Array:
    """Returns the key of ``(2,)`` uint32 words."""
    return jax.random.wrap_key_data(key_data, impl=UNROLLED)
