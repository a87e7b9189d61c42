"""The commands that study circuits untrained: how their gradients vanish, which states they reach."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperlax import __version__
from hyperlax.cli import options
from hyperlax.cli.catalogue import print_table
from hyperlax.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Network = Annotated[str, typer.Argument(metavar="NETWORK", help="A network of circuits: drpqc or hepqc.")]
Layers = Annotated[list[str], typer.Option("--n-layers", metavar="N …", help="Depths of the circuit.")]
Qubits = Annotated[
    list[str],
    typer.Option(
        "--n-qubits",
        metavar="N …",
        help="Widths; hepqc gets one input a qubit, drpqc three.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE …",
        help="Other hyperparameters of the network: `--set entangler=cnot pattern=all`.",
    ),
]
Initial = Annotated[
    str,
    typer.Option(
        "--initial",
        metavar="uniform|family",
        help="uniform: every angle over a full turn (parameters in [0, 2 pi), scales of inputs 1, inputs in "
        "[-pi, pi)). family: parameters as training begins with them, inputs standard normal.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="Also write CSV, PNG and settings to this directory."),
]


def circuit_gradients(
    network: Network,
    n_layers: Layers = ["1", "2", "5", "10", "20"],  # noqa: B006
    n_qubits: Qubits = ["2", "4", "6", "8"],  # noqa: B006
    observables: Annotated[
        list[str],
        typer.Option(
            "--observables",
            metavar="NAME …",
            help="single: Z of the first qubit; zz: Z of the first two; global: Z of all.",
        ),
    ] = ["single", "global"],  # noqa: B006
    num_samples: Annotated[
        int, typer.Option("--num-samples", metavar="N", help="Random draws of parameters and inputs of each circuit.")
    ] = 200,
    set_: Overrides = None,
    initial: Initial = "uniform",
    seed: options.Seed = 42,
    output: Output = None,
    log_level: options.LogLevel = "WARNING",
) -> None:
    """Measure how a circuit's gradients vanish with depth and width.

    Prints the variance of the derivative of an expectation value over random parameters and inputs: by
    the first angle that changes the value, its mean over all angles and over all scales of inputs; beside
    it the value where the gates on both sides of the angle are 2-designs, and exponential fits (barren
    plateaus: McClean et al., 2018; local and global observables: Cerezo et al., 2021).

    \b
    Example:
      hyperlax circuit-gradients hepqc --n-layers 1 5 20 --n-qubits 2 4 6 8 --output plateaus
    """
    files = ("gradients.csv", "decay.csv", "gradients.png", "settings.json")
    settings: dict[str, Any] = {"n_layers": _whole("--n-layers", n_layers), "n_qubits": _whole("--n-qubits", n_qubits)}
    settings |= {"num_samples": num_samples, "observables": observables, "initial": initial, "seed": seed}
    family = _begin(network, set_, output, files, log_level)

    from hyperlax.quantum import gradient_variance

    table = gradient_variance.study(family.sized, **settings)
    decay = gradient_variance.decay(table)
    print_table(
        ("layers", "qubits", "observable", "parameter", "variance", "mean, angles", "mean, scales", "2-designs"),
        (
            (row.n_layers, row.n_qubits, row.observable, row.parameter if row.parameter >= 0 else "none",
             f"{row.variance:.2e} ± {row.standard_error:.0e}", f"{row.mean_angles:.2e}", f"{row.mean_scales:.2e}",
             f"{row.two_design:.2e}")
            for row in table.itertuples()
        ),
    )  # fmt: skip
    if len(decay):
        typer.echo("Fits of the variance: factor of each further qubit ± error of sampling")
        print_table(
            ("observable", "layers", "factor", "2-designs"),
            (
                (row.observable, row.n_layers, f"{row.factor:.3f} ± {row.standard_error:.3f}", f"{row.two_design:.3f}")
                for row in decay.itertuples()
            ),
        )
    if output is None:
        return

    from hyperlax.analysis import plot_gradients

    about = _about("circuit-gradients", network, family, settings)
    with _written(output, files, about, [table, decay]):
        title = ", ".join([network, *(set_ or []), f"{num_samples} draws", f"angles: {initial}"])
        plot_gradients(table, decay, output / files[2], title)


def circuit_expressibility(
    network: Network,
    n_layers: Layers = ["1", "2", "5", "10", "20"],  # noqa: B006
    n_qubits: Qubits = ["2", "4", "6"],  # noqa: B006
    num_samples: Annotated[
        int, typer.Option("--num-samples", metavar="N", help="Pairs of random states of each circuit.")
    ] = 2000,
    num_bins: Annotated[int, typer.Option("--num-bins", metavar="N", help="Bins of the histogram of fidelities.")] = 75,
    set_: Overrides = None,
    initial: Initial = "uniform",
    seed: options.Seed = 42,
    output: Output = None,
    log_level: options.LogLevel = "WARNING",
) -> None:
    """Measure which states a circuit reaches, and how entangled they are.

    Prints expressibility, the Kullback-Leibler divergence of the fidelities of random pairs of states from
    those of Haar-random pairs (in nats, less is more expressive), and the mean of Meyer and Wallach's
    measure of entanglement, both after Sim, Johnson and Aspuru-Guzik (2019). A divergence from finitely
    many pairs is too large: the floor is what Haar-random pairs themselves get with as many pairs and
    bins, mean ± standard deviation. Nothing at the floor can be told from Haar-random.

    \b
    Example:
      hyperlax circuit-expressibility drpqc --n-layers 1 2 5 --n-qubits 2 4 --output expressibility
    """
    files = ("expressibility.csv", "expressibility.png", "settings.json")
    settings: dict[str, Any] = {"n_layers": _whole("--n-layers", n_layers), "n_qubits": _whole("--n-qubits", n_qubits)}
    settings |= {"num_samples": num_samples, "num_bins": num_bins, "initial": initial, "seed": seed}
    family = _begin(network, set_, output, files, log_level)

    from hyperlax.quantum import expressibility

    table = expressibility.study(family.sized, **settings)
    print_table(
        ("layers", "qubits", "divergence", "floor", "entanglement", "Haar"),
        (
            (row.n_layers, row.n_qubits, f"{row.divergence:.4f}", f"{row.floor:.4f} ± {row.floor_std:.4f}",
             f"{row.entanglement:.3f} ± {row.standard_error:.3f}", f"{row.haar_entanglement:.3f}")
            for row in table.itertuples()
        ),
    )  # fmt: skip
    if output is None:
        return

    from hyperlax.analysis import plot_expressibility

    about = _about("circuit-expressibility", network, family, settings)
    with _written(output, files, about, [table]):
        title = ", ".join([network, *(set_ or []), f"{num_samples} pairs, {num_bins} bins", f"angles: {initial}"])
        plot_expressibility(table, output / files[1], title)


def _whole(option: str, texts: Iterable[str]) -> list[int]:
    """Returns whole numbers; Typer's own message would not say which of several is none."""
    numbers = []
    for text in texts:
        try:
            numbers.append(int(text))
        except ValueError:
            raise UserError(f"{option} {text}: accepted are whole numbers") from None
    return numbers


def _begin(
    network: str, overrides: Iterable[str] | None, output: Path | None, files: Sequence[str], log_level: str
) -> Any:
    """Refuses what can be refused at once, sets up JAX, and returns the family of circuits."""
    options.configure_logging(log_level)
    if output is not None:
        there = [file for file in files if (output / file).exists()]
        if there:
            raise UserError(f"--output {output}: {there[0]} exists there already, name another directory")
        nearest = next(place for place in (output, *output.absolute().parents) if place.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
            raise UserError(f"--output {output}: cannot be written ({nearest} is no folder to write to)")

    from hyperlax.engine import devices
    from hyperlax.networks.pqc import studied

    family = studied(network, options.overrides(overrides))
    devices.configure()
    return family


def _about(command: str, network: str, family: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns everything that the results follow from."""
    import jax

    from hyperlax.networks.pqc import NOT_STUDIED
    from hyperlax.spaces import flatten

    values = {name: value for name, value in flatten(family).items() if name not in NOT_STUDIED}
    versions = {"hyperlax": __version__, "jax": jax.__version__}
    return {"command": command, "network": network, "hyperparameters": values, **settings, "versions": versions}


@contextmanager
def _written(output: Path, files: Sequence[str], about: dict[str, Any], tables: list[pd.DataFrame]) -> Iterator[None]:
    """Writes tables and settings, lets the picture be drawn, and prints where they are."""
    from hyperlax.results.storage import write_atomic

    contents = [table.to_csv(index=False, lineterminator="\n") for table in tables]
    contents.append(json.dumps(about, indent=2) + "\n")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in zip([*files[: len(tables)], files[-1]], contents, strict=True):
            write_atomic(output / name, content.encode())
        yield
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from error
    for name in files:
        typer.echo(f"{'picture' if name.endswith('.png') else 'results'}  {output / name}")
