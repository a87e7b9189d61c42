"""Loops and random numbers of lanes that do not do the same number of anything."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hyperlax.algorithms import rng
from hyperlax.algorithms.lane import LANES, Columns, any_lane, keep, lane_max, masked_mean, permutation, repeat, stream

KEYS = pytest.mark.parametrize("wrap", [rng.wrap, jax.random.wrap_key_data], ids=["unrolled", "jax"])


def key_of(seed, wrap=rng.wrap):
    return wrap(jnp.array([seed, 2 * seed + 1], jnp.uint32))


@KEYS
def test_permutation_is_one_whatever_the_size(wrap):
    counts = np.array([1, 2, 3, 7, 8, 9, 64, 100])
    orders = {
        size: np.asarray(jax.jit(jax.vmap(lambda n, size=size: permutation(key_of(5, wrap), n, size)))(counts))
        for size in (100, 101, 256)
    }
    for i, count in enumerate(counts):
        exact = np.asarray(permutation(key_of(5, wrap), counts[i], count)) if count in (7, 64) else orders[100][i]
        np.testing.assert_array_equal(np.sort(exact[:count]), np.arange(count))
        for padded in orders.values():
            np.testing.assert_array_equal(padded[i, :count], exact[:count])
            assert padded[i].min() >= 0 and padded[i].max() < count  # the rest may be used as indices


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_permutation_is_equally_likely(n):
    draws = 12_000
    keys = jax.random.split(key_of(1), draws)
    orders = np.asarray(jax.vmap(lambda key: permutation(key, jnp.int32(n), n + 3))(keys))[:, :n]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert stats.chisquare(np.append(counts, [0] * (len(permutations(n)) - len(counts)))).pvalue > 1e-3


def permutations(n):
    return [[]] if n == 0 else [[i, *rest] for i in range(n) for rest in permutations(n - 1)]


def test_a_large_permutation_has_no_drift_from_the_order_it_started_with():
    order = np.asarray(permutation(key_of(2), jnp.int32(4096), 5000))[:4096]
    assert stats.spearmanr(order, np.arange(4096)).pvalue > 1e-3
    assert abs((order == np.arange(4096)).sum() - 1) <= 5  # fixed points are Poisson(1)


def test_streams_of_different_purposes_and_steps_differ():
    of_step = jax.vmap(lambda step: jnp.stack([jax.random.key_data(stream(key_of(3), p, step)) for p in range(8)]))
    words = of_step(jnp.arange(16, dtype=jnp.int32)).reshape(-1, 2)
    assert len(np.unique(words, axis=0)) == len(words) == 8 * 16


def test_a_loop_runs_each_lane_its_own_number_of_times():
    counts = jnp.array([0, 3, 1, 5], jnp.int32)

    def one(count):
        def body(i, active, carry):
            return keep(active, (carry[0] + i, carry[1] + 1), carry)

        return *repeat(count, body, (jnp.int32(0), jnp.int32(0))), lane_max(count), any_lane(count == 3)

    summed, ran, most, some = jax.vmap(one, axis_name=LANES)(counts)
    np.testing.assert_array_equal(summed, [0, 3, 0, 10])
    np.testing.assert_array_equal(ran, counts)
    np.testing.assert_array_equal(most, [5] * 4)
    assert some.all()


def test_masked_mean_hears_no_padding():
    x = jnp.array([[1.0, 2.0, jnp.nan], [6.0, jnp.inf, -jnp.inf]])
    valid = jnp.array([[True, True, False], [True, False, False]])
    assert masked_mean(x, valid) == 3.0
    np.testing.assert_array_equal(masked_mean(x, valid, axis=1), [1.5, 6.0])


def test_columns_split_what_they_joined():
    columns = Columns(a=2, b=1, c=3)
    parts = {"a": jnp.arange(8.0).reshape(4, 2), "b": jnp.array([1, 0, 1, 1]), "c": jnp.ones((4, 3)) * 7}
    rows = columns.join(c=parts["c"], a=parts["a"], b=parts["b"] > 0)
    assert rows.shape == (4, columns.width)
    for name, part in columns.split(rows).items():
        np.testing.assert_array_equal(part, parts[name])
    np.testing.assert_array_equal(columns.split(rows.reshape(2, 2, -1))["b"], parts["b"].reshape(2, 2))
