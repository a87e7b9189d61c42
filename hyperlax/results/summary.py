"""One row a sample: the columns of the published benchmark tables, and how each is computed.

The published tables come without their learning curves, so the formulas below are what
could be inferred from the 18 tables of 64 rows each. For each column it is said how firmly:

- *verified*: recomputed from other columns of the same row, agrees to the printed digits;
- *inferred*: the only simple definition found that all rows are consistent with;
- *a guess*: consistent with the rows, other definitions would be too.

Let ``R(t)`` be the mean over seeds of the mean evaluation return, on the grid of
environment steps ``t`` that is common to all samples, up to the budget ``T``; at each step
the seeds that were evaluated there count.

===================== ==========================================================================
column                formula
===================== ==========================================================================
peak return           ``max R(t)``; higher is better, also for negative returns.
peak timestep         the first ``t`` at which the peak is reached.
final return          mean of ``R`` over the last tenth of the budget before the sample's last
                      evaluation (4 evaluations of 40; the last one where there are fewer than
                      10). Inferred: with 40 evaluations, the spread of rows whose peak falls in
                      the last four is tied to peak - final, that of all others is not.
auc at budget         area under ``(R - min R) / (max R - min R)`` between the first evaluation
                      and the budget (trapezia), divided by that interval; 0 for a constant
                      curve. Inferred: constant curves have 0, and samples that never learn have
                      values like those that do, so a curve is scaled by its own range, not by
                      the environment's. It therefore tells *when* a sample learnt, not how much,
                      and must not be compared between samples as a score.
stability score       ``clip(1 - std(R) / |mean(R)|, 0, 1)`` over the window of the final return
                      (population standard deviation). 1 for a mean of 0 without spread.
                      A guess, as for the kind of deviation; its range and window are inferred.
time to target        the first ``t``, linearly interpolated, at which ``R`` reaches the peak
                      less 10 % of its absolute value. Where that is at the first evaluation, its
                      step. Inferred for positive peaks. In the published tables the target is
                      0.9 x peak also for negative peaks, which no curve can reach: all their
                      Pendulum rows have the budget. Here those rows have a meaningful value.
early learning rate   least-squares slope of ``R`` against ``t`` over evaluations in the first half
                      of the budget, in return per environment step; NaN with fewer than two.
                      A guess: for curves that rise once, the published values are those of a
                      window of about half the budget.
forgetting score      ``clip((peak - final) / |peak|, 0, 1)``. Verified on every row.
===================== ==========================================================================

A sample without any evaluation has peak timestep 0, auc 0, time to target infinite and NaN
elsewhere, as published. ``hp id`` is the sample id (in most published tables it is too).

Ours: ``status``, ``seeds`` (asked for), ``seeds completed``, ``final return std`` (over the
seeds' own final returns, divisor n - 1; NaN for one seed), ``env steps`` (all seeds together),
``diverged at`` (the earliest step at which a seed did), ``num params`` (trained parameters of
all networks; of twin critics both count), ``wall seconds`` (from the start of the
first seed to the end of the last).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hyperlax.results.storage import as_cell
from hyperlax.spaces.files import RESULT_COLUMNS, canonical_name, published_header

#: A lane's possible ends, best first; the status of a sample is the worst of its seeds'.
STATUSES = ("COMPLETED", "PRUNED", "TIMED_OUT", "DIVERGED", "FAILED")
#: The status of a sample of which a seed has not ended: the run is still going, or was killed.
UNFINISHED = "UNFINISHED"

METRICS = (
    "peak_return",
    "peak_timestep",
    "final_return",
    "auc_at_budget",
    "stability_score",
    "time_to_target",
    "early_learning_rate",
    "forgetting_score",
)
EXTRAS = (
    "status", "seeds", "seeds_completed", "final_return_std", "env_steps", "diverged_at", "num_params", "wall_seconds"
)  # fmt: skip
NOT_HYPERPARAMETERS = frozenset(("hp_id", "sample_id", *METRICS, *EXTRAS))

_FINAL_FRACTION = 0.1
_EARLY_FRACTION = 0.5
_TARGET_SLACK = 0.1


def summarise(
    evaluations: pd.DataFrame,
    samples: pd.DataFrame,
    lanes: pd.DataFrame,
    budget_steps: float,
    seeds: int | None = None,
) -> pd.DataFrame:
    """Returns one row a sample, best final return first and those without one last.

    Of equal final returns the higher peak comes first, then what reached its target sooner, then the lower id.

    Args:
        evaluations: ``sample_id``, ``seed``, ``grid_step``, ``mean_return``; of rows that
            repeat a (sample, seed, step), as a resumed run writes them, the last counts.
        samples: ``sample_id`` and one column a hyperparameter.
        lanes: ``sample_id``, ``seed``, ``status``, ``env_steps``, ``diverged_at``,
            ``wall_seconds_start``, ``wall_seconds_end``; the last row of a (sample, seed) counts.
        budget_steps: environment steps each seed was to run.
        seeds: how many each sample was to run; None takes the number seen.
    """
    curves = _curves(evaluations)
    ends = {key: rows for key, rows in lanes.drop_duplicates(["sample_id", "seed"], keep="last").groupby("sample_id")}
    seen = pd.concat([evaluations["seed"], lanes["seed"]]).nunique()
    count = seeds if seeds is not None else int(seen)
    rows = []
    for sample_id in samples["sample_id"]:
        row: dict[str, Any] = {"hp_id": sample_id, "sample_id": sample_id, "seeds": count}
        row |= curve_metrics(*mean_curve(curves.get(sample_id)), budget_steps)
        row |= _over_seeds(curves.get(sample_id), ends.get(sample_id), count, budget_steps)
        rows.append(row)
    if not rows:
        return pd.DataFrame(columns=["hp_id", *METRICS, "sample_id", *EXTRAS])
    hyperparameters = samples.set_index("sample_id")
    table = pd.DataFrame(rows).join(hyperparameters, on="sample_id")
    table = table[["hp_id", *METRICS, *hyperparameters.columns, "sample_id", *EXTRAS]]
    order = ["final_return", "peak_return", "time_to_target", "sample_id"]
    return table.sort_values(order, ascending=[False, False, True, True], na_position="last", ignore_index=True)


def mean_curve(curves: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the grid steps and the mean over seeds there of one sample's curves (rows: steps)."""
    if curves is None or curves.empty:
        return np.empty(0), np.empty(0)
    return curves.index.to_numpy(float), curves.mean(axis=1).to_numpy(float)


def curve_metrics(steps: np.ndarray, returns: np.ndarray, budget: float) -> dict[str, float]:
    """Returns the published metrics of one learning curve; the formulas are at the top of this file.

    Args:
        steps: environment steps, increasing, ``(n,)``.
        returns: the mean return there, finite, ``(n,)``.
        budget: environment steps the curve was to reach.
    """
    if len(steps) == 0:
        return dict.fromkeys(METRICS, math.nan) | {
            "peak_timestep": 0,
            "auc_at_budget": 0.0,
            "time_to_target": math.inf,
        }
    peak = int(np.argmax(returns))
    window = _final_window(steps, budget)
    final, spread = float(returns[window].mean()), float(returns[window].std())
    return {
        "peak_return": float(returns[peak]),
        "peak_timestep": int(steps[peak]),
        "final_return": final,
        "auc_at_budget": _area(steps, returns, budget),
        "stability_score": _bounded(1 - _ratio(spread, abs(final))),
        "time_to_target": _time_to_target(steps, returns),
        "early_learning_rate": _slope(steps, returns, budget),
        "forgetting_score": _bounded(_ratio(returns[peak] - final, abs(returns[peak]))),
    }


def to_published(table: pd.DataFrame) -> bytes:
    """Returns a summary as the CSV that goes to disk, with the headers of the published tables."""
    cells = table.map(as_cell) if len(table) else table
    text = io.StringIO()
    cells.rename(columns=lambda name: header_of(str(name))).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue().encode()


def header_of(name: str) -> str:
    """Returns a summary column's header on disk: ``peak_return`` is ``peak return``."""
    return name.replace("_", " ") if name in NOT_HYPERPARAMETERS else published_header(name)


def name_of(header: str) -> str:
    """Returns a header's canonical name, the inverse of `header_of`."""
    name = header.strip().replace(" ", "_")
    return name if name in NOT_HYPERPARAMETERS else canonical_name(header)


def hyperparameter_columns(table: pd.DataFrame) -> list[str]:
    """Returns the columns of a summary, ours or a published one, that are hyperparameters."""
    known = NOT_HYPERPARAMETERS | RESULT_COLUMNS
    return [str(name) for name in table.columns if name not in known]


def _curves(evaluations: pd.DataFrame) -> Mapping[int, pd.DataFrame]:
    """Returns, for each sample, returns by grid step (rows) and seed (columns)."""
    key = ["sample_id", "grid_step", "seed"]
    finite = evaluations[np.isfinite(evaluations["mean_return"].astype(float))]
    table = finite.drop_duplicates(key, keep="last").set_index(key)["mean_return"].astype(float)
    return {sample: rows.droplevel(0).unstack("seed").sort_index() for sample, rows in table.groupby("sample_id")}


def _over_seeds(curves: pd.DataFrame | None, ends: pd.DataFrame | None, seeds: int, budget: float) -> dict[str, Any]:
    """Returns the columns that look at each seed by itself: its final return, how it ended, what it cost."""
    finals, last_steps = [], []
    for _, curve in curves.items() if curves is not None else ():
        own = curve.dropna()
        finals.append(own.to_numpy()[_final_window(own.index.to_numpy(float), budget)].mean())
        last_steps.append(int(own.index[-1]))
    row: dict[str, Any] = {
        "final_return_std": float(np.std(finals, ddof=1)) if len(finals) > 1 else math.nan,
        "status": UNFINISHED,
        "seeds_completed": 0,
        "env_steps": sum(last_steps),
        "diverged_at": math.nan,
        "num_params": math.nan,
        "wall_seconds": math.nan,
    }
    if ends is None:
        return row
    worst = max(ends["status"], key=STATUSES.index)
    unfinished = len(ends) < seeds and worst == STATUSES[0]
    return row | {
        "status": UNFINISHED if unfinished else worst,
        "seeds_completed": int((ends["status"] == STATUSES[0]).sum()),
        "env_steps": int(ends["env_steps"].fillna(0).sum()),
        "diverged_at": float(ends["diverged_at"].astype(float).min()),
        "num_params": float(ends["num_params"].astype(float).max()),
        "wall_seconds": float(ends["wall_seconds_end"].max() - ends["wall_seconds_start"].min()),
    }


def _final_window(steps: np.ndarray, budget: float) -> np.ndarray:
    # A little slack: grid steps are rounded to whole rollouts.
    return steps > steps[-1] - _FINAL_FRACTION * budget * (1 - 1e-6)


def _area(steps: np.ndarray, returns: np.ndarray, budget: float) -> float:
    low, high = returns.min(), returns.max()
    if high == low or len(steps) < 2:
        return 0.0
    span = max(budget, steps[-1]) - steps[0]  # a curve that stopped early earns nothing afterwards
    return float(np.trapezoid((returns - low) / (high - low), steps) / span)


def _time_to_target(steps: np.ndarray, returns: np.ndarray) -> float:
    peak = returns.max()
    target = peak - _TARGET_SLACK * abs(peak)
    first = int(np.argmax(returns >= target))
    if first == 0:
        return float(steps[0])
    before, after = returns[first - 1], returns[first]
    part = (target - before) / (after - before)
    return float(steps[first - 1] + part * (steps[first] - steps[first - 1]))


def _slope(steps: np.ndarray, returns: np.ndarray, budget: float) -> float:
    early = steps <= _EARLY_FRACTION * budget
    if early.sum() < 2:
        return math.nan
    centred = steps[early] - steps[early].mean()
    return float(centred @ returns[early] / (centred @ centred))


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return 0.0 if numerator == 0 else math.inf
    return float(numerator / denominator)


def _bounded(value: float) -> float:
    return min(1.0, max(0.0, value))
