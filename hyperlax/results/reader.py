"""Reads a run directory: finished, still going, or killed half-way through a line."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hyperlax.errors import UserError
from hyperlax.results.directory import run_directories
from hyperlax.results.storage import TextTable, read_table, read_text
from hyperlax.results.summary import name_of, summarise
from hyperlax.results.writer import EVALUATION_COLUMNS, LANE_COLUMNS, METRIC_KEYS, ROUND_COLUMNS, budget_of, policy_path

_METADATA = "__metadata__"


@dataclass(frozen=True, repr=False)
class Run:
    """One run's results as tables with canonical column names.

    Attributes:
        path: the run directory.
        info: ``run.json``; its ``state`` is "running" also for a run that was killed.
        samples: ``sample_id`` and one column a hyperparameter.
        evaluations: one row an evaluation; rows that a resumed run wrote again count once.
        metrics: training metrics.
        lanes: one row for each (sample, seed) that ended.
        rounds: one row a round of a program.
        summary: one row a sample, made from the tables above and so never older than they are.
        note: one line to print, when this run was chosen among several; else empty.
    """

    path: Path
    info: dict[str, Any]
    samples: pd.DataFrame
    evaluations: pd.DataFrame
    metrics: pd.DataFrame
    lanes: pd.DataFrame
    rounds: pd.DataFrame
    summary: pd.DataFrame
    note: str = ""

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.info.get('state')}, {len(self.samples)} samples)"

    @property
    def hyperparameters(self) -> list[str]:
        """The names of the hyperparameters, in the order of the samples' columns."""
        return [str(name) for name in self.samples.columns if name != "sample_id"]

    @property
    def objectives(self) -> dict[str, str]:
        """What samples were to be good at, and whether to ``maximize`` or ``minimize`` it; several of a search."""
        request = self.info.get("request") or {}
        names, directions = request.get("objectives") or ["final_return"], request.get("directions") or ["maximize"]
        return dict(zip(names, directions, strict=True))


def load_run(path: str | Path) -> Run:
    """Returns the run in a directory, or the most recent one of those below it.

    Raises:
        UserError: there is no such directory, or no run in it.
    """
    directory, note = find_run(Path(path))
    info = _read_info(directory)
    samples = read_table(directory / "samples.csv", ["sample_id"]).rename(columns=name_of)
    samples = samples[["sample_id", *(name for name in samples.columns if name != "sample_id")]]
    evaluations = _last(read_table(directory / "evaluations.csv", EVALUATION_COLUMNS), "grid_step")
    metrics = _last(read_table(directory / "metrics.csv", METRIC_KEYS), "env_steps")
    lanes = _last(read_table(directory / "lanes.csv", LANE_COLUMNS))
    rounds = _numbers(read_text(directory / "rounds.csv", ROUND_COLUMNS), ROUND_COLUMNS)
    seeds = len(info["seeds"]) if "seeds" in info else None
    summary = summarise(evaluations, samples, lanes, budget_of(info, evaluations), seeds)
    return Run(directory, info, samples, evaluations, metrics, lanes, rounds, summary, note)


def _numbers(table: TextTable, columns: Sequence[str]) -> pd.DataFrame:
    """Returns the rows that can be read of a table of numbers."""
    return pd.DataFrame(list(table.rows), columns=list(columns))


def find_run(path: Path) -> tuple[Path, str]:
    """Returns the run directory that a path means, and a line that says so when there was a choice."""
    if path.is_file() and path.name == "run.json":
        path = path.parent
    if not path.is_dir():
        raise UserError(f"'{path}': no such directory; give a run directory, one that holds a run.json")
    if (path / "run.json").is_file():
        return path, ""
    runs = run_directories(path)
    if not runs:
        raise UserError(f"'{path}': no run in it (no run.json here or below); give a run directory")
    note = "" if len(runs) == 1 else f"'{path}' holds {len(runs)} runs; this is the latest, '{runs[-1]}'"
    return runs[-1], note


def read_summary(path: str | Path) -> pd.DataFrame:
    """Returns a summary CSV, ours or a published one, with canonical column names.

    Args:
        path: the file, or a run directory.

    Raises:
        UserError: there is no such file, or it is not a summary.
    """
    file = Path(path) / "summary.csv" if Path(path).is_dir() else Path(path)
    try:
        table = pd.read_csv(file).rename(columns=name_of)
    except FileNotFoundError:
        raise UserError(f"'{file}': no such file; give a summary CSV") from None
    except (ValueError, OSError) as error:
        raise UserError(f"'{file}': not a CSV file: {' '.join(str(error).split())}") from None
    missing = [name for name in ("sample_id", "final_return", "peak_return") if name not in table.columns]
    if missing:
        raise UserError(f"'{file}': not a summary: it has no column '{missing[0].replace('_', ' ')}'")
    return table


def load_policy_arrays(
    path: str | Path, sample_id: int, seed: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns a saved policy's arrays and its metadata.

    Args:
        path: a run directory, or one above a single run.
        seed: None takes the sample's lowest seed that was saved; the metadata says which.

    Raises:
        UserError: no such policy was saved; the message lists those that were.
    """
    directory, _ = find_run(Path(path))
    if seed is None:
        seeds = [saved for sample, saved in saved_policies(directory) if sample == sample_id]
        seed = min(seeds, default=0)
    file = policy_path(directory, sample_id, seed)
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except FileNotFoundError:
        saved = [f"{sample} (seed {seed})" for sample, seed in saved_policies(directory)]
        listed = f"saved: {', '.join(saved[:12])}{' ...' if len(saved) > 12 else ''}" if saved else "none was saved"
        raise UserError(f"'{directory}': no policy of sample {sample_id}, seed {seed}; {listed}") from None
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"'{file}': not a saved policy: {error}") from None
    metadata = json.loads(str(arrays.pop(_METADATA, "{}")))
    return arrays, {"sample_id": sample_id, "seed": seed, **metadata}


def saved_policies(directory: Path) -> list[tuple[int, int]]:
    """Returns the (sample id, seed) pairs whose policies a run saved, sorted."""
    names = (re.fullmatch(r"sample_(\d+)_seed_(\d+)", file.stem) for file in directory.glob("policies/*.npz"))
    return sorted((int(match[1]), int(match[2])) for match in names if match)


def _read_info(directory: Path) -> dict[str, Any]:
    try:
        info = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"'{directory / 'run.json'}': cannot be read: {error}") from None
    if not isinstance(info, Mapping) or "state" not in info:
        raise UserError(f"'{directory / 'run.json'}': not a run of ours: it has no 'state'")
    return dict(info)


def _last(table: pd.DataFrame, *more: str) -> pd.DataFrame:
    return table.drop_duplicates(["sample_id", "seed", *more], keep="last", ignore_index=True)
