"""Results of many sweeps side by side: run directories, benchmark trees and published tables alike."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from hyperlax.errors import UserError
from hyperlax.results import Run, load_run
from hyperlax.results.directory import UNITS, run_directories
from hyperlax.results.reader import read_summary
from hyperlax.results.summary import UNFINISHED, hyperparameter_columns

log = logging.getLogger(__name__)

_PUBLISHED = re.compile(r"(?P<environment>[a-z]+\.[A-Za-z0-9_]+?)_(?P<family>[a-z]+-[a-z]+)_summary")

DRAWS = "independent draws"
_LOST = ("DIVERGED", "FAILED")


@dataclass(frozen=True)
class Entry:
    """One family of configurations in one environment.

    A configuration of which a training diverged or failed counts as the worst, whatever its return had been before, as
    in the published tables, where it has none; one that was pruned counts with what it had reached.

    Attributes:
        family: what is compared: ``ppo_mlp``, with what sets it apart from its namesakes behind it.
        environment: its name.
        summary: one row a configuration that has ended, with canonical column names.
        hyperparameters: columns of the summary.
        run: the run; None of a published table, which has no curves.
        path: where it is from.
        origin: what its configurations are: ``DRAWS``, or something that depends on each other.
        worst: the least return in its environment of all that is compared; its own least by default.
        left_out: how many configurations have not ended.
    """

    family: str
    environment: str
    summary: pd.DataFrame
    hyperparameters: list[str]
    run: Run | None
    path: Path
    origin: str = DRAWS
    worst: float | None = None
    left_out: int = 0

    @property
    def is_drawn(self) -> bool:
        """Whether its configurations are independent draws, as intervals and the best of k suppose."""
        return self.origin == DRAWS

    @property
    def lost(self) -> np.ndarray:
        """Which configurations count as the worst, ``(configurations,)``."""
        return (self.summary["status"].isin(_LOST) | self.summary["final_return"].isna()).to_numpy()

    @property
    def least(self) -> float:
        """What the worst is."""
        return self.worst if self.worst is not None else float(self.summary["final_return"].min())

    @property
    def returns(self) -> np.ndarray:
        """Final returns ``(configurations,)``, of those that are lost the worst."""
        return np.where(self.lost, self.least, self.summary["final_return"].to_numpy(float))

    @property
    def reached(self) -> pd.DataFrame:
        """The summary, with no final return of configurations that are lost."""
        return without_lost(self.summary)

    @property
    def peaks(self) -> np.ndarray:
        """The best returns found in training, ``(configurations,)``; the worst where there is none."""
        return self.summary["peak_return"].fillna(self.least).to_numpy(float)

    @property
    def best(self) -> float:
        """The best final return of those that trained to their end; NaN where none did."""
        return float(self.summary.loc[self.summary["status"] == "COMPLETED", "final_return"].max())

    @property
    def aim(self) -> tuple[str, str]:
        """The column by which configurations were chosen, and whether to ``maximize`` or ``minimize`` it."""
        if self.run is None:
            return "final_return", "maximize"
        return next(iter(self.run.objectives.items()))

    @property
    def scores(self) -> np.ndarray:
        """What configurations were chosen by, ``(configurations,)``, more being better; of the lost the worst."""
        column, direction = self.aim
        if column == "final_return" and direction == "maximize":
            return self.returns
        values = self.summary[column].to_numpy(float) * (1 if direction == "maximize" else -1)
        known = np.isfinite(values) & ~self.lost
        return np.where(known, values, values[known].min() if known.any() else np.nan)


def without_lost(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns a summary with no final return of configurations of which a training diverged or failed."""
    return summary.assign(final_return=summary["final_return"].mask(summary["status"].isin(_LOST)))


def collect(paths: Sequence[str | Path]) -> list[Entry]:
    """Returns everything that can be compared below some paths, what is named twice once.

    Args:
        paths: run directories, directories above runs (a benchmark's), published summaries, folders of them.

    Raises:
        UserError: a path does not exist, or has none of these.
    """
    entries: dict[Path, Entry] = {}
    for path in map(Path, paths):
        found = [*_runs(path), *_tables(path)]
        if not found:
            what = "holds no run and no summary" if path.exists() else "does not exist"
            raise UserError(f"'{path}' {what}; accepted are run directories, benchmarks and published summaries")
        for entry in found:
            entries.setdefault(entry.path.resolve(), entry)
    return _side_by_side(list(entries.values()), paths)


def _side_by_side(entries: Sequence[Entry], paths: Sequence[str | Path]) -> list[Entry]:
    """Returns what can be compared of some entries, with what is the worst in each environment."""
    entries = ranked(entries)
    known = [entry for entry in entries if np.isfinite(entry.returns).any()]
    if not known:
        raise UserError(f"nothing to plot in {', '.join(map(str, paths))}: no configuration has a return yet")
    for entry in entries:
        if entry.left_out:
            log.warning("%s: %d configurations have not ended: they are left out", entry.path, entry.left_out)
        if len(entry.summary) and entry.summary["final_return"].isna().all():
            counted = "all count as the worst" if np.isfinite(entry.returns).any() else "it is left out"
            log.warning("%s: no configuration has a return: %s", entry.path, counted)
    return _told_apart(known)


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Returns entries for which the worst is the same in an environment."""
    worst: dict[str, float] = {}
    for entry in entries:
        worst[entry.environment] = float(np.fmin(worst.get(entry.environment, np.nan), entry.least))
    return [replace(entry, worst=worst[entry.environment]) for entry in entries]


def entry_of(run: Run) -> Entry:
    """Returns a run as what can be compared with others.

    Configurations that have not ended are left out, unless none has.
    """
    family, origin = f"{run.info.get('algorithm', '?')}_{run.info.get('network', '?')}", DRAWS
    hyperparameters = run.hyperparameters
    if run.info.get("mode", "batched") != "batched":
        family += f", {run.info['mode']}"
    if "study" in run.info:
        family, origin = f"{family}, search", "trials of a search"
    elif "population_size" in run.info:
        # What members of a population began with does not explain where they ended.
        family, origin, hyperparameters = f"{family}, population", "members of a population", []
    elif run.info.get("matrices"):
        origin = "rows of a design"
    ended = run.summary["status"] != UNFINISHED
    kept = run.summary[ended if ended.any() else run.summary["final_return"].notna()].reset_index(drop=True)
    return Entry(
        family,
        str(run.info.get("environment", "?")),
        kept,
        hyperparameters,
        run,
        run.path,
        origin,
        left_out=len(run.summary) - len(kept),
    )


def _runs(path: Path) -> list[Entry]:
    """Returns the runs at or below a path, but for parts of a benchmark's cells that are not finished.

    Raises:
        UserError: there are such parts only.
    """
    if (path / "run.json").is_file():
        return [entry_of(load_run(path))]
    directories = run_directories(path) if path.is_dir() else []
    parts = [directory for directory in directories if UNITS in directory.relative_to(path).parts]
    unfinished = sorted({path.joinpath(*_before(UNITS, part.relative_to(path).parts)) for part in parts})
    if parts and len(parts) == len(directories):
        raise UserError(f"nothing to plot in {path}: no cell of this benchmark is finished yet")
    for cell in unfinished:
        log.warning("%s: this cell of a benchmark is not finished: it is left out", cell)
    return [entry_of(load_run(directory)) for directory in directories if directory not in parts]


def _before(name: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return parts[: parts.index(name)]


def _tables(path: Path) -> Iterable[Entry]:
    files = sorted(path.glob("*_summary.csv")) if path.is_dir() else [path] if path.suffix == ".csv" else []
    for file in files:
        match = _PUBLISHED.fullmatch(file.stem)
        if match is None:
            raise UserError(f"'{file}': accepted are names such as gymnax.cartpole_ppo-mlp_summary.csv")
        summary = read_summary(file)
        if "status" not in summary:
            summary["status"] = np.where(summary["final_return"].notna(), "COMPLETED", "FAILED")
        names = hyperparameter_columns(summary)
        yield Entry(f"{match['family'].replace('-', '_')}, published", match["environment"], summary, names, None, file)


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """Returns entries such that no two have the same family and environment, and one family is one thing everywhere.

    Namesakes of several recipes are told apart by recipe; what is left, by number: the same for all that lie below the
    same directory and have the same name there.
    """
    recipes: dict[str, set[str | None]] = {}
    for entry in entries:
        recipes.setdefault(entry.family, set()).add(_recipe_of(entry))
    named = []
    for entry in entries:
        recipe = _recipe_of(entry)
        family = entry.family
        if recipe is not None and len(recipes[family]) > 1:
            family = ", ".join([recipe.removeprefix("benchmarked."), *family.split(", ")[1:]])
        named.append(replace(entry, family=family))
    pairs = [(entry.family, entry.environment) for entry in named]
    several = {family for family, environment in pairs if pairs.count((family, environment)) > 1}
    numbers: dict[str, dict[tuple[Path, str], int]] = {family: {} for family in several}
    taken: set[tuple[str, str, int]] = set()
    apart = []
    for entry in named:
        if entry.family in several:
            known = numbers[entry.family]
            number = known.setdefault(_source_of(entry), len(known) + 1)
            while (entry.family, entry.environment, number) in taken:  # directories of no order that we know
                number += 1
            taken.add((entry.family, entry.environment, number))
            entry = replace(entry, family=f"{entry.family} ({number})" if number > 1 else entry.family)
        apart.append(entry)
    return apart


def _recipe_of(entry: Entry) -> str | None:
    return None if entry.run is None else entry.run.info.get("recipe")


def _source_of(entry: Entry) -> tuple[Path, str]:
    """Returns the directory below which recipes and environments lie, and what the run is called in there."""
    path = entry.path.resolve()
    return (path.parent, "") if entry.run is None else (path.parents[min(2, len(path.parents) - 1)], path.name)


def environments(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Returns entries by environment, both in the order of their names."""
    found: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.environment, entry.family)):
        found.setdefault(entry.environment, []).append(entry)
    return found
