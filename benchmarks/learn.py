"""Do the tuned defaults learn? Trains them on fresh seeds and puts the returns beside published ones.

    python benchmarks/learn.py                                                     # everything (`make learn`)
    python benchmarks/learn.py --recipes dqn_mlp --environments gymnax.cartpole    # one; the others' results stay

Written to ``benchmark_results/learning``: ``learning.csv`` (a row a recipe and environment), ``seeds.csv`` (a row a
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

NUM_SEEDS = 10
NUM_EVALUATIONS = 5
NUM_EPISODES = 100  # greedy, at each evaluation


@dataclass(frozen=True)
class Goal:
    """What is to be learnt with one recipe on one environment.

    Attributes:
        recipe: name of the recipe.
        env: name of the environment.
        steps: environment steps of each seed.
        threshold: mean final return to reach; NaN where there is nothing to compare with.
        published: what others report, with their steps and where.
    """

    recipe: str
    env: str
    steps: int
    threshold: float
    published: str

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the others."""
        return self.recipe, self.env


MOUNTAIN = "94.7 at 50k (RL-Zoo, SAC); 92 (gymnax, checkpoint)"
# Two seeds of its pqn_minatar.py, its settings but the steps, on the same machine; greedy, 128 × 1000 steps.
PUREJAXQL = "at 2M (purejaxql, PQN)"
BRAX = "up to {} at 6.5M (brax's training notebook, SAC, axis of its plot)"
DRPQC = "at 5M (hyperlax-quantum, best of 64)"
GOALS = [
    Goal("ppo_mlp", "gymnax.cartpole", 200_000, 490, "490 ± 6 at 500k (CleanRL, PPO); 500 at 100k (RL-Zoo, PPO)"),
    Goal("ppo_mlp", "gymnax.acrobot", 300_000, -90, "−86 ± 1 at 500k (CleanRL, PPO); −73.5 at 1M (RL-Zoo, PPO)"),
    Goal("ppo_mlp", "gymnax.pendulum", 400_000, -200, "−172 at 100k (RL-Zoo, PPO); −130 (gymnax, checkpoint)"),
    Goal("ppo_mlp", "gymnax.mountain_car_continuous", 200_000, 88, MOUNTAIN),
    Goal("ppo_mlp", "brax.inverted_double_pendulum@spring", 1_500_000, 9000, "–"),
    Goal("dqn_mlp", "gymnax.cartpole", 500_000, 490, "498 ± 2 at 500k (CleanRL, DQN); 500 at 50k (RL-Zoo, DQN)"),
    Goal("dqn_mlp", "gymnax.acrobot", 500_000, -90, "−89 ± 2 at 500k (CleanRL, DQN); −76.6 at 100k (RL-Zoo, DQN)"),
    Goal("dqn_mlp", "gymnax.mountain_car", 500_000, -110, "−189 at 500k (CleanRL, DQN); −101 at 120k (RL-Zoo, DQN)"),
    Goal("pqn_mlp", "gymnax.cartpole", 500_000, 490, "495 ± 7 at 500k (CleanRL, PQN)"),
    Goal("pqn_mlp", "gymnax.acrobot", 500_000, -95, "−96 ± 6 at 500k (CleanRL, PQN)"),
    Goal("pqn_cnn", "gymnax.breakout", 2_000_000, 25.0, f"34.7, 25.0 {PUREJAXQL}; 28 (gymnax, PPO checkpoint)"),
    Goal("pqn_cnn", "gymnax.asterix", 2_000_000, 30.5, f"30.5, 39.4 {PUREJAXQL}; 15 (gymnax, PPO checkpoint)"),
    Goal("sac_mlp", "gymnax.pendulum", 50_000, -160, "−157 at 20k (RL-Zoo, SAC)"),
    Goal("sac_mlp", "gymnax.mountain_car_continuous", 50_000, 92, MOUNTAIN),
    Goal("sac_mlp", "gymnax.reacher", 200_000, 69.1, "69.1 at 5M (hyperlax-quantum, best PPO); 34.6 (best SAC)"),
    Goal("sac_mlp", "brax.inverted_double_pendulum@spring", 1_500_000, 9000, "–"),
    Goal("sac_mlp", "brax.hopper@spring", 100_000, float("nan"), BRAX.format(2500)),
    Goal("ppo_drpqc", "gymnax.cartpole", 200_000, 490, f"486 {DRPQC}"),
    Goal("ppo_drpqc", "gymnax.pendulum", 600_000, -180, f"−187 {DRPQC}"),
    Goal("dqn_drpqc", "gymnax.cartpole", 500_000, 450, f"104 {DRPQC}"),
    Goal("pqn_drpqc", "gymnax.cartpole", 500_000, 475, "–"),
    Goal("sac_drpqc", "gymnax.pendulum", 100_000, -200, f"−1229 {DRPQC}"),
    Goal("sac_mlp", "brax.halfcheetah@spring", 100_000, float("nan"), "9635 at 1M (CleanRL, SAC, MuJoCo's own)"),
]


def main() -> int:
    """Trains, writes and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", metavar="RECIPE", help="only these (default: all)")
    parser.add_argument("--environments", nargs="+", metavar="ENV", help="only these (default: all)")
    parser.add_argument("--seed", type=int, default=2001, help="one that nothing was tuned on (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results/learning"), metavar="DIR")
    parser.add_argument("--runs", type=Path, default=Path("results/learning"), metavar="DIR", help="run directories")
    parser.add_argument("--steps", type=int, help="other than those of the table, to try this script out")
    options = parser.parse_args()
    try:
        for goal in _chosen(options.recipes, options.environments):
            steps = options.steps or goal.steps
            run = _train(goal, steps, options.seed, options.runs)
            _record(goal, run, steps, options.seed, options.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((options.output / "learning.md").read_text(encoding="utf-8"))
    return 0


def _chosen(recipes: list[str] | None, environments: list[str] | None) -> list[Goal]:
    """Returns the goals of the named recipes on the named environments."""
    chosen = GOALS
    for kind, names in (("recipe", recipes), ("env", environments)):
        known = dict.fromkeys(getattr(goal, kind) for goal in GOALS)
        for name in names or ():
            if name not in known:
                raise unknown(f"{kind} of this benchmark", name, known)
        chosen = [goal for goal in chosen if names is None or getattr(goal, kind) in names]
    return chosen


def _train(goal: Goal, steps: int, seed: int, root: Path) -> Run:
    """Trains one sample without any values of its own: the defaults as tuned for the environment."""
    length = RunLength(steps, num_evaluations=NUM_EVALUATIONS, num_eval_episodes=NUM_EPISODES, num_seeds=NUM_SEEDS)
    run = hyperlax.sweep(
        goal.recipe, goal.env, samples=[{}], seed=seed, run_length=length, output_root=root, plot=False
    )
    assert isinstance(run, Run)
    return run


def _record(goal: Goal, run: Run, steps: int, seed: int, output: Path) -> None:
    """Adds a run to the tables, in place of what they had for its goal, and draws everything anew."""
    last = run.evaluations[run.evaluations["grid_step"] == steps].set_index("seed")
    finals = run.lanes.set_index("seed").join(last[["mean_return", "std_return", "episodes"]])
    finals = finals[["status", "env_steps", "mean_return", "std_return", "episodes"]].sort_index().reset_index()
    curves = run.evaluations[["seed", "grid_step", "env_steps", "mean_return"]].sort_values(["seed", "grid_step"])
    row = pd.DataFrame([_row(goal, run, finals["mean_return"].to_numpy(float), steps, seed)])
    learning = _update(output / "learning.csv", row, goal)
    _update(output / "seeds.csv", finals, goal)
    _draw(_update(output / "curves.csv", curves, goal), learning, output / "curves.png")
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


def _update(file: Path, rows: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Replaces one goal's rows of a table on disk and returns the whole, in the order of the goals."""
    key = ["recipe", "environment"]
    rows = rows.assign(recipe=goal.recipe, environment=goal.env)
    tables = [rows[[*key, *(column for column in rows.columns if column not in key)]]]
    if file.exists():
        before = pd.read_csv(file)
        tables.append(before[(before["recipe"] != goal.recipe) | (before["environment"] != goal.env)])
    table = pd.concat(tables, ignore_index=True)
    order = {other.key: number for number, other in enumerate(GOALS)}
    places = [order.get(pair, len(order)) for pair in table[key].itertuples(index=False, name=None)]
    table = table.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False, lineterminator="\n")
    return table


def _markdown(table: pd.DataFrame) -> str:
    """Returns the table as a page that says where its numbers come from."""
    lines = [
        "# Tuned defaults on fresh seeds",
        "",
        f"Final greedy return over {NUM_EPISODES} episodes: mean ± standard error over seeds.",
        "Seconds are for all seeds together, with compilation.",
        "",
        "| recipe | environment | steps | seeds | return | worst seed | goal | reached | published | seconds |",
        "|---|---|---:|---:|---:|---:|---:|---|---|---:|",
    ]
    for row in table.itertuples():
        goal, reached = f"{row.threshold:g}", "yes" if row.reached else "no"
        if np.isnan(row.threshold):
            goal = reached = "–"
        score = f"{row.mean_return:.1f} ± {row.standard_error:.1f} | {row.min_seed_return:.1f} | {goal}"
        lines.append(
            f"| {row.recipe} | {row.environment} | {row.steps:,} | {row.num_seeds} | {score} | {reached} "
            f"| {row.published} | {row.seconds:.0f} |"
        )
    lines += ["", "![learning curves](curves.png)", "", "How these were made:", ""]
    for (machine, versions), rows in table.groupby(["machine", "versions"], sort=False):
        lines += [f"- {', '.join(rows['recipe'] + ' ' + rows['environment'])}: {machine}; {versions}"]
        lines += [f"  - `{command}`" for command in rows["command"].unique()]
    return "\n".join(lines) + "\n"


def _draw(curves: pd.DataFrame, learning: pd.DataFrame, file: Path) -> None:
    """Draws every seed's curve, their mean, and the goal, one panel an environment."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(5, len(learning))
    rows = -(-len(learning) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(learning) :]:
        axes.set_visible(False)
    for axes, goal in zip(panels.flat, learning.itertuples(), strict=False):
        own = curves[(curves["recipe"] == goal.recipe) & (curves["environment"] == goal.environment)]
        for _, curve in own.groupby("seed"):
            axes.plot(curve["grid_step"], curve["mean_return"], color="#9a9a9a", linewidth=0.7)
        mean = own.groupby("grid_step")["mean_return"].mean()
        axes.plot(mean.index, mean, color="#0072B2", linewidth=2)
        axes.axhline(goal.threshold, color="#D55E00", linewidth=1, linestyle="--")
        axes.set_title(f"{goal.recipe}, {goal.environment}", fontsize=8)
        axes.set_xlabel("environment steps")
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    for axes in panels[:, 0]:
        axes.set_ylabel(f"return, {learning['num_seeds'].iloc[0]} seeds and their mean")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
