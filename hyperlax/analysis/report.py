"""One HTML file that tells a run, a search or a benchmark: tables that sort and filter, pictures, how to repeat it.

It needs no network and no other file: pictures stand in it as data.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hyperlax.analysis.collection import Entry, entry_of
from hyperlax.analysis.comparison import Tables, plot_comparison, tables
from hyperlax.analysis.figures import FORMATS
from hyperlax.analysis.page import Section, facts, page, shown, table
from hyperlax.analysis.run_pictures import NAMES, SHORT, plot_run
from hyperlax.analysis.sensitivity import sensitivity
from hyperlax.errors import UserError
from hyperlax.results import Run
from hyperlax.results.storage import write_atomic

MOST_ROWS = 1200  # of all tables of configurations together
MOST_BYTES = 2_500_000  # of all pictures together; those beyond are named
_LARGE = 300_000  # bytes of a picture


class Drawn(NamedTuple):
    """What was made of some results.

    Attributes:
        pictures: files.
        tables: what was found, in numbers.
        report: file.
    """

    pictures: list[Path]
    tables: Tables
    report: Path


def draw_report(
    entries: Sequence[Entry],
    folder: Path,
    title: str,
    goals: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Drawn:
    """Draws some results, and writes tables and ``report.html`` beside the pictures.

    One run has all its pictures; of several, each has those of ``SHORT``, in a folder of its own.

    Args:
        entries: what is told.
        folder: where everything goes.
        title: heading of the report.
        goals: returns with which environments count as solved.
        about: further facts, by name.

    Raises:
        UserError: the folder cannot be written, or a goal is none.
    """
    found = tables(entries, goals)
    pictures = plot_comparison(entries, folder)
    found.write(folder)
    if len(entries) == 1:
        pictures |= plot_run(entries[0], folder)
    else:
        for entry in entries:
            own = plot_run(entry, folder / "runs" / _slug(entry), SHORT)
            pictures |= {f"{_name(entry)}: {heading}": file for heading, file in own.items()}
    report = write_report(entries, pictures, found, folder / "report.html", title, about)
    return Drawn(list(pictures.values()), found, report)


def write_run_report(run: Run) -> Path:
    """Writes ``report.html`` into a run's directory, and its pictures, as PNG with their numbers, into ``plots``.

    Raises:
        UserError: no configuration has a return yet, or the directory cannot be written.
    """
    if run.summary["final_return"].notna().sum() == 0:
        raise UserError(f"'{run.path}': nothing to report, no sample of this run has been evaluated yet")
    entry, folder = entry_of(run), run.path / "plots"
    found = tables([entry])
    pictures = plot_comparison([entry], folder, FORMATS[:1]) | plot_run(entry, folder, NAMES, FORMATS[:1])
    found.write(folder)
    return write_report([entry], pictures, found, run.path / "report.html", f"{_name(entry)}: {run.path.name}")


def write_report(
    entries: Sequence[Entry],
    pictures: Mapping[str, Path],
    found: Tables,
    path: Path,
    title: str,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the report of some results.

    Args:
        entries: what is told.
        pictures: PNG files by title.
        found: what they come to, in numbers.
        path: of the HTML file.
        title: its heading.
        about: further facts, by name.

    Raises:
        UserError: the file cannot be written.
    """
    named = [(entry, _name(entry) + ": " if len(entries) > 1 else "") for entry in entries]
    sections = [("About", facts(about))] if about else []
    sections += _compared(entries, found)
    for entry, before in named:
        sections += _found(entry, before)
    sections += _pictured(pictures, path.parent)
    for entry, before in named:
        sections += _told(entry, before, MOST_ROWS // len(entries))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page(title, _subtitle(entries), sections).encode())
    except OSError as error:
        raise UserError(f"'{path}': cannot write the report there: {error.strerror}") from None
    return path


_RESULTS = (
    "sample_id", "status", "final_return", "final_return_std", "peak_return", "peak_timestep", "auc_at_budget",
    "stability_score", "time_to_target", "seeds", "num_params", "env_steps", "wall_seconds",
)  # fmt: skip


def _name(entry: Entry) -> str:
    return f"{entry.family} on {entry.environment}"


def _slug(entry: Entry) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", f"{entry.environment}_{entry.family}").strip("_")


def _subtitle(entries: Sequence[Entry]) -> str:
    count, families = sum(len(entry.summary) for entry in entries), len({entry.family for entry in entries})
    names = sorted({entry.environment for entry in entries})
    some = f" of {families} families" if families > 1 else ""
    absent = sum(entry.left_out for entry in entries)
    left = f"; {absent} that have not ended are left out" if absent else ""
    return f"{count} configuration{'s' * (count != 1)}{some} on {', '.join(names)}{left}"


# --- sections -----------------------------------------------------------------------------------


def _compared(entries: Sequence[Entry], found: Tables) -> Iterable[Section]:
    if len(entries) > 1:
        yield "Families", table(found.aggregates)
        if len(found.overall):
            yield (
                "Families over several environments, returns scaled from the worst (0) to the goal or the best (1)",
                table(found.overall),
            )
        if len(found.improvements):
            yield "How likely one family's configuration beats another's", table(found.improvements)


def _pictured(pictures: Mapping[str, Path], folder: Path) -> Iterable[Section]:
    """Yields the pictures; those for which there is no room are named."""
    room, absent = MOST_BYTES, []
    for title, file in pictures.items():
        data = base64.b64encode(_smaller(file)).decode()
        room -= len(data)
        if room >= 0:
            yield title, f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></figure>'
        else:
            absent.append(file.relative_to(folder) if file.is_relative_to(folder) else file)
    if absent:
        names = "".join(f"<li>{html.escape(str(file))}</li>" for file in absent)
        yield "Further pictures", f"<p>Not shown here, so that this file stays small:</p><ul>{names}</ul>"


def _smaller(file: Path) -> bytes:
    """Returns a PNG; a large one with 256 colours at most: a fourth of the size, and no eye tells them apart."""
    from PIL import Image

    if file.stat().st_size < _LARGE:
        return file.read_bytes()
    content = io.BytesIO()
    Image.open(file).convert("RGB").quantize(256).save(content, "png")
    return content.getvalue()


def _found(entry: Entry, before: str) -> Iterable[Section]:
    """Yields what was searched for and what is best."""
    info = entry.run.info if entry.run is not None else {}
    if info.get("matrices"):
        try:
            yield f"{before}Sobol indices", table(sensitivity(entry))
        except UserError:
            pass  # too little of it has ended
    if entry.run is not None and "study" in info:
        yield f"{before}The search", facts(_search(entry.run))
        if info.get("best_trials"):
            yield f"{before}The best of the study", table(pd.DataFrame(info["best_trials"]))
    if info.get("winner"):
        yield f"{before}The winner, trained again", facts(_winner(info["winner"]))


def _told(entry: Entry, before: str, rows: int) -> Iterable[Section]:
    """Yields all configurations and how they came about."""
    run = entry.run
    columns = [*_RESULTS, *entry.hyperparameters]
    best_first = entry.reached.sort_values("final_return", ascending=False, na_position="last", kind="stable").index
    configurations = entry.summary.loc[best_first, [name for name in columns if name in entry.summary]].head(rows)
    left = f", the best {rows}" if len(entry.summary) > rows else ""
    yield f"{before}Configurations{left}", table(configurations)
    if run is not None:
        if run.info.get("programs"):
            yield f"{before}The plan, and what happened", table(_plan(run)) + facts(_plan_sum(run))
        yield f"{before}How to repeat it", _made(run)


def _search(run: Run) -> dict[str, Any]:
    request = run.info.get("request") or {}
    aims = run.objectives
    counts = run.summary["status"].value_counts().to_dict()
    return {
        "study": run.info["study"],
        "storage": request.get("storage") or "study.journal in the run directory",
        "sampler": request.get("sampler"),
        "pruner": request.get("pruner"),
        "objectives": ", ".join(
            f"{objective.replace('_', ' ')} ({direction})" for objective, direction in aims.items()
        ),
        "trials asked for": run.info.get("num_trials"),
        "trials here": ", ".join(f"{count} {status}" for status, count in counts.items()),
    }


def _winner(winner: Mapping[str, Any]) -> dict[str, Any]:
    error = winner.get("fresh_seeds_standard_error")
    fresh = shown(winner["fresh_seeds_final_return"]) + (f" ± {shown(error)} (standard error)" if error else "")
    return {
        "sample": winner["sample_id"],
        "final return that selected it": shown(winner["selected_final_return"]),
        f"final return on {winner['fresh_seeds']} fresh seeds": fresh,
        "fresh seeds that diverged": winner.get("fresh_seeds_diverged", 0),
    }


_PLAN = (
    "program", "tasks", "lanes", "predicted_seconds", "run_seconds", "predicted_compile_seconds", "compile_seconds",
    "predicted_memory_mib", "memory_mib", "predicted_padding", "lanes_busy", "ticks", "shape",
)  # fmt: skip


def _plan(run: Run) -> pd.DataFrame:
    """Returns a row a program, what was predicted beside what happened."""
    programs = pd.DataFrame(run.info["programs"])
    return programs[[name for name in _PLAN if name in programs]]


def _plan_sum(run: Run) -> dict[str, Any]:
    names = {"predicted_seconds": "seconds predicted", "seconds": "seconds taken, of all"}
    return {label: shown(run.info[name]) for name, label in names.items() if run.info.get(name) is not None}


def _made(run: Run) -> str:
    """Returns what a reader needs to repeat a run."""
    info = run.info
    command = info.get("command")
    told = f"<pre>{html.escape(str(command))}</pre>" if command else "<p>It was started from Python.</p>"
    names = (
        "recipe", "environment", "backend", "budget_steps", "num_seeds", "num_evaluations", "num_eval_episodes", "seed",
        "state", "start_time", "end_time", "seconds", "device_kind", "devices", "kernel",
    )  # fmt: skip
    known = {name.replace("_", " "): info[name] for name in names if info.get(name) is not None}
    versions = ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items())
    rest = {
        name: info[name]
        for name in ("request", "suite", "overrides", "space", "defaults", "failures")
        if info.get(name)
    }
    configuration = html.escape(json.dumps(rest, indent=1, ensure_ascii=False))
    details = f"<details><summary>Configuration</summary><pre>{configuration}</pre></details>"
    return told + facts({**known, "versions": versions}) + details
