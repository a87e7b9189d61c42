"""A benchmark on disk: planned once, worked off by any number of processes, put together cell by cell.

The unit of work is the lanes of one program: a sweep of its samples, in a directory of its own, which any process may
take that finds it neither done nor locked, and which goes on where a killed process left it. Lanes compute what they
would alone, so that a cell's units put together are the cell's sweep.

=================================  ======================================================================
file                               content
=================================  ======================================================================
``benchmark.json``                 the suite, the plan, what was skipped and why
``benchmark.csv``                  one row a cell
``RECIPE/ENVIRONMENT/MODE/``       a run directory each, as of any sweep; while it is worked on, its units
                                   below ``units/``
=================================  ======================================================================
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hyperlax import runs
from hyperlax.analysis.collection import entry_of, ranked
from hyperlax.analysis.comparison import aggregated
from hyperlax.analysis.figures import write_numbers
from hyperlax.api import sweep
from hyperlax.engine import devices
from hyperlax.engine.plan import Plan, duration, in_bytes
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Task
from hyperlax.engine.sweep import Sweep
from hyperlax.environments import Environment
from hyperlax.errors import CannotWrite, RunFailed, UserError
from hyperlax.launch.suite import Cell, Suite
from hyperlax.recipes import Recipe, RunLength, get_recipe
from hyperlax.results import resume as resuming
from hyperlax.results.directory import UNITS
from hyperlax.results.lock import BusyDirectory, DirectoryLock
from hyperlax.results.reader import Run, find_run, load_run
from hyperlax.results.storage import TextTable, read_table, read_text, write_atomic
from hyperlax.results.writer import ROUND_COLUMNS, TABLE_KEYS, RunWriter
from hyperlax.spaces.files import Sample
from hyperlax.spaces.hyperparameters import flatten
from hyperlax.spaces.samplers import draw

log = logging.getLogger(__name__)

PLAN, TABLE, FAILURE = "benchmark.json", "benchmark", "failed.json"


@dataclass(frozen=True)
class Unit:
    """The lanes of one program.

    Attributes:
        cell: whose.
        folder: where it is worked on.
        samples: ids.
        seconds: estimated.
        memory: bytes, estimated.
    """

    cell: Cell
    folder: Path
    samples: tuple[int, ...]
    seconds: float
    memory: int

    def run(self) -> Run | None:
        """Returns its results as far as they are."""
        try:
            return load_run(self.folder)
        except UserError:
            return None

    @property
    def is_done(self) -> bool:
        """Whether all of it has been trained; another plan may have had other samples in this place."""
        try:
            directory, _ = find_run(self.folder)
            samples = set(read_table(directory / "samples.csv", ["sample_id"])["sample_id"])
        except UserError:
            return False
        return resuming.read_info(directory).get("state") == "finished" and samples == set(self.samples)

    @property
    def failure(self) -> str | None:
        """Why it could not be trained; None if it may still be."""
        try:
            return str(json.loads((self.folder / FAILURE).read_text(encoding="utf-8"))["message"])
        except (OSError, ValueError, KeyError):
            return None


class Benchmark:
    """A benchmark in a directory.

    Args:
        root: its directory.
        suite: what it consists of.
        units: of each cell.
        skipped: pairs that cannot be, and why.
        command: that began it; None from Python.
    """

    def __init__(
        self,
        root: Path,
        suite: Suite,
        units: Mapping[Cell, list[Unit]],
        skipped: Mapping[Cell, str],
        command: str | None,
    ) -> None:
        self.root, self.suite, self.units, self.skipped = root, suite, dict(units), dict(skipped)
        self.command = command
        self._intact: dict[Cell, set[int]] = {}  # samples that a damaged cell still has

    # --- the plan ----------------------------------------------------------------------------------

    @classmethod
    def planned(cls, root: Path, suite: Suite) -> Benchmark:
        """Returns a benchmark that is not on disk yet."""
        cells, skipped = suite.cells()
        units = {}
        for cell in cells:
            try:
                plan = sweep(**_arguments(suite, cell), num_samples=suite.num_samples_per_run, dry_run=True)
            except UserError as error:
                skipped[cell] = str(error)
                continue
            assert isinstance(plan, Plan)
            units[cell] = [
                Unit(
                    cell,
                    root / cell.folder / UNITS / f"{number:03d}",
                    tuple(sorted({task.sample_id for task in program.real_tasks})),
                    program.total_seconds,
                    program.memory,
                )
                for number, program in enumerate(plan.programs)
            ]
        if not units:
            raise UserError(f"nothing can be run: {next(iter(skipped.values()))}")
        return cls(root, suite, units, skipped, runs.command_line())

    @classmethod
    def opened(cls, root: Path) -> Benchmark:
        """Returns the benchmark in a directory.

        Raises:
            UserError: there is none, or by other code.
        """
        try:
            content = json.loads((root / PLAN).read_text(encoding="utf-8"))
            suite = Suite(**content["suite"])
            cells = [Cell(*entry["cell"]) for entry in content["cells"]]
            units = {
                cell: [
                    Unit(cell, root / unit["folder"], tuple(unit["samples"]), unit["seconds"], unit["memory"])
                    for unit in entry["units"]
                ]
                for cell, entry in zip(cells, content["cells"], strict=True)
            }
            skipped = {Cell(*entry["cell"]): entry["why"] for entry in content["skipped"]}
            code, command = content["code"], content.get("command")
        except FileNotFoundError:
            raise UserError(f"'{root}': no benchmark in it (no {PLAN})") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"'{root / PLAN}': damaged: {error}; without that file the same command with --resume True plans "
                "again, and keeps what has been trained"
            ) from None
        if code != runs.code():
            raise UserError(f"'{root}': begun by other code: {code} there, {runs.code()} here")
        return cls(root, suite, units, skipped, command)

    def save(self) -> None:
        """Writes the plan."""
        content = {
            "suite": asdict(self.suite),
            "code": runs.code(),
            "command": self.command,
            "cells": [
                {
                    "cell": list(vars(cell).values()),
                    "units": [
                        {
                            "folder": os.fspath(unit.folder.relative_to(self.root)),
                            "samples": unit.samples,
                            "seconds": round(unit.seconds, 1),
                            "memory": unit.memory,
                        }
                        for unit in units
                    ],
                }
                for cell, units in self.units.items()
            ],
            "skipped": [{"cell": list(vars(cell).values()), "why": why} for cell, why in self.skipped.items()],
        }
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomic(self.root / PLAN, (json.dumps(content, indent=2) + "\n").encode())

    def describe(self) -> str:
        """Returns the plan as a table in plain text."""
        width = max(len(str(cell)) for cell in self.units)
        lines = [f"{'cell':<{width}} {'samples':>7} {'programs':>8} {'memory':>10} {'time':>8}"]
        for cell, units in self.units.items():
            samples, memory = sum(len(unit.samples) for unit in units), max(unit.memory for unit in units)
            time = duration(sum(unit.seconds for unit in units))
            lines.append(f"{cell!s:<{width}} {samples:>7} {len(units):>8} {in_bytes(memory):>10} {time:>8}")
        lines += [f"skipped: {cell}: {why}" for cell, why in self.skipped.items()]
        units = [unit for units in self.units.values() for unit in units]
        total = duration(sum(unit.seconds for unit in units))
        lines.append(f"{len(self.units)} cells, {len(units)} programs; estimated {total} on a machine like this one")
        return "\n".join(lines)

    # --- the work ----------------------------------------------------------------------------------

    def work(self, progress: bool = True) -> None:
        """Works off every unit that no other process has taken, and puts together the cells that are complete."""
        for unit in self._open_units():
            self._run(unit, progress)
            self.finish(unit.cell)
        for cell in self.units:
            self.finish(cell)

    def _open_units(self) -> Iterator[Unit]:
        """Yields units that are neither done nor have failed, the longest first."""
        for unit in sorted((unit for units in self.units.values() for unit in units), key=lambda unit: -unit.seconds):
            if not self.is_finished(unit.cell) and not self._is_done(unit) and unit.failure is None:
                yield unit

    def _run(self, unit: Unit, progress: bool) -> None:
        """Trains a unit unless another process is at it; what fails costs no other unit its results."""
        if progress:
            print(f"{unit.cell}: {len(unit.samples)} configurations", file=sys.stderr, flush=True)
        unit.folder.mkdir(parents=True, exist_ok=True)
        try:
            with DirectoryLock(unit.folder):
                if self._is_done(unit) or self.is_finished(unit.cell):  # meanwhile
                    return
                arguments = _arguments(self.suite, unit.cell) | {"overrides": None}
                samples = self._samples(unit.cell)
                sweep(
                    **arguments,
                    samples=[samples[sample_id] for sample_id in unit.samples],
                    output_root=unit.folder,
                    winner_seeds=0,
                    plot=False,
                    progress=progress,
                    resume=True,
                )
        except BusyDirectory:
            log.info("%s: another process is at it", unit.folder)
        except (CannotWrite, OSError):  # a full disk, which others would find so too
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            log.warning("%s failed, the others go on: %s", unit.cell, message)
            log.info("the failure", exc_info=True)
            write_atomic(unit.folder / FAILURE, json.dumps({"message": message}).encode())
        finally:
            devices.give_back_memory()  # else a process grows by a program, some 100 MB, with every unit

    def _samples(self, cell: Cell) -> dict[int, Sample]:
        """Returns a cell's samples by id, as its sweep would draw them."""
        suite, recipe = self.suite, get_recipe(cell.recipe)
        fixed = suite.overrides(cell.recipe)
        drawn = draw(recipe.searched(fixed), suite.num_samples_per_run, suite.sampling_method, suite.seed)
        return {sample.sample_id: Sample(sample.sample_id, {**sample.values, **fixed}) for sample in drawn}

    # --- the results -------------------------------------------------------------------------------

    def is_finished(self, cell: Cell) -> bool:
        """Returns whether a cell has been put together."""
        return self._state(cell) == "finished"

    def _is_done(self, unit: Unit) -> bool:
        """Returns whether nothing of a unit is left to train; a damaged cell, whose units are gone, may have it all."""
        if unit.cell not in self._intact:
            self._intact[unit.cell] = resuming.intact(self.root / unit.cell.folder)
        return unit.is_done or self._intact[unit.cell].issuperset(unit.samples)

    def _state(self, cell: Cell) -> str | None:
        return resuming.read_info(self.root / cell.folder).get("state")

    def finish(self, cell: Cell) -> None:
        """Puts a cell together if all its units have ended, unless another process does.

        If some have failed it is put together without them, and they are kept to be tried again.
        """
        folder = self.root / cell.folder
        if not self.is_finished(cell):  # else it may lie in an archive that is only read
            if not all(self._is_done(unit) or unit.failure is not None for unit in self.units[cell]):
                return
            try:
                with DirectoryLock(folder):
                    if not self.is_finished(cell):
                        self._put_together(cell, folder)
            except BusyDirectory:
                return
        if self.is_finished(cell):
            runs.draw_picture(load_run(folder))
            shutil.rmtree(folder / UNITS, ignore_errors=True)

    def _put_together(self, cell: Cell, folder: Path) -> None:
        parts, seconds = self._parts(cell, folder)
        if not parts:
            return
        for name, key in {**TABLE_KEYS, "rounds": ROUND_COLUMNS}.items():
            header: list[str] = []
            rows: dict[tuple[float, ...], dict[str, str]] = {}
            for part in parts:
                table = read_text(part.path / f"{name}.csv", key)
                header = header or table.header
                for row in map(part.shifted, filter(part.has, table.rows.values())):
                    rows[tuple(float(row[column]) for column in key)] = row
            if header:
                TextTable(header, dict(sorted(rows.items())), 0).write(folder / f"{name}.csv")
        for path in {part.path for part in parts} - {folder}:
            for policy in path.glob("policies/*.npz"):
                (folder / "policies").mkdir(exist_ok=True)
                shutil.copy(policy, folder / "policies" / policy.name)
        info = {key: value for key, value in parts[0].info.items() if key not in ("state", "winner", "request")}
        info |= {
            "programs": [
                row | {"program": part.programs[row["program"]]}
                for part in parts
                for row in part.info["programs"]
                if row["program"] in part.programs
            ],
            "seconds": round(seconds, 2),
            "failures": [unit.failure for unit in self.units[cell] if unit.failure is not None],
            "mode": cell.mode,
            "suite": {name: value for name, value in asdict(self.suite).items() if name != "set"},  # see overrides
            "command": self.command,
        }
        recipe, env, length = self._resolved(cell)
        info |= runs.describe_space(recipe, env, self.suite.overrides(cell.recipe), recipe.space)
        defaults = recipe.defaults_for(env.name)
        configured = {i: runs.configured(defaults, s.values, env) for i, s in self._samples(cell).items()}
        samples = [Sample(i, flatten(hyperparams)) for i, hyperparams in configured.items()]

        def retrained(sample_id: int, count: int) -> np.ndarray:
            tasks = [Task(sample_id, seed, configured[sample_id]) for seed in range(length.num_seeds)]
            return _on_fresh_seeds(tasks, env, length, self.suite.seed, count)

        with RunWriter(folder, info, samples, range(length.num_seeds)) as writer:
            if info["failures"]:
                writer.close("failed")
            else:
                writer.update_info(winner=runs.winner(folder, length.num_seeds, retrained))

    def _parts(self, cell: Cell, folder: Path) -> tuple[list[_Part], float]:
        """Returns where the results of a cell's units are, and the seconds that all of them took."""
        intact, before = resuming.intact(folder), resuming.read_info(folder)
        kept = [unit for unit in self.units[cell] if not unit.is_done and intact.issuperset(unit.samples)]
        seconds = float(before["seconds"]) if kept else 0.0
        parts: list[_Part] = []
        count = itertools.count()
        for unit in self.units[cell]:
            if unit in kept:
                lanes = read_text(folder / "lanes.csv", TABLE_KEYS["lanes"]).rows.values()
                numbers = sorted({int(row["program"]) for row in lanes if int(row["sample_id"]) in unit.samples})
                parts.append(_Part(folder, before, unit.samples, dict(zip(numbers, count, strict=False)), 0.0))
            elif (run := unit.run()) is not None:
                numbers = [row["program"] for row in run.info["programs"]]
                programs = dict(zip(numbers, count, strict=False))
                parts.append(_Part(run.path, run.info, unit.samples, programs, seconds))
                seconds += float(run.info.get("seconds") or 0.0)
        return parts, seconds

    def _resolved(self, cell: Cell) -> tuple[Recipe, Environment, RunLength]:
        suite = self.suite
        return runs.resolved(cell.recipe, cell.env, suite.run_length_modifier, suite.seed, None, **suite.evaluation())

    def table(self) -> pd.DataFrame:
        """Returns a row a cell that has been put together, and writes them all to ``benchmark.csv``.

        Its columns are the recipe and mode, those of :func:`hyperlax.analysis.comparison.aggregates`, and seconds.
        """
        cells = [cell for cell in self.units if self._state(cell) in ("finished", "failed")]
        found = ((cell, entry_of(load_run(self.root / cell.folder))) for cell in cells)
        there = {cell: entry for cell, entry in found if len(entry.summary)}
        rows = [
            {"recipe": cell.recipe, "environment": cell.env, "mode": cell.mode}
            | aggregated(entry)
            | {"seconds": entry.run.info["seconds"] if entry.run is not None else None}
            for cell, entry in zip(there, ranked([*there.values()]), strict=True)
        ]
        table = pd.DataFrame(rows)
        if rows:
            write_numbers(table, self.root / TABLE)
        return table

    def failures(self) -> dict[Cell, str]:
        """Returns the cells of which something could not be trained, and why."""
        found = {}
        for cell in self.units:
            messages = [unit.failure for unit in self.units[cell] if unit.failure is not None]
            if messages:
                found[cell] = messages[0]
        return found

    def unfinished(self) -> list[Cell]:
        """Returns the cells that have not been put together."""
        return [cell for cell in self.units if not self.is_finished(cell)]

    def retry(self) -> None:
        """Lets units that have failed be tried again, and those that are damaged, or of damaged cells."""
        for unit in (unit for units in self.units.values() for unit in units):
            (unit.folder / FAILURE).unlink(missing_ok=True)
            if unit.is_done:
                _reopen_damaged(find_run(unit.folder)[0])
        for cell in self.units:
            if self.is_finished(cell):
                _reopen_damaged(self.root / cell.folder)


class _Part(NamedTuple):
    """A unit's results, and what becomes of them in its cell, as if units had been one after the other.

    Attributes:
        path: the directory of the unit's run; the cell's, if that has them from before it was damaged.
        info: its ``run.json``.
        samples: ids.
        programs: their numbers in the cell, by those in the run.
        begun: seconds at which it began.
    """

    path: Path
    info: Mapping[str, Any]
    samples: Sequence[int]
    programs: Mapping[int, int]
    begun: float

    def has(self, row: Mapping[str, str]) -> bool:
        """Returns whether a row of the run's tables is of this unit."""
        if "sample_id" in row:
            return float(row["sample_id"]) in self.samples
        return float(row["program"]) in self.programs

    def shifted(self, row: Mapping[str, str]) -> dict[str, str]:
        """Returns a row of the run's tables as it is in the cell's."""
        moved = {"program": str(self.programs[int(row["program"])])} if row.get("program") else {}
        for name in ("wall_seconds", "wall_seconds_start", "wall_seconds_end"):
            if row.get(name):
                moved[name] = f"{float(row[name]) + self.begun:.3f}"
        return {**row, **moved}


def run_benchmark(
    suite: Suite,
    output_root: str | os.PathLike[str],
    *,
    launcher: Callable[[Path], None] | None = None,
    dry_run: bool = False,
    resume: bool = False,
    resume_from: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Benchmark:
    """Runs a benchmark, or what is left of it.

    Args:
        suite: what it consists of.
        output_root: its directory.
        launcher: has the benchmark in a directory worked off; by default this process does it.
        dry_run: nothing is trained and nothing written.
        resume: go on with what is there; begin where there is nothing.
        resume_from: go on with the benchmark in this directory instead; there must be one.
        progress: show how far it is, on standard error.

    Raises:
        UserError: the directory holds a benchmark already, or another one, or cannot be written to.
        RunFailed: part of it failed; raised after all else has run.
        CannotWrite: the disk is full; what there is is kept.
    """
    root = Path(resume_from or output_root)
    exists = (root / PLAN).exists()
    if resume_from is not None and not exists:
        raise UserError(f"resume_from '{root}': no benchmark in it (no {PLAN})")
    resume = resume or resume_from is not None
    if exists and not resume and not dry_run:
        raise UserError(f"--output-root '{root}' holds a benchmark: --resume True goes on with it; or give another")
    if exists and not dry_run:
        benchmark = Benchmark.opened(root)
        there, here = (json.loads(json.dumps(asdict(s))) for s in (benchmark.suite, suite))
        if different := resuming.differences(there, here):
            raise UserError(f"--output-root '{root}' holds another benchmark: {'; '.join(different)}")
    else:
        benchmark = Benchmark.planned(root, suite)
        if dry_run:
            return benchmark
        if not _begin(benchmark):
            return run_benchmark(suite, root, launcher=launcher, resume=resume, progress=progress)
    log.info("the plan:\n%s", benchmark.describe())
    with resuming.resumable(root):
        benchmark.retry()
        if launcher is None:
            benchmark.work(progress)
        else:
            _check_locks(root)
            launcher(root)
        benchmark.table()
    failures = benchmark.failures()
    if failures:
        cell, why = next(iter(failures.items()))
        raise RunFailed(f"{len(failures)} of {len(benchmark.units)} cells failed in part; {cell}: {why}; see {root}")
    left = benchmark.unfinished()
    if left and launcher is not None:  # whoever was at them is no more
        raise RunFailed(
            f"{len(left)} of {len(benchmark.units)} cells are not finished, among them {left[0]}: a worker has failed; "
            f"see {root}; the same command with --resume True goes on"
        )
    return benchmark


def _reopen_damaged(directory: Path) -> None:
    """Takes from a run that has finished the word that it has, if results of it are damaged."""
    info = resuming.read_info(directory)
    if info.get("state") != "finished" or resuming.is_whole(directory):
        return
    try:
        with DirectoryLock(directory):
            if resuming.read_info(directory) == info:  # else it has been made again meanwhile
                write_atomic(directory / "run.json", (json.dumps(info | {"state": "failed"}, indent=2) + "\n").encode())
    except BusyDirectory:
        pass  # it is being made again


def _begin(benchmark: Benchmark) -> bool:
    """Writes a plan for the first time, unless another process has meanwhile; returns whether it did."""
    try:
        benchmark.root.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                with DirectoryLock(benchmark.root):
                    if (benchmark.root / PLAN).exists():
                        return False
                    benchmark.save()
                    return True
            except BusyDirectory:
                time.sleep(0.1)  # that takes another process no longer
    except OSError as error:
        raise UserError(
            f"--output-root '{benchmark.root}': cannot begin a benchmark there: {error.strerror}; "
            "give a directory that can be written to"
        ) from None


def work(root: str | os.PathLike[str], progress: bool = False) -> None:
    """Works off what is left of the benchmark in a directory; any number of processes may do so at a time."""
    with resuming.resumable(Path(root)):
        benchmark = Benchmark.opened(Path(root))
        _check_locks(benchmark.root)
        benchmark.work(progress)


def _check_locks(root: Path) -> None:
    """Raises UserError where processes would not see what others have taken."""
    try:
        with DirectoryLock(root) as lock:
            if not lock.held:
                raise UserError(
                    f"'{root}': several processes at a benchmark need a file system with locks; give another"
                )
    except BusyDirectory:
        pass


def _arguments(suite: Suite, cell: Cell) -> dict[str, Any]:
    """Returns what a cell's sweeps have in common."""
    return {
        "recipe": cell.recipe,
        "env": cell.env,
        "overrides": suite.overrides(cell.recipe),
        "sampling_method": suite.sampling_method,
        "seed": suite.seed,
        "run_length": suite.run_length_modifier,
        "sequential": cell.mode == "sequential",
        **suite.evaluation(),
    }


def _on_fresh_seeds(tasks: list[Task], env: Environment, length: RunLength, seed: int, count: int) -> np.ndarray:
    """Returns the returns of a sample on seeds beyond those of its tasks."""
    mesh = devices.local_mesh(None, count)

    def planned(memory: int) -> tuple[Plan, Planner]:
        evaluations = length.num_evaluations, length.num_eval_episodes
        machine = runs.machine_of(mesh)
        planner = Planner(env, length.total_timesteps, mesh.size, machine, memory, None, *evaluations)
        return planner.batched(tasks), planner

    plan, planner = runs.planned_within(None, mesh, planned)
    job = Sweep(env, length, planner, plan, mesh, seed, save_policies=False)
    return job.repeat_on_fresh_seeds(tasks[0].sample_id, count)
