"""Action distributions against scipy.stats."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from hyperlax.environments.protocol import Box, Discrete
from hyperlax.networks.distributions import Categorical, DiagonalGaussian, distribution_for

NOTHING = jnp.zeros(0)


def test_action_spaces_have_their_distributions():
    assert isinstance(distribution_for(Discrete(3)), Categorical)
    assert isinstance(distribution_for(Box(2)), DiagonalGaussian)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_categorical_against_scipy(n):
    logits = np.random.default_rng(n).normal(0, 3, (n, 40))
    p = special.softmax(logits, axis=0)
    d, outputs = Categorical(n), jnp.asarray(logits, jnp.float32)
    for action in range(n):
        log_prob = d.log_prob(outputs, NOTHING, jnp.full((1, 40), float(action)))
        np.testing.assert_allclose(log_prob, np.log(p[action]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d.entropy(outputs, NOTHING), stats.entropy(p), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(d.mode(outputs, NOTHING)[0], logits.argmax(0))
    taken = d.to_environment(d.mode(outputs, NOTHING))
    assert taken.dtype == jnp.int32 and taken.shape == (40,)


def test_categorical_samples_have_their_probabilities():
    p, count = np.array([0.5, 0.02, 0.0, 0.28, 0.2]), 50_000
    with np.errstate(divide="ignore"):
        outputs = jnp.broadcast_to(jnp.asarray(np.maximum(np.log(p), -200), jnp.float32)[:, None], (5, count))
    d = Categorical(5)
    actions = np.asarray(d.to_environment(d.sample(d.noise(jax.random.key(0), count), outputs, NOTHING)))
    counts = np.bincount(actions, minlength=5)
    assert len(counts) == 5 and counts[2] == 0
    assert stats.chisquare(counts[p > 0], p[p > 0] * count).pvalue > 1e-3


def test_categorical_sample_at_the_ends_of_the_noise():
    """Noise lies in [0, 1): zero takes the first possible action, the largest float the last."""
    outputs = jnp.array([[-200.0], [0.0], [0.0], [-200.0]])
    d = Categorical(4)
    assert d.sample(jnp.zeros((1, 1)), outputs, NOTHING) == 1
    assert d.sample(jnp.full((1, 1), 1 - 2.0**-24), outputs, NOTHING) <= 3


def test_gaussian_against_scipy():
    rng = np.random.default_rng(0)
    mean, log_std, action = rng.normal(size=(3, 20)), np.array([-1.5, 0.0, 0.8]), rng.normal(0, 2, (3, 20))
    normal = stats.norm(mean, np.exp(log_std)[:, None])
    d, outputs, free = DiagonalGaussian(3), jnp.asarray(mean, jnp.float32), jnp.asarray(log_std, jnp.float32)
    np.testing.assert_allclose(
        d.log_prob(outputs, free, jnp.asarray(action, jnp.float32)), normal.logpdf(action).sum(0), rtol=1e-4
    )
    np.testing.assert_allclose(d.entropy(outputs, free), normal.entropy().sum(0), rtol=1e-5)
    np.testing.assert_array_equal(d.mode(outputs, free), outputs)
    np.testing.assert_array_equal(d.to_environment(outputs), np.clip(outputs, -1, 1).T)


def test_gaussian_samples_are_normal_and_independent():
    count, mean, log_std = 20_000, np.array([1.0, -2.0]), np.array([-1.0, 0.5])
    d = DiagonalGaussian(2)
    outputs = jnp.broadcast_to(jnp.asarray(mean, jnp.float32)[:, None], (2, count))
    actions = np.asarray(d.sample(d.noise(jax.random.key(1), count), outputs, jnp.asarray(log_std, jnp.float32)))
    for row, m, s in zip(actions, mean, np.exp(log_std), strict=True):
        assert stats.kstest(row, stats.norm(m, s).cdf).pvalue > 1e-3
    assert stats.pearsonr(*actions).pvalue > 1e-3


@pytest.mark.parametrize("distribution", [Categorical(4), DiagonalGaussian(3)], ids=["categorical", "gaussian"])
def test_noise_of_the_first_environments_does_not_depend_on_their_number(distribution):
    key = jax.random.key(2)
    np.testing.assert_array_equal(distribution.noise(key, 37)[:, :5], distribution.noise(key, 5))


@pytest.mark.parametrize("distribution", [Categorical(3), DiagonalGaussian(2)], ids=["categorical", "gaussian"])
def test_mean_of_minus_log_prob_is_the_entropy(distribution):
    count = 40_000
    outputs = jnp.broadcast_to(jnp.array([[0.3], [-0.9], [1.1]])[: distribution.num_parameters], (
        distribution.num_parameters, count))  # fmt: skip
    free = jnp.linspace(-0.5, 0.5, distribution.num_free)
    actions = distribution.sample(distribution.noise(jax.random.key(3), count), outputs, free)
    estimate = -np.asarray(distribution.log_prob(outputs, free, actions)).mean()
    assert estimate == pytest.approx(float(distribution.entropy(outputs, free)[0]), abs=0.02)
