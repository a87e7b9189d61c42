"""The commands that show circuits and hand trained ones to other tools."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Annotated

import typer

from hyperlax.cli import options
from hyperlax.errors import UserError

Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="actor|critic",
        help="Which network of the algorithm. The one that acts if this option is not given.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite/--no-overwrite", show_default=False, help="Replace files that exist.")
]


def draw_circuit(
    env: Annotated[
        str,
        typer.Option(
            "--env",
            "--env-config",
            metavar="ENV",
            help="The environment, which decides the number of inputs. `hyperlax list environments` names all.",
        ),
    ],
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="`hyperlax list recipes` names all.", show_default=False)
    ] = None,
    recipe_option: Annotated[
        str | None,
        typer.Option("--algo-and-network-config", metavar="RECIPE", help="The recipe, as other commands take it."),
    ] = None,
    network: Network = None,
    set_: options.Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="The picture to write, a .png, .pdf or .svg. If this option is not given, a .png in the current "
            "folder named after recipe, environment and network, and numbered beside those that are there.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw the quantum circuit of a recipe for an environment.

    As text, with its numbers of qubits, gates and parameters, and as a picture. In RY(w3·x0+t5) the angle is
    parameter 3 times input 0, plus parameter 5.

    \b
    Example:
      hyperlax draw-circuit ppo_drpqc --env gymnax.cartpole --set actor_network.n_layers=2
    """
    if (recipe is None) == (recipe_option is None):
        got = "missing RECIPE" if recipe is None else "RECIPE and --algo-and-network-config: accepted is one of them"
        raise UserError(f"{got} (see `hyperlax draw-circuit --help`)")
    name = recipe or recipe_option or ""

    from hyperlax.circuits import circuit_of, write_files
    from hyperlax.quantum.drawing import FORMATS, draw_picture, draw_text

    if output is not None and output.suffix.lower().removeprefix(".") not in FORMATS:
        raise UserError(f"--output {output}: accepted are names that end in .{', .'.join(FORMATS)}")
    found = circuit_of(name, env, network, options.overrides(set_))
    title = f"{name} on {env}: {found.name}"
    file = _free_name(f"{name}_{env}_{found.name}") if output is None else output
    text = draw_text(found.circuit, shutil.get_terminal_size((120, 24)).columns)
    picture = draw_picture(found.circuit, file.suffix.lower().removeprefix("."), title)
    write_files({file: picture}, overwrite)
    typer.echo(f"{title}\n\n{text}\n")
    for what, value in [*found.describe(), ("picture", str(file))]:
        typer.echo(f"{what:<11}  {value}")


def export_circuit(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIRECTORY", help="A run whose policies are circuits.")],
    sample_id: Annotated[
        int, typer.Option("--sample-id", metavar="N", min=0, help="The sample; summary.csv has the best first.")
    ],
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", min=0, help="Which of its trainings. The first saved if this option is not given."
        ),
    ] = None,
    network: Network = None,
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="openqasm|pennylane|all",
            help="openqasm is the circuit in OpenQASM 3; pennylane a Python script with the whole network, from "
            "observations to outputs, that needs NumPy and PennyLane only.",
        ),
    ] = "all",
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder of the files, made where needed.")
    ] = Path("."),
    overwrite: Overwrite = False,
) -> None:
    """Write a trained circuit for other tools.

    The network that acts is saved with a run, and is what can be exported. Prints the files; of a directory of several
    runs, the latest is taken.

    \b
    Example:
      hyperlax export-circuit results/ppo_drpqc/gymnax_cartpole/run_001 --sample-id 0 --output exported
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file, accepted is a folder")

    from hyperlax import circuits

    trained = circuits.load_circuit(run, sample_id, seed, network)
    texts = circuits.export_circuit(trained, file_format)
    files = {output / name: text.encode() for name, text in texts.items()}
    circuits.write_files(files, overwrite)
    typer.echo(f"policy: {trained.origin}", err=True)
    for file in files:
        typer.echo(str(file))


def _free_name(stem: str) -> Path:
    """Returns the name of a picture in the current folder that is not there yet."""
    stem = "".join(c if c.isalnum() or c in "_-" else "_" for c in stem)
    numbered = (f"{stem}{f'_{n}' if n > 1 else ''}.png" for n in itertools.count(1))
    return next(path for path in map(Path, numbered) if not path.exists())
