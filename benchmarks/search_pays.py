"""What a search finds in so much wall time: hyperlax against Optuna driving rejax or Stable-Baselines3.

    python benchmarks/search_pays.py --rejax-python .venv-rejax/bin/python --sb3-python .venv-sb3/bin/python

`make bench-search`. PPO on three environments, one space for all (`search_peer.py`), each search a process of its own
that has the machine to itself for the same time, compilation included and nothing cached, methods in turns. Afterwards
what a search found best is trained again, by its own library, on fresh seeds, side by side. Every search is kept as
JSON, and is not repeated where its file exists.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

import numpy as np
import report

HERE = Path(__file__).resolve().parent
STEPS = {"cartpole": 61_440, "acrobot": 102_400, "pendulum": 102_400}  # whole rollouts of every trial
METHODS = {
    "hyperlax, TPE, asha": ("hyperlax", "tpe", "asha"),
    "hyperlax, random": ("hyperlax", "random", "none"),
    "rejax, TPE": ("rejax", "tpe", "none"),
    "SB3, TPE, asha": ("sb3", "tpe", "asha"),
}
PEERS = [name for name, (library, *_) in METHODS.items() if library != "hyperlax"]
COLOURS = dict(zip(METHODS, ("#0072B2", "#56B4E9", "#E69F00", "#D55E00"), strict=True))
LINES = dict(zip(METHODS, ("-", "--", "-.", ":"), strict=True))


def searches(args: argparse.Namespace) -> Iterator[tuple[str, str, int, Path]]:
    """Yields environment, method, repetition and file of every search, methods in turns."""
    for repeat in range(args.repeats):
        for env in args.environments:
            for method in args.methods:
                name = "_".join([env, *METHODS[method], str(repeat)])
                yield env, method, repeat, args.raw / f"{name}.json"


def search(env: str, method: str, repeat: int, file: Path, args: argparse.Namespace) -> None:
    """Makes one search, unless its file exists."""
    if not file.exists():
        sampler, pruner = METHODS[method][1:]
        seconds = ["--seconds", str(args.seconds), "--sampler", sampler, "--pruner", pruner]
        call(env, method, repeat, file, args, seconds)


def retrain(env: str, method: str, repeat: int, file: Path, cores: Queue[int], args: argparse.Namespace) -> None:
    """Trains what a search found best again, on a core that is free, unless that was done, or it found nothing."""
    found = json.loads(file.read_text())
    if found["retrained"] or not found["best_params"]:
        return
    each = {"hyperlax": args.retrain, "rejax": args.retrain_rejax, "sb3": args.retrain_sb3}[METHODS[method][0]]
    core = cores.get()
    try:
        call(env, method, repeat, file, args, ["--retrain", str(each), "--cpu", str(core)])
    finally:
        cores.put(core)


def call(env: str, method: str, repeat: int, file: Path, args: argparse.Namespace, options: Sequence[str]) -> None:
    """Calls the script of a library, which replaces a file."""
    library = METHODS[method][0]
    python = {"hyperlax": sys.executable, "rejax": args.rejax_python, "sb3": args.sb3_python}[library]
    script = "search_hyperlax.py" if library == "hyperlax" else "search_peer.py"
    peer = [] if library == "hyperlax" else ["--peer", library]
    words = [python, str(HERE / script), *peer, "--env", env, "--steps", str(STEPS[env])]
    words += ["--seed", str(args.first_seed + repeat), *options]
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    if file.exists():
        shutil.copy(file, temporary)
    done = subprocess.run([*words, "--output", str(temporary)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    temporary.rename(file)
    print(file.stem, {k: v for k, v in report.last_json(done.stdout).items() if k not in ("best_params", "command")})
    sys.stdout.flush()


def load(args: argparse.Namespace) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Returns the searches that there are, by environment and method."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for env, method, _, file in searches(args):
        if file.exists():
            found.setdefault((env, method), []).append(json.loads(file.read_text()))
    return found


class Hourly(NamedTuple):
    """Trials an hour, medians over repetitions: of all that ended, and of those that were trained to their end."""

    ended: float
    complete: float


def hourly(runs: Sequence[dict[str, Any]]) -> Hourly:
    """Returns the trials an hour of some searches."""
    ended = statistics.median(r["finished_per_hour"] for r in runs)
    share = [r["complete"] / max(1, r["complete"] + r["pruned"]) * r["finished_per_hour"] for r in runs]
    return Hourly(ended, statistics.median(share))


def ratio(ours: float, theirs: Sequence[float]) -> float | None:
    """Returns how many times faster we are than the fastest of others; None if none of them got anywhere."""
    return ours / max(theirs) if max(theirs) > 0 else None


def rows(found: dict[tuple[str, str], list[dict[str, Any]]]) -> list[list[Any]]:
    """Returns a row an environment and method."""
    table = []
    for (env, method), runs in found.items():
        ended, complete = hourly(runs)
        peers = [hourly(found[env, peer]) for peer in PEERS if (env, peer) in found]
        again = [value for r in runs for value in r["retrained"]]
        means = ([value for value in r["retrained"] if value is not None] for r in runs)
        scores = [statistics.fmean(values) for values in means if values]
        error = f" ± {statistics.stdev(scores) / len(scores) ** 0.5:.1f}" if len(scores) > 1 else ""
        ours = method not in PEERS and bool(peers)
        of_all = ratio(ended, [peer.ended for peer in peers]) if ours else None
        of_complete = ratio(complete, [peer.complete for peer in peers]) if ours else None
        begun = [3600 * (r["complete"] + r["pruned"]) / r["lane_seconds"] for r in runs if "lane_seconds" in r]
        busy = [r["cores_busy"] for r in runs if "cores_busy" in r]
        table.append([
            env, method, len(runs), f"{statistics.median(r['complete'] for r in runs):.0f}",
            f"{statistics.median(r['pruned'] for r in runs):.0f}", report.number(of_complete, 1), f"{ended:,.0f}",
            report.number(of_all, 1), f"{statistics.median(begun):,.0f}" if begun else None,
            f"{statistics.fmean(scores):.1f}{error}" if scores else None,
            f"{len(again) - again.count(None)} of {len(again)}",
            f"{statistics.median(busy):.0%}" if busy else None,
        ])  # fmt: skip
    return table


def best_so_far(run: dict[str, Any], seconds: np.ndarray) -> np.ndarray:
    """Returns the best value of the trials that had completed by each time; NaN before the first."""
    complete = sorted((t["end"], t["value"]) for t in run["trials"] if t["state"] == "complete")
    ends = [end for end, _ in complete]
    best = np.maximum.accumulate([value for _, value in complete]) if complete else np.empty(0)
    count = np.searchsorted(ends, seconds, side="right")
    return np.array([best[c - 1] if c else np.nan for c in count])


def draw(found: dict[tuple[str, str], list[dict[str, Any]]], args: argparse.Namespace, path: Path) -> None:
    """Draws the best so far over wall time, mean and range of the repetitions, with its numbers as CSV."""
    import pandas as pd
    from matplotlib.figure import Figure

    seconds = np.linspace(0, args.seconds, 121)
    envs: Sequence[str] = list(dict.fromkeys(env for env, _ in found))
    figure = Figure(figsize=(4.2 * len(envs), 3.6), layout="constrained")
    panels = dict(zip(envs, figure.subplots(1, len(envs), squeeze=False)[0], strict=True))
    points = []
    for (env, method), runs in found.items():
        curves = np.array([best_so_far(run, seconds) for run in runs])
        whole = ~np.isnan(curves).any(axis=0)
        mean = np.where(whole, curves.mean(axis=0), np.nan)
        style = dict(color=COLOURS[method], linestyle=LINES[method])
        panels[env].plot(seconds, mean, label=method, linewidth=1.8, **style)
        low, high = np.where(whole, curves.min(axis=0), np.nan), np.where(whole, curves.max(axis=0), np.nan)
        panels[env].fill_between(seconds, low, high, color=COLOURS[method], alpha=0.12, linewidth=0)
        points.append(
            pd.DataFrame(dict(environment=env, method=method, seconds=seconds, mean=mean, low=low, high=high))
        )
    for env, axes in panels.items():
        axes.set(title=f"{env}, trials of {STEPS[env]:,} steps", xlabel="wall seconds", ylabel="best return so far")
        axes.grid(alpha=0.25)
    handles, labels = next(iter(panels.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    pd.concat(points).to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")


def main() -> None:
    """Searches, tabulates and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rejax-python", default=".venv-rejax/bin/python")
    parser.add_argument("--sb3-python", default=".venv-sb3/bin/python")
    parser.add_argument("--environments", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=2001)
    parser.add_argument("--retrain", type=int, default=8, help="fresh seeds for what was found best")
    parser.add_argument("--retrain-rejax", type=int, default=3, help="likewise, where each compiles again")
    parser.add_argument("--retrain-sb3", type=int, default=2, help="likewise, where a training takes half a minute")
    parser.add_argument("--raw", type=Path, default=report.ROOT / "results" / "search_pays", help="a file a search")
    parser.add_argument("--output", type=Path, default=report.ROOT / "benchmark_results" / "search")
    args = parser.parse_args()
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    for each in searches(args):
        search(*each, args)
    with ThreadPoolExecutor(cores.qsize()) as pool:
        list(pool.map(lambda each: retrain(*each, cores, args), searches(args)))
    found = load(args)
    ours = next(runs[0]["versions"] for (_, method), runs in found.items() if method not in PEERS)
    theirs = {m.split(",")[0]: runs[0]["versions"] for (_, m), runs in found.items() if m in PEERS}
    columns = ["environment", "method", "searches", "trained to the end", "pruned", "trained: times the faster peer",
               "ended an hour", "ended: times the faster peer", "ended an hour, once compiled", "best, on fresh seeds",
               "seeds that did not diverge", "cores busy"]  # fmt: skip
    text = [
        report.heading("What a search finds", versions=ours, **{f"versions of {k}": v for k, v in theirs.items()}),
        f"{args.seconds:.0f} s of wall time, searches of each method as below; medians, and of the best its "
        "mean return on fresh seeds, over the searches ± standard error. Ended: trained to the end, or pruned. "
        "Cores busy: CPU seconds of ticks and "
        "evaluations over cores and wall seconds, from the first lane on.\n",
        report.table(columns, rows(found)),
        "![Best so far over wall time](search.png)\n",
    ]
    draw(found, args, args.output / "search.png")
    report.write(args.output / "search.md", "\n".join(text))


if __name__ == "__main__":
    main()
