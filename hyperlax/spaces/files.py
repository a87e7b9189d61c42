"""Sample files: CSV and JSON read, CSV written, and the tables of published results read as they are.

A CSV has one row a sample: ``sample_id`` first, then one column a hyperparameter under its dotted name; numbers are
written so that reading them gives the same number, lists as ``[64, 64]``. Published tables name the same columns
``actor network › pre torso › layer sizes`` or ``algorithm.network.actor_network.pre_torso.layer_sizes``.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperlax.errors import UserError, unknown
from hyperlax.spaces.distributions import Fixed, plain
from hyperlax.spaces.hyperparameters import Declaration, non_negative, shorten

SAMPLE_ID = "sample_id"
_ID = Declaration(SAMPLE_ID, int, 0, Fixed(0), "structural", "what joins a sample with its results", non_negative)

# What is measured, not chosen: a table of results is a sample file too, and these of its columns are passed over.
RESULT_COLUMNS = frozenset(
    {
        # published tables
        "hp_id",
        "peak_return",
        "peak_timestep",
        "final_return",
        "auc_at_budget",
        "stability_score",
        "time_to_target",
        "early_learning_rate",
        "forgetting_score",
        "arch_choice",
        "evaluation_epsilon",  # 0 throughout: evaluation is greedy
        "actor_network.arch_choice",
        "critic_network.arch_choice",
        # our own summary
        "diverged_at",
        "env_steps",
        "final_return_std",
        "num_params",
        "seeds",
        "seeds_completed",
        "status",
        "wall_seconds",
    }
)

_ARROW = "›"
_PASSED_OVER = "pre_torso"


@dataclass(frozen=True)
class Sample:
    """One configuration.

    Attributes:
        sample_id: what joins it with its results.
        values: by dotted name of the hyperparameter; those not named keep the recipe's default.
    """

    sample_id: int
    values: Mapping[str, Any]


def canonical_name(header: str) -> str:
    """The dotted name for a column header of a published table; a dotted name stays as it is."""
    parts = [part.strip().replace(" ", "_") for part in header.strip().replace(_ARROW, ".").split(".")]
    if len(parts) > 2 and parts[0] == "algorithm" and parts[1] in ("hyperparam", "network"):
        parts = parts[2:]
    return ".".join(part for part in parts if part != _PASSED_OVER)


def published_header(name: str) -> str:
    """The column header of published tables for a dotted name; the inverse of :func:`canonical_name`."""
    first, *rest = name.split(".")
    parts = [first, _PASSED_OVER, *rest] if rest else [first]
    return f" {_ARROW} ".join(part.replace("_", " ") for part in parts)


def write_samples(path: str | os.PathLike[str], samples: Sequence[Sample], *, overwrite: bool = False) -> None:
    """Writes samples as CSV, whole or not at all.

    Raises:
        UserError: if the file is there and ``overwrite`` is not asked for, or cannot be written.
        ValueError: if there are no samples, they do not all name the same hyperparameters, or two share an id.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"samples file {path} exists already: give another name or ask to overwrite it")
    text = to_csv(samples)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"samples file {path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_samples(path: str | os.PathLike[str], known: Mapping[str, Declaration]) -> list[Sample]:
    """Reads the samples of a CSV or JSON file in its order, every value parsed as its declaration.

    JSON is a list of objects; it is recognised by the ending ``.json``. Without ids, samples are numbered from 0.
    Hyperparameters may be left out, then they keep their defaults; result columns are passed over.

    Args:
        known: declarations by dotted name, from :func:`hyperlax.spaces.declarations`.

    Raises:
        UserError: if the file cannot be read, or for the first place in it where something is wrong.
    """
    path = Path(path)
    text = _read_text(path)
    table = _json_table(path, text) if path.suffix.lower() == ".json" else _csv_table(path, text)
    columns = _columns(path, table.headers, known)
    if not table.rows:
        raise UserError(f"{path}: there are no samples in it")
    samples = []
    first_with: dict[int, str] = {}
    for number, (place, row) in enumerate(table.rows):
        where = f"{path}, {place}"
        values = {
            name: _parse(f"{where}, column '{header}'", declaration, cell)
            for name, header, cell in zip(columns, table.headers, row, strict=True)
            if (declaration := _ID if name == SAMPLE_ID else known.get(name))
        }
        sample_id = values.pop(SAMPLE_ID, number)
        if sample_id in first_with:
            raise UserError(f"{where}: sample_id {sample_id} is taken by {first_with[sample_id]} already")
        first_with[sample_id] = place
        samples.append(Sample(sample_id, values))
    return samples


@dataclass(frozen=True)
class _Table:
    """What both formats come to: headers, and for each row its place in the file and its cells."""

    headers: list[str]
    rows: list[tuple[str, list[Any]]]


def _read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"samples file {path} is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"samples file {path} cannot be read: {error.strerror}") from error
    if not text.strip():
        raise UserError(f"samples file {path} is empty")
    return text


def _csv_table(path: Path, text: str) -> _Table:
    """Not read with pandas, which fills short rows, renames duplicate columns and guesses types in silence."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    headers: list[str] = []
    rows: list[tuple[str, list[Any]]] = []
    try:
        for row in reader:
            if not row:
                continue
            if not headers:
                headers = row
            elif len(row) != len(headers):
                raise UserError(f"{path}, line {reader.line_num}: {len(row)} cells, but {len(headers)} columns")
            else:
                rows.append((f"line {reader.line_num}", row))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    if len(headers) == 1 and (other := next((mark for mark in ";\t" if mark in headers[0]), None)):
        raise UserError(f"{path}: columns seem to be separated by {other!r}; accepted: ','")
    return _Table(headers, rows)


def _json_table(path: Path, text: str) -> _Table:
    try:
        objects = json.loads(text, object_pairs_hook=_unique_pairs)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply; accepted is a JSON list of objects, one a sample") from error
    except ValueError as error:  # a name twice, or an integer of thousands of digits
        raise UserError(f"{path}: {error}") from error
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise UserError(f"{path}: accepted is a JSON list of objects, one a sample")
    flat = [dict(_flatten_object(entry)) for entry in objects]
    headers = list(flat[0]) if flat else []
    rows = []
    for number, entry in enumerate(flat, start=1):
        if difference := sorted(entry.keys() ^ flat[0].keys()):
            have, lack = (number, 1) if difference[0] in entry else (1, number)
            raise UserError(f"{path}: object {have} has '{difference[0]}' and object {lack} has not")
        rows.append((f"object {number}", [entry[header] for header in headers]))
    return _Table(headers, rows)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is there twice in an object")
    return unique


def _flatten_object(entry: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _flatten_object(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _columns(path: Path, headers: Sequence[str], known: Mapping[str, Declaration]) -> list[str]:
    """The canonical name of every column, all of them ours to read or to pass over."""
    names = [canonical_name(header) for header in headers]
    for i, name in enumerate(names):
        if not name:
            raise UserError(f"{path}: column {i + 1} has no name")
        if name in names[:i]:
            raise UserError(f"{path}: column '{name}' is there twice, as columns {names.index(name) + 1} and {i + 1}")
        if name != SAMPLE_ID and name not in known and name not in RESULT_COLUMNS:
            raise UserError(f"{path}, column {i + 1}: {unknown('hyperparameter', name, known)}")
    if names and SAMPLE_ID not in names and known.keys().isdisjoint(names):
        raise UserError(f"{path}: no column is a hyperparameter or {SAMPLE_ID}")
    return names


def _parse(where: str, declaration: Declaration, cell: Any) -> Any:
    if isinstance(cell, str) and not cell.strip():
        raise UserError(f"{where}: the value is missing; accepted: {declaration.accepted}")
    try:
        return declaration.parse(cell)
    except UserError as error:
        raise UserError(f"{where}: got {shorten(cell)}; accepted: {declaration.accepted}") from error


def to_csv(samples: Sequence[Sample], header: bool = True) -> str:
    """Returns samples as CSV, with a header or as lines that follow others; see :func:`write_samples`."""
    if not samples:
        raise ValueError("no samples to write")
    names = list(samples[0].values)
    if any(sample.values.keys() != samples[0].values.keys() for sample in samples):
        raise ValueError("the samples do not all name the same hyperparameters")
    if len({sample.sample_id for sample in samples}) < len(samples):
        raise ValueError("two samples share a sample_id")
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow([SAMPLE_ID, *names])
    for sample in samples:
        writer.writerow([sample.sample_id, *(_cell(sample.values[name]) for name in names)])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    """The text of a value; that of a float reads back as the same float."""
    value = plain(value)
    return json.dumps(value) if isinstance(value, tuple) else str(value)
