"""How much of the returns' variance each hyperparameter explains: Sobol indices of a sweep that was made for them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from hyperlax.analysis.statistics import sobol_indices
from hyperlax.errors import UserError
from hyperlax.results import Run

log = logging.getLogger(__name__)

FEWEST_ROWS = 64  # with fewer, intervals are about as wide as the indices


def sensitivity(run: Run, column: str = "final_return") -> pd.DataFrame:
    """Returns a row a hyperparameter, the most influential first, of a sweep of matrices A, B and AB.

    Columns: ``hyperparameter``, and of ``first_order`` (the share that it explains by itself) and ``total_order``
    (what would be gone if it were known, interactions included) the value, ``…_low`` and ``…_high`` of a 95% bootstrap
    interval, ``rows`` of a matrix that count. A row of which any sample has no return is left out in all matrices.

    Args:
        run: its samples are numbered as :func:`hyperlax.spaces.samplers.draw_matrices` does.
        column: of the summary.

    Raises:
        UserError: the run is no such sweep, or too little of it has a return.
    """
    names = run.info.get("matrices")
    if not names:
        raise UserError(f"'{run.path}': no sweep with --experiment-type sobol_matrices_A_B_AB")
    values = run.summary.set_index("sample_id")[column].sort_index().to_numpy(float).reshape(len(names) + 2, -1)
    whole = np.isfinite(values).all(axis=0)
    if whole.sum() < 2:
        raise UserError(f"'{run.path}': {whole.sum()} rows of its matrices are complete, Sobol indices need 2 or more")
    if whole.sum() < FEWEST_ROWS:
        log.warning("Sobol indices of %d rows are rough; %d or more would tell", whole.sum(), FEWEST_ROWS)
    found = sobol_indices(values[0, whole], values[1, whole], values[2:, whole])
    table = {"hyperparameter": names}
    for order, estimate in found._asdict().items():
        table |= {order: estimate.value, f"{order}_low": estimate.low, f"{order}_high": estimate.high}
    frame = pd.DataFrame(table).assign(rows=int(whole.sum()))
    return frame.sort_values("total_order", ascending=False, ignore_index=True)


def write_sensitivity(run: Run, path: Path) -> None:
    """Writes the indices of a run as CSV; warns where there are none."""
    try:
        sensitivity(run).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    except UserError as error:
        log.warning("%s", error)
