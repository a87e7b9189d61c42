"""The commands that train: one configuration, or a sweep over many."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hyperlax.cli import options


def run_single_hp(
    recipe: options.Recipe,
    env: options.Environment,
    set_: options.Overrides = None,
    run_length: options.RunLength = "default",
    seed: options.Seed = 42,
    num_seeds: options.NumSeeds = None,
    num_evaluations: options.NumEvaluations = None,
    num_eval_episodes: options.NumEvalEpisodes = None,
    batch_size: options.BatchSize = "auto",
    num_devices: options.NumDevices = None,
    kernel: options.Kernel = "auto",
    memory_limit: options.MemoryLimit = None,
    dry_run: options.DryRun = False,
    output_root: options.OutputRoot = Path("results"),
    resume: options.Resume = False,
    resume_from: options.ResumeFrom = None,
    log_level: options.LogLevel = "WARNING",
    save_logs: options.SaveLogs = False,
) -> None:
    """Train one configuration.

    It has the recipe's defaults, as tuned for the environment where they are, and what --set says.

    \b
    Example:
      hyperlax run-single-hp --algo-and-network-config ppo_mlp --env-config gymnax.pendulum \\
          --run-length-modifier quick --set gamma=0.95 actor_lr=1e-3
    """
    request = {
        "samples": [{}],  # one sample that says nothing: the defaults, with the overrides
        "overrides": options.overrides(set_),
        "seed": seed,
        "run_length": options.run_length(run_length),
        "num_seeds": num_seeds,
        "num_evaluations": num_evaluations,
        "num_eval_episodes": num_eval_episodes,
        "hparam_batch_size": options.batch_size(batch_size),
        "num_devices": num_devices,
        "kernel": kernel,
        "memory_limit_gib": options.positive("--memory-limit-gib", memory_limit),
        "output_root": output_root,
        "resume": resume,
        "resume_from": resume_from,
        "dry_run": dry_run,
        "plot": False,
    }
    keep_log = save_logs and not dry_run
    options.configure_logging(log_level, options.log_file(output_root, "run-single-hp") if keep_log else None)
    _train(recipe, env, request)


def sweep_hp_samples(
    recipe: options.Recipe,
    env: options.Environment,
    set_: options.Overrides = None,
    num_samples: options.NumSamples = None,
    sampling_method: options.SamplingMethod = "qmc_sobol",
    samples_file: Annotated[
        Path | None,
        typer.Option(
            "--samples-file",
            "--load-hyperparams",
            metavar="FILE",
            help="Train the configurations of this CSV or JSON file instead of drawing any: one written by "
            "generate-hp-samples, the samples.csv of a run, or a published summary.",
        ),
    ] = None,
    experiment_type: Annotated[
        str,
        typer.Option(
            "--experiment-type",
            metavar="independent_samples|sobol_matrices_A_B_AB",
            help="The second trains the design from which Sobol indices are estimated, how much of the return's "
            "variance each hyperparameter explains: with d of them, d + 2 matrices of --num-samples rows.",
        ),
    ] = "independent_samples",
    run_length: options.RunLength = "default",
    seed: options.Seed = 42,
    num_seeds: options.NumSeeds = None,
    num_evaluations: options.NumEvaluations = None,
    num_eval_episodes: options.NumEvalEpisodes = None,
    batch_size: options.BatchSize = "auto",
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential/--no-sequential",
            show_default=False,
            help="Train the samples one after the other, each in its own exact shape; for comparison.",
        ),
    ] = False,
    group_by_structure: Annotated[
        bool,
        typer.Option(
            "--group-by-structural-hparams/--no-group-by-structural-hparams",
            show_default=False,
            help="One program for each distinct structure instead of mixed batches; for comparison.",
        ),
    ] = False,
    num_devices: options.NumDevices = None,
    kernel: options.Kernel = "auto",
    memory_limit: options.MemoryLimit = None,
    dry_run: options.DryRun = False,
    output_root: options.OutputRoot = Path("results"),
    resume: options.Resume = False,
    resume_from: options.ResumeFrom = None,
    plot: Annotated[
        bool, typer.Option("--plot/--no-plot", help="Draw pictures of the sweep, and write report.html.")
    ] = True,
    log_level: options.LogLevel = "WARNING",
    save_logs: options.SaveLogs = False,
) -> None:
    """Train many configurations, drawn or from a file.

    Configurations of different structure (network sizes, rollout lengths, numbers of environments, …)
    share a compiled program, and each ends as it would alone.

    \b
    Example:
      hyperlax sweep-hp-samples --algo-and-network-config ppo_mlp --env-config gymnax.cartpole \\
          --num-samples 64 --run-length-modifier quick
    """
    request = {
        "num_samples": num_samples,
        "samples": samples_file,
        "overrides": options.overrides(set_),
        "sampling_method": sampling_method,
        "experiment_type": experiment_type,
        "seed": seed,
        "run_length": options.run_length(run_length),
        "num_seeds": num_seeds,
        "num_evaluations": num_evaluations,
        "num_eval_episodes": num_eval_episodes,
        "hparam_batch_size": options.batch_size(batch_size),
        "sequential": sequential,
        "group_by_structure": group_by_structure,
        "num_devices": num_devices,
        "kernel": kernel,
        "memory_limit_gib": options.positive("--memory-limit-gib", memory_limit),
        "output_root": output_root,
        "resume": resume,
        "resume_from": resume_from,
        "dry_run": dry_run,
        "plot": plot,
    }
    keep_log = save_logs and not dry_run
    options.configure_logging(log_level, options.log_file(output_root, "sweep-hp-samples") if keep_log else None)
    _train(recipe, env, request)


def _train(recipe: str, env: str, request: dict[str, Any]) -> None:
    """Calls the library and prints what it returns."""
    from hyperlax.api import sweep

    report(sweep(recipe, env, **request))


def _told_best(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the best trials of a search's study, unless it is one, and this run's."""
    best = info.get("best_trials") or []
    return best if len(best) > 1 or any("directory" in trial for trial in best) else []


def report(result: Any) -> None:
    """Prints a plan, or the table of a run with the places of its results."""
    from rich.console import Console

    from hyperlax.analysis.tables import top_table
    from hyperlax.results.reader import Run

    if not isinstance(result, Run):
        typer.echo(result.describe())
        return
    changed = "population_size" in result.info  # the samples are those that members began with
    Console(highlight=False).print(top_table(result, **({"hyperparameters": 0} if changed else {})))
    winner = result.info.get("winner")
    if winner and winner["fresh_seeds_final_return"] is not None:
        error = winner["fresh_seeds_standard_error"]
        score = f"{winner['fresh_seeds_final_return']:.4g}" + (
            "" if error is None else f" ± {error:.4g} (standard error)"
        )
        typer.echo(
            f"winner   sample {winner['sample_id']}: {score} when trained again "
            f"on {winner['fresh_seeds']} fresh seeds (selected at {winner['selected_final_return']:.4g})"
        )
    for best in _told_best(result.info):
        values = ", ".join(f"{name} {value:.4g}" for name, value in best.items() if isinstance(value, float))
        where = f" in {best['directory']}" if best.get("directory") else ""
        typer.echo(f"best     trial {best['sample_id']}: {values}{where}")
    typer.echo(f"results  {result.path}")
    for table in Path(result.path).glob("sensitivity.csv"):
        typer.echo(f"indices  {table}")
    for picture in sorted(Path(result.path).glob("*.png")):
        typer.echo(f"picture  {picture}")
    for page in Path(result.path).glob("report.html"):
        typer.echo(f"report   {page}")
