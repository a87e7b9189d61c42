"""How bytes reach the disk: whole files replaced at once, tables only ever appended to.

Killed at any instant, a file of the first kind is the old one or the new one, and a table
of the second kind is whole but for, at most, one torn last line, which readers leave out.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from hyperlax.errors import UserError

#: Ends the names of files that are being written.
TEMPORARY = ".tmp"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # asked for once: asking changes it for a moment, for every thread


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces a file by a new content, in one step for every reader."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives errors the name of the file that is written, which those of an open file lack."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to that takes the place of another, in one step for every reader, when all went well."""
    with naming(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_UMASK)  # mkstemp's 0600 would hide results from colleagues
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_all(file: int, content: bytes) -> None:
    """Writes to an open file, in one call unless the disk takes only a part."""
    data = memoryview(content)
    while data:
        data = data[os.write(file, data) :]


def append(path: Path, content: bytes) -> None:
    """Appends lines to a file that there is."""
    with naming(path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            write_all(file, content)
        finally:
            os.close(file)


class AppendTable:
    """A CSV file to which complete lines are appended, one system call a batch of rows.

    Args:
        path: made with a header when new. When it exists (a resumed run) its header
            decides the columns, and a torn last line is cut off first, so that new rows do
            not continue it.
        columns: in order; None takes those of the first row appended.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        whole = _whole_lines(path.read_bytes())
        os.ftruncate(self._file, len(whole))
        self.columns: list[str] | None = None
        if whole:
            self.columns = next(csv.reader([whole.split(b"\n", 1)[0].decode()]))
        elif columns is not None:
            self._start(columns)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows; a key that is not a column is an error, a column without a key stays empty."""
        rows = list(rows)
        if not rows:
            return
        if self.columns is None:
            self._start(list(rows[0]))
        assert self.columns is not None
        for row in rows:
            foreign = row.keys() - set(self.columns)
            if foreign:
                raise KeyError(f"no column for {sorted(foreign)}; the columns are {self.columns}")
        self._write([[row.get(column) for column in self.columns] for row in rows])

    def sync(self) -> None:
        """Waits until all rows are on the disk."""
        with naming(self._path):
            os.fsync(self._file)

    def close(self) -> None:
        """Closes the file; harmless when done twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _start(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self._write([self.columns])

    def _write(self, rows: list[list[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[as_cell(value) for value in row] for row in rows])
        with naming(self._path):
            write_all(self._file, text.getvalue().encode())


def as_cell(value: Any) -> Any:
    """Returns a value as a CSV cell: sequences as ``[64, 64]``, floats unrounded, no line breaks.

    A line break inside a quoted cell would make "a complete line" mean nothing.
    """
    if value is None:
        return ""
    if isinstance(value, np.generic):
        narrow = isinstance(value, np.floating) and not isinstance(value, np.float64)
        # The shortest text that reads back as the same float32; its float64 digits are noise.
        value = float(str(value)) if narrow else value.item()
    if isinstance(value, np.ndarray | tuple):
        value = list(value)
    if isinstance(value, list | dict):
        return str(value)
    return " ".join(value.split()) if isinstance(value, str) else value


class TextTable(NamedTuple):
    """A table letter for letter.

    Attributes:
        header: names of the columns; none if they are damaged, or there is no table.
        rows: by key, sorted; of rows with the same key the last.
        damaged: how many lines were left out because they are no rows.
    """

    header: list[str]
    rows: dict[tuple[float, ...], dict[str, str]]
    damaged: int

    def write(self, path: Path) -> None:
        """Replaces a file by this table."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *(row.values() for row in self.rows.values())])
        write_atomic(path, text.getvalue().encode())


def read_text(path: Path, key: Sequence[str], numbers: Sequence[str] = ()) -> TextTable:
    """Reads a table of which some rows may be damaged; an empty one if there is none.

    Args:
        path: of the table.
        key: columns of numbers.
        numbers: more columns of numbers.
    """
    try:
        content = _whole_lines(path.read_bytes())
    except FileNotFoundError:
        content = b""
    lines = [*csv.reader(io.StringIO(content.decode(errors="replace")))]
    header = lines.pop(0) if lines else []
    if set(key) - set(header):
        return TextTable([], {}, len(lines))
    rows: dict[tuple[float, ...], dict[str, str]] = {}
    damaged = 0
    for cells in lines:
        row = dict(zip(header, cells, strict=False))
        try:
            if len(cells) != len(header):
                raise ValueError(cells)
            place = tuple(float(row[name]) for name in key)
            [float(row[name]) for name in numbers]
        except (ValueError, KeyError):
            damaged += 1
        else:
            rows[place] = row
    return TextTable(header, dict(sorted(rows.items())), damaged)


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Reads a table that may still be written to; a torn last line is left out.

    Args:
        columns: those of the empty frame returned when there is no such file yet.

    Raises:
        UserError: it is damaged.
    """
    try:
        whole = _whole_lines(path.read_bytes())
    except FileNotFoundError:
        whole = b""
    if not whole:
        return pd.DataFrame(columns=list(columns))
    try:
        table = pd.read_csv(io.BytesIO(whole))
    except ValueError as error:
        raise UserError(f"'{path}' is damaged: {error}") from None
    for name in columns[:1]:
        if name not in table.columns:
            raise UserError(f"'{path}' is damaged: it has no column {name}")
    return table


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]
