"""The command that runs a grid of sweeps."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hyperlax.cli import options
from hyperlax.errors import RunFailed, UserError

log = logging.getLogger(__name__)


def run_benchmark(
    base_config: Annotated[
        str | None,
        typer.Option(
            "--base-config",
            metavar="SUITE",
            help="A suite in configs/, such as ppo_mlp_vs_drpqc, or a TOML file; other options replace its entries.",
        ),
    ] = None,
    algos: Annotated[list[str] | None, typer.Option("--algos", metavar="RECIPE …", help="Recipes.")] = None,
    envs: Annotated[
        list[str] | None,
        typer.Option("--envs", metavar="ENV …", help="Environments; pairs that cannot be are listed and skipped."),
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option("--num-samples-per-run", "--num-samples", min=1, metavar="N", help="Configurations of each pair."),
    ] = None,
    sweep_modes: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep-modes",
            metavar="batched|sequential …",
            help="batched trains configurations together, sequential one after the other, for comparison.",
        ),
    ] = None,
    sampling_method: Annotated[
        str | None, typer.Option("--sampling-method", metavar="SAMPLER", help="How configurations are drawn.")
    ] = None,
    set_: options.Overrides = None,
    run_length: Annotated[
        str | None,
        typer.Option(
            "--run-length-modifier", metavar="quick|default|long|STEPS", help="Environment steps of each configuration."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Root of all randomness.")] = None,
    num_seeds: options.NumSeeds = None,
    num_evaluations: options.NumEvaluations = None,
    num_eval_episodes: options.NumEvalEpisodes = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run/--no-dry-run",
            show_default=False,
            help="Print programs, memory and time of all, and stop.",
        ),
    ] = False,
    output_root: Annotated[
        Path, typer.Option("--output-root", metavar="DIR", help="The benchmark's directory.")
    ] = Path("results_bench"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", show_default=False, help="Go on with the benchmark in --output-root, or begin it."
        ),
    ] = False,
    resume_from: Annotated[
        Path | None,
        typer.Option("--resume-from", metavar="DIR", help="Go on with the benchmark in this directory."),
    ] = None,
    launcher: Annotated[
        str,
        typer.Option(
            "--launcher",
            metavar="local|slurm|ray",
            help="Who works: this process, jobs of a SLURM cluster (by submitit), or Ray's workers.",
        ),
    ] = "local",
    workers: Annotated[
        int, typer.Option("--workers", min=1, metavar="N", help="Jobs of SLURM, or workers of Ray.")
    ] = 1,
    launcher_options: Annotated[
        list[str] | None,
        typer.Option(
            "--launcher-options",
            metavar="KEY=VALUE …",
            help="Of SLURM's jobs as sbatch has them (time=24:00:00 cpus_per_task=8 partition=gpu), of Ray's workers "
            "num_cpus and num_gpus.",
        ),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot/--no-plot", help="Draw pictures and write report.html, as plot-benchmark does.")
    ] = True,
    log_level: options.LogLevel = "WARNING",
    save_logs: options.SaveLogs = False,
) -> None:
    """Sweep over every pair of recipes and environments.

    \b
    Examples:
      hyperlax run-benchmark --algos ppo_mlp ppo_drpqc --envs gymnax.pendulum gymnax.cartpole \\
          --num-samples-per-run 16
      hyperlax run-benchmark --base-config ppo_mlp_vs_drpqc
    """
    from hyperlax.launch import benchmark
    from hyperlax.launch.launchers import check_launcher, launch
    from hyperlax.launch.suite import make_suite

    settings = options.assignments("--launcher-options", launcher_options)
    check_launcher(launcher, workers, settings, submits=not dry_run)

    keep_log = save_logs and not dry_run
    output_root = resume_from or output_root
    options.configure_logging(log_level, options.log_file(output_root, "run-benchmark") if keep_log else None)
    suite = make_suite(
        base_config,
        algos=algos,
        envs=envs,
        sweep_modes=sweep_modes,
        num_samples_per_run=num_samples,
        sampling_method=sampling_method,
        run_length_modifier=None if run_length is None else options.run_length(run_length),
        num_seeds=num_seeds,
        num_evaluations=num_evaluations,
        num_eval_episodes=num_eval_episodes,
        seed=seed,
        set=options.overrides(set_),
    )
    others = None if launcher == "local" else partial(launch, launcher, workers=workers, settings=settings)
    failure = None
    try:
        done = benchmark.run_benchmark(
            suite, output_root, launcher=others, dry_run=dry_run, resume=resume, resume_from=resume_from
        )
    except RunFailed as error:  # what has not failed is told first
        failure, done = error, benchmark.Benchmark.opened(Path(output_root))
    if dry_run:
        typer.echo(done.describe())
        return
    for cell, why in done.skipped.items():
        typer.echo(f"skipped  {cell}: {why}")
    from rich.console import Console

    from hyperlax.analysis.tables import benchmark_table

    table = done.table()
    if len(table):
        Console(highlight=False).print(benchmark_table(table))
    for cell in done.unfinished() if failure is None else ():
        typer.echo(f"left     {cell}: another process is at it")
    typer.echo(f"results  {done.root}")
    if plot and (failure is not None or not done.unfinished()) and len(table) and table["iqm"].notna().any():
        from hyperlax.analysis.collection import collect
        from hyperlax.analysis.report import draw_report

        about = {"command": done.command, **asdict(done.suite)}
        about |= {f"skipped: {cell}": why for cell, why in done.skipped.items()}
        report = done.root / "plots" / "report.html"
        try:
            draw_report(collect([done.root]), report.parent, f"Benchmark {done.root.name}", about=about)
        except UserError as error:
            if failure is None and not report.exists():
                raise
            log.warning("%s", error)  # of an archive that is only read
        if report.exists():
            typer.echo(f"report   {report}")
    if failure is not None:
        raise failure
