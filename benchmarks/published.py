"""The published configurations, 64 of each algorithm and network, trained here: our returns beside theirs.

    python benchmarks/published.py --recipes sac_mlp --environments gymnax.pendulum
    python benchmarks/published.py --recipes sac_mlp --environments gymnax.pendulum --truncation-terminates

Every environment and recipe gets a table (CSV, a row a sample) and a picture; README.md is made anew from all tables
in the output folder, so that they can be trained one after the other. With ``--truncation-terminates`` nothing is
bootstrapped where a time limit cut an episode, which tells what that mistake costs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report

from hyperlax.analysis.statistics import rank_correlation
from hyperlax.errors import UserError

PUBLISHED = Path("../shared/reference/hyperlax_published")
SPACE = "benchmarked.01_static_qmc_sampling_S64."
SUFFIX = "_summary.csv"
THEIRS = "theirs: 5,000,000 steps, 40 evaluations of 32 episodes, 4 seeds"
RETURNS = ("final_return", "peak_return")
RESAMPLES = 10_000  # of the bootstrap over samples


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        environment: for example ``gymnax.pendulum``.
        recipe: without the name of its space, for example ``sac_mlp``.
        file: where it is.
    """

    environment: str
    recipe: str
    file: Path


def tables(args: argparse.Namespace) -> list[Table]:
    """Returns the published tables that are asked for and whose recipe there is."""
    from hyperlax.recipes import recipe_names

    found = []
    for file in sorted(args.published.glob(f"*{SUFFIX}")):
        environment, _, name = file.name.removesuffix(SUFFIX).partition("_")
        table = Table(environment, name.replace("-", "_"), file)
        wanted = args.environments is None or environment in args.environments
        wanted &= args.recipes is None or table.recipe in args.recipes
        if wanted and f"{SPACE}{table.recipe}" in recipe_names():
            found.append(table)
    return found


class TruncationTerminates:
    """An environment whose time limit looks like the end of its own rules, as to many implementations."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, key: Any, state: Any, action: Any) -> tuple[Any, Any]:
        """Returns the next state and the transition, which is never truncated."""
        state, transition = self._env.step(key, state, action)
        ended = transition.terminated | transition.truncated
        return state, transition._replace(terminated=ended, truncated=ended & False)


def train(table: Table, args: argparse.Namespace) -> Any:
    """Trains the samples of a published table and returns the run."""
    import hyperlax

    env = hyperlax.make_env(table.environment)
    return hyperlax.sweep(
        f"{SPACE}{table.recipe}",
        TruncationTerminates(env) if args.truncation_terminates else env,
        samples=table.file,
        num_samples=args.samples,
        overrides=dict(args.set),
        run_length=args.steps,
        num_seeds=args.seeds,
        num_evaluations=args.evaluations,
        num_eval_episodes=args.eval_episodes,
        seed=args.seed,
        winner_seeds=0,
        output_root=args.runs,
        save_policies=False,
        plot=False,
        resume=True,
    )


def beside(run: Any, published: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a sample: their returns and ours, trained parameters, and how often they are changed."""
    theirs = published.set_index("sample_id")[list(RETURNS)].add_prefix("published_")
    ours = run.summary.set_index("sample_id")
    columns = ours[[*RETURNS, "final_return_std", "status"]].add_prefix("our_")
    columns["num_params"] = ours["num_params"]
    updates = np.ceil(run.info["budget_steps"] / (ours["total_num_envs"] * ours["rollout_length"]))
    columns["gradient_steps"] = updates * ours["epochs"] * ours.get("num_minibatches", 1)
    return theirs.join(columns, how="inner").sort_index().reset_index()


def picture(rows: pd.DataFrame, details: dict[str, Any], path: Path) -> None:
    """Draws our returns against theirs, the final ones and the peaks."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    for axes, name in zip(panels, RETURNS, strict=True):
        some = rows.dropna(subset=[f"published_{name}", f"our_{name}"])
        theirs, ours = some[f"published_{name}"], some[f"our_{name}"]
        ends = [min(theirs.min(), ours.min()), max(theirs.max(), ours.max())]
        axes.plot(ends, ends, color="#9a9a9a", linewidth=1, zorder=0)
        axes.scatter(theirs, ours, s=22, color="#0072B2", alpha=0.7, linewidths=0)
        kind, rho = name.replace("_", " "), float(rank_correlation(theirs.to_numpy(), ours.to_numpy(), 1).value)
        axes.set(xlabel=f"published {kind}", ylabel=f"our {kind}", title=f"{kind}: rank correlation {rho:.2f}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(f"{_title(details)}: {len(rows)} published configurations, ours with {details['steps']:,} steps")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def process(table: Table, args: argparse.Namespace) -> None:
    """Trains the configurations of one table, or takes a run, and writes its files."""
    from hyperlax import load_run
    from hyperlax.results.reader import read_summary

    run = load_run(args.run) if args.run else train(table, args)
    if run.info["environment"] != table.environment:
        raise SystemExit(f"--run: that run is of {run.info['environment']}, not of {table.environment}")
    rows = beside(run, read_summary(table.file))
    info = run.info
    details = {
        "environment": table.environment,
        "recipe": table.recipe,
        "truncation_terminates": args.truncation_terminates,
        "set": dict(args.set),
        "steps": info["budget_steps"],
        "seeds": info["num_seeds"],
        "evaluations": info["num_evaluations"],
        "episodes": info["num_eval_episodes"],
        "seconds": info.get("seconds"),
        "training_seconds": sum(program["run_seconds"] for program in info.get("programs", [])),
        "programs": len(info.get("programs", [])),
        "devices": f"{len(info['devices'])} × {info['device_kind']}",
        "heading": report.heading("", versions=info["versions"]).strip("# \n"),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / _stem(details)
    rows.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")
    stem.with_suffix(".json").write_text(json.dumps(details, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    picture(rows, details, stem.with_suffix(".png"))


# --- the report ----------------------------------------------------------------------------------


def _stem(details: dict[str, Any]) -> str:
    """Returns the name of a table's files, without their ending."""
    ablated = "_truncation_terminates" if details["truncation_terminates"] else ""
    ablated += "".join(f"_{name}_{value}" for name, value in details.get("set", {}).items())
    return f"{details['environment'].replace('.', '_')}_{details['recipe']}{ablated}"


def _title(details: dict[str, Any]) -> str:
    ablated = ", truncation as termination" if details["truncation_terminates"] else ""
    ablated += "".join(f", {name} {value}" for name, value in details.get("set", {}).items())
    return f"{details['environment']} {details['recipe']}{ablated}"


def write_report(folder: Path) -> None:
    """Writes README.md from all tables in the folder."""
    found = [(json.loads(file.read_text(encoding="utf-8")), pd.read_csv(file.with_suffix(".csv")))
             for file in sorted(folder.glob("*.json"))]  # fmt: skip
    columns = [
        "table, return", "samples", "diverged", "parameters", "rank correlation (95%)", "median: theirs", "ours",
        "best: theirs", "ours", "ours of their best", "theirs of our best",
    ]  # fmt: skip
    parts = [
        f"# The published configurations, trained here\n\n{THEIRS}. Parameters: the median over samples.\n",
        report.table(columns, [line for details, rows in found for line in _lines(details, rows)]),
        "## By the number of gradient steps\n\nThirds of the samples, by the gradient steps that their structure "
        "takes within our budget: medians of final returns.\n",
        report.table(
            ["table", "gradient steps", "samples", "theirs", "ours"],
            [line for details, rows in found for line in _by_gradient_steps(details, rows)],
        ),
    ]
    for details, rows in found:
        stem = _stem(details)
        ended = ", ".join(f"{count} {name}" for name, count in rows["our_status"].value_counts().items())
        parts.append(
            f"## {_title(details)}\n\n![our returns against theirs]({stem}.png)\n\n"
            f"Ours: {details['steps']:,} steps, {details['evaluations']} evaluations of {details['episodes']} episodes"
            f", {details['seeds']} seeds; {ended}; {details['seconds'] or float('nan'):,.0f} s with compilation, "
            f"{details['programs']} programs, devices {details['devices']}. Every sample: [{stem}.csv]({stem}.csv).\n\n"
            f"{details['heading']}\n"
        )
    report.write(folder / "README.md", "\n".join(parts))


def _lines(details: dict[str, Any], rows: pd.DataFrame) -> Iterator[list[Any]]:
    """Yields the lines of one table: final returns and peaks."""
    for name in RETURNS:
        theirs, ours = f"published_{name}", f"our_{name}"
        some = rows.dropna(subset=[theirs, ours])
        rho, low, high = rank_correlation(some[theirs].to_numpy(), some[ours].to_numpy(), RESAMPLES)
        interval = f"{rho:.2f} ({low:.2f} … {high:.2f})" if np.isfinite(rho) else None  # constant returns have no ranks
        values = [some[theirs].median(), some[ours].median(), some[theirs].max(), some[ours].max()]
        values += [some.loc[some[theirs].idxmax(), ours], some.loc[some[ours].idxmax(), theirs]]
        diverged, params = int((rows["our_status"] == "DIVERGED").sum()), report.number(rows["num_params"].median(), 0)
        yield [
            f"{_title(details)}, {name.replace('_', ' ')}",
            *(len(some), diverged, params, interval),
            *(report.number(value, 1) for value in values),
        ]


def _by_gradient_steps(details: dict[str, Any], rows: pd.DataFrame) -> Iterator[list[Any]]:
    """Yields, for each third of the samples by gradient steps, the medians of their final returns and of ours."""
    thirds = pd.qcut(rows["gradient_steps"].rank(method="first"), min(3, len(rows)), labels=False)
    for _, some in rows.groupby(thirds):
        span = f"{some['gradient_steps'].min():,.0f} … {some['gradient_steps'].max():,.0f}"
        finals = (some[f"{whose}_final_return"].median() for whose in ("published", "our"))
        yield [_title(details), span, len(some), *(report.number(value, 1) for value in finals)]


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}': accepted is NAME=VALUE")
    return name, value


def main() -> None:
    """Parses the command line, trains and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--environments", nargs="+", help="only tables of these (all)")
    add("--recipes", nargs="+", help="only tables of these, for example ppo_mlp sac_tmlp (all)")
    add("--truncation-terminates", action="store_true", help="never bootstrap, to see what it costs")
    add("--set", nargs="+", default=[], type=_setting, metavar="NAME=VALUE", help="the same in all samples, likewise")
    add("--samples", type=int, metavar="N", help="only the first N of a table (all)")
    add("--steps", type=int, default=5_000_000, help="environment steps of each (sample, seed) (5,000,000)")
    add("--seeds", type=int, default=4, help="of each sample (4)")
    add("--evaluations", type=int, default=40, help="over the budget (40)")
    add("--eval-episodes", type=int, default=32, help="of each evaluation (32)")
    add("--seed", type=int, default=42, help="of all randomness (42)")
    add("--published", type=Path, default=report.ROOT / PUBLISHED, help="folder of the published summaries")
    add("--runs", type=Path, default=report.ROOT / "results" / "published", help="where run directories go")
    add("--run", type=Path, help="compare this run directory instead of training; with one table")
    add("--output", type=Path, default=report.ROOT / "benchmark_results" / "published", help="folder of the results")
    args = parser.parse_args()
    if not args.published.is_dir():
        parser.error(f"--published '{args.published}': no such folder; give that of the published summaries")
    chosen = tables(args)
    if not chosen:
        parser.error(f"no table in '{args.published}' is of these environments and recipes")
    if args.run and len(chosen) != 1:
        parser.error("--run: name its environment and recipe with --environments and --recipes")
    for table in chosen:
        try:
            process(table, args)
        except UserError as error:
            parser.error(str(error))
        write_report(args.output)


if __name__ == "__main__":
    main()
