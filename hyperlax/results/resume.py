"""Goes on with a run that was cut short: which one, whether it is the same, and what of it counts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hyperlax
from hyperlax.errors import CannotWrite, UserError, in_words
from hyperlax.results.directory import run_directories
from hyperlax.results.lineage import LINEAGE, LINEAGE_KEY
from hyperlax.results.lock import DirectoryLock, is_locked
from hyperlax.results.reader import load_run
from hyperlax.results.storage import TEMPORARY, TextTable, read_text, write_atomic
from hyperlax.results.summary import to_published
from hyperlax.results.writer import ROUND_COLUMNS, TABLE_KEYS, policy_path, read_info
from hyperlax.spaces.files import Sample, to_csv

log = logging.getLogger(__name__)

#: Ends that a resumed run need not repeat: the same sample and seed would end the same way.
SETTLED = ("COMPLETED", "PRUNED", "DIVERGED")


@cache
def code_digest() -> str:
    """Returns a few letters that change with hyperlax's code: results are the same only by the same code."""
    digest = hashlib.sha256()
    root = Path(hyperlax.__file__).parent
    for file in sorted(path for suffix in ("*.py", "*.h", "*.cc") for path in root.rglob(suffix)):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns in words what two requests do not have in common, as they stand in ``run.json``."""
    now = json.loads(json.dumps(now))
    names = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
    return [f"{name} {_short(earlier.get(name))} there, {_short(now.get(name))} here" for name in names]


@contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """Says how to go on with what is written to a directory when it ends before its time.

    Raises:
        KeyboardInterrupt: with a message.
        CannotWrite: a file cannot be written.
    """
    hint = f"results so far: {directory}; the same command with --resume True goes on"
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:  # else it was said of a part of it
            log.warning("interrupted; %s", hint)
        raise KeyboardInterrupt(f"interrupted; {hint}") from None
    except OSError as error:
        log.info("the failure", exc_info=True)
        raise CannotWrite(f"{in_words(error)}; {hint}") from error


class Earlier(NamedTuple):
    """A run that was begun before.

    Attributes:
        directory: where it is.
        finished: whether nothing is left to do: it has ended, and all its results are there.
        memory: bytes that it was planned for.
    """

    directory: Path
    finished: bool
    memory: int


def latest_run(parent: Path, request: Mapping[str, Any], shared: bool = False) -> Earlier | None:
    """Returns the latest run below a directory that was asked the same, or None; logs why others are not it.

    Of work that is ``shared`` there may be several, of which those count that no process is at.
    """
    for directory in reversed(run_directories(parent)):
        info = info_of(directory)
        if shared and is_locked(directory):
            continue
        if not read_info(directory):
            log.warning("%s is damaged: it cannot be told what was run there", directory / "run.json")
        different = differences(info.get("request", {}), request)
        if not different:
            return _earlier(directory, info)
        only_code = all(text.startswith("code ") for text in different)
        level = logging.WARNING if only_code else logging.INFO  # the user may not have thought of it
        log.log(level, "%s is another run: %s", directory, "; ".join(different))
    return None


def run_at(path: str | os.PathLike[str], request: Mapping[str, Any]) -> Earlier:
    """Returns the run in a directory.

    Raises:
        UserError: there is none, or it was asked something else; the message says what differs.
    """
    directory = Path(path)
    if not (directory / "run.json").is_file():
        raise UserError(f"resume_from '{directory}': no run in it (no run.json); give a run directory")
    info = info_of(directory)
    if not info:
        raise UserError(f"resume_from '{directory}': its run.json is damaged, or by an older hyperlax")
    different = differences(info["request"], request)
    if different:
        raise UserError(f"resume_from '{directory}': another run: {'; '.join(different)}")
    return _earlier(directory, info)


def unbegun_run(parent: Path) -> DirectoryLock | None:
    """Returns the directory, locked, of a run that was killed before it said what it is, or None."""
    for directory in sorted(parent.glob("run_*")):
        if not _says_nothing(directory):
            continue
        try:
            lock = DirectoryLock(directory)
        except UserError:  # of a run that another process begins
            continue
        if lock.held and _says_nothing(directory):
            return lock
        lock.release()
    return None


def _says_nothing(directory: Path) -> bool:
    """Returns whether a directory holds no more than a lock and a study without trials."""
    return directory.is_dir() and all(
        path.name.startswith(".") or path.suffix == ".journal" for path in directory.iterdir()
    )


def digest_of(value: Any) -> str:
    """Returns a few letters that stand for a value."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def _earlier(directory: Path, info: Mapping[str, Any]) -> Earlier:
    finished = info.get("state") == "finished" and is_whole(directory)
    return Earlier(directory, finished, int(info["planned_memory"]))


def info_of(directory: Path) -> dict[str, Any]:
    """Returns ``run.json``, empty where it is damaged or says nothing of a request."""
    info = read_info(directory)
    try:
        int(info["planned_memory"]), dict(info["request"])
    except (ValueError, KeyError, TypeError):
        return {}
    return info


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


class Mark(NamedTuple):
    """How far a (sample, seed) is, from which it can go on.

    Attributes:
        env_steps: done.
        evaluations: written.
    """

    env_steps: int
    evaluations: int


class TakenUp(NamedTuple):
    """What there is of a run.

    Attributes:
        settled: (sample, seed)s that completed, were pruned or diverged. Those that failed or timed out might end
            otherwise another time.
        going: those that can go on from their mark.
        seconds: that the run has taken.
        damaged: rows that were left out.
    """

    settled: set[tuple[int, int]]
    going: set[tuple[int, int]]
    seconds: float
    damaged: int


def take_up(
    directory: Path,
    marks: Mapping[tuple[int, int], Mark],
    num_evaluations: int,
    policies: bool,
    ended: Collection[tuple[int, int]] | None = None,
    complete: bool = True,
) -> TakenUp:
    """Takes back what a run that was cut short wrote beyond the marks, and says what is left of it.

    Damaged rows are left out, with a warning that names the file; what then misses something, its policy included, is
    not settled.

    Args:
        directory: of the run.
        marks: of (sample, seed)s; those that are neither marked nor settled begin anew.
        num_evaluations: of every (sample, seed) that completes.
        policies: whether every one that completes has a policy.
        ended: those whose end counts; None for all that are on record.
        complete: whether each is to have every evaluation; members of populations that had diverged lack some.
    """
    for temporary in directory.rglob(f".*{TEMPORARY}"):
        temporary.unlink()
    tables = {name: _read(directory / f"{name}.csv", key) for name, key in TABLE_KEYS.items()}
    evaluations, ends = _steps_of(tables["evaluations"]), _ends_of(tables["lanes"])
    settled = {key for key, status in ends.items() if status in SETTLED and (ended is None or key in ended)}
    broken = _incomplete(directory, tables, num_evaluations, policies, settled) if complete else {}
    if broken:
        missing = ", ".join(sorted(set(broken.values())))
        log.warning(
            "%s: of %d trainings results are missing, they are trained again: %s", directory, len(broken), missing
        )
    settled -= broken.keys()

    def is_there(key: tuple[int, int], mark: Mark) -> bool:
        return sum(steps <= mark.env_steps for steps in evaluations.get(key, [])) == mark.evaluations

    going = {key for key, mark in marks.items() if key not in settled and (not complete or is_there(key, mark))}
    limits = {key: float(marks[key].env_steps) for key in going} | dict.fromkeys(settled, math.inf)
    seconds = max((float(row["wall_seconds"]) for row in tables["evaluations"].rows.values()), default=0.0)
    for name, table in tables.items():
        if not table.header:
            (directory / f"{name}.csv").unlink(missing_ok=True)
            continue
        for key, row in list(table.rows.items()):
            lane = int(key[0]), int(key[1])
            if lane not in settled and (name == "lanes" or float(row["env_steps"]) > limits.get(lane, -1)):
                del table.rows[key]
        table.write(directory / f"{name}.csv")
    rounds = read_text(directory / "rounds.csv", ROUND_COLUMNS)
    if rounds.header:
        kept = {key: row for key, row in rounds.rows.items() if float(row["wall_seconds_start"]) < seconds}
        rounds._replace(rows=kept).write(directory / "rounds.csv")
    return TakenUp(settled, going, seconds, sum(table.damaged for table in tables.values()))


def is_whole(directory: Path) -> bool:
    """Returns whether all results of a run that has finished are there and can be read; names what is damaged."""
    info = read_info(directory)
    tables = {name: read_text(directory / f"{name}.csv", key) for name, key in TABLE_KEYS.items()}
    samples, summary = (
        read_text(directory / f"{name}.csv", [key])
        for name, key in (("samples", "sample_id"), ("summary", "sample id"))
    )
    ends, missing = _ends_and_gaps(directory, info, tables)
    ids = {(float(sample_id),) for sample_id, _ in ends}
    wrong = [name for name, table in {**tables, "samples": samples, "summary": summary}.items() if table.damaged]
    wrong += ["lanes"] * bool(_steps_of(tables["evaluations"]).keys() - ends.keys() or samples.rows.keys() - ids)
    wrong += ["samples"] * bool(ids - samples.rows.keys()) + ["summary"] * bool(ids - summary.rows.keys())
    if "population_size" in info:  # see mend_derived
        wrong = [name for name in wrong if name not in ("samples", "summary")]
        lineage = read_text(directory / LINEAGE, LINEAGE_KEY)
        every_member = lineage.rows and len(lineage.rows) % max(1, len(ends)) == 0  # in each generation
        wrong += ["lineage"] * bool(lineage.damaged or not every_member)
    damaged = {f"{name}.csv" for name in wrong} | set(missing.values())
    if damaged:
        listed = ", ".join(sorted(damaged))
        log.warning("%s has finished, but these are damaged, and what they had is made again: %s", directory, listed)
    return not damaged


def mend_derived(directory: Path, samples: Sequence[Sample]) -> None:
    """Writes samples and summary again if they are damaged, of a run that has finished and of which nothing else is.

    That of populations would be trained again as a whole.
    """
    ids = {(float(sample.sample_id),) for sample in samples}
    for name, key in (("samples", "sample_id"), ("summary", "sample id")):
        file = directory / f"{name}.csv"
        table = read_text(file, [key])
        if table.damaged or table.rows.keys() != ids:
            log.warning("%s is damaged: it is written again", file)
            written = to_csv(samples).encode() if name == "samples" else to_published(load_run(directory).summary)
            write_atomic(file, written)


def intact(directory: Path) -> set[int]:
    """Returns the samples of a run of which every seed has ended, and has all its results."""
    info = read_info(directory)
    if not info:
        return set()
    tables = {name: read_text(directory / f"{name}.csv", key) for name, key in TABLE_KEYS.items()}
    ends, missing = _ends_and_gaps(directory, info, tables)
    good = {key for key, status in ends.items() if status in SETTLED and key not in missing}
    return {sample_id for sample_id, _ in good if all((sample_id, seed) in good for seed in info["seeds"])}


def _ends_and_gaps(
    directory: Path, info: Mapping[str, Any], tables: Mapping[str, TextTable]
) -> tuple[dict[tuple[int, int], str], dict[tuple[int, int], str]]:
    """Returns how each (sample, seed) has ended, and of those that are settled the file that lacks something."""
    ends = _ends_of(tables["lanes"])
    settled = {key for key, status in ends.items() if status in SETTLED}
    policies = bool(info.get("request", {}).get("save_policies", True))
    complete = "population_size" not in info  # members that had diverged lack some
    return ends, _incomplete(directory, tables, int(info["num_evaluations"]), policies, settled, complete)


def _incomplete(
    directory: Path,
    tables: Mapping[str, TextTable],
    num_evaluations: int,
    policies: bool,
    settled: Collection[tuple[int, int]],
    complete: bool = True,
) -> dict[tuple[int, int], str]:
    """Returns the (sample, seed)s that have ended and of which something is missing, with the file that lacks it.

    Unless they are to be ``complete``, what completed is to have its end alone.
    """
    evaluations, metrics = _steps_of(tables["evaluations"]), _steps_of(tables["metrics"])
    missing = {}
    for number, row in tables["lanes"].rows.items():
        key, last, status = (int(number[0]), int(number[1])), float(row["env_steps"]), row["status"]
        if key not in settled:
            continue
        rows = evaluations.get(key, [])  # an update that passes several points of the grid is evaluated once for each
        points, trained = set(rows), set(metrics.get(key, []))
        # What diverged was not evaluated then; what was pruned may have ended between two evaluations.
        at_end = {last} if status == "COMPLETED" else set()
        evaluated = (trained - ({last} if status == "DIVERGED" else set())) | at_end
        policy = policy_path(directory, *key)
        cut_short = points < evaluated or (status == "COMPLETED" and len(rows) != num_evaluations)
        if not at_end <= points or (complete and cut_short):
            missing[key] = "evaluations.csv"
        elif not at_end <= trained or (complete and trained < points | at_end):
            missing[key] = "metrics.csv"
        elif status == "COMPLETED" and policies and not _is_readable(policy):
            missing[key] = str(policy.relative_to(directory))
    return missing


def _ends_of(lanes: TextTable) -> dict[tuple[int, int], str]:
    """Returns how each (sample, seed) that has ended did."""
    return {(int(key[0]), int(key[1])): row["status"] for key, row in lanes.rows.items()}


def _read(file: Path, key: Sequence[str]) -> TextTable:
    numbers = ["env_steps", "mean_return", "wall_seconds"] if file.stem == "evaluations" else ["env_steps"]
    table = read_text(file, key, numbers)
    if table.damaged:
        log.warning("%s: %d damaged rows are left out", file, table.damaged)
    return table


def _steps_of(table: TextTable) -> dict[tuple[int, int], list[float]]:
    """Returns the environment steps of the rows of each (sample, seed)."""
    steps: dict[tuple[int, int], list[float]] = {}
    for key, row in table.rows.items():
        steps.setdefault((int(key[0]), int(key[1])), []).append(float(row["env_steps"]))
    return steps


def _is_readable(file: Path) -> bool:
    """Returns whether a saved policy is there and whole."""
    try:
        with np.load(file, allow_pickle=False) as content:
            for name in content.files:
                content[name]
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return True
