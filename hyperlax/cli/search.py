"""The commands that search: Optuna's trials on lanes, and populations."""

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
    plot: Annotated[
        bool, typer.Option("--plot/--no-plot", help="Draw pictures of the trials, and write report.html.")
    ] = True,
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
        batch_size=options.batch_size(batch_size, "--optuna-study-batch-size"),
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


def pbt_hp_search(
    recipe: options.Recipe,
    env: options.Environment,
    population_size: Annotated[
        int, typer.Option("--population-size", min=2, metavar="N", help="Members; each is a lane.")
    ] = 16,
    num_populations: Annotated[
        int,
        typer.Option("--num-populations", min=1, metavar="N", help="Independent populations, trained side by side."),
    ] = 1,
    exploit_every: Annotated[
        int,
        typer.Option("--exploit-every", min=1, metavar="N", help="Evaluations from one generation to the next."),
    ] = 2,
    exploit_quantile: Annotated[
        float,
        typer.Option(
            "--exploit-quantile",
            metavar="SHARE",
            help="Share of the members that copy one of as many of the best, at most 0.5.",
        ),
    ] = 0.25,
    perturbation: Annotated[
        float,
        typer.Option(
            "--perturbation",
            metavar="SHARE",
            help="How far a hyperparameter of a copy moves up or down, as a share of its range, on its own scale.",
        ),
    ] = 0.1,
    resample_probability: Annotated[
        float,
        typer.Option(
            "--resample-probability", metavar="P", help="Probability that it is drawn anew from its range instead."
        ),
    ] = 0.25,
    set_: options.Overrides = None,
    run_length: options.RunLength = "default",
    seed: options.Seed = 42,
    num_evaluations: options.NumEvaluations = 20,
    num_eval_episodes: options.NumEvalEpisodes = None,
    num_devices: options.NumDevices = None,
    kernel: options.Kernel = "auto",
    memory_limit: options.MemoryLimit = None,
    dry_run: options.DryRun = False,
    output_root: options.OutputRoot = Path("results"),
    resume: options.Resume = False,
    resume_from: options.ResumeFrom = None,
    plot: Annotated[
        bool,
        typer.Option("--plot/--no-plot", help="Draw pictures of the members and their lineage, and write report.html."),
    ] = True,
    log_level: options.LogLevel = "WARNING",
    save_logs: options.SaveLogs = False,
) -> None:
    """Train a population whose worst members take up the state of the best (population-based training).

    What is copied is a whole lane: networks, optimiser, replay, environments, structure. Then the copy's learning
    rates and other plain numbers are moved or drawn anew. lineage.csv, and a picture in the report, say who came
    from whom.

    \b
    Example:
      hyperlax pbt-hp-search --algo-and-network-config ppo_mlp --env-config gymnax.pendulum \\
          --population-size 16 --run-length-modifier 200000
    """
    from hyperlax.search.pbt import population_based_training

    keep_log = save_logs and not dry_run
    options.configure_logging(log_level, options.log_file(output_root, "pbt-hp-search") if keep_log else None)
    result: Any = population_based_training(
        recipe,
        env,
        population_size=population_size,
        num_populations=num_populations,
        exploit_every=exploit_every,
        exploit_quantile=exploit_quantile,
        perturbation=perturbation,
        resample_probability=resample_probability,
        overrides=options.overrides(set_),
        seed=seed,
        run_length=options.run_length(run_length),
        num_evaluations=num_evaluations,
        num_eval_episodes=num_eval_episodes,
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
