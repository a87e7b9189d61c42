"""All pictures of one run, sweep or search; each as PNG, SVG and PDF with its numbers in a CSV."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from hyperlax.analysis.collection import Entry
from hyperlax.analysis.figures import FORMATS, Drawing, writing_to
from hyperlax.analysis.importance import COLUMNS, importances
from hyperlax.analysis.lineage import lineage_drawing
from hyperlax.analysis.sensitivity import sensitivity_drawing
from hyperlax.analysis.space_pictures import (
    importance_drawing,
    interactions_drawing,
    parallel_drawing,
    slices_drawing,
)
from hyperlax.analysis.tables import important_hyperparameters
from hyperlax.analysis.time_pictures import best_so_far_drawing, throughput_drawing, timeline_drawing
from hyperlax.errors import UserError

log = logging.getLogger(__name__)

NAMES = (
    "best_so_far", "lineage", "sensitivity", "importance", "slices", "interactions", "parallel_coordinates",
    "throughput", "timeline",
)  # fmt: skip
#: Of each of several runs.
SHORT = ("lineage", "sensitivity", "importance", "timeline")


def plot_run(
    entry: Entry, folder: Path, only: Collection[str] = NAMES, formats: Sequence[str] = FORMATS
) -> dict[str, Path]:
    """Draws what can be drawn of one run; returns the file of each picture, in the first format, by its title.

    Args:
        entry: the run; of a published table, only pictures of hyperparameters can be drawn.
        folder: where they go.
        only: some of ``NAMES``.
        formats: some of ``FORMATS``.

    Raises:
        UserError: the folder cannot be written.
    """
    with writing_to(folder):
        return {drawing.title: drawing.write(folder / name, formats) for name, drawing in _drawings(entry, only)}


def _drawings(entry: Entry, only: Collection[str]) -> Iterable[tuple[str, Drawing]]:
    """Yields the pictures that there are, by name; those for which there is too little are left out."""
    run = entry.run
    table = _importances(entry)
    weights = dict(zip(table["hyperparameter"], table["importance"], strict=True))
    whole = [name for name in entry.hyperparameters if entry.summary[name].notna().all()]
    names = [name for name in weights if name in whole]
    names = names or [name for name, _ in important_hyperparameters(entry.reached, whole)]
    makers: dict[str, Callable[[], Drawing | None]] = {
        "importance": lambda: importance_drawing(entry, table),
        "slices": lambda: slices_drawing(entry, names, weights),
        "interactions": lambda: interactions_drawing(entry, names),
        "parallel_coordinates": lambda: parallel_drawing(entry, names),
    }
    if run is not None:
        makers |= {
            "best_so_far": lambda: best_so_far_drawing(run),
            "lineage": lambda: lineage_drawing(run),
            "sensitivity": lambda: sensitivity_drawing(entry),
            "throughput": lambda: throughput_drawing(run),
            "timeline": lambda: timeline_drawing(run),
        }
    for name in NAMES:
        drawing = makers[name]() if name in only and name in makers else None
        if drawing is not None:
            yield name, drawing


def _importances(entry: Entry) -> pd.DataFrame:
    try:
        return importances(entry)
    except UserError as error:
        log.info("%s; its picture is left out", error)
        return pd.DataFrame(columns=list(COLUMNS))
