"""What can be said of few, scattered returns: robust means, their intervals, and comparisons.

Scores are arrays ``(runs, tasks)``: the same number of independent runs (seeds, or configurations) of every task. The
aggregates and the stratified bootstrap are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
    rows = _rows_drawn([scores.shape], resamples, seed)
    drawn = np.concatenate([statistic(np.take_along_axis(scores[None], some, axis=1)) for (some,) in rows])
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

    # How many of the others are below a score, and how many are not above it: their mean is the share that it beats.
    ordered = np.sort(other, axis=0)
    columns = range(scores.shape[1])
    places = np.stack(
        [[np.searchsorted(ordered[:, t], scores[:, t], side) for t in columns] for side in ("left", "right")]
    )  # (2, tasks, runs)

    def better(rows: np.ndarray, other_rows: np.ndarray) -> np.ndarray:
        shares = [_beaten(places[:, task, rows[..., task]], other_rows[..., task]) for task in columns]
        return np.mean(shares, axis=0)

    whole = [np.broadcast_to(np.arange(len(some))[:, None], (1, *some.shape)) for some in (scores, other)]
    drawn = np.concatenate([better(*both) for both in _rows_drawn([scores.shape, other.shape], resamples, seed)])
    return _estimate(better(*whole)[0], drawn, confidence)


def _beaten(places: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns the mean share of some numbers below others, ties counting half.

    Args:
        places: of each of the others among the sorted numbers, from the left and from the right, ``(2, resamples, n)``.
        rows: which of the sorted numbers there are, ``(resamples, m)``.
    """
    count, m = rows.shape
    lines = np.arange(count)[:, None]
    times = np.bincount((rows + lines * m).ravel(), minlength=count * m).reshape(count, m)
    below = np.concatenate([np.zeros((count, 1), int), np.cumsum(times, axis=1)], axis=1)
    return np.asarray((below[lines, places[0]] + below[lines, places[1]]).mean(axis=1) / (2 * m))


def _rows_drawn(
    shapes: Sequence[tuple[int, ...]], resamples: int, seed: int, width: int = 1
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields which runs the resamples of some scores have, drawn within each task, as many at a time as memory likes.

    Args:
        shapes: of the scores, ``(runs, …)``; what is drawn is ``(resamples at a time, runs, …)`` of each.
        resamples: how many there are in all.
        seed: of the bootstrap.
        width: how many numbers each drawn one becomes.
    """
    rng = np.random.default_rng(seed)
    part = max(1, _BATCH // (max(math.prod(shape) for shape in shapes) * width))
    for first in range(0, resamples, part):
        count = min(part, resamples - first)
        yield tuple(rng.integers(shape[0], size=(count, *shape)) for shape in shapes)


def _estimate(value: np.ndarray, drawn: np.ndarray, confidence: float) -> Estimate:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Estimate(value, low, high)


# --- what a search budget buys ------------------------------------------------------------------------


def expected_best(
    values: np.ndarray,
    k: np.ndarray,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Returns what the best of k configurations is expected to be, for some k, of the shape of ``k``.

    It is the mean over all choices of k of the n configurations that were trained: without bias for every k, unlike the
    best of k draws with replacement. The interval is that of a bootstrap over configurations, which says little for k
    near n, where few choices are left.

    Args:
        values: one a configuration, ``(n,)``; those that failed count as the worst, not as missing.
        k: whole numbers from 1 to n.
        resamples: of the bootstrap, with ``confidence`` and ``seed`` as in :func:`with_interval`.
    """
    weights = _order_weights(len(values), k)
    rows = _rows_drawn([values.shape], resamples, seed)
    drawn = np.concatenate([np.sort(values[some], axis=1) @ weights.T for (some,) in rows])
    return _estimate(weights @ np.sort(values), drawn, confidence)


def _order_weights(n: int, k: np.ndarray) -> np.ndarray:
    """Returns how likely the i-th smallest of n is the largest of k of them, ``(k, i)``: C(i-1, k-1) / C(n, k)."""
    k = k[:, None]
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
    rows = _rows_drawn([x.shape], resamples, seed)
    correlations = np.concatenate([_spearman(x[some], y[some]) for (some,) in rows])
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

    drawn = np.concatenate(
        [indices(some) for (some,) in _rows_drawn([a.shape], resamples, seed, width=len(ab))], axis=-1
    )
    whole = indices(np.arange(len(a)))
    both = (_estimate(whole[i], np.moveaxis(drawn[i], -1, 0), confidence) for i in range(2))
    return Sensitivity(*both)
