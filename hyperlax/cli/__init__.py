"""The command line: ``hyperlax COMMAND …`` or ``python -m hyperlax COMMAND …``.

A command parses, calls the library and prints. Bad input ends in one line on stderr and exit code 2,
an interrupt in 130, SIGTERM in 143; a traceback is a bug of hyperlax. Nothing here imports JAX before a command runs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from hyperlax import __version__
from hyperlax.cli import arguments, benchmark, catalogue, circuits, ensembles, options, plots, samples, search, train
from hyperlax.cli.doctor import doctor
from hyperlax.errors import RunFailed, UserError, in_words

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
TERMINATED = 143  # 128 + SIGTERM, with which SLURM, Docker and systemd end a process

# Typer took click into itself at some point; by this road the class is found in either case.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="hyperlax",
    help="Train many reinforcement-learning configurations in one compiled program.",
    epilog="`hyperlax COMMAND --help` tells the options of a command, their defaults, and an example.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: starts in half the time, and never cuts an option's name short
    context_settings={"max_content_width": 100},
)
app.command("run-single-hp")(train.run_single_hp)
app.command("sweep-hp-samples")(train.sweep_hp_samples)
app.command("optuna-hp-search")(search.optuna_hp_search)
app.command("pbt-hp-search")(search.pbt_hp_search)
app.command("run-benchmark")(benchmark.run_benchmark)
app.command("plot-benchmark")(plots.plot_benchmark)
app.command("generate-hp-samples")(samples.generate_hp_samples)
app.command("circuit-gradients")(ensembles.circuit_gradients)
app.command("circuit-expressibility")(ensembles.circuit_expressibility)
app.command("list")(catalogue.list_names)
app.command("show")(catalogue.show)
app.command("draw-circuit")(circuits.draw_circuit)
app.command("export-circuit")(circuits.export_circuit)
app.command("doctor")(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hyperlax {__version__}")
        raise typer.Exit()


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Holds the options that stand before a command."""


def program() -> NoReturn:
    """The process ``hyperlax``: :func:`main`, with SIGTERM as good as Ctrl-C and neither waiting for a compilation."""
    terminated = threading.Event()

    def terminate(*_: object) -> NoReturn:
        terminated.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    code = main()
    if code == INTERRUPTED:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(TERMINATED if terminated.is_set() else code)  # joins no thread: XLA cannot be interrupted
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        argv: the arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns:
        0 on success, 1 when part of a run failed or could not be written, 2 on bad input, both after one line on
        stderr, 130 when interrupted.
    """
    command: Any = typer.main.get_command(app)
    args: list[str] = []
    try:
        args = arguments.normalise(command, sys.argv[1:] if argv is None else argv)
        # Outside of its standalone mode Typer returns exit codes and raises errors, for us to print.
        code = command.main(args=args, prog_name="hyperlax", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UserError as error:
        options.remove_empty_log()
        return _refuse(str(error))
    except RunFailed as error:
        _refuse(str(error))
        return FAILED
    except UsageError as error:
        return _refuse(arguments.usage_message(error, args))
    except OSError as error:  # of the machine, such as a full disk
        logging.getLogger("hyperlax").info("the failure", exc_info=True)
        _refuse(in_words(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _refuse(message: str) -> int:
    """Prints one line and returns the exit code of bad input."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR
