"""Pictures of populations: who took up whose state, and what became of the hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hyperlax.analysis.figures import COLOURS, Drawing
from hyperlax.analysis.tables import is_logarithmic, label_of
from hyperlax.results import Run
from hyperlax.results.lineage import LINEAGE, LINEAGE_COLUMNS, ancestry
from hyperlax.results.storage import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 5  # hyperparameters that are drawn
_WINNER, _OTHERS, _COPY = COLOURS[0], "#9a9a9a", COLOURS[3]


def lineage_drawing(run: Run) -> Drawing | None:
    """Returns, of a run of populations, that of the best member.

    Above: the return of every member, with a link wherever one took up another's state; the ancestry of the best is
    thick. Below: the hyperparameters that moved farthest, a line a member, and those of the same ancestry.
    """
    lineage = read_table(run.path / LINEAGE, LINEAGE_COLUMNS)
    if lineage.empty:
        return None
    best = int(run.summary["sample_id"].iloc[0])
    line = pd.DataFrame(ancestry(lineage.to_dict("records"), best))
    own = lineage[lineage["population"] == line["population"].iloc[0]]
    names = _most_moved(own, [str(name) for name in own.columns if name not in LINEAGE_COLUMNS])
    population = line["population"].iloc[0]
    title = f"Population {population}: thick, the line of member {best}, the best at the end; orange, states taken up"
    return Drawing(title, (10, 7 if names else 4), partial(_draw, run, own, line, names))


def _draw(run: Run, own: pd.DataFrame, line: pd.DataFrame, names: list[str], figure: Figure) -> pd.DataFrame:
    rows: Any = figure.subfigures(2, 1, height_ratios=[1.3, 1]) if names else [figure]
    _draw_returns(rows[0].subplots(), run, own, line)
    if names:
        for axes, name in zip(rows[1].subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _draw_values(axes, own, line, name, float(run.info.get("budget_steps", own["grid_step"].max())))
    ancestors = set(zip(line["generation"], line["member"], strict=True))
    return own.assign(in_line=[row in ancestors for row in zip(own["generation"], own["member"], strict=True)])


def _most_moved(own: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Returns the hyperparameters that the population moved farthest, in deviations of where it began."""
    first, last = (own[own["generation"] == end] for end in (own["generation"].min(), own["generation"].max()))

    def shift(name: str) -> float:
        spread = float(first[name].std())
        return abs(float(last[name].median() - first[name].median())) / spread if spread else 0.0

    return sorted(names, key=shift, reverse=True)[:_MOST]


def _draw_returns(axes: Axes, run: Run, own: pd.DataFrame, line: pd.DataFrame) -> None:
    curves = run.evaluations.pivot_table(index="grid_step", columns="sample_id", values="mean_return")
    copied = own[(own["parent"] != own["member"]) & own["grid_step"].isin(curves.index)]
    for member in sorted(set(own["member"]) & set(curves.columns)):
        # After a copy a member goes on from where its parent is.
        jumps = copied[copied["member"] == member]
        news = pd.Series([curves.loc[row.grid_step, row.parent] for row in jumps.itertuples()], jumps["grid_step"])
        curve = pd.concat([curves[member], news]).sort_index(kind="stable")
        axes.plot(curve.index.to_numpy(float), curve, color=_OTHERS, linewidth=0.7, alpha=0.7, zorder=1)
        for step, value in news.items():
            ends = [curves.loc[step, member], value]
            axes.plot([step] * 2, ends, color=_COPY, linewidth=0.8, marker="^", markevery=[1], ms=3.5, zorder=2)
    steps = curves.index.to_numpy(float)
    ancestors = line["member"].to_numpy()[np.searchsorted(line["grid_step"], steps) - 1]
    returns = [curves.loc[step, member] for step, member in zip(curves.index, ancestors, strict=True)]
    axes.plot(steps, returns, color=_WINNER, linewidth=2.2, zorder=3)
    axes.set(xlabel="environment steps", ylabel="mean evaluation return")
    _in_thousands(axes)


def _draw_values(axes: Axes, own: pd.DataFrame, line: pd.DataFrame, name: str, end: float) -> None:
    for _, rows in own.groupby("member"):
        _steps(axes, rows, name, end, color=_OTHERS, linewidth=0.6, alpha=0.7)
    _steps(axes, line, name, end, color=_WINNER, linewidth=2)
    values = own[name]
    if is_logarithmic(values):
        axes.set_yscale("log")
    axes.set_title(label_of(name), fontsize=9)
    axes.set_xlabel("environment steps")
    _in_thousands(axes)


def _in_thousands(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _steps(axes: Axes, rows: pd.DataFrame, name: str, end: float, **style: Any) -> None:
    x, y = rows["grid_step"].to_numpy(float), rows[name].to_numpy(float)
    axes.step(np.append(x, end), np.append(y, y[-1]), where="post", **style)
