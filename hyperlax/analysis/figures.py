"""How pictures are made and written: without pyplot, legible in print and to colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hyperlax.errors import UserError
from hyperlax.results.storage import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
# Okabe and Ito's colours, told apart by colour-blind readers; whatever has a colour has a marker, a line style or a
# hatch too, so that a black and white print says the same.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RETURNS_MAP = "cividis"  # of colours for returns: its lightness rises evenly
#: Marker and colour of each status.
STATUS_STYLE: Any = {
    "COMPLETED": ("o", "#0072B2"),
    "PRUNED": ("v", "#E69F00"),
    "TIMED_OUT": ("s", "#56B4E9"),
    "DIVERGED": ("X", "#D55E00"),
    "FAILED": ("P", "#000000"),
    "UNFINISHED": ("d", "#999999"),
}
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "hyperlax",  # the same picture is the same file
}
_DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Drawing:
    """A picture that can be drawn.

    Attributes:
        title: stands above.
        size: width and height in inches.
        draw: draws it in a figure and returns its numbers.
    """

    title: str
    size: tuple[float, float]
    draw: Callable[[Figure], pd.DataFrame]

    def write(self, stem: Path, formats: Sequence[str] = FORMATS) -> Path:
        """Writes it in some formats, with its numbers in a CSV; returns the file of the first."""
        with picture(stem, self.title, self.size, formats) as figure:
            numbers = self.draw(figure)
        write_numbers(numbers, stem)
        return beside(stem, formats[0])


@contextmanager
def picture(stem: Path, title: str, size: tuple[float, float], formats: Sequence[str] = FORMATS) -> Iterator[Figure]:
    """Gives a figure to draw in, and writes it in some formats when it is drawn.

    Args:
        stem: of the files, without the ending.
        title: stands above.
        size: width and height in inches.
        formats: endings.
    """
    import matplotlib

    # The figure is made without pyplot, so an embedding program's own backend stays as it is.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        for kind in formats:
            metadata: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
            content = io.BytesIO()
            figure.savefig(content, dpi=_DOTS_PER_INCH, format=kind, metadata=metadata)
            figure.set_layout_engine("none")  # the same layout in all formats; it takes most of the time
            write_atomic(beside(stem, kind), content.getvalue())


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Makes a folder for what is drawn.

    Raises:
        UserError: it cannot be made, or something cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"'{folder}': cannot write there: {error.strerror}") from None


def write_numbers(numbers: pd.DataFrame, stem: Path) -> None:
    """Writes the numbers of a picture beside it; whole ones, such as steps, with all their digits."""
    whole = [name for name, column in numbers.items() if _is_whole(column)]
    table = numbers.astype(dict.fromkeys(whole, "int64"))
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
    file = beside(stem, "csv")
    if not file.exists() or file.read_bytes() != text:  # an archive may be only read
        write_atomic(file, text)


def _is_whole(column: pd.Series) -> bool:
    if not pd.api.types.is_float_dtype(column):
        return False
    values = column.to_numpy()
    return bool(np.isfinite(values).all() and (values == np.round(values)).all() and (np.abs(values) < 2**53).all())


def beside(stem: Path, kind: str) -> Path:
    """Returns a picture's file of one kind; a stem may have dots in it."""
    return stem.with_name(f"{stem.name}.{kind}")


def label_of_status(status: str) -> str:
    """Returns a status as a legend has it."""
    return status.lower().replace("_", " ")
