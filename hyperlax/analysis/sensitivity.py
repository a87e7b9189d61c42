"""How much of the returns' variance each hyperparameter explains: Sobol indices of a sweep that was made for them.

A configuration that diverged counts with the worst return, as everywhere: leaving out its row would leave out d + 1
others, and not by chance.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hyperlax.analysis.collection import Entry, entry_of
from hyperlax.analysis.figures import COLOURS, Drawing, write_numbers
from hyperlax.analysis.statistics import sobol_indices
from hyperlax.analysis.tables import label_of
from hyperlax.errors import UserError
from hyperlax.results import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

FEWEST_ROWS = 64  # with fewer, intervals are about as wide as the indices
_MOST_BARS = 14


def sensitivity(entry: Entry) -> pd.DataFrame:
    """Returns a row a hyperparameter, the most influential first, of a sweep of matrices A, B and AB.

    Columns: ``hyperparameter``, and of ``first_order`` (the share that it explains by itself) and ``total_order``
    (what would be gone if it were known, interactions included) the value, ``…_low`` and ``…_high`` of a 95% bootstrap
    interval, ``rows`` of a matrix that count. A row of which any sample has not ended is left out in all matrices.

    Args:
        entry: a run whose samples are numbered as :func:`hyperlax.spaces.samplers.draw_matrices` does.

    Raises:
        UserError: the run is no such sweep, or too little of it has ended.
    """
    names = None if entry.run is None else entry.run.info.get("matrices")
    if entry.run is None or not names:
        raise UserError(f"'{entry.path}': no sweep with --experiment-type sobol_matrices_A_B_AB")
    returns = pd.Series(entry.returns, index=entry.summary["sample_id"])
    values = returns.reindex(sorted(entry.run.samples["sample_id"])).to_numpy().reshape(len(names) + 2, -1)
    whole = np.isfinite(values).all(axis=0)
    if whole.sum() < 2:
        raise UserError(f"'{entry.path}': {whole.sum()} rows of its matrices have ended, Sobol indices need 2 or more")
    found = sobol_indices(values[0, whole], values[1, whole], values[2:, whole])
    table = {"hyperparameter": names}
    for order, estimate in found._asdict().items():
        table |= {order: estimate.value, f"{order}_low": estimate.low, f"{order}_high": estimate.high}
    frame = pd.DataFrame(table).assign(rows=int(whole.sum()))
    return frame.sort_values("total_order", ascending=False, ignore_index=True)


def write_sensitivity(run: Run, stem: Path) -> None:
    """Writes the indices of a run as CSV; warns where there are none, or few rows."""
    try:
        table = sensitivity(entry_of(run))
    except UserError as error:
        log.warning("%s", error)
        return
    rows = table["rows"].iloc[0]
    if rows < FEWEST_ROWS:
        log.warning("Sobol indices of %d rows are rough; %d or more would tell", rows, FEWEST_ROWS)
    write_numbers(table, stem)


def sensitivity_drawing(entry: Entry) -> Drawing | None:
    """Returns the Sobol indices of a sweep that was made for them as a picture; None of any other."""
    if entry.run is None or not entry.run.info.get("matrices"):
        return None
    try:
        table = sensitivity(entry)
    except UserError as error:
        log.info("%s", error)
        return None
    rows = table["rows"].iloc[0]
    doubt = f": too few to tell, {FEWEST_ROWS} or more would" if rows < FEWEST_ROWS else ""
    title = f"Sobol indices of the final return, matrices of {rows} rows{doubt}"
    return Drawing(title, (7, 1.5 + 0.34 * min(len(table), _MOST_BARS)), partial(_draw, table))


def _draw(table: pd.DataFrame, figure: Figure) -> pd.DataFrame:
    shown = table.head(_MOST_BARS)
    axes, places = figure.subplots(), np.arange(len(shown))
    labels = {"total_order": "total, with all interactions", "first_order": "first order, by itself"}
    for aside, (order, label), hatch in zip((-0.2, 0.2), labels.items(), ("", "///"), strict=True):
        colour = COLOURS[5] if hatch == "" else "white"
        axes.barh(places + aside, shown[order], 0.36, color=colour, edgecolor="black", linewidth=0.6, hatch=hatch,
                  label=label, zorder=2)  # fmt: skip
        ends = shown[f"{order}_low"], shown[f"{order}_high"]
        axes.hlines(places + aside, *ends, color="black", linewidth=1.4, zorder=3)
    axes.plot([], [], color="black", linewidth=1.4, label="95% interval")
    axes.set_yticks(places, [label_of(name) for name in shown["hyperparameter"]])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    low, high = axes.get_xlim()  # of few rows intervals go far beyond all that shares can be
    axes.set(xlabel="share of the variance", xlim=(max(low, -0.25), min(high, 1.25)))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return table
