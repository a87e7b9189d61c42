"""Running mean and variance of observations, and the scale of rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LIMIT = 10.0  # of normalised observations


class RunningStatistics(NamedTuple):
    """Count, mean and variance, merged batch by batch (Chan et al., 1983).

    From 2**24 batches of one row on, the count stands still: then they are moving averages, over as many rows.

    Attributes:
        rows: float32 scalar, how many rows were added.
        mean: ``(features,)``.
        variance: ``(features,)``, mean squared deviation from the mean.
    """

    rows: jax.Array
    mean: jax.Array
    variance: jax.Array

    @classmethod
    def empty(cls, num_features: int) -> RunningStatistics:
        """Returns statistics of nothing, which normalise by the identity."""
        return cls(jnp.zeros(()), jnp.zeros(num_features), jnp.zeros(num_features))

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> RunningStatistics:
        """Returns the statistics that were exported as arrays by name."""
        return cls(**{name: jnp.asarray(x) for name, x in arrays.items()})

    def merge(self, batch: jax.Array, valid: jax.Array) -> RunningStatistics:
        """Returns the statistics with the valid rows of ``batch`` added.

        Args:
            batch: ``(rows, features)``.
            valid: ``(rows,)`` bool; other rows do not count, and may be none.
        """
        weight = valid.astype(batch.dtype)[:, None]
        added = weight.sum()
        mean = jnp.where(valid[:, None], batch, 0).sum(0) / jnp.maximum(added, 1.0)
        variance = (weight * (jnp.where(valid[:, None], batch, 0) - mean) ** 2).sum(0) / jnp.maximum(added, 1.0)
        total = jnp.maximum(self.rows + added, 1.0)
        share, delta = added / total, mean - self.mean
        return RunningStatistics(
            self.rows + added,
            self.mean + share * delta,
            self.variance + share * (variance - self.variance + delta**2 * self.rows / total),
        )

    def deviation(self) -> jax.Array:
        """Returns the standard deviation, ``(features,)``; 1 before there are any data."""
        return jnp.sqrt(jnp.where(self.rows > 0, self.variance, 1.0) + 1e-8)


def normalize(x: jax.Array, mean: jax.Array, deviation: jax.Array, limit: float = LIMIT) -> jax.Array:
    """Returns columns ``(features, batch)`` less their mean, over their deviation, clipped to ``±limit``."""
    return jnp.clip((x - mean[:, None]) / deviation[:, None], -limit, limit)
