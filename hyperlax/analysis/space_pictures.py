"""Pictures of one run's hyperparameters: what mattered, how, with what, and where the best are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hyperlax.analysis.collection import Entry
from hyperlax.analysis.figures import COLOURS, RETURNS_MAP, Drawing
from hyperlax.analysis.importance import ENOUGH_SAMPLES
from hyperlax.analysis.plots import draw_hyperparameter, in_columns
from hyperlax.analysis.tables import is_categorical, is_logarithmic, label_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BARS = 14
_MOST_SLICES = 6
_MOST_INTERACTING = 4
_MOST_AXES = 7
_BINS = 4  # of a number, in an interaction map
_LIGHT = 0.47  # from here on, a colour map's colours need black text


def importance_drawing(entry: Entry, table: pd.DataFrame) -> Drawing | None:
    """Returns the importances of :func:`hyperlax.analysis.importance.importances` as a picture."""
    if table.empty:
        return None
    count = int(table["configurations"].iloc[0])
    doubt = f": too few to tell, {ENOUGH_SAMPLES} or more would" if count < ENOUGH_SAMPLES else ""
    aim = label_of(entry.aim[0])
    title = f"Importance of hyperparameters for the {aim} (PED-ANOVA), {count} configurations{doubt}"
    return Drawing(title, (7, 1.5 + 0.27 * min(len(table), _MOST_BARS)), partial(_draw_importance, table))


def _draw_importance(table: pd.DataFrame, figure: Figure) -> pd.DataFrame:
    shown = table.head(_MOST_BARS)
    axes, places = figure.subplots(), np.arange(len(shown))
    axes.barh(places, shown["importance"], height=0.62, color=COLOURS[5], label="importance", zorder=2)
    if shown["low"].notna().any():
        axes.hlines(places, shown["low"], shown["high"], color="black", linewidth=1.1, label="95% interval", zorder=3)
    axes.scatter(shown["chance"], places, s=34, marker="D", facecolor="white", edgecolor="black", zorder=4)
    axes.scatter([], [], s=34, marker="D", facecolor="white", edgecolor="black", label="by chance alone")
    axes.set_yticks(places, [label_of(name) for name in shown["hyperparameter"]])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="share of all importance", xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return table


def slices_drawing(entry: Entry, names: list[str], weights: dict[str, float]) -> Drawing | None:
    """Returns the returns of all configurations against each of the most important hyperparameters.

    Args:
        entry: whose configurations.
        names: of hyperparameters, the most important first.
        weights: their importances, where known.
    """
    shown = names[:_MOST_SLICES]
    if not shown or len(entry.summary) < 2 or entry.lost.all():
        return None
    columns = _columns(len(shown))
    lines = -(-len(shown) // columns)
    title = "Final return against the most important hyperparameters; blue: the highest"
    size = (1.0 + 3.1 * columns, 0.8 + 2.7 * lines)
    return Drawing(title, size, partial(_draw_slices, entry, shown, weights))


def _columns(panels: int) -> int:
    return 2 if panels == 4 else min(3, panels)


def _draw_slices(entry: Entry, names: list[str], weights: dict[str, float], figure: Figure) -> pd.DataFrame:
    columns = _columns(len(names))
    grid = figure.subplots(-(-len(names) // columns), columns, sharey=True, squeeze=False)
    points = entry.reached.sort_values(
        "final_return", ascending=False, na_position="last", kind="stable", ignore_index=True
    )
    tables = []
    for axes, name in zip(grid.flatten(), names, strict=False):
        panel = points[["sample_id", "status"]].assign(x=points[name], y=points["final_return"], panel=name)
        weight = weights.get(name, 0.0)
        draw_hyperparameter(axes, panel, name, f"importance {weight:.2f}" if weight > 0 else "")
        tables.append(panel.astype({"x": object}))
    for axes in grid.flatten()[len(names) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("final return")
    return pd.concat(tables, ignore_index=True)[["panel", "sample_id", "x", "y", "status"]]


# --- pairs ---------------------------------------------------------------------------------------


def interactions_drawing(entry: Entry, names: list[str]) -> Drawing | None:
    """Returns a map for each pair of the most important hyperparameters: mean returns on a coarse grid."""
    shown = names[:_MOST_INTERACTING]
    if len(shown) < 2 or entry.lost.all():
        return None
    side = len(shown) - 1
    title = "Mean final return by pairs of hyperparameters, with the number of configurations"
    return Drawing(title, (1.9 + 2.7 * side, 1.0 + 2.3 * side), partial(_draw_interactions, entry, shown))


def _draw_interactions(entry: Entry, names: list[str], figure: Figure) -> pd.DataFrame:
    side = len(names) - 1
    grid = figure.subplots(side, side, squeeze=False)
    cells = {(x, y): _cells(entry, x, y) for i, y in enumerate(names) for x in names[:i]}
    numbers = pd.concat(cells.values(), ignore_index=True)
    from matplotlib.colors import Normalize

    scale = Normalize(numbers["mean_return"].min(), numbers["mean_return"].max())
    for row, y in enumerate(names[1:]):
        for column, x in enumerate(names[:-1]):
            axes = grid[row, column]
            if column > row:
                axes.set_visible(False)
                continue
            mesh = _draw_cells(axes, cells[x, y], scale)
            _label_bins(axes, "x", entry.summary[x], label_of(x) if row == side - 1 else "")
            _label_bins(axes, "y", entry.summary[y], label_of(y) if column == 0 else "")
    figure.colorbar(mesh, ax=grid, label="mean final return", shrink=0.8, aspect=30)
    return numbers


def _cells(entry: Entry, x: str, y: str) -> pd.DataFrame:
    """Returns a row for each cell of a pair's grid that has configurations."""
    places = {"x_bin": _binned(entry.summary[x])[1], "y_bin": _binned(entry.summary[y])[1]}
    grouped = pd.DataFrame({**places, "value": entry.returns}).groupby(["x_bin", "y_bin"])["value"]
    table = grouped.agg(mean_return="mean", configurations="size").reset_index()
    return table.assign(x=x, y=y)[["x", "y", "x_bin", "y_bin", "mean_return", "configurations"]]


def _draw_cells(axes: Axes, table: pd.DataFrame, scale: Any) -> Any:
    import matplotlib

    colours = matplotlib.colormaps[RETURNS_MAP]
    mesh = axes.scatter([], [], c=[], cmap=colours, norm=scale)
    for cell in table.itertuples():
        colour = colours(scale(cell.mean_return))
        place: Any = (cell.x_bin - 0.5, cell.y_bin - 0.5)
        axes.add_patch(matplotlib.patches.Rectangle(place, 1, 1, color=colour, linewidth=0, in_layout=False))
        ink = "black" if np.dot(colour[:3], (0.3, 0.59, 0.11)) > _LIGHT else "white"
        text = f"{short(float(f'{cell.mean_return:.3g}'))}\n({cell.configurations})"
        axes.text(cell.x_bin, cell.y_bin, text, ha="center", va="center", color=ink, fontsize=6.5, in_layout=False)
    axes.set_facecolor("#eeeeee")
    axes.grid(visible=False)
    return mesh


def _label_bins(axes: Axes, which: str, column: pd.Series, label: str) -> None:
    labels, _, edges = _binned(column)
    count = len(labels) - edges
    axis = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}lim")(-0.5, count - 0.5)
    axis.set_ticks(np.arange(len(labels)) - (0.5 if edges else 0), labels if label else [""] * len(labels))
    if which == "x" and sum(map(len, labels)) > 16:
        for text in axis.get_ticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")
    axis.set_label_text(label)


def _binned(column: pd.Series) -> tuple[list[str], np.ndarray, bool]:
    """Returns labels, the bin of each value, and whether the labels are the bins' edges: those of a number are."""
    if is_categorical(column):
        labels, places = in_columns(column)
        return labels, places.astype(int), False
    values = np.log(column.to_numpy(float)) if is_logarithmic(column) else column.to_numpy(float)
    edges = np.linspace(values.min(), values.max(), _BINS + 1)
    shown = np.exp(edges) if is_logarithmic(column) else edges
    return [f"{edge:.2g}" for edge in shown], np.clip(np.digitize(values, edges) - 1, 0, _BINS - 1), True


# --- all at once ---------------------------------------------------------------------------------


def parallel_drawing(entry: Entry, names: list[str]) -> Drawing | None:
    """Returns parallel coordinates: an axis a hyperparameter, a line a configuration, coloured by its final return."""
    shown = names[:_MOST_AXES]
    if not shown or len(entry.summary) < 2 or entry.lost.all():
        return None
    absent = "; dotted: diverged or failed" if entry.lost.any() else ""
    title = f"Configurations by their most important hyperparameters; thick: the highest{absent}"
    return Drawing(title, (2.6 + 1.25 * (len(shown) + 1), 4.2), partial(_draw_parallel, entry, shown))


def _draw_parallel(entry: Entry, names: list[str], figure: Figure) -> pd.DataFrame:
    import matplotlib
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    axes = figure.subplots()
    # The best above all; of equal ones that which stands first in the summary.
    table = entry.reached.iloc[::-1].sort_values("final_return", na_position="first", kind="stable", ignore_index=True)
    returns = table["final_return"].to_numpy(float)
    finite = np.isfinite(returns)
    worst = np.where(finite, returns, returns[finite].min())
    scaled = [_height(axes, place, table[name]) for place, name in enumerate(names)]
    scaled.append(_label_axis(axes, len(names), worst, np.linspace(worst.min(), worst.max(), 5)))
    heights = np.column_stack(scaled)
    lines = np.stack([np.broadcast_to(np.arange(len(names) + 1.0), heights.shape), heights], axis=-1)
    scale = Normalize(returns[finite].min(), returns[finite].max())
    colours = matplotlib.colormaps[RETURNS_MAP]
    axes.add_collection(LineCollection(list(lines[~finite]), colors="#777777", linestyles=":", linewidths=0.9))
    drawn = LineCollection(
        list(lines[finite]), cmap=colours, norm=scale, array=returns[finite], linewidths=1, alpha=0.8
    )
    axes.add_collection(drawn)
    axes.plot(*lines[-1].T, color="black", linewidth=4.2, zorder=5)
    axes.plot(*lines[-1].T, color=COLOURS[1], linewidth=2.2, zorder=6)
    axes.vlines(range(len(names) + 1), 0, 1, color="black", linewidth=0.9, zorder=7)
    labels = [_wrapped(label_of(name)) for name in [*names, "final return"]]
    axes.set_xticks(range(len(labels)), labels)
    axes.set(xlim=(-0.35, len(names) + 0.6), ylim=(-0.06, 1.06), yticks=[])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="final return", aspect=30, pad=0.01)
    return table[["sample_id", *names, "final_return", "status"]].iloc[::-1]


def _height(axes: Axes, place: int, column: pd.Series) -> np.ndarray:
    """Returns where a hyperparameter's values lie on its axis, from 0 to 1; those of one category side by side."""
    if is_categorical(column):
        labels, places = in_columns(column)
        aside = (np.arange(len(column)) * 0.618 % 1 - 0.5) * min(0.25, 0.08 * (len(labels) - 1))
        return _label_axis(axes, place, places + aside, np.arange(len(labels), dtype=float), labels)
    values = column.to_numpy(float)
    if not is_logarithmic(column):
        return _label_axis(axes, place, values, np.linspace(values.min(), values.max(), 5))
    ticks = np.linspace(np.log(values.min()), np.log(values.max()), 5)
    return _label_axis(axes, place, np.log(values), ticks, [short(float(f"{tick:.3g}")) for tick in np.exp(ticks)])


def _label_axis(
    axes: Axes, place: int, values: np.ndarray, ticks: np.ndarray, labels: Sequence[str] | None = None
) -> np.ndarray:
    """Writes labels beside an axis from the first tick, at 0, to the last, at 1; returns where values lie on it."""
    labels = labels or [short(float(f"{tick:.3g}")) for tick in ticks]
    box: Any = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6}
    low, span = ticks[0], max(float(np.ptp(ticks)), 1e-12)
    for tick, label in zip(ticks, labels, strict=True):
        axes.text(place + 0.03, (tick - low) / span, label, fontsize=7, va="center", zorder=8, bbox=box)
    return np.asarray((values - low) / span)


def _wrapped(text: str, width: int = 12) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
