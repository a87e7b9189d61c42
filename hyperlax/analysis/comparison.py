"""Pictures and tables that compare families of configurations: over the whole space, not for one lucky setting.

Every picture is written as PNG, SVG and PDF with its numbers in a CSV beside it. Families are told apart by Okabe and
Ito's colours and by line styles and markers, so that print and colour-blind readers lose nothing.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from hyperlax.analysis import statistics
from hyperlax.analysis.collection import Entry, environments
from hyperlax.analysis.figures import COLOURS, FORMATS, LINES, MARKERS, beside, picture, write_numbers, writing_to
from hyperlax.analysis.tables import is_numeric, label_of
from hyperlax.errors import UserError, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_RESAMPLES = 1000
_HEIGHT = 3.4  # of a panel, in inches
_MOST_CORRELATIONS = 12  # in a panel

OF_ONE = {"iqm": statistics.interquartile_mean, "median": statistics.median_of_runs}
OVERALL = {"iqm": statistics.interquartile_mean, "mean": statistics.mean, "median": statistics.median}
_UNKNOWN = np.array(np.nan)

Draw = Callable[["Axes", list[Entry], dict[str, dict[str, Any]]], list[dict[str, Any]]]


def plot_comparison(entries: Sequence[Entry], folder: Path, formats: Sequence[str] = FORMATS) -> dict[str, Path]:
    """Draws everything that can be said of some families; returns the first file of each picture by its title.

    Performance profiles are drawn where there are families to compare: of one, they say what its distribution says.
    What a budget buys is told of independent draws alone.

    Raises:
        UserError: the folder cannot be written.
    """
    pictures: dict[str, tuple[str, Draw, Callable[[Entry], Any]]] = {
        "final_returns": ("Final returns of all configurations", draw_finals, _any),
        "best_found_returns": ("Best return that each configuration found while it trained", draw_peaks, _any),
        "expected_best": (
            "What a search budget buys: expected best of k configurations", draw_expected_best, _is_drawn
        ),
        "performance_profiles": ("Share of configurations above a return", draw_profiles, _any),
        "learning_curves": ("Learning curves: median and middle half of configurations", draw_curves, _has_curves),
        "hyperparameters": ("Rank correlation with the final return", draw_correlations, _numbers_that_vary),
    }  # fmt: skip
    if len(entries) == 1:
        del pictures["performance_profiles"]
    styles, drawn = _styles(entries), {}
    with writing_to(folder):
        for name, (title, draw, has_some) in pictures.items():
            height = _HEIGHT if draw is not draw_correlations else _height_of_correlations(entries)
            some = [entry for entry in entries if has_some(entry)]
            if some:
                drawn[title] = _figure(some, draw, title, folder / name, formats, height, styles)
    return drawn


def _any(entry: Entry) -> bool:
    return True


def _is_drawn(entry: Entry) -> bool:
    return entry.is_drawn


def _has_curves(entry: Entry) -> bool:
    return entry.run is not None and bool(entry.run.evaluations["mean_return"].notna().any())


# --- tables ----------------------------------------------------------------------------------------


class Tables(NamedTuple):
    """What some families come to, in numbers.

    Attributes:
        aggregates: see :func:`aggregates`.
        improvements: see :func:`improvements`.
        overall: see :func:`overall`.
    """

    aggregates: pd.DataFrame
    improvements: pd.DataFrame
    overall: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Writes those that have rows as CSV files.

        Raises:
            UserError: the folder cannot be written.
        """
        files = {"aggregates": self.aggregates, "improvement": self.improvements, "overall": self.overall}
        with writing_to(folder):
            for name, table in files.items():
                if len(table):
                    write_numbers(table, folder / name)


def tables(entries: Sequence[Entry], goals: Mapping[str, float] | None = None) -> Tables:
    """Returns what some families come to.

    Args:
        entries: the families.
        goals: returns with which environments count as solved; those that are given have optimality gaps.

    Raises:
        UserError: a goal is of no environment that there is, or no better than the worst configuration there.
    """
    goals = goals or {}
    panels = environments(entries)
    for environment, goal in goals.items():
        if environment not in panels:
            raise unknown("environment of a goal", environment, panels)
        worst = min(entry.returns.min() for entry in panels[environment])
        if not goal > worst:
            raise UserError(f"goal {goal:g} of {environment}: accepted are returns above {worst:g}, the worst there is")
    return Tables(aggregates(entries, goals), improvements(entries), overall(entries, goals))


def aggregates(entries: Sequence[Entry], goals: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Returns a row a family and environment: robust means over its configurations, with 95% bootstrap intervals.

    There are intervals where configurations are independent draws. ``best`` is the best that trained to its end, which
    looks better than it is; ``fresh_seeds`` what that one reaches on seeds that did not select it, where it was tried.
    An optimality gap is in units of the return.
    """
    goals = goals or {}
    rows = [
        {"environment": entry.environment, "family": entry.family} | aggregated(entry, goals.get(entry.environment))
        for entry in entries
    ]
    return pd.DataFrame(rows).sort_values(["environment", "iqm"], ascending=[True, False], ignore_index=True)


def aggregated(entry: Entry, goal: float | None = None) -> dict[str, Any]:
    """Returns what :func:`aggregates` says of one family in one environment."""
    winner = (entry.run.info.get("winner") if entry.run is not None else None) or {}
    row: dict[str, Any] = {
        "configurations": len(entry.summary),
        "completed": int((entry.summary["status"] == "COMPLETED").sum()),
        "best": entry.best,
        "fresh_seeds": winner.get("fresh_seeds_final_return"),
    }
    wanted = OF_ONE | ({} if goal is None else {"optimality_gap": partial(statistics.optimality_gap, goal=goal)})
    return row | _estimates(entry.returns[:, None], wanted, entry.is_drawn) | {"configurations_are": entry.origin}


def improvements(entries: Sequence[Entry]) -> pd.DataFrame:
    """Returns how likely a configuration of one family beats one of another, for each pair in an environment."""
    columns = ["environment", "family", "other", "probability", "low", "high"]
    rows = []
    for environment, some in environments(entries).items():
        for one, other in itertools.combinations(some, 2):
            estimate = statistics.probability_of_improvement(one.returns[:, None], other.returns[:, None], _RESAMPLES)
            if not (one.is_drawn and other.is_drawn):
                estimate = statistics.Estimate(estimate.value, _UNKNOWN, _UNKNOWN)
            values = [environment, one.family, other.family, *map(float, estimate)]
            rows.append(dict(zip(columns, values, strict=True)))
    return pd.DataFrame(rows, columns=columns)


def overall(entries: Sequence[Entry], goals: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Returns a row a family over several environments, those that most families have in common.

    Returns are scaled in each environment such that the worst of any family is 0 and the goal 1, by default the best of
    any; intervals are those of a bootstrap stratified by environment. How far families are from the goals is told where
    all environments have one: the best that was found is no goal that could be missed. Families are left out, and
    named, that are not in all of these environments, or whose numbers of configurations differ between them.
    """
    goals = goals or {}
    own: dict[str, dict[str, np.ndarray]] = {}
    drawn: dict[str, bool] = {}
    for environment, some in environments(entries).items():
        low = min(entry.returns.min() for entry in some)
        span = goals.get(environment, max(entry.returns.max() for entry in some)) - low
        for entry in some:
            scaled = (entry.returns - low) / span if span else np.ones_like(entry.returns)
            own.setdefault(entry.family, {})[environment] = scaled
            drawn[entry.family] = drawn.get(entry.family, True) and entry.is_drawn
    common = _common([set(scores) for scores in own.values()])
    if len(common) < 2:
        return pd.DataFrame()
    wanted = OVERALL | ({"optimality_gap": statistics.optimality_gap} if common <= set(goals) else {})
    rows, left_out = [], []
    for family, scores in own.items():
        if not common <= set(scores) or len({len(scores[environment]) for environment in common}) > 1:
            left_out.append(family)
            continue
        values = np.stack([scores[environment] for environment in sorted(common)], axis=1)
        row = {"family": family, "environments": ", ".join(sorted(common)), "configurations": len(values)}
        rows.append(row | _estimates(values, wanted, drawn[family]))
    if left_out:
        log.info("over %s there are no figures of %s", ", ".join(sorted(common)), ", ".join(left_out))
    return pd.DataFrame(rows).sort_values("iqm", ascending=False, ignore_index=True) if rows else pd.DataFrame()


def _common(sets: Sequence[set[str]]) -> set[str]:
    """Returns what most of some sets have in common, two or more; of several such the largest."""
    parts = [one & other for one in sets for other in sets if len(one & other) > 1]
    return max(parts, key=lambda part: (sum(part <= some for some in sets), len(part), sorted(part)), default=set())


def _estimates(scores: np.ndarray, wanted: Mapping[str, statistics.Statistic], independent: bool) -> dict[str, float]:
    """Returns some statistics of ``(runs, tasks)``, each with the ends of its interval, by name."""
    row: dict[str, float] = {}
    for name, statistic in wanted.items():
        value, low, high = map(float, _estimate(scores, statistic, independent))
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return row


def _estimate(scores: np.ndarray, statistic: statistics.Statistic, independent: bool) -> statistics.Estimate:
    """Returns a statistic with its interval, which is unknown where runs depend on each other."""
    if independent:
        return statistics.with_interval(scores, statistic, _RESAMPLES)
    value = statistic(scores[None])[0]
    return statistics.Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))


def warn_of_few(entries: Sequence[Entry]) -> None:
    """Logs a warning where configurations are too few for the intervals to be believed."""
    for entry in entries:
        if entry.is_drawn and len(entry.summary) < statistics.FEWEST_RUNS:
            log.warning(
                "%s on %s: intervals from %d configurations are too narrow; %d or more would tell",
                entry.family, entry.environment, len(entry.summary), statistics.FEWEST_RUNS,
            )  # fmt: skip


# --- pictures --------------------------------------------------------------------------------------


def draw_finals(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws every configuration's final return."""
    axes.set_ylabel("final return")
    return _draw_distributions(axes, entries, [entry.returns for entry in entries], styles)


def draw_peaks(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws the best return that every configuration has found."""
    axes.set_ylabel("best return found")
    return _draw_distributions(axes, entries, [entry.peaks for entry in entries], styles)


def _draw_distributions(
    axes: Axes, entries: list[Entry], all_values: list[np.ndarray], styles: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Draws a point a configuration, the quartiles as a box and the best as a large mark."""
    rows = []
    for place, (entry, unsorted) in enumerate(zip(entries, all_values, strict=True)):
        style, values = styles[entry.family], np.sort(unsorted)
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
    return rows


def _box(place: float, low: float, high: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((place - 0.36, low), 0.72, high - low, fill=False, edgecolor="black", linewidth=0.9, zorder=3)


def draw_expected_best(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws the expected best of k configurations with a 95% bootstrap band, as far as half of those there are."""
    rows = []
    for entry in entries:
        count = len(entry.returns)
        most = min(count, max(2, count // 2))
        k = np.unique(np.concatenate([np.arange(1, min(most, 64) + 1), np.geomspace(1, most, 64).round().astype(int)]))
        estimate = statistics.expected_best(entry.returns, k, _RESAMPLES)
        _band(axes, k, *estimate, styles[entry.family], entry.family)
        rows += _rows(entry.family, k, *estimate)
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
        profile = partial(statistics.performance_profile, thresholds=thresholds)
        estimate = _estimate(entry.returns[:, None], profile, entry.is_drawn)
        _band(axes, thresholds, *estimate, styles[entry.family], entry.family)
        rows += _rows(entry.family, thresholds, *estimate)
    axes.set(xlabel="final return", ylabel="share of configurations above", ylim=(0, 1.02))
    return rows


def draw_curves(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws the median over configurations of their mean returns, and the band of their middle half.

    A configuration that was pruned keeps its last return; one that diverged or failed is the worst from then on.
    """
    rows = []
    for entry in entries:
        assert entry.run is not None
        evaluations = entry.run.evaluations.dropna(subset=["mean_return"])
        means = evaluations.groupby(["grid_step", "sample_id"])["mean_return"].mean().unstack()
        lost = entry.summary.loc[entry.lost, "sample_id"]
        means = means.reindex(columns=entry.summary["sample_id"])
        seeds = evaluations.groupby(["grid_step", "sample_id"])["seed"].nunique().unstack().reindex_like(means)
        whole = seeds.fillna(0) == len(entry.run.info.get("seeds", ())) if "seeds" in entry.run.info else seeds > 0
        means[lost] = means[lost].where(whole[lost].cummin())  # from where the first seed is lost
        worst = means.ffill().min(axis=1).clip(upper=entry.least)
        means[lost] = means[lost].T.fillna(worst).T
        means = means.ffill()
        steps, values = means.index.to_numpy(float), means.to_numpy(float)
        low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=1)
        _band(axes, steps, middle, low, high, styles[entry.family], entry.family)
        rows += _rows(entry.family, steps, middle, low, high)
    axes.set(xlabel="environment steps", ylabel="mean evaluation return")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    return rows


def draw_correlations(axes: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Draws, for numeric hyperparameters, Spearman's ρ with the final return and its 95% bootstrap interval."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        for name in _numbers_that_vary(entry):
            column = entry.summary[name].to_numpy(float)
            rho, low, high = (float(x) for x in statistics.rank_correlation(column, entry.returns))
            low, high = (low, high) if entry.is_drawn else (math.nan, math.nan)
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


def _height_of_correlations(entries: Sequence[Entry]) -> float:
    """Returns how high a panel must be for a line a family and hyperparameter."""
    families = max(map(len, environments(entries).values()))
    return max(_HEIGHT, _MOST_CORRELATIONS * (0.1 + 0.08 * families))


# --- how they are drawn --------------------------------------------------------------------------


def _styles(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Returns how each family is drawn, the same in all pictures."""
    return {
        family: {
            "color": COLOURS[i % len(COLOURS)],
            # Shifted after each round of the colours: no two families look alike.
            "linestyle": LINES[(i + i // len(COLOURS)) % len(LINES)],
            "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
        }
        for i, family in enumerate(sorted({entry.family for entry in entries}))
    }


def _figure(
    entries: Sequence[Entry],
    draw: Draw,
    title: str,
    stem: Path,
    formats: Sequence[str],
    height: float,
    styles: dict[str, dict[str, Any]],
) -> Path:
    """Draws a panel an environment and writes the picture in all formats, with its numbers."""
    panels = environments(entries)
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
            wide = int(size[0] / (0.6 + 0.085 * max(map(len, handles))))  # inches of a line, and of a letter
            ncols = max(1, min(4, wide, len(handles)))
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=ncols, frameon=False)
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
