"""Results of many sweeps side by side: run directories, benchmark trees and published tables alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hyperlax.errors import UserError
from hyperlax.results import Run, load_run
from hyperlax.results.directory import run_directories
from hyperlax.results.reader import read_summary
from hyperlax.spaces.files import RESULT_COLUMNS

_PUBLISHED = re.compile(r"(?P<environment>[a-z]+\.[A-Za-z0-9_]+?)_(?P<family>[a-z]+-[a-z]+)_summary")


@dataclass(frozen=True)
class Entry:
    """One family of configurations in one environment.

    Attributes:
        family: what is compared: ``ppo_mlp``, with what sets it apart from its namesakes behind it.
        environment: its name.
        summary: one row a configuration, with canonical column names.
        hyperparameters: columns of the summary.
        run: the run; None of a published table, which has no curves.
        path: where it is from.
    """

    family: str
    environment: str
    summary: pd.DataFrame
    hyperparameters: list[str]
    run: Run | None
    path: Path

    @property
    def is_drawn(self) -> bool:
        """Whether its configurations are independent draws, not what a search or a population has come to."""
        return self.run is None or not {"study", "population_size"} & set(self.run.info)

    @property
    def returns(self) -> np.ndarray:
        """Final returns; of configurations without any, the least of those that have one: they count as the worst."""
        values = self.summary["final_return"].to_numpy(float)
        finite = values[np.isfinite(values)]
        return np.where(np.isfinite(values), values, finite.min() if finite.size else np.nan)


def collect(paths: Sequence[str | Path]) -> list[Entry]:
    """Returns everything that can be compared below some paths.

    Args:
        paths: run directories, directories above runs (a benchmark's), published summaries, folders of them.

    Raises:
        UserError: a path does not exist, or has none of these.
    """
    entries: list[Entry] = []
    for path in map(Path, paths):
        found = [*_runs(path), *_tables(path)]
        if not found:
            what = "holds no run and no summary" if path.exists() else "does not exist"
            raise UserError(f"'{path}' {what}; accepted are run directories, benchmarks and published summaries")
        entries += found
    entries = [entry for entry in entries if np.isfinite(entry.returns).any()]
    if not entries:
        raise UserError(f"nothing to plot in {', '.join(map(str, paths))}: no configuration has a return yet")
    return _told_apart(entries)


def entry_of(run: Run) -> Entry:
    """Returns a run as what can be compared with others."""
    family = f"{run.info.get('algorithm', '?')}_{run.info.get('network', '?')}"
    if run.info.get("mode", "batched") != "batched":
        family += f", {run.info['mode']}"
    environment = str(run.info.get("environment", "?"))
    # What members of a population began with does not explain where they ended.
    hyperparameters = [] if "population_size" in run.info else run.hyperparameters
    return Entry(family, environment, run.summary, hyperparameters, run, run.path)


def _runs(path: Path) -> Iterable[Entry]:
    if (path / "run.json").is_file():
        directories = [path]
    else:
        directories = run_directories(path) if path.is_dir() else []
    for directory in directories:
        yield entry_of(load_run(directory))


def _tables(path: Path) -> Iterable[Entry]:
    files = sorted(path.glob("*_summary.csv")) if path.is_dir() else [path] if path.suffix == ".csv" else []
    for file in files:
        match = _PUBLISHED.fullmatch(file.stem)
        if match is None:
            raise UserError(f"'{file}': accepted are names such as gymnax.cartpole_ppo-mlp_summary.csv")
        summary = read_summary(file)
        known = {"sample_id", "hp_id", "status"}
        names = [str(c) for c in summary.columns if c not in RESULT_COLUMNS and c not in known]
        if "status" not in summary:
            summary["status"] = np.where(summary["final_return"].notna(), "COMPLETED", "FAILED")
        yield Entry(f"{match['family'].replace('-', '_')}, published", match["environment"], summary, names, None, file)


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """Returns entries such that no two have the same family and environment: by recipe, then by number."""
    seen: dict[tuple[str, str], int] = {}
    apart = []
    for entry in entries:
        key = entry.family, entry.environment
        seen[key] = seen.get(key, 0) + 1
        family = entry.family if seen[key] == 1 else f"{entry.family} ({seen[key]})"
        apart.append(Entry(family, entry.environment, entry.summary, entry.hyperparameters, entry.run, entry.path))
    return apart


def environments(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Returns entries by environment, both in the order of their names."""
    found: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.environment, entry.family)):
        found.setdefault(entry.environment, []).append(entry)
    return found
