"""Pictures and tables that compare families of configurations: over the whole space, not for one lucky setting.

Every picture is written as PNG, SVG and PDF with its numbers in a CSV beside it. Families are told apart by Okabe and
Ito's colours and by line styles and markers, so that print and colour-blind readers lose nothing.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hyperlax.analysis import statistics
from hyperlax.analysis.collection import Entry, environments
from hyperlax.analysis.figures import COLOURS, FORMATS, LINES, MARKERS, beside, picture, write_numbers
from hyperlax.analysis.tables import is_numeric, label_of
from hyperlax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_RESAMPLES = 1000
_HEIGHT = 3.4  # of a panel, in inches
_MOST_CORRELATIONS = 12  # in a panel

OF_ONE = {"iqm": statistics.interquartile_mean, "median": statistics.median_of_runs}
OVERALL = {
    "iqm": statistics.interquartile_mean,
    "mean": statistics.mean,
    "median": statistics.median,
    "optimality_gap": statistics.optimality_gap,
}

Draw = Callable[["Axes", list[Entry], dict[str, dict[str, Any]]], list[dict[str, Any]]]


def plot_comparison(entries: Sequence[Entry], folder: Path, formats: Sequence[str] = FORMATS) -> dict[str, Path]:
    """Draws everything that can be said of some families; returns the first file of each picture by its title.

    Performance profiles are drawn where there are families to compare: of one, they say what its distribution says.
    What a budget buys is left out of searches, whose trials are no independent draws.

    Raises:
        UserError: the folder cannot be written.
    """
    pictures: dict[str, tuple[str, Draw, bool]] = {
        "best_found_returns": ("Final returns of all configurations", draw_distributions, False),
        "expected_best": ("What a search budget buys: expected best of k configurations", draw_expected_best, False),
        "performance_profiles": ("Share of configurations above a return", draw_profiles, False),
        "learning_curves": ("Learning curves: median and middle half of configurations", draw_curves, True),
        "hyperparameters": ("Rank correlation with the final return", draw_importances, False),
    }
    if len(entries) == 1:
        del pictures["performance_profiles"]
    drawn = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (title, draw, needs_runs) in pictures.items():
            height = _HEIGHT if draw is not draw_importances else _height_of_importances(entries)
            some = [entry for entry in entries if entry.run is not None or not needs_runs]
            if draw is draw_expected_best:
                some = [entry for entry in some if entry.is_drawn]
            if draw is draw_importances:
                some = [entry for entry in some if _numbers_that_vary(entry)]
            if some:
                drawn[title] = _figure(some, draw, title, folder / name, formats, height)
        write_numbers(aggregates(entries), folder / "aggregates")
        if len(entries) > 1:
            write_numbers(improvements(entries), folder / "improvement")
        across = overall(entries)
        if len(across):
            write_numbers(across, folder / "overall")
    except OSError as error:
        raise UserError(f"'{folder}': cannot write there: {error.strerror}") from None
    return drawn


def aggregates(entries: Sequence[Entry]) -> pd.DataFrame:
    """Returns a row a family and environment: robust means over its configurations, with 95% bootstrap intervals."""
    rows = []
    for entry in entries:
        values = entry.returns[:, None]
        row: dict[str, Any] = {
            "environment": entry.environment,
            "family": entry.family,
            "configurations": len(entry.summary),
            "completed": int((entry.summary["status"] == "COMPLETED").sum()),
            "best": float(values.max()),
        }
        rows.append(row | _estimates(values, OF_ONE))
    return pd.DataFrame(rows).sort_values(["environment", "iqm"], ascending=[True, False], ignore_index=True)


def improvements(entries: Sequence[Entry]) -> pd.DataFrame:
    """Returns how likely a configuration of one family beats one of another, for each pair in an environment."""
    columns = ["environment", "family", "other", "probability", "low", "high"]
    rows = []
    for environment, some in environments(entries).items():
        for one, other in itertools.combinations(some, 2):
            estimate = statistics.probability_of_improvement(one.returns[:, None], other.returns[:, None], _RESAMPLES)
            values = [environment, one.family, other.family, *map(float, estimate)]
            rows.append(dict(zip(columns, values, strict=True)))
    return pd.DataFrame(rows, columns=columns)


def overall(entries: Sequence[Entry]) -> pd.DataFrame:
    """Returns a row a family over the environments that all of them have in common, if there are several.

    Returns are scaled in each environment such that the worst of any family is 0 and the best 1; intervals are those of
    a bootstrap stratified by environment. A family is left out that is in one environment only, or whose numbers of
    configurations differ.
    """
    panels = environments(entries)
    own: dict[str, dict[str, np.ndarray]] = {}
    for environment, some in panels.items():
        low = min(entry.returns.min() for entry in some)
        span = max(entry.returns.max() for entry in some) - low
        for entry in some:
            scaled = (entry.returns - low) / span if span else np.ones_like(entry.returns)
            own.setdefault(entry.family, {})[environment] = scaled
    own = {f: scores for f, scores in own.items() if len(scores) > 1 and len({len(s) for s in scores.values()}) == 1}
    common = sorted(set.intersection(*(set(scores) for scores in own.values()))) if own else []
    rows = []
    for family, scores in own.items() if len(common) > 1 else ():
        values = np.stack([scores[environment] for environment in common], axis=1)
        row: dict[str, Any] = {"family": family, "environments": ", ".join(common), "configurations": len(values)}
        rows.append(row | _estimates(values, OVERALL))
    return pd.DataFrame(rows).sort_values("iqm", ascending=False, ignore_index=True) if rows else pd.DataFrame()


def _estimates(scores: np.ndarray, wanted: Mapping[str, statistics.Statistic]) -> dict[str, float]:
    """Returns some statistics of ``(runs, tasks)``, each with the ends of its interval, by name."""
    row: dict[str, float] = {}
    for name, statistic in wanted.items():
        value, low, high = map(float, statistics.with_interval(scores, statistic, _RESAMPLES))
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return row


def warn_of_few(entries: Sequence[Entry]) -> None:
    """Logs a warning where configurations are too few for the intervals to be believed."""
    for entry in entries:
        if len(entry.summary) < statistics.FEWEST_RUNS:
            log.warning(
                "%s on %s: intervals from %d configurations are too narrow; %d or more would tell",
                entry.family, entry.environment, len(entry.summary), statistics.FEWEST_RUNS,
            )  # fmt: skip


# --- pictures --------------------------------------------------------------------------------------


def draw_distributions(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws every configuration's final return as a point, the quartiles as a box and the best as a large mark."""
    rows = []
    for place, entry in enumerate(entries):
        style, values = styles[entry.family], np.sort(entry.returns)
        aside = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.55
        axes.scatter(place + aside, values, s=9, color=style["color"], alpha=0.55, linewidths=0, zorder=2)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        axes.add_patch(_box(place, low, high))
        axes.plot([place - 0.36, place + 0.36], [middle, middle], color="black", linewidth=1.4, zorder=4)
        axes.scatter(
            [place], [values[-1]], s=60, color=style["color"], marker=style["marker"], edgecolors="black", zorder=5
        )
        rows += [{"family": entry.family, "x": float(rank), "y": float(v)} for rank, v in enumerate(values, start=1)]
    axes.set_xticks(range(len(entries)), [entry.family for entry in entries], rotation=25, ha="right")
    axes.set_xlim(-0.6, len(entries) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("final return")
    return rows


def _box(place: float, low: float, high: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((place - 0.36, low), 0.72, high - low, fill=False, edgecolor="black", linewidth=0.9, zorder=3)


def draw_expected_best(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws the expected best of k configurations with a 95% bootstrap band, as far as half of those there are."""
    rows = []
    for entry in entries:
        estimate = statistics.expected_best(entry.returns, _RESAMPLES)
        count = len(entry.returns)
        k = np.arange(1, min(count, max(2, count // 2)) + 1)
        value, low, high = (part[: len(k)] for part in estimate)
        _band(axes, k, value, low, high, styles[entry.family], entry.family)
        rows += _rows(entry.family, k, value, low, high)
    axes.set(xlabel="configurations tried", ylabel="expected best final return")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    return rows


def draw_profiles(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws the share of configurations whose final return is above a threshold, with a 95% bootstrap band."""
    rows = []
    everything = np.concatenate([entry.returns for entry in entries])
    thresholds = np.linspace(everything.min(), everything.max(), 101)
    for entry in entries:
        estimate = statistics.with_interval(
            entry.returns[:, None], lambda scores: statistics.performance_profile(scores, thresholds), _RESAMPLES
        )
        _band(axes, thresholds, *estimate, styles[entry.family], entry.family)
        rows += _rows(entry.family, thresholds, *estimate)
    axes.set(xlabel="final return", ylabel="share of configurations above", ylim=(0, 1.02))
    return rows


def draw_curves(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws the median over configurations of their mean returns, and the band of their middle half.

    A configuration that was pruned keeps its last return; one that diverged counts as the worst from then on.
    """
    rows = []
    for entry in entries:
        assert entry.run is not None
        evaluations = entry.run.evaluations.dropna(subset=["mean_return"])
        means = evaluations.groupby(["grid_step", "sample_id"])["mean_return"].mean().unstack()
        diverged = entry.summary.loc[entry.summary["status"] == "DIVERGED", "sample_id"]
        means = means.reindex(columns=means.columns.union(diverged))
        means[diverged] = means[diverged].fillna(means.min().min())
        means = means.ffill()
        steps, values = means.index.to_numpy(float), means.to_numpy(float)
        low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=1)
        _band(axes, steps, middle, low, high, styles[entry.family], entry.family)
        rows += _rows(entry.family, steps, middle, low, high)
    axes.set(xlabel="environment steps", ylabel="mean evaluation return")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    return rows


def draw_importances(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws, for numeric hyperparameters, Spearman's ρ with the final return and its 95% bootstrap interval."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        for name in _numbers_that_vary(entry):
            column = entry.summary[name].to_numpy(float)
            rho, low, high = (float(x) for x in statistics.rank_correlation(column, entry.returns))
            rows.append({"family": entry.family, "x": name, "y": rho, "low": low, "high": high})
    strongest = pd.DataFrame(rows, columns=["family", "x", "y", "low", "high"])
    order = (
        strongest.groupby("x")["y"].agg(lambda y: y.abs().max()).sort_values(ascending=False).index[:_MOST_CORRELATIONS]
    )
    width = 0.8 / max(1, len(entries))
    for number, entry in enumerate(entries):
        own = strongest[strongest["family"] == entry.family].set_index("x")
        shown = [name for name in order if name in own.index]
        places = np.array([list(order).index(name) for name in shown]) + (number - (len(entries) - 1) / 2) * width
        style = styles[entry.family]
        values = own.loc[shown]
        errors = np.abs(values[["low", "high"]].to_numpy().T - values["y"].to_numpy())
        axes.errorbar(
            values["y"], places, xerr=errors, fmt=style["marker"], color=style["color"], label=entry.family,
            markersize=4, elinewidth=1, linestyle="none",
        )  # fmt: skip
    axes.set_yticks(range(len(order)), [label_of(str(name)) for name in order])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="rank correlation with the final return")
    return rows


def _numbers_that_vary(entry: Entry) -> list[str]:
    columns = {name: entry.summary[name] for name in entry.hyperparameters}
    return [name for name, column in columns.items() if is_numeric(column) and column.nunique() > 1]


def _height_of_importances(entries: Sequence[Entry]) -> float:
    """Returns how high a panel must be for a line a family and hyperparameter."""
    families = max(map(len, environments(entries).values()))
    return max(_HEIGHT, _MOST_CORRELATIONS * (0.1 + 0.08 * families))


# --- how they are drawn --------------------------------------------------------------------------


def _figure(
    entries: Sequence[Entry], draw: Draw, title: str, stem: Path, formats: Sequence[str], height: float
) -> Path:
    """Draws a panel an environment and writes the picture in all formats, with its numbers."""
    panels = environments(entries)
    families = sorted({entry.family for entry in entries})
    styles = {
        family: {
            "color": COLOURS[i % len(COLOURS)],
            # Shifted after each round of the colours: no two families look alike.
            "linestyle": LINES[(i + i // len(COLOURS)) % len(LINES)],
            "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
        }
        for i, family in enumerate(families)
    }
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    rows = []
    size = (1.2 + 4.2 * columns, 0.9 + height * lines)
    with picture(stem, title, size, formats) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (environment, some) in zip(grid, panels.items(), strict=False):
            rows += [{"environment": environment, **row} for row in draw(axes, some, styles)]
            axes.set_title(environment)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        handles = {h[1]: h[0] for axes in grid for h in zip(*axes.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    write_numbers(pd.DataFrame(rows), stem)
    return beside(stem, formats[0])


def _band(
    axes: Axes, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray, style: dict[str, Any], label: str
) -> None:
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    marker = style["marker"] if len(x) == 1 else ""  # one point draws no line
    axes.plot(x, y, color=style["color"], linestyle=style["linestyle"], linewidth=1.6, marker=marker, label=label)


def _rows(family: str, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
    names = ("x", "y", "low", "high")
    points = np.stack([x, y, low, high], axis=1).tolist()
    return [{"family": family, **dict(zip(names, point, strict=True))} for point in points]
