"""Writes a run directory while the run goes on, so that it can be killed at any instant.

=====================  ===========================================================================
file                   content
=====================  ===========================================================================
``run.json``           what ran, with which versions, and ``state``: running, finished,
                       interrupted or failed (still "running" after a SIGKILL)
``samples.csv``        the samples, as ``--samples-file`` reads them; later ones are appended
``evaluations.csv``    one row an evaluation, appended
``metrics.csv``        training metrics, appended; its columns are those of the first row
``lanes.csv``          one row when a (sample, seed) ends, appended
``rounds.csv``         one row a round of a program: how long it took, how many lanes had a task, and
                       how long the process computed (CPU seconds, over all cores), appended
``summary.csv``        one row a sample, see `hyperlax.results.summary`; brought up to date at
                       the end, and now and then before
``policies/``          ``sample_000012_seed_0.npz``
=====================  ===========================================================================
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from hyperlax.results.storage import AppendTable, append, read_table, read_text, write_atomic
from hyperlax.results.summary import STATUSES, summarise, to_published
from hyperlax.spaces.files import Sample, to_csv

log = logging.getLogger(__name__)

EVALUATION_COLUMNS = (
    "sample_id",
    "seed",
    "grid_step",
    "env_steps",
    "mean_return",
    "std_return",
    "min_return",
    "max_return",
    "mean_length",
    "episodes",
    "wall_seconds",
)
METRIC_KEYS = ("sample_id", "seed", "env_steps")
LANE_COLUMNS = (
    "sample_id",
    "seed",
    "status",
    "env_steps",
    "diverged_at",
    "num_params",
    "program",
    "lane",
    "wall_seconds_start",
    "wall_seconds_end",
    "message",
)
ROUND_COLUMNS = (
    "program",
    "wall_seconds_start",
    "wall_seconds_end",
    "run_seconds",
    "cpu_seconds",
    "devices",
    "lanes",
    "lanes_busy",
)
#: What the rows of the tables that are appended to are sorted by in the end.
TABLE_KEYS = {
    "evaluations": ("sample_id", "seed", "grid_step"),
    "metrics": METRIC_KEYS,
    "lanes": ("sample_id", "seed"),
}
#: The state a run may be closed with.
END_STATES = ("finished", "interrupted", "failed")
_METADATA = "__metadata__"
_SUMMARY_SECONDS = 5.0


class RunWriter:
    """Writes one run's directory; used as a context manager it records how the run ended.

    On a directory that already holds a run (``--resume``) it carries on: tables are
    appended to, ``run.json`` keeps the time of the first start.

    Args:
        directory: from `create_run_directory`, or that of the run to resume.
        info: what goes into ``run.json``. ``budget_steps``, the environment steps each
            (sample, seed) is to run, enters the summary; without it, the last step seen does.
        samples: those known at the start; `add_samples` takes later ones.
        seeds: every sample is to run with each of them.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        directory: str | Path,
        info: Mapping[str, Any],
        samples: Sequence[Sample],
        seeds: Sequence[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._seeds = list(seeds)
        self._samples: dict[int, Sample] = {}
        self._info = {**info, "seeds": self._seeds, "state": "running", **_start_times(self.directory)}
        self._write_info()
        if not samples:  # those of a search whose trials others have taken over are no longer its own
            (self.directory / "samples.csv").unlink(missing_ok=True)
        self.add_samples(samples)
        self._evaluations = AppendTable(self.directory / "evaluations.csv", EVALUATION_COLUMNS)
        self._metrics = AppendTable(self.directory / "metrics.csv")
        self._lanes = AppendTable(self.directory / "lanes.csv", LANE_COLUMNS)
        self._rounds = AppendTable(self.directory / "rounds.csv", ROUND_COLUMNS)
        # Kept in memory as well, so that a new summary does not read everything again.
        self._evaluation_rows = _records(self.directory / "evaluations.csv")
        self._lane_rows = _records(self.directory / "lanes.csv")
        self._summary_due = self._clock() + _SUMMARY_SECONDS
        self._closed = False

    def update_info(self, **changes: Any) -> None:
        """Changes or adds entries of ``run.json``."""
        self._info |= changes
        self._write_info()

    def add_samples(self, samples: Sequence[Sample]) -> None:
        """Adds samples drawn while the run goes on; one with a known id replaces it."""
        path, new = self.directory / "samples.csv", sorted(samples, key=lambda sample: sample.sample_id)
        last = next(reversed(self._samples.values()), None)
        self._samples |= {sample.sample_id: sample for sample in new}
        follow = last is not None and all(
            sample.sample_id > last.sample_id and sample.values.keys() == last.values.keys() for sample in new
        )
        if follow and new:  # a search asks for thousands, one by one
            append(path, to_csv(new, header=False).encode())
        elif new:  # a search may start without any
            self._samples = dict(sorted(self._samples.items()))
            write_atomic(path, to_csv([*self._samples.values()]).encode())

    def sync(self) -> None:
        """Waits until what is appended is on the disk."""
        for table in (self._evaluations, self._metrics, self._lanes, self._rounds):
            table.sync()

    def evaluations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends evaluations, keys as in `EVALUATION_COLUMNS`."""
        self._evaluations.append(rows)
        keep = ("sample_id", "seed", "grid_step", "mean_return")
        self._evaluation_rows.extend({key: row[key] for key in keep} for row in rows)
        self._refresh_summary()

    def metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends training metrics: ``sample_id``, ``seed``, ``env_steps``, then the same columns in every row."""
        if self._metrics.columns is None and rows:
            rest = [key for key in rows[0] if key not in METRIC_KEYS]
            rows = [{key: rows[0].get(key) for key in (*METRIC_KEYS, *rest)}, *rows[1:]]
        self._metrics.append(rows)

    def rounds(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends what rounds of lanes took, keys as in `ROUND_COLUMNS`."""
        self._rounds.append(rows)

    def lane_finished(
        self,
        sample_id: int,
        seed: int,
        status: str,
        env_steps: int,
        diverged_at: int | None = None,
        num_params: int | None = None,
        program: int | None = None,
        lane: int | None = None,
        wall_seconds_start: float | None = None,
        wall_seconds_end: float | None = None,
        message: str = "",
    ) -> None:
        """Records that a (sample, seed) ended, and how: a status out of `STATUSES`."""
        if status not in STATUSES:
            raise ValueError(f"status '{status}': accepted are {', '.join(STATUSES)}")
        start, end = wall_seconds_start, wall_seconds_end
        values = (sample_id, seed, status, env_steps, diverged_at, num_params, program, lane, start, end, message)
        row = dict(zip(LANE_COLUMNS, values, strict=True))
        self._lanes.append([row])
        self._lane_rows.append(row)
        self._refresh_summary()

    def save_policy(
        self, sample_id: int, seed: int, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
    ) -> Path:
        """Saves a policy's arrays and what is needed to use them; returns the file."""
        if _METADATA in arrays:
            raise ValueError(f"'{_METADATA}' is taken by the metadata")
        path = policy_path(self.directory, sample_id, seed)
        path.parent.mkdir(exist_ok=True)
        content = io.BytesIO()
        text = np.array(json.dumps(dict(metadata), default=_plain))
        np.savez(content, allow_pickle=False, **{_METADATA: text}, **{key: np.asarray(arrays[key]) for key in arrays})
        write_atomic(path, content.getvalue())
        return path

    def summary_of(self, sample_id: int) -> Mapping[str, Any]:
        """Returns the row of the summary for one sample, as things are."""
        evaluations, lanes = (
            pd.DataFrame([row for row in rows if row["sample_id"] == sample_id], columns=list(columns))
            for rows, columns in ((self._evaluation_rows, EVALUATION_COLUMNS), (self._lane_rows, LANE_COLUMNS))
        )
        samples = pd.DataFrame({"sample_id": [sample_id]})
        table = summarise(evaluations, samples, lanes, budget_of(self._info, evaluations), len(self._seeds))
        return {str(name): value for name, value in table.iloc[0].items()}

    def close(self, state: str = "finished") -> None:
        """Writes the summary and the state the run ended in; the first call counts."""
        if state not in END_STATES:
            raise ValueError(f"state '{state}': accepted are {', '.join(END_STATES)}")
        if self._closed:
            return
        self._closed = True
        for table in (self._evaluations, self._metrics, self._lanes, self._rounds):
            table.close()
        if state == "finished":  # in an order that does not depend on who ended first
            for name, key in TABLE_KEYS.items():
                written = read_text(self.directory / f"{name}.csv", key)
                if written.header:
                    written.write(self.directory / f"{name}.csv")
        self._write_summary()
        self.update_info(state=state, end_time=_now())

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close("finished")
        else:
            self.close("interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed")

    def _refresh_summary(self) -> None:
        start = self._clock()
        if start < self._summary_due:
            return
        self._write_summary()
        # Never more than a fiftieth of the run, however many samples there are.
        end = self._clock()
        self._summary_due = end + max(_SUMMARY_SECONDS, 50 * (end - start))

    def _write_summary(self) -> None:
        evaluations = pd.DataFrame(self._evaluation_rows, columns=list(EVALUATION_COLUMNS))
        lanes = pd.DataFrame(self._lane_rows, columns=list(LANE_COLUMNS))
        samples = samples_frame([*self._samples.values()])
        budget = budget_of(self._info, evaluations)
        table = summarise(evaluations, samples, lanes, budget, len(self._seeds))
        write_atomic(self.directory / "summary.csv", to_published(table))

    def _write_info(self) -> None:
        text = json.dumps(self._info, indent=2, default=_plain, ensure_ascii=False)
        write_atomic(self.directory / "run.json", (text + "\n").encode())


def policy_path(directory: Path, sample_id: int, seed: int) -> Path:
    """Returns where a (sample, seed)'s policy is saved."""
    return directory / "policies" / f"sample_{sample_id:06d}_seed_{seed}.npz"


def samples_frame(samples: Sequence[Sample]) -> pd.DataFrame:
    """Returns samples as a table: ``sample_id``, then one column a hyperparameter."""
    table = pd.DataFrame([{"sample_id": sample.sample_id, **sample.values} for sample in samples])
    return table if len(table) else pd.DataFrame(columns=["sample_id"])


def budget_of(info: Mapping[str, Any], evaluations: pd.DataFrame) -> float:
    """Returns the environment steps each (sample, seed) is to run, or failing that the last step seen."""
    budget = info.get("budget_steps")
    if budget is None:
        budget = evaluations["grid_step"].max() if len(evaluations) else 1
    return float(budget)


def read_info(directory: Path) -> dict[str, Any]:
    """Returns ``run.json`` as it is, empty where there is none or a damaged one."""
    try:
        return dict(json.loads((directory / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _start_times(directory: Path) -> dict[str, Any]:
    """Returns when the run started and, when this directory holds one already, when it was resumed."""
    earlier = read_info(directory)
    if not earlier:
        if (directory / "run.json").exists():
            log.warning("%s is damaged, it is written anew", directory / "run.json")
        return {"start_time": _now()}
    return {"start_time": earlier.get("start_time"), "resumed_times": [*earlier.get("resumed_times", []), _now()]}


def _records(path: Path) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in read_table(path).to_dict("records")]


def _plain(value: Any) -> Any:
    """Returns what JSON can hold for a value that it cannot: arrays, NumPy numbers, sets, paths."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
