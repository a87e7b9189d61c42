"""Pictures of how one run went: which lane did what and when, how fast, and how soon a search found its best."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hyperlax.analysis.figures import COLOURS, STATUS_STYLE, Drawing, label_of_status
from hyperlax.analysis.plots import statuses_of
from hyperlax.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOMENTS = 400  # at which the share of lanes is known
_SPANS = 60  # over which throughput is averaged
_MOST_NAMED_LANES = 24  # with more, bars are too thin for the numbers of samples
_MOST_APART = 64  # lanes with a gap between them
_HATCHES = {"PRUNED": "////", "TIMED_OUT": "....", "DIVERGED": "xxxx", "FAILED": "++++"}


# --- who ran where -------------------------------------------------------------------------------


def timeline_drawing(run: Run) -> Drawing | None:
    """Returns a bar for each (sample, seed) on its lane, and below the share of lanes and of cores that are busy."""
    lanes = _ended(run)
    if lanes.empty:
        return None
    moments, share = occupied(run)
    rows = len(lanes[["program", "lane"]].drop_duplicates())
    running = share[share > 0].mean() if (share > 0).any() else 0.0
    title = f"Lanes: {share.mean():.0%} occupied over {moments[-1]:,.1f} s, {running:.0%} while any ran"
    return Drawing(title, (8.5, 2.9 + min(6.0, 0.14 * rows)), partial(_draw_timeline, run, lanes))


def occupied(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Returns moments, in seconds from the start, and the share of lanes that something ran on.

    Those lanes count that the programs have between their first start and their last end; where no program runs,
    because one compiles or the winner is trained again, the share is 0.
    """
    lanes = _ended(run)
    end = max(float(run.info.get("seconds") or 0), lanes["wall_seconds_end"].max())
    moments = np.linspace(0, end, _MOMENTS)
    busy, there = np.zeros(_MOMENTS), np.zeros(_MOMENTS)
    planned = {row.get("program"): row.get("lanes") for row in run.info.get("programs") or ()}
    for program, some in lanes.groupby("program"):
        starts, ends = some["wall_seconds_start"].to_numpy(), some["wall_seconds_end"].to_numpy()
        seen = int(some["lane"].nunique())
        on = (starts <= moments[:, None]) & (moments[:, None] < ends)
        busy += on.sum(axis=1)
        there += ((starts.min() <= moments) & (moments < ends.max())) * max(seen, int(planned.get(program) or 0))
    return moments, np.minimum(np.divide(busy, there, out=np.zeros(_MOMENTS), where=there > 0), 1.0)


def busy_cores(run: Run, moments: np.ndarray) -> np.ndarray:
    """Returns the share of the cores that computed at some moments, a mean over the round; NaN where none is known.

    It is counted in ticks and evaluations, and with it what else the process did then: it compiles the next program.
    """
    rounds, shares = run.rounds, np.full(len(moments), np.nan)
    if run.info.get("device_kind") != "cpu":
        return shares
    for row in rounds.itertuples():
        length = row.wall_seconds_end - row.wall_seconds_start
        if length > 0:
            during = (row.wall_seconds_start <= moments) & (moments < row.wall_seconds_end)
            shares[during] = min(1.0, row.cpu_seconds / row.devices / length)
    return shares


def _ended(run: Run) -> pd.DataFrame:
    """Returns the (sample, seed)s whose lane and times are known."""
    known = ["program", "lane", "wall_seconds_start", "wall_seconds_end"]
    lanes = run.lanes.assign(**{name: pd.to_numeric(run.lanes[name]) for name in known}).dropna(subset=known)
    return lanes[lanes["wall_seconds_end"] >= lanes["wall_seconds_start"]]


def _draw_timeline(run: Run, lanes: pd.DataFrame, figure: Figure) -> pd.DataFrame:
    moments, share = occupied(run)
    places = lanes[["program", "lane"]].drop_duplicates().sort_values(["program", "lane"], ignore_index=True)
    row_of = {key: place for place, key in enumerate(places.itertuples(index=False, name=None))}
    rows = [row_of[key] for key in zip(lanes["program"], lanes["lane"], strict=True)]
    lanes = lanes.assign(row=rows)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[max(1.2, min(6.0, 0.14 * len(places))), 1.0])
    for status in statuses_of(lanes):
        _draw_bars(upper, lanes[lanes["status"] == status], status, apart=0.14 if len(places) <= _MOST_APART else 0)
    if len(places) <= _MOST_NAMED_LANES:
        _name_bars(upper, lanes, moments[-1])
    _label_lanes(upper, places)
    lower.fill_between(moments, share, color=COLOURS[5], alpha=0.5, linewidth=0, step="post")
    lower.step(moments, share, color=COLOURS[0], linewidth=1.2, where="post", label="lanes occupied")
    cores = busy_cores(run, moments)
    if np.isfinite(cores).any():
        lower.plot(moments, cores, color=COLOURS[3], linewidth=1.2, linestyle="--", label="cores computing")
        lower.legend(loc="lower left", fontsize=8)
    lower.set(xlabel="wall seconds", ylabel="share", ylim=(0, 1.02), xlim=(0, moments[-1] * 1.005))
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    bars = lanes[["program", "lane", "sample_id", "seed", "status", "wall_seconds_start", "wall_seconds_end"]]
    curve = pd.DataFrame({"wall_seconds_start": moments, "lanes_occupied": share, "cores_computing": cores})
    return pd.concat([bars.assign(panel="lanes"), curve.assign(panel="share")], ignore_index=True)


def _draw_bars(axes: Axes, bars: pd.DataFrame, status: str, apart: float) -> None:
    colour = STATUS_STYLE[status][1]
    lengths = bars["wall_seconds_end"] - bars["wall_seconds_start"]
    label = f"{label_of_status(status)} ({len(bars)})"
    axes.barh(
        bars["row"], lengths, left=bars["wall_seconds_start"], height=1 - apart, color=colour, alpha=0.75,
        hatch=_HATCHES.get(status), edgecolor="white", linewidth=3 * apart, label=label, zorder=2,
    )  # fmt: skip


def _name_bars(axes: Axes, bars: pd.DataFrame, end: float) -> None:
    """Writes the number of the sample in bars that are long enough for it."""
    for bar in bars.itertuples():
        if bar.wall_seconds_end - bar.wall_seconds_start > 0.035 * end:
            middle = (bar.wall_seconds_start + bar.wall_seconds_end) / 2
            box: Any = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.4}
            axes.text(middle, bar.row, bar.sample_id, ha="center", va="center", fontsize=6, zorder=4, bbox=box)


def _label_lanes(axes: Axes, places: pd.DataFrame) -> None:
    """Tells programs apart: a line between them, and the name of each."""
    firsts = places.groupby("program").apply(lambda group: group.index.min(), include_groups=False)
    sizes = places.groupby("program").size()
    ticks = [first + (sizes[program] - 1) / 2 for program, first in firsts.items()]
    apart = len(places) / 30  # names that would stand closer are left out
    shown = [n for n, tick in enumerate(ticks) if n == 0 or tick - ticks[n - 1] > apart]
    names = [f"program {int(program)}" for program in firsts.index]
    axes.set_yticks([ticks[n] for n in shown], [names[n] for n in shown])
    for first in firsts[1:]:
        axes.axhline(first - 0.5, color="black", linewidth=0.7)
    axes.set(ylim=(len(places) - 0.4, -0.6), ylabel="lanes")
    axes.grid(visible=False, axis="y")


# --- how fast ------------------------------------------------------------------------------------


def throughput_drawing(run: Run) -> Drawing | None:
    """Returns environment steps a second over the time of a run, and the wall seconds of every configuration."""
    edges, rates = throughput(run)
    timed = run.summary["wall_seconds"].notna().any()
    if not len(rates) or not timed:
        return None
    mean = float((rates * np.diff(edges)).sum() / edges[-1])
    title = f"Run time and throughput: {mean:,.0f} environment steps a second over {edges[-1]:,.1f} s"
    return Drawing(title, (9.2, 3.4), partial(_draw_throughput, run, edges, rates))


def throughput(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Returns the edges of spans of time and the environment steps a second in each, all lanes together.

    What a lane did between two evaluations, and from the last to its end, is spread evenly over that time.
    """
    points = _progress(run)
    if points.empty:
        return np.empty(0), np.empty(0)
    end = max(float(run.info.get("seconds") or 0), points["until"].max())
    edges = np.linspace(0, end, _SPANS + 1)
    since, until, steps = (points[name].to_numpy(float) for name in ("since", "until", "steps"))
    done = np.zeros(len(edges))
    for number, edge in enumerate(edges):
        done[number] = (steps * np.clip((edge - since) / (until - since), 0, 1)).sum()
    return edges, np.diff(done) / np.diff(edges)


def _progress(run: Run) -> pd.DataFrame:
    """Returns the steps of each (sample, seed) from one known moment to the next: ``since``, ``until``, ``steps``."""
    keys = ["sample_id", "seed"]
    lanes = _ended(run)
    starts = lanes[keys].assign(env_steps=0, wall_seconds=lanes["wall_seconds_start"])
    ends = lanes[[*keys, "env_steps"]].assign(wall_seconds=lanes["wall_seconds_end"])
    known = run.evaluations[[*keys, "env_steps", "wall_seconds"]]
    points = pd.concat([starts, known, ends], ignore_index=True).astype({"env_steps": float, "wall_seconds": float})
    points = points.dropna().sort_values([*keys, "env_steps", "wall_seconds"])
    before = points.groupby(keys)[["env_steps", "wall_seconds"]].shift()
    points = points.assign(since=before["wall_seconds"], until=points["wall_seconds"])
    points["steps"] = points["env_steps"] - before["env_steps"]
    return points[(points["until"] > points["since"]) & (points["steps"] > 0)]


def _draw_throughput(run: Run, edges: np.ndarray, rates: np.ndarray, figure: Figure) -> pd.DataFrame:
    from matplotlib.ticker import MaxNLocator

    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    left.stairs(rates, edges, fill=True, color=COLOURS[5], alpha=0.5)
    left.stairs(rates, edges, color=COLOURS[0], linewidth=1.2)
    left.set(xlabel="wall seconds", ylabel="environment steps a second", xlim=(0, edges[-1]), ylim=(0, None))
    left.yaxis.set_major_formatter("{x:,.0f}")
    timed = run.summary.dropna(subset=["wall_seconds"]).sort_values("wall_seconds", ignore_index=True)
    ranks = np.arange(1, len(timed) + 1)
    for status in statuses_of(timed):
        marker, colour = STATUS_STYLE[status]
        some = (timed["status"] == status).to_numpy()
        right.scatter(
            ranks[some], timed["wall_seconds"][some], s=20, marker=marker, color=colour, label=label_of_status(status)
        )
    right.set(xlabel="configurations, sorted", ylabel="wall seconds, first seed to last", ylim=(0, None))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False, handletextpad=0.1)
    rows = pd.DataFrame({"panel": "throughput", "x": edges[:-1], "x_end": edges[1:], "y": rates})
    times = timed[["sample_id", "status"]].assign(panel="wall seconds", x=ranks, y=timed["wall_seconds"])
    return pd.concat([rows, times], ignore_index=True)


# --- how soon ------------------------------------------------------------------------------------


def best_so_far_drawing(run: Run) -> Drawing | None:
    """Returns, of a search, the best completed trial against the number of finished trials and against time.

    Each objective has a line of its own.
    """
    if "study" not in run.info:
        return None
    table = best_so_far(run)
    if table["best"].notna().sum() == 0:
        return None
    aims = run.objectives
    title = "Best so far: " + ", ".join(f"{name.replace('_', ' ')} ({direction})" for name, direction in aims.items())
    return Drawing(title, (9.2, 0.9 + 2.6 * len(aims)), partial(_draw_best, table))


def best_so_far(run: Run) -> pd.DataFrame:
    """Returns a row an objective and trial that has ended, in the order of their ends.

    Columns: ``objective``, ``trial``, ``status``, ``finished``, how many have, ``wall_seconds``, ``value`` of the
    objective and the ``best`` of those that completed.
    """
    ends = _ended(run).groupby("sample_id")["wall_seconds_end"].max().rename("ended")
    table = run.summary[run.summary["status"] != "UNFINISHED"].join(ends, on="sample_id", how="inner")
    table = table.sort_values(["ended", "sample_id"], ignore_index=True)
    known = {"trial": table["sample_id"], "status": table["status"], "finished": np.arange(1, len(table) + 1)}
    parts = []
    for objective, direction in run.objectives.items():
        values = table[objective].astype(float).replace([np.inf, -np.inf], np.nan)
        completed = values.where(table["status"] == "COMPLETED")
        best = (completed.cummax() if direction == "maximize" else completed.cummin()).ffill()
        parts.append(pd.DataFrame({**known, "wall_seconds": table["ended"], "value": values, "best": best}))
        parts[-1].insert(0, "objective", objective)
    return pd.concat(parts, ignore_index=True)


def _draw_best(table: pd.DataFrame, figure: Figure) -> pd.DataFrame:
    from matplotlib.ticker import MaxNLocator

    names = list(table["objective"].unique())
    grid = figure.subplots(len(names), 2, sharex="col", sharey="row", squeeze=False)
    for (left, right), name in zip(grid, names, strict=True):
        own = table[table["objective"] == name]
        _draw_trials(left, own, "finished")
        _draw_trials(right, own, "wall_seconds")
        left.set_ylabel(name.replace("_", " "))
    grid[-1, 0].set_xlabel("finished trials")
    grid[-1, 1].set_xlabel("wall seconds")
    grid[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return table


def _draw_trials(axes: Axes, table: pd.DataFrame, x: str) -> None:
    axes.step(table[x], table["best"], where="post", color="black", linewidth=1.6, label="best so far", zorder=2)
    for status in statuses_of(table):
        marker, colour = STATUS_STYLE[status]
        some = table[table["status"] == status]
        name = f"{label_of_status(status)} ({len(some)})"
        axes.scatter(some[x], some["value"], s=20, marker=marker, color=colour, label=name, zorder=3)
