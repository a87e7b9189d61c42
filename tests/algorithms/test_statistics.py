"""Running statistics against NumPy's on all the data at once."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.algorithms.statistics import RunningStatistics, normalize


def rows_of(rng, count, offset=5.0):
    return (rng.normal(size=(count, 3)) * [1.0, 10.0, 0.1] + [0.0, offset, -offset]).astype(np.float32)


@pytest.mark.parametrize("sizes", [(1,), (7,), (1, 1, 1), (5, 0, 20, 3), (64, 2, 64)])
def test_merging_batch_by_batch_is_the_mean_and_variance_of_all(sizes):
    rng = np.random.default_rng(0)
    statistics, seen = RunningStatistics.empty(3), []
    for size in sizes:
        rows = rows_of(rng, 70)
        valid = rng.permutation(70) < size
        seen.append(rows[valid])
        rows[~valid] = rng.choice([np.nan, np.inf, 1e30])  # padding may hold anything
        statistics = statistics.merge(jnp.asarray(rows), jnp.asarray(valid))
    everything = np.concatenate(seen).astype(np.float64)
    assert statistics.rows == len(everything)
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(statistics.deviation(), np.sqrt(everything.var(0) + 1e-8), rtol=1e-5)


def test_merging_nothing_changes_no_bit():
    rng = np.random.default_rng(1)
    before = RunningStatistics.empty(3).merge(jnp.asarray(rows_of(rng, 9)), jnp.ones(9, bool))
    after = before.merge(jnp.full((4, 3), jnp.nan), jnp.zeros(4, bool))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_before_there_are_data_normalising_is_the_identity():
    empty = RunningStatistics.empty(2)
    x = jnp.array([[0.5, -3.0], [7.0, 9.9]])
    np.testing.assert_allclose(normalize(x, empty.mean, empty.deviation()), x, rtol=1e-6)


def test_normalised_columns_have_mean_zero_and_deviation_one_and_are_clipped():
    rng = np.random.default_rng(2)
    rows = rows_of(rng, 500)
    statistics = RunningStatistics.empty(3).merge(jnp.asarray(rows), jnp.ones(500, bool))
    columns = np.asarray(normalize(jnp.asarray(rows).T, statistics.mean, statistics.deviation()))
    np.testing.assert_allclose(columns.mean(1), 0.0, atol=1e-4)
    np.testing.assert_allclose(columns.std(1), 1.0, atol=1e-4)
    far = normalize(jnp.array([[1e6, -1e6]] * 3), statistics.mean, statistics.deviation())
    np.testing.assert_array_equal(far, [[10.0, -10.0]] * 3)


def test_a_large_offset_does_not_eat_the_variance():
    rng = np.random.default_rng(3)
    rows = (1000.0 + rng.normal(size=(400, 1))).astype(np.float32)
    statistics = RunningStatistics.empty(1)
    for part in np.split(rows, 20):
        statistics = statistics.merge(jnp.asarray(part), jnp.ones(20, bool))
    np.testing.assert_allclose(statistics.deviation(), rows.astype(np.float64).std(0), rtol=1e-3)
