"""Speed against rejax: the same work on both sides, alternating, each measurement in a process of its own.

python benchmarks/speed.py --peer-python .venv-rejax/bin/python     the comparison
python benchmarks/speed.py --profile                                where PPO's time goes, and the limit
python benchmarks/speed.py --lanes                                  ours alone over 1 … 4096 lanes, on any device
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import report
from worker import ENVIRONMENTS, STEPS_PER_UPDATE, Job, Worker

HERE = Path(__file__).resolve().parent
SCRIPTS = {"hyperlax": HERE / "speed_hyperlax.py", "rejax": HERE / "peer_rejax.py"}
TARGETS = (
    "wanted: pinned to one core 1.5 times the steps/s from 16 configurations on, at most a third of the compile time; "
    "on two cores 2.5 times; DQN and SAC twice at 16 and 64 configurations"
)
WORK = (
    "8 environments; PPO × 128 steps, 4 epochs × 4 minibatches, actor and critic of 2×64 tanh, observations "
    "normalised; DQN and SAC × 1 step, then 8 gradient steps, batches of 128, 2×64 relu, replay of "
    "10,000, double Q-learning"
)


@dataclass(frozen=True)
class Cell:
    """One process (or one pair of them) to be measured, again in every round.

    Attributes:
        library: ``hyperlax`` or ``rejax``.
        algorithm: ``ppo``, ``dqn`` or ``sac``.
        environment: ``cartpole`` or ``pendulum``.
        configurations: in all processes together.
        cores: bound to so many.
        processes: 2 for one process a core, with half the configurations each.
        evaluation: compile with evaluation, and train nothing.
    """

    library: str
    algorithm: str
    environment: str
    configurations: int
    cores: int
    processes: int = 1
    evaluation: bool = False


ANSWERED = [
    "import_seconds",
    "trace_seconds",
    "lower_seconds",
    "xla_seconds",
    "compilations",
    "devices",
]  # of one process
KEYS = list(Cell.__dataclass_fields__)
COLUMNS = [
    *KEYS, "round", "repeat", "env_steps", "seconds", "cpu_seconds", "steps_per_second", "compile_seconds",
    "compile_cpu_seconds", *ANSWERED, "memory_mib",
]  # fmt: skip


def cells(algorithm: str, environment: str, configurations: int, cores: int) -> list[Cell]:
    """Returns what one line of a table needs, ours and theirs in turn."""
    both = [Cell(library, algorithm, environment, configurations, cores) for library in SCRIPTS]
    if cores == 1:
        return both + [Cell(library, algorithm, environment, configurations, 1, evaluation=True) for library in SCRIPTS]
    if configurations > 1:
        both.append(Cell("rejax", algorithm, environment, configurations, cores, processes=2))
    return both


def measure(cell: Cell, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures one cell in fresh processes; the first run of each is not counted."""
    allowed = sorted(os.sched_getaffinity(0))[: cell.cores]
    bound = [{core} for core in allowed] if cell.processes == 2 else [set(allowed)]
    most = min(args.steps, args.total_steps // cell.configurations) if cell.algorithm == "ppo" else args.replay_steps
    updates = max(1, most // STEPS_PER_UPDATE[cell.algorithm])
    job = Job(cell.algorithm, cell.environment, cell.configurations // cell.processes, updates, cell.evaluation)
    python = sys.executable if cell.library == "hyperlax" else args.peer_python
    workers = [Worker(python, SCRIPTS[cell.library], job, cores) for cores in bound]
    ready = [w.answer() for w in workers]
    args.versions[cell.library] = ready[0]["versions"]
    row = asdict(cell) | {
        "compile_seconds": max(a["seconds"] for a in ready),
        "compile_cpu_seconds": sum(a["cpu_seconds"] for a in ready),
        **{stage: ready[0][stage] for stage in ANSWERED},
    }
    if cell.evaluation:
        yield row | {"repeat": 0}
    for repeat in range(0 if cell.evaluation else args.repeats + 1):
        for w in workers:
            w.run()
        answers = [w.answer() for w in workers]
        if repeat > 0:
            yield row | _run_row(answers, job.steps * job.configurations * cell.processes) | {"repeat": repeat}
    for w in workers:
        w.close()


def _run_row(answers: list[dict[str, float]], env_steps: int) -> dict[str, float]:
    seconds = max(a["seconds"] for a in answers)
    return {
        "env_steps": env_steps,
        "seconds": seconds,
        "cpu_seconds": sum(a["cpu_seconds"] for a in answers),
        "steps_per_second": env_steps / seconds,
        "memory_mib": sum(a["memory_mib"] for a in answers),
    }


def compare(args: argparse.Namespace) -> None:
    """Measures everything, writing every row at once, and then the tables."""
    path, versions = args.output / "measurements.csv", args.output / "versions.json"
    if args.resume and versions.exists():
        args.versions |= json.loads(versions.read_text(encoding="utf-8"))
    done = pd.read_csv(path) if args.resume and path.exists() else pd.DataFrame(columns=COLUMNS)
    already = set(done[[*KEYS, "round"]].itertuples(index=False, name=None))
    args.output.mkdir(parents=True, exist_ok=True)
    with path.open("a" if len(done) else "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not len(done):
            writer.writeheader()
        for number, cell in _order(args):
            if (*asdict(cell).values(), number) in already:
                continue
            rows = [row | {"round": number} for row in measure(cell, args)]
            writer.writerows({k: _short(v) for k, v in row.items()} for row in rows)
            file.flush()
            versions.write_text(json.dumps(args.versions, indent=2) + "\n", encoding="utf-8")
            _say(number, cell, rows)
    report.write(args.output / "comparison.md", tables(pd.read_csv(path), args))


def _order(args: argparse.Namespace) -> Iterator[tuple[int, Cell]]:
    """Yields rounds outermost, so that a slow spell of the machine meets all alike."""
    for number in range(1, args.rounds + 1):
        for cores in args.cores:
            for algorithm in args.algorithms:
                for environment in ENVIRONMENTS[algorithm]:
                    for configurations in args.configurations if environment in args.environments else ():
                        for cell in cells(algorithm, environment, configurations, cores):
                            yield number, cell


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _say(number: int, cell: Cell, rows: list[dict[str, Any]]) -> None:
    rates = ", ".join(f"{row['steps_per_second']:,.0f}" for row in rows if "seconds" in row)
    what = "compiled with evaluation" if cell.evaluation else f"{rates} steps/s"
    print(
        f"round {number}: {cell.library} × {cell.configurations} {cell.algorithm} {cell.environment}, "
        f"{cell.cores} cores, {cell.processes} processes: {what}, compile {rows[0]['compile_cpu_seconds']:.1f} CPU-s",
        flush=True,
    )


# --- tables --------------------------------------------------------------------------------------


def tables(rows: pd.DataFrame, args: argparse.Namespace) -> str:
    """Returns the comparison as Markdown: medians over rounds and repeats, and their ratios."""
    medians = rows.groupby(KEYS, sort=False).median(numeric_only=True)
    counted = rows.groupby(KEYS, sort=False)["round"].nunique().max()
    parts = [
        report.heading(
            "Speed, hyperlax against rejax",
            **{f"{name}'s versions": found for name, found in args.versions.items()},
            work=f"{WORK}; learning rates 1e-4 … 1e-3, no evaluation in the timed part; both libraries without a "
            "persistent compilation cache",
            measured=f"medians over {counted} rounds, each in fresh processes, the libraries in turn; a run trains "
            "from the start, initialisation included; the first run of a process is not counted",
            targets=TARGETS,
        )
    ]
    for algorithm, environment in rows[["algorithm", "environment"]].drop_duplicates().itertuples(index=False):
        for cores, title in ((1, "pinned to one core"), (2, "two cores")):
            some = sorted(n for a, e, n, c in _lines(rows) if (a, e, c) == (algorithm, environment, cores))
            if some:
                table = _one_core if cores == 1 else _two_cores
                heading = f"## {algorithm.upper()}, {environment.capitalize()}, {title}\n"
                parts += [heading, table(medians, algorithm, environment, some)]
    return "\n".join([*parts, "## Where compilation goes (one process, training only)\n", _stages(rows)])


def _stages(rows: pd.DataFrame) -> str:
    """Returns what JAX reports of compilation, medians over everything that was compiled without evaluation."""
    some = (
        rows[~rows["evaluation"].astype(bool)]
        .groupby(["library", "algorithm", "environment"], sort=False)[ANSWERED[:-1]]
        .median()
    )
    columns = ["library, algorithm, environment", "import s", "tracing s", "lowering s", "XLA s", "XLA compilations"]
    lines = [
        [", ".join(key), *(f"{value:.1f}" for value in row)] for key, row in zip(some.index, some.values, strict=True)
    ]
    return report.table(columns, lines)


def _lines(rows: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    return list(
        rows[["algorithm", "environment", "configurations", "cores"]]
        .drop_duplicates()
        .itertuples(index=False, name=None)
    )


def _median(medians: pd.DataFrame, column: str, *key: Any) -> float:
    return float(medians[column].get(key, float("nan")))


def _one_core(medians: pd.DataFrame, algorithm: str, environment: str, configurations: list[int]) -> str:
    columns = [
        "configurations", "hyperlax steps/s", "rejax steps/s", "ratio", "compile: hyperlax CPU s (wall)",
        "rejax CPU s (wall)", "share", "with evaluation: hyperlax CPU s (wall)", "rejax CPU s (wall)", "share",
    ]  # fmt: skip
    lines = []
    for n in configurations:
        cells: list[Any] = [n]
        ours, theirs = (
            _median(medians, "steps_per_second", lib, algorithm, environment, n, 1, 1, False) for lib in SCRIPTS
        )
        cells += [report.number(ours, 0), report.number(theirs, 0), report.number(ours / theirs, 2)]
        for evaluation in (False, True):
            cpu, wall = (
                [_median(medians, name, lib, algorithm, environment, n, 1, 1, evaluation) for lib in SCRIPTS]
                for name in ("compile_cpu_seconds", "compile_seconds")
            )
            cells += [f"{c:.1f} ({w:.1f})" for c, w in zip(cpu, wall, strict=True)] + [f"{cpu[0] / cpu[1]:.2f}"]
        lines.append(cells)
    return report.table(columns, lines)


def _two_cores(medians: pd.DataFrame, algorithm: str, environment: str, configurations: list[int]) -> str:
    columns = [
        "configurations", "hyperlax steps/s", "rejax steps/s", "ratio", "rejax in two pinned processes", "ratio",
        "compile: hyperlax wall s", "rejax wall s",
    ]  # fmt: skip
    lines = []
    for n in configurations:
        work = (algorithm, environment, n, 2)
        keys = [("hyperlax", *work, 1, False), ("rejax", *work, 1, False)]
        ours, theirs, split = (
            _median(medians, "steps_per_second", *key) for key in (*keys, ("rejax", *work, 2, False))
        )
        compiling = [report.number(_median(medians, "compile_seconds", *key), 1) for key in keys]
        rates = [report.number(x, 0) for x in (ours, theirs, split)]
        ratios = [report.number(ours / x, 2) for x in (theirs, split)]
        lines.append([n, rates[0], rates[1], ratios[0], rates[2], ratios[1], *compiling])
    return report.table(columns, lines)


# --- command line --------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Returns the options."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = out.add_argument
    add("--peer-python", metavar="PATH", help="interpreter of the environment that has rejax")
    add("--profile", action="store_true", help="count operations and bytes and measure where the time goes")
    add("--lanes", action="store_true", help="measure ours alone over 1 … 4096 lanes on the devices that JAX finds")
    add("--configurations", type=int, nargs="+", help="numbers of them (1 4 16 64 256; with --lanes 1 4 16 … 4096)")
    add("--algorithms", nargs="+", default=["ppo", "dqn", "sac"], choices=list(ENVIRONMENTS), help="pqn: --lanes only")
    add("--environments", nargs="+", default=["cartpole", "pendulum"], choices=["cartpole", "pendulum"])
    add("--cores", type=int, nargs="+", default=[1, 2], choices=[1, 2], help="which tables")
    add("--rounds", type=int, default=3, help="fresh processes of each kind (3)")
    add("--repeats", type=int, default=2, help="counted runs of each process (2)")
    add("--steps", type=int, default=200_000, help="most environment steps of a configuration in one run")
    add("--total-steps", type=int, default=1_500_000, help="most environment steps of one run in all")
    add("--replay-steps", type=int, default=2000, help="of a configuration of DQN and SAC, the first 256 random (2000)")
    add("--num-envs", type=int, default=8, help="environments of a configuration, with --lanes only (8)")
    add("--seconds", type=float, default=4.0, help="duration of one run, with --lanes only (4)")
    add("--output", type=Path, default=report.ROOT / "benchmark_results" / "speed", help="folder of the results")
    add("--resume", action="store_true", help="keep what the output folder holds and measure what is missing")
    return out


def main() -> None:
    """Parses the command line and measures."""
    args = parser().parse_args()
    args.versions = {}
    if (
        min(
            args.rounds,
            args.repeats,
            args.steps,
            args.total_steps,
            args.replay_steps,
            args.num_envs,
            *(args.configurations or [1]),
        )
        < 1
    ):
        parser().error("numbers must be 1 or more")
    if args.profile:
        from speed_profile import profile

        profile(args)
    if args.lanes:
        from speed_lanes import over_lanes

        over_lanes(args)
    if args.profile or args.lanes:
        return
    if not args.peer_python or not os.access(args.peer_python, os.X_OK):
        parser().error(f"--peer-python {args.peer_python}: give the interpreter of an environment with rejax")
    if "pqn" in args.algorithms:
        parser().error("--algorithms pqn: not compared, only measured with --lanes")
    if max(args.cores) > len(os.sched_getaffinity(0)):
        parser().error(f"--cores {max(args.cores)}: only {len(os.sched_getaffinity(0))} may be used here")
    if 2 in args.cores and any(n > 1 and n % 2 for n in args.configurations or ()):
        parser().error("--configurations: on two cores even numbers, or 1")
    args.configurations = args.configurations or [1, 4, 16, 64, 256]
    compare(args)


if __name__ == "__main__":
    main()
