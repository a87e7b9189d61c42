"""What a study costs in each kind of file: trials asked for, reported and told, by a sampler that takes no time.

    python benchmarks/storages.py                        `make bench-search`

Written to ``benchmark_results/search/storages.md``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import report

from hyperlax.recipes import get_recipe
from hyperlax.search.pruners import PRUNERS
from hyperlax.search.storages import open_storage
from hyperlax.search.study import Study


def optunas_journal(file: Path) -> Any:
    """Returns Optuna's own journal file, which waits for the disk at every event."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(file)))


STORAGES = {
    "journal file (the default)": lambda folder: open_storage(folder / "study.journal"),
    "Optuna's journal file": lambda folder: optunas_journal(folder / "study.journal"),
    "SQLite": lambda folder: open_storage(f"sqlite:///{folder}/study.db"),
}


def seconds(make: Any, space: Any, trials: int, reports: int) -> float:
    """Returns what a study of so many trials takes."""
    with tempfile.TemporaryDirectory() as folder:
        storage = make(Path(folder))
        grid = tuple(range(1, reports + 1))
        start = time.perf_counter()
        study = Study(storage, "study", {}, space, ["maximize"], "random", PRUNERS["none"][0](grid), seed=0)
        for _ in range(trials):
            trial = study.create()
            study.suggest(trial)
            for step in grid:
                study.report(trial, step, float(step))
            study.finish(trial, "COMPLETED", [1.0])
        return time.perf_counter() - start


def main() -> None:
    """Measures in alternation, tabulates and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="ppo_mlp")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--reports", type=int, default=10, help="of each trial")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=report.ROOT / "benchmark_results" / "search")
    args = parser.parse_args()
    space = get_recipe(args.recipe).space
    taken: dict[str, list[float]] = {name: [] for name in STORAGES}
    for _ in range(args.repeats):
        for name, make in STORAGES.items():
            taken[name].append(seconds(make, space, args.trials, args.reports))
    rows = [[name, f"{1e3 * statistics.median(each) / args.trials:.1f}"] for name, each in taken.items()]
    text = [
        report.heading("What a study costs in a file", versions=report.our_versions() | report.versions(["optuna"])),
        f"A trial of {len(space)} hyperparameters and {args.reports} reports, medians of {args.repeats} studies of "
        f"{args.trials} trials.\n",
        report.table(["storage", "milliseconds a trial"], rows),
    ]
    report.write(args.output / "storages.md", "\n".join(text))


if __name__ == "__main__":
    main()
