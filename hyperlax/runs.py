"""What all commands that train have in common: which run it is, where it goes, and what it says of itself."""

from __future__ import annotations

import logging
import math
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

import hyperlax
from hyperlax.algorithms import ALGORITHMS
from hyperlax.engine import devices
from hyperlax.engine.machine import MACHINES, Machine
from hyperlax.engine.plan import Plan
from hyperlax.engine.planner import Planner
from hyperlax.environments import Discrete, Environment, make
from hyperlax.errors import CannotWrite, UserError
from hyperlax.quantum import executor
from hyperlax.recipes import Recipe, RunLength, get_recipe
from hyperlax.recipes import run_length as to_run_length
from hyperlax.results import resume as resuming
from hyperlax.results.directory import create_run_directory, run_parent
from hyperlax.results.lock import BusyDirectory, DirectoryLock
from hyperlax.results.reader import Run, load_run
from hyperlax.spaces.distributions import Distribution
from hyperlax.spaces.hyperparameters import flatten, replace

log = logging.getLogger(__name__)


def resolved(
    recipe: str | Recipe,
    env: str | Environment,
    run_length: str | int | RunLength,
    seed: int,
    kernel: str | None,
    **changes: int | None,
) -> tuple[Recipe, Environment, RunLength]:
    """Returns what names stand for, on a machine that is set up.

    Args:
        recipe: a name, or what it stands for; ``env`` and ``run_length`` likewise.
        env: the environment.
        run_length: how long, with ``changes`` that are not None.
        seed: is checked.
        kernel: what simulates circuits from now on; None leaves it.
        **changes: fields of the run length.

    Raises:
        UserError: one of them is not known, or the algorithm cannot act in the environment.
    """
    devices.configure()
    if kernel is not None:
        executor.choose(kernel)
    recipe, env = get_recipe(recipe), make(env) if isinstance(env, str) else env
    length = to_run_length(run_length, **changes)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed}: accepted is 0 … {2**32 - 1}")
    return recipe, env, length


def check_actions(recipe: Recipe, env: Environment) -> None:
    """Raises UserError if the algorithm cannot act in the environment."""
    if isinstance(env.action_space, recipe.defaults.ACTION_SPACES):
        return
    fitting = [name for name, algorithm in ALGORITHMS.items() if isinstance(env.action_space, algorithm.ACTION_SPACES)]
    kind = "discrete" if isinstance(env.action_space, Discrete) else "continuous"
    raise UserError(
        f"{recipe.algorithm} cannot take the {kind} actions of {env.name}; algorithms that can: {', '.join(fitting)}"
    )


def configured(defaults: Any, values: Mapping[str, object], env: Environment) -> Any:
    """Returns hyperparameters with some values replaced.

    Raises:
        UserError: they contradict one another, or do not fit the environment.
    """
    hyperparams = replace(defaults, values)
    hyperparams.check(env)
    hyperparams.shape(env)  # what does not fit the inputs is refused here
    return hyperparams


# --- which run it is -----------------------------------------------------------------------------


def request_of(command: str, recipe: Recipe, env: Environment, length: RunLength, **options: Any) -> dict[str, Any]:
    """Returns everything that decides what a run computes: what a resumed run must have in common with it."""
    return {
        "command": command,
        "recipe": recipe.name,
        "environment": env.name,
        "backend": getattr(env, "backend", None),
        "budget_steps": length.total_timesteps,
        "num_seeds": length.num_seeds,
        "num_evaluations": length.num_evaluations,
        "num_eval_episodes": length.num_eval_episodes,
        **options,
        "kernel": executor.current(),
        "code": code(),
    }


def code() -> str:
    """Returns what stands for the code: results are the same only by the same."""
    return f"hyperlax {hyperlax.__version__} {resuming.code_digest()}"


def earlier_run(
    output_root: str | os.PathLike[str],
    group: str,
    env_name: str,
    request: Mapping[str, Any],
    resume: bool,
    resume_from: str | os.PathLike[str] | None,
    shared: bool = False,
) -> resuming.Earlier | None:
    """Returns the run to go on with: the one given, the latest that was asked the same, or None to begin.

    Runs that other processes are at do not count where the work is ``shared`` with them.
    """
    if resume_from is not None:
        return resuming.run_at(resume_from, request)
    return resuming.latest_run(run_parent(output_root, group, env_name), request, shared) if resume else None


@contextmanager
def run_directory(
    earlier: resuming.Earlier | None,
    output_root: str | os.PathLike[str],
    group: str,
    env_name: str,
    resume: bool,
    shared: bool = False,
) -> Iterator[Path]:
    """Gives where results go, locked: where they went before, or a new directory.

    Of work that is ``shared``, another process may go on with the earlier run: this one then has a new directory.

    Raises:
        UserError: it cannot be made, or another process writes there.
    """
    lock = None
    if earlier is not None:
        try:
            lock = DirectoryLock(earlier.directory)
        except BusyDirectory:
            if not shared:
                raise
    elif resume:
        lock = resuming.unbegun_run(run_parent(output_root, group, env_name))
    while lock is None:
        try:
            lock = DirectoryLock(create_run_directory(output_root, group, env_name))
        except BusyDirectory:
            pass  # a process that resumes took it for one that was left: it may have it
    with lock:
        yield lock.directory


# --- what it is planned for ----------------------------------------------------------------------


def machine_of(mesh: Mesh) -> Machine:
    """Returns the speeds of a mesh's devices."""
    return MACHINES["cpu" if mesh.devices.flat[0].platform == "cpu" else "gpu"]


def memory_limit(gib: float | None) -> int | None:
    """Returns bytes."""
    if gib is not None and not 0 < gib < math.inf:
        raise UserError(f"memory_limit_gib {gib}: accepted is a finite number greater than 0")
    return None if gib is None else int(gib * 2**30)


def planned_within(
    limit: int | None, mesh: Mesh, planned: Callable[[int], tuple[Plan, Planner]]
) -> tuple[Plan, Planner]:
    """Returns the plan for some memory, and the planner that made it.

    Without a limit, in bytes, it is made for the memory that the machine has, so that it is the same every time; if
    that much is not free now, it is made for what is.
    """
    if limit is not None:
        return planned(limit)
    memory = devices.memory(mesh)
    plan, planner = planned(int(0.8 * memory.total))
    if plan.memory <= 0.8 * memory.free:
        return plan, planner
    return planned(int(0.8 * memory.free))


# --- what came of it -----------------------------------------------------------------------------


def winner(
    directory: Path,
    num_seeds: int,
    retrain: Callable[[int, int], np.ndarray],
    column: str = "final_return",
    maximize: bool = True,
) -> dict[str, Any] | None:
    """Trains the best sample of a run again on fresh seeds and returns both scores.

    Args:
        directory: of the run.
        num_seeds: how many fresh ones.
        retrain: of a sample and a number of seeds, their final returns, NaN where one diverged.
        column: of the summary, by which samples are compared.
        maximize: whether more of it is better.
    """
    summary = load_run(directory).summary
    completed = summary[summary["status"] == "COMPLETED"].dropna(subset=["final_return", column])
    if len(summary) < 2 or num_seeds < 1 or completed.empty:
        return None
    best = completed.loc[completed[column].idxmax() if maximize else completed[column].idxmin()]
    returns = retrain(int(best["sample_id"]), num_seeds)
    finite = returns[np.isfinite(returns)]
    return {
        "sample_id": int(best["sample_id"]),
        "selected_final_return": float(best["final_return"]),
        "fresh_seeds_final_return": float(finite.mean()) if finite.size else None,
        "fresh_seeds_standard_error": float(finite.std(ddof=1) / np.sqrt(finite.size)) if finite.size > 1 else None,
        "fresh_seeds": num_seeds,
        "fresh_seeds_diverged": int(num_seeds - finite.size),
    }


def completed(directory: Path, plot: bool, anew: bool) -> Run:
    """Returns a run that has finished, after drawing its pictures and writing its report if ``plot`` says so.

    Args:
        directory: of the run.
        plot: whether there are to be any.
        anew: also those that there are already.

    Raises:
        CannotWrite: there is no place for them; the run is whole without.
    """
    run = load_run(directory)
    for checkpoint in directory.glob("checkpoints/*.npz"):  # of a process that was killed at its very end
        checkpoint.unlink()
    if not plot:
        return run
    try:
        draw_picture(run, anew)
        if run.summary["final_return"].notna().any() and (anew or not (directory / "report.html").exists()):
            from hyperlax.analysis.report import write_run_report

            with _room():
                write_run_report(run)
    except CannotWrite as error:
        if anew:
            raise
        log.warning("%s", error)  # of an archive that is only read
    return run


def draw_picture(run: Run, anew: bool = False) -> None:
    """Draws a sweep's picture, unless there is one or nothing to be drawn; ``anew`` in any case.

    Populations have none: what members began with says little of where they end.

    Raises:
        CannotWrite: there is no place for it; the run is whole without.
    """
    picture = run.path / "sweep.png"
    nothing = run.summary["final_return"].isna().all() or "population_size" in run.info
    if nothing or (picture.exists() and not anew):
        return
    from hyperlax.analysis.plots import plot_sweep

    with _room():
        plot_sweep(run, picture)


@contextmanager
def _room() -> Iterator[None]:
    """What could not be drawn for want of room is no bad input."""
    try:
        yield
    except UserError as error:
        raise CannotWrite(str(error)) from None


# --- what it says of itself ----------------------------------------------------------------------


def describe_run(
    recipe: Recipe,
    env: Environment,
    length: RunLength,
    overrides: Mapping[str, object],
    space: Mapping[str, Distribution],
    seed: int,
    plan: Plan,
    mesh: Mesh,
) -> dict[str, Any]:
    """Returns what run.json says before anything has run."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "gymnax", "brax")
    versions = {name: _version(name) for name in packages}
    return {
        "recipe": recipe.name,
        "algorithm": recipe.algorithm,
        "network": recipe.network,
        "environment": env.name,
        "backend": getattr(env, "backend", None),
        "defaults": flatten(recipe.defaults_for(env.name)),
        **describe_space(recipe, env, overrides, space),
        "budget_steps": length.total_timesteps,
        "num_evaluations": length.num_evaluations,
        "num_eval_episodes": length.num_eval_episodes,
        "num_seeds": length.num_seeds,
        "seed": seed,
        "command": command_line(),
        "versions": {
            "python": platform.python_version(),
            "hyperlax": hyperlax.__version__,
            **{k: v for k, v in versions.items() if v},
        },
        "devices": [str(device) for device in mesh.devices.flat],
        "device_kind": mesh.devices.flat[0].device_kind,
        "kernel": executor.current(),
        "predicted_seconds": round(plan.seconds, 1),
        "predicted_padding": round(plan.padding, 4),
        "programs": plan.as_rows(),
    }


def describe_space(
    recipe: Recipe, env: Environment, overrides: Mapping[str, object], space: Mapping[str, Distribution]
) -> dict[str, Any]:
    """Returns what run.json says of what was fixed, and of what samples were drawn from."""
    fixed = flatten(replace(recipe.defaults_for(env.name), overrides))
    return {
        "overrides": {name: fixed[name] for name in overrides},
        "space": {name: distribution.describe() for name, distribution in space.items() if name not in overrides},
    }


def command_line() -> str | None:
    """Returns the command that this process is; None if it is not ``hyperlax …`` or ``python -m hyperlax …``."""
    program = Path(sys.argv[0])
    if program.name == "hyperlax" or program.parts[-2:] in (("hyperlax", "__main__.py"), ("hyperlax", "cli.py")):
        return shlex.join(["hyperlax", *sys.argv[1:]])
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
