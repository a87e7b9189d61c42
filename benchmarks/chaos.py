"""Kills runs at random instants, lets them resume, and compares every file with an undisturbed run's.

    python benchmarks/chaos.py --kills 50                    `make chaos`
    python benchmarks/chaos.py --kills 50 --commands search

A kill is SIGKILL: after a random time, or by the process itself in the middle of a write, half of which has reached the
file, just before a file takes another's place, or just after. What must be equal is everything but wall-clock times,
and which lane a task had. Written to ``benchmark_results/chaos/chaos.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
COMMON = (
    "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole", "--num-seeds", "2",
    "--num-eval-episodes", "2", "--set", "total_num_envs=4", "rollout_length=16", "--no-plot", "--log-level", "ERROR",
)  # fmt: skip
SWEEP = ("sweep-hp-samples", *COMMON, "--num-samples", "6", "--num-evaluations", "4", "--run-length-modifier", "4096")
SEARCH = (
    "optuna-hp-search", *COMMON, "--n-trials", "12", "--pruner", "asha", "--num-evaluations", "9",
    "--run-length-modifier", "4608", "--optuna-study-batch-size", "2",
)  # fmt: skip
BENCHMARK = (
    "run-benchmark", "--algos", "ppo_mlp", "pqn_mlp", "--envs", "gymnax.cartpole", "--num-samples-per-run", "3",
    "--num-seeds", "2", "--num-evaluations", "4", "--num-eval-episodes", "2", "--run-length-modifier", "4096",
    "--set", "total_num_envs=4", "rollout_length=16", "--no-plot", "--log-level", "ERROR",
)  # fmt: skip
POPULATION = (
    "pbt-hp-search", *COMMON[:4], *COMMON[6:], "--population-size", "4", "--num-populations", "2",
    "--num-evaluations", "6", "--run-length-modifier", "6144",
)  # fmt: skip
COMMANDS = {"sweep": SWEEP, "search": SEARCH, "population": POPULATION, "benchmark": BENCHMARK}
WALL = ("seconds", "wall_seconds", "wall_seconds_start", "wall_seconds_end", "wall seconds", "lane")
TIMES = ("start_time", "end_time", "resumed_times", "seconds", "programs", "command", "devices", "worker")
# What a process does to itself: the n-th write or replacement is its last.
SUICIDE = """
import os, signal, sys
kind, n, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
del sys.argv[1:4]
count = [0]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def last():
    count[0] += 1
    return count[0] == n
write, replace = os.write, os.replace
def half_written(file, data):
    if kind == "write" and len(data) > 20 and last():
        write(file, bytes(data)[: len(data) // 2])
        die()
    return write(file, data)
def replaced(source, target):
    name = os.path.basename(target)
    if kind == "before " + name.split(".")[-1] and last():
        die()
    replace(source, target)
    if kind == "after " + name.split(".")[-1] and last():
        die()
os.write, os.replace = half_written, replaced
import hyperlax.engine.checkpoint as checkpoint
checkpoint.SECONDS, checkpoint.SHARE = seconds, 0
from hyperlax.cli import program
program()
"""
KINDS = ("time", "time", "write", "before csv", "after csv", "before json", "after json", "before npz", "after npz")


def run(
    command: Sequence[str], root: Path, kind: str = "", n: int = 0, seconds: float = 0.2
) -> subprocess.Popen[bytes]:
    """Starts a command that resumes in ``root``; with a kind it kills itself at the n-th of it."""
    words = [sys.executable, "-c", SUICIDE, kind, str(n), str(seconds), *command, "--output-root", str(root)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen([*words, "--resume", "True"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def disturbed(command: Sequence[str], root: Path, kills: int, rng: random.Random, longest: float) -> Counter[str]:
    """Kills a command so many times, resumes it to its end, and returns how often each kind of kill struck."""
    struck: Counter[str] = Counter()
    while struck.total() < kills:
        kind = rng.choice(KINDS)
        process = run(command, root, kind, 1 + int(rng.expovariate(1 / 4)))
        try:
            process.wait(timeout=rng.uniform(0.0, longest) if kind == "time" else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return struck
        _, errors = process.communicate()
        if process.returncode != -9:
            raise AssertionError(f"{kind}: exit code {process.returncode}: {errors.decode()[-2000:]}")
        struck[kind] += 1
    last = run(command, root)
    _, errors = last.communicate()
    assert last.returncode == 0, errors.decode()[-2000:]
    return struck


def contents(root: Path) -> dict[str, Any]:
    """Returns everything below a directory that must not depend on when a run was killed."""
    found: dict[str, Any] = {}
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in sorted(path for path in files if path.name != "rounds.csv"):  # nothing but times
        name = str(path.relative_to(root))
        if path.suffix == ".csv":
            found[name] = pd.read_csv(path, dtype=str).drop(columns=list(WALL), errors="ignore").to_csv()
        elif path.suffix == ".json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMES}
        elif path.suffix == ".journal":
            found[name] = trials_of(path)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays.files}
        else:
            found[name] = path.read_bytes()
    return found


def trials_of(journal: Path) -> list[Any]:
    """Returns all that a study says of its trials, but for times and who ran them."""
    from optuna import load_study, logging
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    logging.set_verbosity(logging.WARNING)
    trials = load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(journal)))).trials
    marks = [{key: value for key, value in trial.user_attrs.items() if key != "worker"} for trial in trials]
    return [
        (t.number, t.state.name, t.params, t.values, t.intermediate_values, mark)
        for t, mark in zip(trials, marks, strict=True)
    ]


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the names of what is not equal."""
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


def main() -> int:
    """Kills, compares, writes and prints; returns the exit code."""
    import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each command (default: %(default)s)")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--each", type=int, default=5, help="of one run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=report.ROOT / "benchmark_results" / "chaos", metavar="DIR")
    args = parser.parse_args()
    parts, wrong = [report.heading("Runs that were killed", versions=report.our_versions())], 0
    for name in args.commands:
        text, here = torment(COMMANDS[name], args)
        parts.append(text)
        wrong += here
    everything = args.commands == list(COMMANDS)
    name = "chaos.md" if everything else f"chaos_{'_'.join(args.commands)}.md"
    report.write(args.output / name, "\n".join(parts))
    return 1 if wrong else 0


def torment(command: Sequence[str], args: argparse.Namespace) -> tuple[str, int]:
    """Kills runs of a command; returns what came of it in words, and how many files differ."""
    import report

    rng = random.Random(args.seed)
    struck: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        whole = run(command, Path(folder) / "whole")
        _, errors = whole.communicate()
        assert whole.returncode == 0, errors.decode()
        longest = time.monotonic() - started
        expected = contents(Path(folder) / "whole")
        number = 0
        while struck.total() < args.kills:
            root = Path(folder) / f"killed_{number}"
            now = disturbed(command, root, min(args.each, args.kills - struck.total()), rng, longest)
            struck += now
            here = different(expected, contents(root))
            wrong += here
            number += 1
            print(
                f"run {number}: {dict(now)}, {struck.total()} kills so far, different: {here or 'nothing'}", flush=True
            )
    rows = [[kind, count] for kind, count in sorted(struck.items())]
    text = (
        f"{struck.total()} kills in {number} runs of `hyperlax {' '.join(command)}`, one device, checkpoints every "
        f"0.2 s; {len(expected)} files of each compared with an undisturbed run's: {len(wrong)} differences.\n\n"
    )
    return text + report.table(["killed", "times"], rows) + "\n", len(wrong)


if __name__ == "__main__":
    sys.exit(main())
