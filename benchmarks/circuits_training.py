"""Speed of whole trainings of circuits: PPO in the middle of the published space, beside the original's figures.

    python benchmarks/circuits_training.py

Every cell is a process of its own on one core, nothing cached. Written to ``benchmark_results/circuits/training.md``,
with how long the published benchmark would take here, from the runs of ``benchmarks/published.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import report

# (environment, n_layers, n_vstack): seconds to compile and steps a second of hyperlax-quantum, CPU-seconds, Pendulum.
ORIGINAL = {
    ("gymnax.pendulum", 5, 1): (24, 150_000),
    ("gymnax.pendulum", 15, 1): (59, 63_000),
    ("gymnax.pendulum", 5, 3): (74, 11_800),
}
REACHER = [("gymnax.reacher", 5, 1), ("gymnax.reacher", 10, 2), ("gymnax.reacher", 15, 3)]
CELLS = [*ORIGINAL, ("gymnax.pendulum", 15, 3), *REACHER]
MIDDLE = {"total_num_envs": 2048, "rollout_length": 4, "epochs": 2, "num_minibatches": 256}
PUBLISHED_STEPS, PUBLISHED_SEEDS = 5_000_000, 4


def main() -> None:
    """Measures all cells and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=report.ROOT / "benchmark_results" / "circuits", metavar="DIR")
    parser.add_argument("--published", type=Path, default=report.ROOT / "benchmark_results/published", metavar="DIR")
    parser.add_argument("--steps", type=int, default=160_000, help="of each training (default: %(default)s)")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        measure(args.cell[0], int(args.cell[1]), int(args.cell[2]), args.steps)
        return
    rows = [_row(cell, args.steps) for cell in CELLS]
    write(rows, list(_projections(args.published)), args.output)


def measure(environment: str, n_layers: int, n_vstack: int, steps: int) -> None:
    """Trains one configuration and prints what it took."""
    import hyperlax
    from hyperlax.results import Run

    sizes = {"n_layers": n_layers, "n_vstack": n_vstack}
    networks = {f"{role}_network.{name}": value for role in ("actor", "critic") for name, value in sizes.items()}
    with tempfile.TemporaryDirectory() as folder:
        run = hyperlax.sweep(
            "benchmarked.01_static_qmc_sampling_S64.ppo_drpqc", environment, samples=[networks | MIDDLE], seed=1,
            run_length=steps, num_seeds=1, num_evaluations=1, num_eval_episodes=1, winner_seeds=0, num_devices=1,
            output_root=folder, plot=False, progress=False, save_policies=False,
        )  # fmt: skip
        assert isinstance(run, Run)
        (program,) = run.info["programs"]
        done = int(run.evaluations["env_steps"].max())  # whole updates
        parameters = int(run.summary["num_params"].iloc[0])
    seconds = program["run_seconds"] - program["evaluation_seconds"]
    print(json.dumps({"compile": program["compile_seconds"], "rate": done / seconds, "parameters": parameters}))


def _row(cell: tuple[str, int, int], steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--steps", str(steps), "--cell", *map(str, cell)]
    core = {max(os.sched_getaffinity(0))}
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, preexec_fn=lambda: os.sched_setaffinity(0, core)
    )
    if done.returncode:
        sys.exit(f"error: {cell}\n{done.stderr[-2000:]}")
    row = dict(zip(("environment", "n_layers", "n_vstack"), cell, strict=True)) | report.last_json(done.stdout)
    print(row, flush=True)
    return row


def _projections(folder: Path) -> Iterator[list[Any]]:
    """Yields what the published circuit benchmark would take on this machine, scaled from what was trained of it."""
    for file in sorted(folder.glob("gymnax_*_ppo_drpqc.json")):
        details = json.loads(file.read_text())
        trained = details["steps"] * details["seeds"]
        whole = details["training_seconds"] * PUBLISHED_STEPS * PUBLISHED_SEEDS / trained
        yield [
            details["environment"], f"{details['steps']:,}", details["seeds"], details["devices"].split()[0],
            report.number(details["seconds"], 0),
            report.number(details["training_seconds"], 0), report.number(whole / 3600, 1),
        ]  # fmt: skip


def write(rows: list[dict[str, Any]], projections: list[list[Any]], output: Path) -> None:
    """Writes ``training.md``."""
    middle = ", ".join(f"{name} {value}" for name, value in MIDDLE.items())
    lines = []
    for row in rows:
        compiling, rate = ORIGINAL.get((row["environment"], row["n_layers"], row["n_vstack"]), (None, None))
        sizes = [row["environment"], row["n_layers"], row["n_vstack"], row["parameters"]]
        ours = report.number(row["compile"], 1), report.number(row["rate"], 0)
        lines.append([*sizes, ours[0], compiling, ours[1], report.number(rate, 0)])
    columns = ["environment", "n_layers", "n_vstack", "parameters", "compile, s", "original", "steps/s", "original"]
    text = [
        report.heading("Whole trainings of circuits", versions=report.our_versions()),
        f"PPO, actor and critic of the same size, one core, nothing cached; {middle}, so minibatches of 32. The "
        "original's are hyperlax-quantum's CPU-seconds over 16,384 steps of Pendulum on another machine, its other "
        "hyperparameters not known.",
        "",
        report.table(columns, lines),
    ]
    if projections:
        columns = ["environment", "steps", "seeds", "cores", "seconds in all", "without compilation"]
        columns.append("whole benchmark on those cores, h")
        text += [
            f"## The published benchmark\n\n64 samples of PPO with circuits × {PUBLISHED_SEEDS} seeds × "
            f"{PUBLISHED_STEPS:,} steps on this machine, scaled from the trainings in "
            "`benchmark_results/published`.\n",
            report.table(columns, projections),
        ]
    report.write(output / "training.md", "\n".join(text))


if __name__ == "__main__":
    main()
