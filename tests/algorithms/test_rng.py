"""Unrolled threefry against JAX's own: every way to use a key gives the same bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.algorithms import rng

WORDS = [[0, 0], [1, 2], [0xFFFFFFFF, 0x80000000], [123456789, 987654321]]

USES = {
    "bits": lambda key: jax.random.bits(key, (7,)),
    "bits of many axes": lambda key: jax.random.bits(key, (3, 1, 5)),
    "one word": lambda key: jax.random.bits(key),
    "bytes": lambda key: jax.random.bits(key, (9,), jnp.uint8),
    "halves": lambda key: jax.random.bits(key, (9,), jnp.uint16),
    "uniform": lambda key: jax.random.uniform(key, (6,), minval=-0.1, maxval=0.1),
    "normal": lambda key: jax.random.normal(key, (2, 3)),
    "integers": lambda key: jax.random.randint(key, (11,), 0, 1000),
    "split": lambda key: jax.random.key_data(jax.random.split(key, 5)),
    "split into a table": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 42)),
    "fold_in of a large number": lambda key: jax.random.key_data(jax.random.fold_in(key, 2**32 - 1)),
    "permutation": lambda key: jax.random.permutation(key, 9),
    "categorical": lambda key: jax.random.categorical(key, jnp.zeros(4), shape=(8,)),
}


@pytest.mark.parametrize("use", USES)
def test_same_bits_as_jax(use):
    for words in WORDS:
        data = jnp.array(words, jnp.uint32)
        expected = USES[use](jax.random.wrap_key_data(data, impl="threefry2x32"))
        np.testing.assert_array_equal(USES[use](rng.wrap(data)), expected)


def test_same_bits_as_jax_under_vmap_and_in_double_precision():
    data = jnp.array(WORDS, jnp.uint32)
    with jax.enable_x64(True):
        draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 3), (4,), jnp.float64))
        expected = draw(jax.random.wrap_key_data(data, impl="threefry2x32"))
        np.testing.assert_array_equal(draw(rng.wrap(data)), expected)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_same_seeds_as_jax(seed):
    np.testing.assert_array_equal(
        jax.random.key_data(jax.random.key(seed, impl=rng.UNROLLED)), jax.random.key_data(jax.random.key(seed))
    )


def test_first_draws_do_not_depend_on_how_many_there_are():
    key = rng.wrap(jnp.array([3, 4], jnp.uint32))
    for use in (jax.random.bits, jax.random.normal, jax.random.uniform):
        np.testing.assert_array_equal(use(key, (40, 3))[:7], use(key, (7, 3)))
    np.testing.assert_array_equal(
        jax.random.key_data(jax.random.split(key, 9))[:4], jax.random.key_data(jax.random.split(key, 4))
    )
