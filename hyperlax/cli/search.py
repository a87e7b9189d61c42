"""The command that searches: Optuna's trials on lanes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hyperlax.cli import options
from hyperlax.cli.train import report


def optuna_hp_search(
    recipe: options.Recipe,
    env: options.Environment,
    num_trials: Annotated[
        int,
        typer.Option("--n-trials", "--num-trials", min=1, metavar="N", help="Trials that the study has in the end."),
    ] = 100,
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler", metavar="tpe|cmaes|gp|qmc|random|nsgaii|nsgaiii", help="How the next trial is chosen."
        ),
    ] = "tpe",
    pruner: Annotated[
        str,
        typer.Option(
            "--pruner",
            metavar="none|median|percentile|asha|hyperband|wilcoxon",
            help="Which trials end before their time; their lanes take the next ones at once.",
        ),
    ] = "none",
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            "--objective-names",
            metavar="NAME …",
            help="Columns of the summary to optimise: final_return if this option is not given, peak_return, auc, "
            "num_params, …",
        ),
    ] = None,
    directions: Annotated[
        list[str] | None,
        typer.Option(
            "--objective-directions",
            metavar="maximize|minimize …",
            help="One for each objective; what is better if this option is not given.",
        ),
    ] = None,
    study_name: Annotated[
        str | None,
        typer.Option("--study-name", metavar="NAME", help="By default the recipe's and the environment's."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL|FILE",
            help="Where the study is kept, for several processes or hosts to work on: postgresql://…, mysql://…, "
            "sqlite:///FILE, or a journal file. By default a journal file in the run directory.",
        ),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option("--optuna-study-batch-size", "--hparam-batch-size", metavar="auto|N", help="Trials at a time."),
    ] = "auto",
    set_: options.Overrides = None,
    run_length: options.RunLength = "default",
    seed: options.Seed = 42,
    num_seeds: options.NumSeeds = None,
    num_evaluations: options.NumEvaluations = None,
    num_eval_episodes: options.NumEvalEpisodes = None,
    num_devices: options.NumDevices = None,
    kernel: options.Kernel = "auto",
    memory_limit: options.MemoryLimit = None,
    dry_run: options.DryRun = False,
    output_root: options.OutputRoot = Path("results"),
    resume: options.Resume = False,
    resume_from: options.ResumeFrom = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw a picture of the trials.")] = True,
    log_level: options.LogLevel = "WARNING",
    save_logs: options.SaveLogs = False,
) -> None:
    """Search for the best configuration with Optuna.

    Trials are lanes of one compiled program: as many run at a time as there are lanes, and whatever ends or is pruned
    makes room for the next at once.

    \b
    Example:
      hyperlax optuna-hp-search --algo-and-network-config ppo_mlp --env-config gymnax.cartpole \\
          --n-trials 64 --pruner asha --run-length-modifier 50000 --num-evaluations 10
    """
    from hyperlax.search.search import optimize

    keep_log = save_logs and not dry_run
    options.configure_logging(log_level, options.log_file(output_root, "optuna-hp-search") if keep_log else None)
    result: Any = optimize(
        recipe,
        env,
        num_trials=num_trials,
        sampler=sampler,
        pruner=pruner,
        objectives=objectives or "final_return",
        directions=directions,
        study_name=study_name,
        storage=storage,
        overrides=options.overrides(set_),
        seed=seed,
        run_length=options.run_length(run_length),
        num_seeds=num_seeds,
        num_evaluations=num_evaluations,
        num_eval_episodes=num_eval_episodes,
        batch_size=options.batch_size(batch_size),
        num_devices=num_devices,
        kernel=kernel,
        memory_limit_gib=options.positive("--memory-limit-gib", memory_limit),
        output_root=output_root,
        dry_run=dry_run,
        plot=plot,
        resume=resume,
        resume_from=resume_from,
    )
    report(result)
