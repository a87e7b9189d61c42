"""What can be said of few, scattered returns: robust means, their intervals, and comparisons.

Scores are arrays ``(runs, tasks)``: the same number of independent runs (seeds, or configurations) of every task. The
aggregates and the stratified bootstrap are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import rankdata

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_RUNS = 10  # with fewer, a bootstrap's interval is too narrow
_BATCH = 10_000_000  # numbers in memory at once

Statistic = Callable[[np.ndarray], np.ndarray]


class Estimate(NamedTuple):
    """A number, or an array of them, with an interval.

    Attributes:
        value: of the sample.
        low: end of the interval.
        high: its other end.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


# --- aggregates: of (..., runs, tasks) ---------------------------------------------------------------


def mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean over runs and tasks."""
    return scores.mean(axis=(-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """Returns the median over tasks of the means over runs."""
    return np.median(scores.mean(axis=-2), axis=-1)


def median_of_runs(scores: np.ndarray) -> np.ndarray:
    """Returns the median of all runs of all tasks."""
    return np.median(scores, axis=(-2, -1))


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of all runs of all tasks; a quarter that is no whole number is cut down."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)


def optimality_gap(scores: np.ndarray, goal: float = 1.0) -> np.ndarray:
    """Returns by how much scores fail to reach a goal, on average; what is beyond it counts as reached."""
    return goal - np.minimum(scores, goal).mean(axis=(-2, -1))


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns the share of runs above each threshold, ``(..., thresholds)``, tasks weighing the same."""
    return np.stack([(scores > threshold).mean(axis=(-2, -1)) for threshold in thresholds], axis=-1)


# --- intervals -------------------------------------------------------------------------------------


def with_interval(
    scores: np.ndarray, statistic: Statistic, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """Returns a statistic with its percentile interval by the bootstrap, runs being drawn anew within each task.

    Args:
        scores: ``(runs, tasks)``.
        statistic: of ``(resamples, runs, tasks)``, one value a resample, or an array.
        resamples: how many.
        confidence: of the interval.
        seed: of the bootstrap.
    """
    drawn = np.concatenate([statistic(resample[0]) for resample in _resampled([scores], resamples, seed)])
    return _estimate(statistic(scores[None])[0], drawn, confidence)


def probability_of_improvement(
    scores: np.ndarray,
    other: np.ndarray,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Returns how likely a run of the first is better than one of the second, mean over tasks; ties count half.

    Args:
        scores: ``(runs, tasks)``.
        other: ``(other runs, tasks)``.
        resamples: of the bootstrap, with ``confidence`` and ``seed`` as in :func:`with_interval`.
    """

    def better(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        difference = a[..., :, None, :] - b[..., None, :, :]
        return (0.5 + 0.5 * np.sign(difference)).mean(axis=(-3, -2, -1))

    drawn = np.concatenate([better(*both) for both in _resampled([scores, other], resamples, seed, len(other))])
    return _estimate(better(scores, other), drawn, confidence)


def _resampled(groups: list[np.ndarray], resamples: int, seed: int, width: int = 1) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields parts of all resamples, each as large as memory likes; runs are drawn within each task."""
    rng = np.random.default_rng(seed)
    part = max(1, _BATCH // (groups[0].size * width))
    for first in range(0, resamples, part):
        count = min(part, resamples - first)
        yield tuple(
            np.take_along_axis(scores[None], rng.integers(len(scores), size=(count, *scores.shape)), axis=1)
            for scores in groups
        )


def _estimate(value: np.ndarray, drawn: np.ndarray, confidence: float) -> Estimate:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Estimate(value, low, high)


# --- what a search budget buys ------------------------------------------------------------------------


def expected_best(
    values: np.ndarray, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """Returns what the best of k configurations is expected to be, for k = 1 … n, ``(n,)``.

    It is the mean over all choices of k of the n configurations that were trained: without bias for every k, unlike the
    best of k draws with replacement. The interval is that of a bootstrap over configurations, which says little for k
    near n, where few choices are left.

    Args:
        values: one a configuration, ``(n,)``; those that failed count as the worst, not as missing.
        resamples: of the bootstrap, with ``confidence`` and ``seed`` as in :func:`with_interval`.
    """
    weights = _order_weights(len(values))
    drawn = np.random.default_rng(seed).choice(values, size=(resamples, len(values)))
    return _estimate(weights @ np.sort(values), np.sort(drawn, axis=1) @ weights.T, confidence)


def _order_weights(n: int) -> np.ndarray:
    """Returns how likely the i-th smallest of n is the largest of k of them, ``(k, i)``: C(i-1, k-1) / C(n, k)."""
    k = np.arange(1, n + 1)[:, None]
    i = np.arange(1, n + 1)[None]
    with np.errstate(divide="ignore"):
        logs = _log_choose(i - 1, k - 1) - _log_choose(np.full_like(k, n), k)
    return np.exp(np.where(i >= k, logs, -np.inf))


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    inside = np.maximum(n - k, 0)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(inside + 1)


# --- one hyperparameter ---------------------------------------------------------------------------------


def rank_correlation(
    x: np.ndarray, y: np.ndarray, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """Returns Spearman's ρ with its bootstrap interval over pairs; NaN of a constant."""
    drawn = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    correlations = _spearman(x[drawn], y[drawn])
    finite = correlations[np.isfinite(correlations)]
    return _estimate(_spearman(x[None], y[None])[0], finite if finite.size else np.array([np.nan]), confidence)


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the rank correlations of rows."""
    a, b = (rankdata(values, axis=1) for values in (x, y))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


# --- sensitivities --------------------------------------------------------------------------------------


class Sensitivity(NamedTuple):
    """Sobol indices of every hyperparameter.

    Attributes:
        first_order: share of the variance that each explains by itself.
        total_order: share that would be gone if it were known, interactions included.
    """

    first_order: Estimate
    total_order: Estimate


def sobol_indices(
    a: np.ndarray,
    b: np.ndarray,
    ab: np.ndarray,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Sensitivity:
    """Returns first and total Sobol indices from the returns of a design of matrices A, B and AB.

    The estimators are those of Saltelli et al. (2010), table 2 (b), and Jansen (1999). scipy has them too, but only for
    powers of two, which a sweep with lanes that diverged has not left.

    Args:
        a: returns of the rows of A, ``(n,)``.
        b: returns of the rows of B, ``(n,)``.
        ab: returns of A's rows with one column from B, ``(hyperparameters, n)``.
        resamples: of the bootstrap over rows, with ``confidence`` and ``seed`` as in :func:`with_interval`.
    """

    def indices(rows: np.ndarray) -> np.ndarray:
        first, second, mixed = a[rows], b[rows], ab[:, rows]
        variance = np.concatenate([first, second], axis=-1).var(axis=-1)
        explained = ((second - first.mean(axis=-1, keepdims=True)) * (mixed - first)).mean(axis=-1)
        unexplained = 0.5 * ((first - mixed) ** 2).mean(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([explained, unexplained]) / variance

    drawn = indices(np.random.default_rng(seed).integers(len(a), size=(resamples, len(a))))
    whole = indices(np.arange(len(a)))
    both = (_estimate(whole[i], np.moveaxis(drawn[i], -1, 0), confidence) for i in range(2))
    return Sensitivity(*both)
