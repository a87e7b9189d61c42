"""One picture of a sweep: how every sample learnt, how good they ended, and what mattered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hyperlax.analysis.collection import without_lost
from hyperlax.analysis.figures import COLOURS, STATUS_STYLE, label_of_status, picture
from hyperlax.analysis.tables import (
    important_hyperparameters,
    is_categorical,
    is_logarithmic,
    is_numeric,
    label_of,
    short,
)
from hyperlax.errors import UserError
from hyperlax.results import STATUSES, Run
from hyperlax.results.storage import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HYPERPARAMETERS = 4
_BEST = COLOURS[0]
_OTHERS = "#9a9a9a"


def plot_sweep(run: Run, path: str | Path) -> Path:
    """Draws a run as a PNG, with every number in it in a CSV beside it; returns the PNG's path.

    Above left: learning curves, mean over seeds, the best sample's with a band of one
    standard deviation over seeds. Above right: the final returns of all samples, sorted.
    Below: final return against the hyperparameters that matter most by themselves (see
    `important_hyperparameters`). The CSV has columns ``panel``, ``sample_id``, ``x``,
    ``y``, ``spread``, ``status``.

    Raises:
        UserError: nothing has been evaluated yet, or the file cannot be written.
    """
    path = Path(path).with_suffix(".png")
    if run.summary["final_return"].notna().sum() == 0:
        raise UserError(f"'{run.path}': nothing to plot, no sample of this run has been evaluated yet")
    chosen = important_hyperparameters(without_lost(run.summary), run.hyperparameters)[:_HYPERPARAMETERS]
    numbers = _numbers(run, [name for name, _ in chosen])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path.with_suffix(".csv"), numbers.to_csv(index=False, lineterminator="\n").encode())
        _draw(run, numbers, chosen, path)
    except OSError as error:
        raise UserError(f"'{path}': cannot write the plot there: {error.strerror}") from None
    return path


def _numbers(run: Run, names: list[str]) -> pd.DataFrame:
    """Returns everything that is drawn: one row a point."""
    finite = run.evaluations[run.evaluations["mean_return"].notna()]
    grouped = finite.groupby(["sample_id", "grid_step"])["mean_return"]
    curves = grouped.agg(y="mean", spread="std").reset_index().rename(columns={"grid_step": "x"})
    tables = [curves.assign(panel="learning curve")]
    columns = ["sample_id", "final_return", "final_return_std", "status"]
    ranked = run.summary[columns].rename(columns={"final_return": "y", "final_return_std": "spread"})
    tables.append(ranked.assign(panel="final return", x=np.arange(1, len(ranked) + 1)))
    tables += [ranked.assign(panel=name, x=run.summary[name]) for name in names]
    table = pd.concat([part.astype({"x": object}) for part in tables], ignore_index=True)
    return table[["panel", "sample_id", "x", "y", "spread", "status"]]


def _draw(run: Run, numbers: pd.DataFrame, chosen: list[tuple[str, float]], path: Path) -> None:
    with picture(path.with_suffix(""), _title(run), (10, 6.4 if chosen else 4), ("png",)) as figure:
        rows: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1]) if chosen else [figure]
        left, right = rows[0].subplots(1, 2, width_ratios=[1.35, 1])
        _draw_curves(left, numbers, run)
        _draw_ranking(right, numbers[numbers["panel"] == "final return"])
        if chosen:
            lower = list(rows[1].subplots(1, len(chosen), sharey=True, squeeze=False)[0])
            lower[0].set_ylabel("final return")
            for axes, (name, importance) in zip(lower, chosen, strict=True):
                title = f"explains {importance**2:.0%} of the ranks" if importance > 0 else ""
                draw_hyperparameter(axes, numbers[numbers["panel"] == name], name, title)


def _draw_curves(axes: Axes, numbers: pd.DataFrame, run: Run) -> None:
    curves = numbers[numbers["panel"] == "learning curve"]
    completed = run.summary[run.summary["status"] == STATUSES[0]]
    best = (completed if len(completed) else run.summary)["sample_id"].iloc[0]
    for sample_id, curve in curves.groupby("sample_id"):
        x, y = curve["x"].astype(float), curve["y"]
        if sample_id == best:
            spread = curve["spread"].fillna(0)
            axes.fill_between(x, y - spread, y + spread, color=_BEST, alpha=0.2, linewidth=0, zorder=3)
            axes.plot(x, y, color=_BEST, linewidth=2, marker="o", markersize=3, zorder=4)
        else:
            marker = "." if len(curve) == 1 else ""  # one evaluation draws no line
            axes.plot(x, y, color=_OTHERS, linewidth=0.7, alpha=0.6, marker=marker, zorder=2)
    # In the title and not in a legend, which would hide curves wherever it stood.
    title = f"Learning curves, mean over seeds; thick: best, sample {best} ± std"
    axes.set(xlabel="environment steps", ylabel="mean evaluation return", title=title)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)


def _draw_ranking(axes: Axes, ranked: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    valid = ranked[ranked["y"].notna()]
    axes.errorbar(
        valid["x"].astype(float), valid["y"], yerr=valid["spread"].fillna(0), fmt="none", ecolor="#bbbbbb", zorder=1
    )
    for status in statuses_of(ranked):
        points = valid[valid["status"] == status]
        marker, colour = STATUS_STYLE.get(status, ("o", "black"))
        count = int((ranked["status"] == status).sum())
        label = f"{label_of_status(status)} ({count})"
        axes.scatter(points["x"].astype(float), points["y"], s=22, marker=marker, color=colour, label=label, zorder=3)
    absent = len(ranked) - len(valid)
    title = "Final returns, sorted" + (f" ({absent} without any)" if absent else "")
    axes.set(xlabel="rank", ylabel="final return", title=title, xlim=(0.5, max(len(valid), 1) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="best", handletextpad=0.1)


def draw_hyperparameter(axes: Axes, points: pd.DataFrame, name: str, title: str = "") -> None:
    """Draws returns ``y`` against values ``x`` of a hyperparameter; rows are samples, the best first."""
    values = points["x"].infer_objects()
    if is_categorical(values):
        _draw_strip(axes, points, values)
    else:
        _draw_points(axes, points, values.to_numpy(float))
        if is_logarithmic(values):
            axes.set_xscale("log")
            axes.minorticks_off()  # they take most of the time that such a picture does
    axes.set_xlabel(label_of(name))
    if title:
        axes.set_title(title, fontsize=8, color="#555555")


def _draw_points(axes: Axes, points: pd.DataFrame, places: np.ndarray) -> None:
    """Draws returns; of samples without any, a mark on the axis tells where they are."""
    reached = points["y"].notna().to_numpy()
    best = np.arange(reached.sum()) == 0  # the summary's order: best first
    style: Any = {"s": np.where(best, 44, 16), "color": np.where(best, _BEST, "#666666")}
    axes.scatter(places[reached], points["y"][reached], linewidths=0, zorder=3, **style)
    for status in statuses_of(points[~reached]):
        marker, colour = STATUS_STYLE[status]
        absent = places[~reached & (points["status"] == status).to_numpy()]
        transform = axes.get_xaxis_transform()
        axes.scatter(absent, 0 * absent, 16, colour, marker=marker, transform=transform, clip_on=False, zorder=3)


def _draw_strip(axes: Axes, points: pd.DataFrame, values: pd.Series) -> None:
    """Draws one column of points a value, spread sideways so that they do not hide each other."""
    labels, positions = in_columns(values)
    within = points.groupby(positions).cumcount().to_numpy()
    aside = (within * 0.618 % 1 - 0.5) * 0.5  # golden ratio: even, and the same every time
    _draw_points(axes, points, positions + aside)
    for place in range(len(labels)):
        returns = points["y"].to_numpy()[positions == place]
        if not np.isnan(returns).all():
            median = float(np.nanmedian(returns))
            axes.plot([place - 0.32, place + 0.32], [median, median], color="black", linewidth=1.5, zorder=4)
    turned: Any = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, labels)) > 24 else {}
    axes.set_xticks(range(len(labels)), labels, **turned)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="x")


def in_columns(values: pd.Series) -> tuple[list[str], np.ndarray]:
    """Returns the labels of different values, in order, and the place of each value among them."""
    order = sorted(values.unique()) if is_numeric(values) else sorted(values.astype(str).unique(), key=_natural)
    keys = values if is_numeric(values) else values.astype(str)
    places = {value: place for place, value in enumerate(order)}
    return [short(value) for value in order], keys.map(places).to_numpy(float)


def _natural(text: str) -> tuple[list[float], str]:
    """Sorts ``[32, 32]`` before ``[128, 128]``."""
    digits = "".join(character if character.isdigit() or character == "." else " " for character in text)
    return [float(word) for word in digits.split() if word.strip(".")], text


def statuses_of(ranked: pd.DataFrame) -> list[str]:
    """Returns the statuses that occur, best first."""
    present = set(ranked["status"])
    return [status for status in (*STATUSES, "UNFINISHED") if status in present]


def _title(run: Run) -> str:
    known = [str(run.info[key]) for key in ("recipe", "environment") if key in run.info]
    samples, seeds = len(run.summary), int(run.summary["seeds"].max())
    counted = f"{samples} sample{'s' * (samples != 1)} x {seeds} seed{'s' * (seeds != 1)}"
    return ", ".join([*known, counted]) + ("" if run.info.get("state") == "finished" else f" ({run.info.get('state')})")
