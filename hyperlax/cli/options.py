"""The options that commands share, and what their values mean."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hyperlax.errors import UserError, unknown

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

Recipe = Annotated[
    str,
    typer.Option(
        "--algo-and-network-config",
        metavar="RECIPE",
        help="The recipe: an algorithm with its network, defaults and search space. `hyperlax list recipes` names all.",
    ),
]
Environment = Annotated[
    str,
    typer.Option(
        "--env-config",
        metavar="ENV",
        help="The environment, for example gymnax.cartpole. `hyperlax list environments` names all.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE …",
        help="Hyperparameters to fix, in every sample: `--set gamma=0.97 rollout_length=16`. "
        "`hyperlax show RECIPE` names them.",
    ),
]
RunLength = Annotated[
    str,
    typer.Option(
        "--run-length-modifier",
        metavar="quick|default|long|STEPS",
        help="Environment steps of each sample: quick ends within a minute, default is 100 000 steps, "
        "long is 5 000 000, or a number of steps.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Root of all randomness. The same seed on the same machine gives the same results, bit for bit.",
    ),
]
NumSeeds = Annotated[
    int | None,
    typer.Option(
        "--num-seeds",
        min=1,
        metavar="N",
        help="Independent trainings of each sample. The run length sets it if this option is not given.",
    ),
]
NumEvaluations = Annotated[
    int | None,
    typer.Option(
        "--num-evaluations",
        min=1,
        metavar="N",
        help="Evaluations over the run, equally far apart in environment steps and at the same steps for all "
        "samples. The run length sets it if this option is not given.",
    ),
]
NumEvalEpisodes = Annotated[
    int | None,
    typer.Option(
        "--num-eval-episodes",
        min=1,
        metavar="N",
        help="Episodes of each evaluation. The run length sets it if this option is not given.",
    ),
]
NumSamples = Annotated[
    int | None,
    typer.Option(
        "--num-samples",
        min=1,
        metavar="N",
        help="Configurations to draw: 16 if this option is not given, with grid all that there "
        "are. Of a file of samples, the first N.",
    ),
]
SamplingMethod = Annotated[
    str,
    typer.Option(
        "--sampling-method",
        metavar="SAMPLER",
        help="How configurations are drawn: qmc_sobol, qmc_halton, lhs, random or grid. "
        "`hyperlax list samplers` describes them.",
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        "--hparam-batch-size",
        metavar="auto|N",
        help="Configurations that a compiled program trains at a time (lanes). auto chooses what takes the least "
        "time in the memory there is.",
    ),
]
NumDevices = Annotated[
    int | None,
    typer.Option(
        "--num-devices",
        min=1,
        metavar="N",
        help="Devices to use: GPUs, or cores of the CPU. All of them if this option is not given; "
        "results do not depend on it.",
    ),
]
Kernel = Annotated[
    str,
    typer.Option(
        "--kernel",
        metavar="auto|cpu|jax",
        help="What simulates quantum circuits: cpu is the fused kernel in C++, jax runs on any device, auto takes the "
        "first where it was built. `hyperlax doctor` says whether it was.",
    ),
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory-limit-gib",
        metavar="GIB",
        help="Memory that the plan may use, in GiB. If this option is not given, 80% of what the machine has, or of "
        "what is free if that is less than the plan needs.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run/--no-dry-run",
        show_default=False,
        help="Print the plan (programs, lanes, padding, memory, time) and stop before anything is compiled.",
    ),
]
OutputRoot = Annotated[
    Path,
    typer.Option(
        "--output-root",
        metavar="DIR",
        help="Results lie below it, for example in DIR/ppo_mlp/gymnax_pendulum. A second run stands beside the first.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        show_default=False,
        help="Go on with the latest run below --output-root that was asked the same and was cut short. If it has "
        "finished, print it; if there is none, begin.",
    ),
]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(
        "--resume-from", metavar="RUN_DIRECTORY", help="Go on with this run; it must have been asked the same."
    ),
]
LogLevel = Annotated[
    str,
    typer.Option("--log-level", metavar="|".join(LOG_LEVELS), help="How much is told on stderr."),
]
SaveLogs = Annotated[
    bool,
    typer.Option("--save-logs/--no-save-logs", show_default=False, help="Also write what is logged to DIR/logs/…."),
]


def run_length(text: str) -> str | int:
    """Returns a run length's name as it is, or its number of environment steps (``50000``, ``1e6``, ``1_000_000``)."""
    try:
        steps = float(text)
    except ValueError:
        return text
    if not (1 <= steps < 2**53 and steps.is_integer()):
        raise UserError(f"--run-length-modifier {text}: the number of steps is a positive whole number")
    return int(steps)


def batch_size(text: str, option: str = "--hparam-batch-size") -> str | int:
    """Returns ``"auto"`` or the number of lanes."""
    if text == "auto":
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UserError(f"{option} {text}: accepted are auto and a positive whole number")


def positive(option: str, value: float | None) -> float | None:
    """Returns a number as it is, or refuses one that is not positive and finite."""
    if value is not None and not 0 < value < math.inf:
        raise UserError(f"{option} {value:g}: accepted is a positive number")
    return value


def overrides(words: Iterable[str] | None) -> dict[str, str]:
    """Returns the hyperparameters of ``name=value`` words; their declarations read the values."""
    return assignments("--set", words, "gamma=0.97")


def assignments(option: str, words: Iterable[str] | None, example: str = "time=60") -> dict[str, str]:
    """Returns the names and values of ``name=value`` words."""
    values: dict[str, str] = {}
    for word in words or ():
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise UserError(f"{option} {word}: accepted is NAME=VALUE, for example {example}")
        if name in values:
            raise UserError(f"{option} {word}: {name} is set twice")
        values[name] = text
    return values


def configure_logging(level: str, log_file: Path | None = None) -> None:
    """Sends hyperlax's log to stderr, and to a file if one is given.

    Args:
        level: one of ``LOG_LEVELS``, in any case.
        log_file: a new file in a folder that is created where needed.
    """
    if level.upper() not in LOG_LEVELS:
        raise unknown("--log-level", level, LOG_LEVELS)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log_file, mode="x", encoding="utf-8"))
        except OSError as error:
            raise UserError(f"--save-logs: {log_file} cannot be written ({error.strerror})") from error
    logger = logging.getLogger("hyperlax")  # ours alone: JAX's own messages help nobody here
    logger.setLevel(level.upper())
    logger.propagate = False
    logger.handlers = handlers
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))


def remove_empty_log() -> None:
    """Removes the log of a command that was refused before it had anything to say."""
    for handler in logging.getLogger("hyperlax").handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
            path = Path(handler.baseFilename)
            if path.exists() and path.stat().st_size == 0:
                path.unlink()
                with contextlib.suppress(OSError):  # not empty: it was there before
                    path.parent.rmdir()


def log_file(output_root: Path, command: str) -> Path:
    """Returns a name for this process's log that no other process takes."""
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return output_root / "logs" / f"{command}_{started}_{os.getpid()}.log"
