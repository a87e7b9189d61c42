"""Ours alone over numbers of lanes, on whatever devices JAX finds: steps/s, compile time, memory, and a picture."""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import report
import worker

LANES = [1, 4, 16, 64, 256, 1024, 2048, 4096]
COLUMNS = [
    "algorithm", "environment", "configurations", "at_once", "lockstep", "devices", "updates",
    "steps_per_second", "update_ms", "admit_seconds", "compile_seconds", "memory_mib", "lane_mib",
]  # fmt: skip
PEER = "PureJaxRL's published 2048 agents of PPO on CartPole, one A100: near 10.4 million steps/s in all"


def over_lanes(args: argparse.Namespace) -> None:
    """Measures every number of lanes, writing each row at once, and then the table."""
    import jax
    from speed_hyperlax import prepare

    versions = prepare()
    found = jax.local_devices()
    devices = f"{len(found)} × {found[0].device_kind} ({found[0].platform})"
    path = args.output / f"lanes_{found[0].platform}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        works = [(a, e) for a in args.algorithms for e in worker.ENVIRONMENTS[a] if e in args.environments]
        for algorithm, environment in works:
            for configurations in args.configurations or LANES:
                rows.append(_measure(algorithm, environment, configurations, args))
                shown = {name: float(f"{x:.5g}") if isinstance(x, float) else x for name, x in rows[-1].items()}
                writer.writerow(shown)
                file.flush()
                print(", ".join(f"{name} {x}" for name, x in shown.items()), flush=True)
    _picture(pd.DataFrame(rows), devices, path.with_suffix(".png"))
    heading = report.heading(
        "Steps per second over lanes, hyperlax alone",
        devices=devices,
        versions=versions,
        work=f"{args.num_envs} environments, learning rates 1e-4 … 1e-3; PPO and PQN × 128 steps, 4 epochs × 4 "
        "minibatches, 2×64 tanh with observations normalised (PPO), 2×128 relu with layer norm (PQN); DQN and SAC a "
        "gradient step an environment step, batches of 128, 2×64 relu, replay of 10,000; training only, medians",
        beside=PEER,
    )
    report.write(path.with_suffix(".md"), heading + "\n" + _table(rows))


def _measure(algorithm: str, environment: str, configurations: int, args: argparse.Namespace) -> dict[str, Any]:
    """Returns one row: runs of a few seconds each, after one that shows how long an update takes."""
    import jax
    from speed_hyperlax import Trainer, configuration

    hyperparams = configuration(algorithm, total_num_envs=args.num_envs)
    trainer = Trainer(environment, configurations, hyperparams)
    program = trainer.program
    warm = 1 + getattr(hyperparams, "warmup_rollout_length", 0) // hyperparams.rollout_length
    lanes, busy = trainer.start()
    lanes, _ = program.tick(lanes, busy * 1)
    started = time.perf_counter()
    lanes, _ = jax.block_until_ready(trainer.start(0, lanes))
    admitted = time.perf_counter()
    lanes, _ = program.tick(lanes, busy * warm)
    warmed = time.perf_counter()
    lanes, _ = program.tick(lanes, busy * 8)
    updates = max(8, int(8 * args.seconds / (time.perf_counter() - warmed)))
    times = []
    for _ in range(args.repeats + 1):
        ticked = time.perf_counter()
        lanes, _ = program.tick(lanes, busy * updates)
        times.append(time.perf_counter() - ticked)
    return {
        "algorithm": algorithm,
        "environment": environment,
        "configurations": configurations,
        "at_once": int(busy.sum()),
        "lockstep": program.group,
        "devices": program.mesh.size,
        "updates": updates,
        "steps_per_second": updates * int(busy.sum()) * hyperparams.steps_per_update / median(times),
        "update_ms": 1e3 * median(times) / updates,
        "admit_seconds": admitted - started,
        "compile_seconds": program.compile_seconds,
        "memory_mib": program.memory_bytes() / 2**20,
        "lane_mib": program.memory_bytes() / program.num_lanes / 2**20,
    }


def _picture(rows: pd.DataFrame, devices: str, path: Path) -> None:
    """Draws steps/s of all lanes together over their number, a line an algorithm and environment."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for (algorithm, environment), some in rows.groupby(["algorithm", "environment"], sort=False):
        label = f"{str(algorithm).upper()}, {environment}"
        axes.plot(some["configurations"], some["steps_per_second"], marker="o", markersize=4, label=label)
    axes.set(xscale="log", yscale="log", xlabel="configurations", ylabel="environment steps/s in all", title=devices)
    axes.set_xticks(sorted(rows["configurations"].unique()), labels=sorted(rows["configurations"].unique()))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _table(rows: list[dict[str, Any]]) -> str:
    columns = [
        "algorithm, environment, configurations",
        "at once",
        "in lockstep",
        "steps/s",
        "per lane",
        "an update, ms",
        "starting lanes, s",
        "compile, s",
        "memory, MiB",
        "per lane, MiB",
    ]
    lines = [
        (
            f"{row['algorithm']}, {row['environment']}, {row['configurations']}",
            row["at_once"],
            row["lockstep"],
            report.number(row["steps_per_second"], 0),
            report.number(row["steps_per_second"] / row["at_once"], 0),
            report.number(row["update_ms"], 2),
            report.number(row["admit_seconds"], 2),
            report.number(row["compile_seconds"], 1),
            report.number(row["memory_mib"], 1),
            report.number(row["lane_mib"], 2),
        )
        for row in rows
    ]
    return report.table(columns, lines)
