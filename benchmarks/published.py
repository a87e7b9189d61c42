"""The published 64 PPO-MLP configurations, trained here: our returns beside theirs, sample by sample.

Every environment gets a table (CSV) and a picture; README.md is made anew from all tables in the output folder, so
that the environments can be trained one after the other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report
from scipy import stats

from hyperlax.errors import UserError

PUBLISHED = Path("../shared/reference/hyperlax_published")
RECIPE = "benchmarked.01_static_qmc_sampling_S64.ppo_mlp"
THEIRS = "theirs: 5,000,000 steps, 40 evaluations of 32 episodes, 4 seeds"
RETURNS = ("final_return", "peak_return")


def train(environment: str, samples: Path, args: argparse.Namespace) -> Any:
    """Trains the samples of a published table and returns the run."""
    import hyperlax

    return hyperlax.sweep(
        RECIPE,
        environment,
        samples=samples,
        run_length=args.steps,
        num_seeds=args.seeds,
        num_evaluations=args.evaluations,
        num_eval_episodes=args.eval_episodes,
        seed=args.seed,
        winner_seeds=0,
        output_root=args.runs,
        save_policies=False,
    )


def beside(run: Any, published: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a sample: their returns and ours."""
    theirs = published.set_index("sample_id")[list(RETURNS)].add_prefix("published_")
    ours = run.summary.set_index("sample_id")[[*RETURNS, "final_return_std", "status"]].add_prefix("our_")
    return theirs.join(ours, how="inner").sort_index().reset_index()


def rank_correlation(x: np.ndarray, y: np.ndarray, resamples: int = 10_000) -> tuple[float, float, float]:
    """Returns Spearman's ρ and its 95% interval, by the bootstrap over samples (percentiles); NaN of constants."""
    everyone = np.arange(len(x))[None]
    drawn = np.random.default_rng(0).integers(len(x), size=(resamples, len(x)))
    rho = float(_spearman(x, y, everyone)[0])
    correlations = _spearman(x, y, drawn)
    correlations = correlations[np.isfinite(correlations)]
    low, high = np.percentile(correlations, [2.5, 97.5]) if len(correlations) else (np.nan, np.nan)
    return rho, float(low), float(high)


def _spearman(x: np.ndarray, y: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Returns the rank correlations of the drawn entries, ``(draws, entries)``."""
    ranks = [stats.rankdata(values[drawn], axis=1) for values in (x, y)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def picture(rows: pd.DataFrame, environment: str, details: dict[str, Any], path: Path) -> None:
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
        kind, rho = name.replace("_", " "), rank_correlation(theirs.to_numpy(), ours.to_numpy(), 1)[0]
        axes.set(xlabel=f"published {kind}", ylabel=f"our {kind}", title=f"{kind}: rank correlation {rho:.2f}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(f"{environment}: {len(rows)} published configurations, ours with {details['steps']:,} steps")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def process(environment: str, args: argparse.Namespace) -> None:
    """Trains the configurations of one environment, or takes a run, and writes its files."""
    from hyperlax import load_run
    from hyperlax.results.reader import read_summary

    samples = args.published / f"{environment}_ppo-mlp_summary.csv"
    published = read_summary(samples)
    run = load_run(args.run) if args.run else train(environment, samples, args)
    if run.info["environment"] != environment:
        raise SystemExit(f"--run: that run is of {run.info['environment']}, not of {environment}")
    rows = beside(run, published)
    info = run.info
    details = {
        "environment": environment,
        "steps": info["budget_steps"],
        "seeds": info["num_seeds"],
        "evaluations": info["num_evaluations"],
        "episodes": info["num_eval_episodes"],
        "seconds": info.get("seconds"),
        "programs": len(info.get("programs", [])),
        "devices": f"{len(info['devices'])} × {info['device_kind']}",
        "heading": report.heading("", versions=info["versions"]).strip("# \n"),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / environment.replace(".", "_")
    rows.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")
    stem.with_suffix(".json").write_text(json.dumps(details, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    picture(rows, environment, details, stem.with_suffix(".png"))


# --- the report ----------------------------------------------------------------------------------


def write_report(folder: Path) -> None:
    """Writes README.md from all tables in the folder."""
    parts = ["# The published PPO-MLP configurations, trained here\n", f"{THEIRS}.\n"]
    found = [(json.loads(file.read_text(encoding="utf-8")), pd.read_csv(file.with_suffix(".csv")))
             for file in sorted(folder.glob("*.json"))]  # fmt: skip
    lines = [line for details, rows in found for line in _lines(details["environment"], rows)]
    columns = [
        "environment, return", "samples", "rank correlation (95%)", "median: theirs", "ours", "best: theirs", "ours",
        "ours of their best", "theirs of our best",
    ]  # fmt: skip
    parts.append(report.table(columns, lines))
    for details, rows in found:
        stem = details["environment"].replace(".", "_")
        ended = ", ".join(f"{count} {name}" for name, count in rows["our_status"].value_counts().items())
        parts.append(
            f"## {details['environment']}\n\n![our returns against theirs]({stem}.png)\n\n"
            f"Ours: {details['steps']:,} steps, {details['evaluations']} evaluations of {details['episodes']} episodes"
            f", {details['seeds']} seeds; {ended}; {details['seconds'] or float('nan'):,.0f} s with compilation, "
            f"{details['programs']} programs, devices {details['devices']}. Every sample: [{stem}.csv]({stem}.csv).\n\n"
            f"{details['heading']}\n"
        )
    report.write(folder / "README.md", "\n".join(parts))


def _lines(environment: str, rows: pd.DataFrame) -> list[list[Any]]:
    """Returns the lines of one environment: final returns and peaks."""
    lines = []
    for name in RETURNS:
        theirs, ours = f"published_{name}", f"our_{name}"
        some = rows.dropna(subset=[theirs, ours])
        rho, low, high = rank_correlation(some[theirs].to_numpy(), some[ours].to_numpy())
        interval = f"{rho:.2f} ({low:.2f} … {high:.2f})" if np.isfinite(rho) else None  # constant returns have no ranks
        values = [some[theirs].median(), some[ours].median(), some[theirs].max(), some[ours].max()]
        values += [some.loc[some[theirs].idxmax(), ours], some.loc[some[ours].idxmax(), theirs]]
        lines.append(
            [f"{environment}, {name.replace('_', ' ')}", len(some), interval]
            + [report.number(value, 1) for value in values]
        )
    return lines


def main() -> None:
    """Parses the command line, trains and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    known = ["gymnax.cartpole", "gymnax.pendulum", "gymnax.reacher"]
    add("--environments", nargs="+", default=known, choices=known)
    add("--steps", type=int, default=5_000_000, help="environment steps of each (sample, seed) (5,000,000)")
    add("--seeds", type=int, default=4, help="of each sample (4)")
    add("--evaluations", type=int, default=40, help="over the budget (40)")
    add("--eval-episodes", type=int, default=32, help="of each evaluation (32)")
    add("--seed", type=int, default=42, help="of all randomness (42)")
    add("--published", type=Path, default=report.ROOT / PUBLISHED, help="folder of the published summaries")
    add("--runs", type=Path, default=report.ROOT / "results" / "published", help="where run directories go")
    add("--run", type=Path, help="compare this run directory instead of training; with one environment")
    add("--output", type=Path, default=report.ROOT / "benchmark_results" / "published", help="folder of the results")
    args = parser.parse_args()
    if not args.published.is_dir():
        parser.error(f"--published '{args.published}': no such folder; give that of the published summaries")
    if args.run and len(args.environments) != 1:
        parser.error("--run: name its environment with --environments")
    for environment in args.environments:
        try:
            process(environment, args)
        except UserError as error:
            parser.error(str(error))
        write_report(args.output)


if __name__ == "__main__":
    main()
