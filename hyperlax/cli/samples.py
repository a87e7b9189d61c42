"""The command that writes configurations to a file and trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyperlax.cli import options
from hyperlax.errors import UserError


def generate_hp_samples(
    recipe: options.Recipe,
    output_file: Annotated[
        Path,
        typer.Option("--output-file", metavar="FILE", help="The CSV file to write."),
    ],
    num_samples: options.NumSamples = None,
    sampling_method: options.SamplingMethod = "qmc_sobol",
    seed: options.Seed = 42,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite/--no-overwrite", show_default=False, help="Replace the file if it exists."),
    ] = False,
    log_level: options.LogLevel = "WARNING",
) -> None:
    """Write drawn configurations to a CSV file.

    Nothing is trained; `sweep-hp-samples --samples-file FILE` trains them, here or elsewhere.

    \b
    Example:
      hyperlax generate-hp-samples --algo-and-network-config ppo_mlp --num-samples 16 \\
          --output-file ppo_mlp_samples.csv
    """
    options.configure_logging(log_level)
    if output_file.is_dir():
        raise UserError(f"--output-file {output_file}: is a folder")
    if output_file.exists() and not overwrite:
        raise UserError(f"--output-file {output_file}: exists already, --overwrite replaces it")

    from hyperlax.recipes import get_recipe
    from hyperlax.spaces import draw, write_samples

    samples = draw(get_recipe(recipe).space, num_samples, sampling_method, seed)
    try:
        output_file.parent.mkdir(parents=True, exist_ok=True)
        write_samples(output_file, samples, overwrite=overwrite)
    except OSError as error:
        raise UserError(f"--output-file {output_file}: cannot be written ({error.strerror})") from error
    typer.echo(f"{len(samples)} samples of {recipe} in {output_file}")
