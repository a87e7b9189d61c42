"""Do the tuned defaults learn? Trains them on fresh seeds and puts the returns beside published ones.

    python benchmarks/learn.py                                   # all environments (`make learn`)
    python benchmarks/learn.py --environments gymnax.cartpole    # one; the others' results stay

Written to ``benchmark_results/learning``: ``learning.csv`` (a row an environment), ``seeds.csv`` (a row a
seed), ``curves.csv``, ``curves.png`` and ``learning.md``. The last evaluation counts, not the best one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from report import command, our_versions, processor

import hyperlax
from hyperlax.errors import UserError, unknown
from hyperlax.recipes import RunLength
from hyperlax.results import Run

RECIPE = "ppo_mlp"
NUM_SEEDS = 10
NUM_EVALUATIONS = 5
NUM_EPISODES = 100  # greedy, at each evaluation


@dataclass(frozen=True)
class Goal:
    """What is to be learnt on one environment.

    Attributes:
        env: name of the environment.
        steps: environment steps of each seed.
        threshold: mean final return to reach.
        published: what others report, with their steps and where.
    """

    env: str
    steps: int
    threshold: float
    published: str


GOALS = [
    Goal("gymnax.cartpole", 200_000, 490, "490 ± 6 at 500k (CleanRL, PPO); 500 at 100k (RL-Zoo, PPO)"),
    Goal("gymnax.acrobot", 300_000, -90, "−86 ± 1 at 500k (CleanRL, PPO); −73.5 at 1M (RL-Zoo, PPO)"),
    Goal("gymnax.pendulum", 400_000, -200, "−172 at 100k (RL-Zoo, PPO); −130 (gymnax, checkpoint)"),
    Goal("gymnax.mountain_car_continuous", 200_000, 88, "94.7 at 50k (RL-Zoo, SAC); 92 (gymnax, checkpoint)"),
    Goal("brax.inverted_double_pendulum@spring", 1_500_000, 9000, "–"),
]


def main() -> int:
    """Trains, writes and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", default=[goal.env for goal in GOALS], metavar="ENV")
    parser.add_argument("--seed", type=int, default=2001, help="one that nothing was tuned on (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results/learning"), metavar="DIR")
    parser.add_argument("--runs", type=Path, default=Path("results/learning"), metavar="DIR", help="run directories")
    parser.add_argument("--steps", type=int, help="other than those of the table, to try this script out")
    options = parser.parse_args()
    try:
        for goal in _chosen(options.environments):
            steps = options.steps or goal.steps
            run = _train(goal, steps, options.seed, options.runs)
            _record(goal, run, steps, options.seed, options.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((options.output / "learning.md").read_text(encoding="utf-8"))
    return 0


def _chosen(names: list[str]) -> list[Goal]:
    """Returns the goals of the named environments."""
    known = {goal.env: goal for goal in GOALS}
    for name in names:
        if name not in known:
            raise unknown("environment of this benchmark", name, known)
    return [known[name] for name in names]


def _train(goal: Goal, steps: int, seed: int, root: Path) -> Run:
    """Trains one sample without any values of its own: the defaults as tuned for the environment."""
    length = RunLength(steps, num_evaluations=NUM_EVALUATIONS, num_eval_episodes=NUM_EPISODES, num_seeds=NUM_SEEDS)
    run = hyperlax.sweep(RECIPE, goal.env, samples=[{}], seed=seed, run_length=length, output_root=root, plot=False)
    assert isinstance(run, Run)
    return run


def _record(goal: Goal, run: Run, steps: int, seed: int, output: Path) -> None:
    """Adds a run to the tables, in place of what they had for its environment, and draws everything anew."""
    last = run.evaluations[run.evaluations["grid_step"] == steps].set_index("seed")
    finals = run.lanes.set_index("seed").join(last[["mean_return", "std_return", "episodes"]])
    finals = finals[["status", "env_steps", "mean_return", "std_return", "episodes"]].sort_index().reset_index()
    curves = run.evaluations[["seed", "grid_step", "env_steps", "mean_return"]].sort_values(["seed", "grid_step"])
    row = pd.DataFrame([_row(goal, run, finals["mean_return"].to_numpy(float), steps, seed)])
    learning = _update(output / "learning.csv", row, goal.env)
    _update(output / "seeds.csv", finals, goal.env)
    _draw(_update(output / "curves.csv", curves, goal.env), learning, output / "curves.png")
    (output / "learning.md").write_text(_markdown(learning), encoding="utf-8")


def _row(goal: Goal, run: Run, returns: np.ndarray, steps: int, seed: int) -> dict[str, Any]:
    """Returns one row of ``learning.csv``; a seed that diverged makes its mean NaN, and so not reached."""
    mean, info = float(returns.mean()), run.info
    return {
        "mean_return": mean,
        "standard_error": float(returns.std(ddof=1) / np.sqrt(len(returns))),
        "min_seed_return": float(returns.min()),
        "threshold": goal.threshold,
        "reached": bool(mean >= goal.threshold),
        "published": goal.published,
        "steps": steps,
        "num_seeds": len(returns),
        "episodes": NUM_EPISODES,
        "seconds": info["seconds"],
        "compile_seconds": sum(program["compile_seconds"] for program in info["programs"]),
        "seed": seed,
        "recipe": info["recipe"],
        "machine": _machine(info),
        "versions": ", ".join(f"{name} {version}" for name, version in our_versions().items()),
        "command": command(),
    }


def _machine(info: dict[str, Any]) -> str:
    """Returns the processor, and the accelerators where there were any."""
    accelerators = f"{len(info['devices'])} × {info['device_kind']}, "
    return processor() if info["device_kind"] == "cpu" else accelerators + processor()


def _update(file: Path, rows: pd.DataFrame, env: str) -> pd.DataFrame:
    """Replaces one environment's rows of a table on disk and returns the whole, in the order of the goals."""
    tables = [rows.assign(environment=env)[["environment", *rows.columns]]]
    if file.exists():
        before = pd.read_csv(file)
        tables.append(before[before["environment"] != env])
    order = [goal.env for goal in GOALS]
    table = pd.concat(tables, ignore_index=True)
    table = table.sort_values("environment", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False, lineterminator="\n")
    return table


def _markdown(table: pd.DataFrame) -> str:
    """Returns the table as a page that says where its numbers come from."""
    lines = [
        "# Tuned defaults on fresh seeds",
        "",
        f"`{RECIPE}`, final greedy return over {NUM_EPISODES} episodes: mean ± standard error over seeds.",
        "Seconds are for all seeds together, with compilation.",
        "",
        "| environment | steps | seeds | return | worst seed | goal | reached | published | seconds |",
        "|---|---:|---:|---:|---:|---:|---|---|---:|",
    ]
    for row in table.itertuples():
        lines.append(
            f"| {row.environment} | {row.steps:,} | {row.num_seeds} | {row.mean_return:.1f} ± {row.standard_error:.1f} "
            f"| {row.min_seed_return:.1f} | {row.threshold:g} | {'yes' if row.reached else 'no'} | {row.published} "
            f"| {row.seconds:.0f} |"
        )
    lines += ["", "![learning curves](curves.png)", "", "How these were made:", ""]
    for (machine, versions), rows in table.groupby(["machine", "versions"], sort=False):
        lines += [f"- {', '.join(rows['environment'])}: {machine}; {versions}"]
        lines += [f"  - `{command}`" for command in rows["command"].unique()]
    return "\n".join(lines) + "\n"


def _draw(curves: pd.DataFrame, learning: pd.DataFrame, file: Path) -> None:
    """Draws every seed's curve, their mean, and the goal, one panel an environment."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * len(learning), 3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(learning), squeeze=False)[0]
    for axes, goal in zip(panels, learning.itertuples(), strict=True):
        own = curves[curves["environment"] == goal.environment]
        for _, curve in own.groupby("seed"):
            axes.plot(curve["grid_step"], curve["mean_return"], color="#9a9a9a", linewidth=0.7)
        mean = own.groupby("grid_step")["mean_return"].mean()
        axes.plot(mean.index, mean, color="#0072B2", linewidth=2)
        axes.axhline(goal.threshold, color="#D55E00", linewidth=1, linestyle="--")
        axes.set_title(goal.environment, fontsize=8)
        axes.set_xlabel("environment steps")
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    panels[0].set_ylabel(f"return, {learning['num_seeds'].iloc[0]} seeds and their mean")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
