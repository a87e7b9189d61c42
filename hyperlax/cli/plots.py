"""The command that draws what came of benchmarks, sweeps and searches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyperlax.cli import options
from hyperlax.errors import UserError


def plot_benchmark(
    results: Annotated[
        list[Path],
        typer.Option(
            "--results-dir-to-plot",
            "--results",
            metavar="PATH …",
            help="What is compared: benchmarks, run directories, folders above them, published summary tables.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where pictures go; by default plots/ in the path, of several plots_compared/ in the first.",
        ),
    ] = None,
    goals: Annotated[
        list[str] | None,
        typer.Option(
            "--goals",
            metavar="ENV=RETURN …",
            help="Returns with which environments count as solved: tells by how much configurations miss them.",
        ),
    ] = None,
    log_level: options.LogLevel = "WARNING",
) -> None:
    """Draw and tabulate results, ours and published ones side by side.

    Distributions of final returns, what a search budget buys, performance profiles, learning curves and
    hyperparameters, as PNG, SVG and PDF with their numbers as CSV, and all of it in one report.html. Of each run, the
    importance of its hyperparameters and what its lanes did; of a single one also slices, pairs, parallel coordinates,
    throughput and, of a search, the best so far.

    \b
    Example:
      hyperlax plot-benchmark --results-dir-to-plot ./results_bench
    """
    options.configure_logging(log_level)
    from rich.console import Console

    from hyperlax.analysis import comparison, importance
    from hyperlax.analysis.collection import collect
    from hyperlax.analysis.report import draw_report
    from hyperlax.analysis.tables import families_table

    entries = collect(results)
    first = results[0]
    below = "plots" if len(results) == 1 else "plots_compared"  # a benchmark's own are in the former
    folder = output if output is not None else (first if first.is_dir() else first.parent) / below
    wanted = {name: _number(name, text) for name, text in options.assignments("--goals", goals).items()}
    drawn = draw_report(entries, folder, f"Results of {', '.join(map(str, results))}", wanted)
    comparison.warn_of_few(entries)
    importance.warn_of_few(entries)
    Console(highlight=False).print(families_table(drawn.tables.aggregates))
    for picture in drawn.pictures:
        if picture.parent == folder:
            typer.echo(f"picture  {picture}")
    if len(entries) > 1:
        typer.echo(f"pictures {folder / 'runs'}, of each run")
    typer.echo(f"report   {drawn.report}")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--goals {name}={text}: accepted is a number, for example gymnax.cartpole=475") from None
