"""Tables of a run's best samples, for a terminal or a log."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from hyperlax.results import Run

_MOST_HYPERPARAMETERS = 4
_FEW_VALUES = 5
FEWEST_SAMPLES = 8  # with fewer, importances are as large by chance as they ever are


def top_table(run: Run, k: int = 10, hyperparameters: int = _MOST_HYPERPARAMETERS) -> Table:
    """Returns the best samples of a run as a rich table, best final return first.

    Args:
        k: at most so many rows.
        hyperparameters: at most so many of them, the most important first; those that are
            the same in every sample tell nothing and are left out.
    """
    ranked = important_hyperparameters(run.summary, run.hyperparameters)
    names = [name for name, _ in ranked][:hyperparameters]
    count = len(run.summary)
    title = f"Best {min(k, count)} of {count} samples" if count > 1 else "1 sample"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("rank", "sample", "final return", "peak", "status"):
        table.add_column(header, justify="left" if header == "status" else "right", no_wrap=True)
    if names:
        # One column that wraps: a column each would be unreadable on a narrow terminal.
        known = any(importance > 0 for _, importance in ranked)
        table.add_column("hyperparameters" + (", most important first" if known else ""))
    for rank, row in enumerate(run.summary.head(k).to_dict("records"), start=1):
        cells = [str(rank), str(row["sample_id"]), _with_spread(row), short(row["peak_return"]), row["status"]]
        values = ", ".join(f"{label_of(name)} {short(row[name])}" for name in names)
        table.add_row(*cells, *([Text(values)] if names else []))
    return table


def benchmark_table(cells: pd.DataFrame) -> Table:
    """Returns the cells of a benchmark as a rich table.

    Args:
        cells: as :meth:`hyperlax.launch.benchmark.Benchmark.table` returns them.
    """
    table = Table(title="Final returns", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("cell", "best", "fresh seeds", "median", "IQM (95%)"):
        table.add_column(header, justify="left" if header == "cell" else "right")
    for row in cells.to_dict("records"):
        recipe = row["recipe"].removeprefix("benchmarked.")
        cell = f"{recipe} {row['environment']} {row['mode']}, {row['configurations']} samples"
        table.add_row(
            cell, *(short(row[name]) for name in ("best", "fresh_seeds", "median")), _with_interval(row, "iqm")
        )
    return table


def families_table(aggregates: pd.DataFrame) -> Table:
    """Returns what :func:`hyperlax.analysis.comparison.aggregates` does as a rich table."""
    table = Table(title="Final returns, 95% intervals", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("environment", "family", "configurations", "IQM", "median", "best", "fresh seeds"):
        table.add_column(header, justify="left" if header in ("environment", "family") else "right")
    for row in aggregates.to_dict("records"):
        names = (row["environment"], row["family"], str(row["configurations"]))
        middle = (_with_interval(row, name) for name in ("iqm", "median"))
        table.add_row(*names, *middle, *(short(row[name]) for name in ("best", "fresh_seeds")))
    return table


def _with_interval(row: dict[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    return short(row[name]) + ("" if math.isnan(low) else f" ({short(low)} … {short(high)})")


def important_hyperparameters(summary: pd.DataFrame, names: list[str]) -> list[tuple[str, float]]:
    """Returns the hyperparameters that vary, the most important first, each with its importance.

    The importance of a numeric one is the absolute Spearman rank correlation with the final
    return; of a categorical one, the square root of the part of the rank variance that lies
    between its categories, less what chance would put there (Kelley's epsilon squared). Both
    are in [0, 1] and neither sees interactions; both are 0 where fewer than 8 samples have a return.
    """
    valid = summary[summary["final_return"].notna()]
    found = []
    for name in names:
        varies = summary[name].astype(str).nunique() > 1
        if not varies:
            continue
        column = valid[name]
        measure = _rank_correlation if is_numeric(column) else _between_categories
        found.append((name, measure(column, valid["final_return"]) if len(valid) >= FEWEST_SAMPLES else 0.0))
    return sorted(found, key=lambda pair: -pair[1])


def is_numeric(column: pd.Series) -> bool:
    """Tells whether values have an order and distances; True and False do not."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def is_categorical(column: pd.Series) -> bool:
    """Tells whether values are best told apart one by one: no numbers, or few different ones."""
    return not is_numeric(column) or column.nunique() <= _FEW_VALUES


def is_logarithmic(column: pd.Series) -> bool:
    """Tells whether numbers span so much that their logarithm is what matters."""
    return bool(column.min() > 0 and column.max() / column.min() >= 30)


def short(value: Any) -> str:
    """Returns a value for a narrow column: numbers to four digits, nothing for NaN."""
    if value is None or isinstance(value, float):
        return "-" if value is None or math.isnan(value) else f"{value:.4g}"
    return str(value)


def label_of(name: str) -> str:
    """Returns a hyperparameter's name as people write it: ``actor_network.layer_sizes`` is "actor layer sizes"."""
    return name.replace("_network.", " ").replace(".", " ").replace("_", " ")


def _with_spread(row: dict[str, Any]) -> str:
    spread = row["final_return_std"]
    return short(row["final_return"]) + ("" if math.isnan(spread) else f" ± {short(float(f'{spread:.2g}'))}")


def _rank_correlation(values: pd.Series, returns: pd.Series) -> float:
    if values.nunique() < 2 or returns.nunique() < 2:
        return 0.0
    return abs(float(values.rank().corr(returns.rank())))


def _between_categories(values: pd.Series, returns: pd.Series) -> float:
    ranks, categories = returns.rank(), values.astype(str)
    count, groups = len(ranks), categories.nunique()
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if groups < 2 or count <= groups or total == 0:
        return 0.0
    within = float(((ranks - ranks.groupby(categories).transform("mean")) ** 2).sum())
    explained = 1 - (within / (count - groups)) / (total / (count - 1))
    return math.sqrt(max(0.0, explained))
