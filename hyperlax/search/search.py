"""Searches for the best configuration: :func:`optimize`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from hyperlax import runs
from hyperlax.engine import devices
from hyperlax.engine.plan import Plan
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Task
from hyperlax.environments import Environment
from hyperlax.errors import UserError, unknown
from hyperlax.recipes import Recipe, RunLength
from hyperlax.results.reader import Run
from hyperlax.results.resume import Earlier, info_of, resumable
from hyperlax.results.summary import METRICS
from hyperlax.search.cover import cover
from hyperlax.search.one_program import OneProgram
from hyperlax.search.pruners import OVER_SEEDS, PRUNERS, rungs
from hyperlax.search.run import Question, Search
from hyperlax.search.samplers import check_sampler
from hyperlax.search.storages import reachable, warn_of_damage, without_password
from hyperlax.spaces.distributions import Distribution
from hyperlax.spaces.hyperparameters import replace
from hyperlax.spaces.samplers import draw

log = logging.getLogger(__name__)

JOURNAL = "study.journal"
#: What may be searched for, and whether more of it is better.
OBJECTIVES = {name: name not in ("peak_timestep", "time_to_target", "forgetting_score") for name in METRICS} | {
    "final_return_std": False,
    "env_steps": False,
    "num_params": False,
    "wall_seconds": False,
}
DIRECTIONS = ("maximize", "minimize")
LANES_OF_A_CORE = 8  # a core gains nothing from more, and the sampler learns from every trial that has ended
GENERATIONS = 5  # at least so many times the sampler has something new to learn from
MOST_TRIALS = 1_000_000
LIKELY = 256  # points of the space that stand for the trials to come


def optimize(
    recipe: str | Recipe,
    env: str | Environment,
    *,
    num_trials: int = 100,
    sampler: str = "tpe",
    pruner: str = "none",
    objectives: str | Sequence[str] = "final_return",
    directions: str | Sequence[str] | None = None,
    study_name: str | None = None,
    storage: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    seed: int = 42,
    run_length: str | int | RunLength = "default",
    num_seeds: int | None = None,
    num_evaluations: int | None = None,
    num_eval_episodes: int | None = None,
    batch_size: int | str = "auto",
    num_devices: int | None = None,
    kernel: str | None = None,
    memory_limit_gib: float | None = None,
    winner_seeds: int | None = None,
    output_root: str | os.PathLike[str] = "results",
    dry_run: bool = False,
    save_policies: bool = True,
    progress: bool = True,
    plot: bool = True,
    resume: bool = False,
    resume_from: str | os.PathLike[str] | None = None,
) -> Run | Plan:
    """Searches a recipe's space with Optuna, trials being lanes of one program.

    A lane that is free takes the next trial at once. The arguments that are not listed are those of
    :func:`hyperlax.sweep`.

    Args:
        recipe: a name or a :class:`~hyperlax.recipes.Recipe`.
        env: a name or an :class:`~hyperlax.environments.Environment`.
        num_trials: that the study has in the end, whoever ran them.
        sampler: see :data:`hyperlax.search.samplers.SAMPLERS`.
        pruner: see :data:`hyperlax.search.pruners.PRUNERS`; decides at the points of the evaluations' grid.
        objectives: columns of the summary, see :data:`OBJECTIVES`.
        directions: ``maximize`` or ``minimize``, one an objective; None for what is better.
        study_name: by default the recipe's and the environment's.
        storage: a URL or a journal file, for several processes or hosts at one study; by default a journal file in the
            run directory.
        batch_size: trials at a time.

    Returns:
        The results of this process's trials as frames, or the plan.

    Raises:
        UserError: an argument is wrong; the message says what is accepted.
    """
    recipe, env, length = runs.resolved(
        recipe, env, run_length, seed, kernel,
        num_seeds=num_seeds, num_evaluations=num_evaluations, num_eval_episodes=num_eval_episodes,
    )  # fmt: skip
    runs.check_actions(recipe, env)
    if not 1 <= num_trials <= MOST_TRIALS:
        raise UserError(f"num_trials {num_trials}: accepted is 1 … {MOST_TRIALS}")
    names, senses = _objectives(objectives, directions)
    _check_methods(sampler, pruner, names, length)
    overrides = overrides or {}
    defaults, space = replace(recipe.defaults_for(env.name), overrides), _space(recipe, overrides)
    name = study_name or f"{recipe.name}@{env.name}"
    question = Question(env, length, defaults, space, seed, num_trials, name, sampler, pruner, names, senses)
    winner_seeds = length.num_seeds if winner_seeds is None else winner_seeds
    request = runs.request_of(
        "search", recipe, env, length, **question.describe(), sampler=sampler, pruner=pruner, study_name=name,
        storage=None if storage is None else without_password(os.fspath(storage)), seed=seed, batch_size=batch_size,
        winner_seeds=winner_seeds, save_policies=save_policies, memory_limit_gib=memory_limit_gib,
    )  # fmt: skip
    shared = storage is not None
    earlier = runs.earlier_run(output_root, recipe.group, env.name, request, resume, resume_from, shared)
    if earlier is not None and not dry_run and _is_done(earlier, question, storage):
        log.info("%s has finished, nothing is left to do", earlier.directory)
        return runs.completed(earlier.directory, plot, anew=False)
    memory = runs.memory_limit(memory_limit_gib) if earlier is None else earlier.memory
    search = _planned(question, batch_size, num_devices, memory, save_policies)
    if dry_run:
        return search.lanes.plan
    study = None if storage is None else question.study(storage, shared=True)  # refused before there is a directory
    lanes = search.lanes
    info = runs.describe_run(recipe, env, length, overrides, recipe.space, seed, lanes.plan, lanes.mesh)
    info |= {"request": request, "planned_memory": lanes.planner.memory, "num_trials": num_trials}
    info["command"] = info["command"] and without_password(info["command"])
    place = runs.run_directory(earlier, output_root, recipe.group, env.name, resume, shared)
    with place as directory, resumable(directory):
        log.info("results go to %s; the plan:\n%s", directory, lanes.plan.describe())
        with reachable():
            study = study or question.study(directory / JOURNAL, shared=False)
            search.carry_out(directory, info, study, winner_seeds, progress, earlier is not None)
        return runs.completed(directory, plot, anew=True)


def _objectives(objectives: str | Sequence[str], directions: str | Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Returns the columns of the summary and a direction for each."""
    given = [objectives] if isinstance(objectives, str) else list(objectives)
    names = []
    for name in given:
        name = name.strip().replace(" ", "_")
        name = "auc_at_budget" if name == "auc" else name
        if name not in OBJECTIVES:
            raise unknown("objective", name, OBJECTIVES)
        names.append(name)
    if not names or len(set(names)) < len(names):
        raise UserError(f"objectives {', '.join(names) or 'none'}: accepted are one or more different ones")
    senses = [directions] if isinstance(directions, str) else list(directions or ())
    senses = senses or [DIRECTIONS[not OBJECTIVES[name]] for name in names]
    for sense in senses:
        if sense not in DIRECTIONS:
            raise unknown("direction", sense, DIRECTIONS)
    if len(senses) != len(names):
        raise UserError(f"{len(senses)} directions for {len(names)} objectives: accepted is one for each")
    return names, senses


def _check_methods(sampler: str, pruner: str, objectives: Sequence[str], length: RunLength) -> None:
    """Raises UserError if sampler, pruner, objectives and run length do not go together."""
    check_sampler(sampler)
    if pruner not in PRUNERS:
        raise unknown("pruner", pruner, PRUNERS)
    if len(objectives) > 1 and pruner != "none":
        raise UserError(f"pruner '{pruner}' with {len(objectives)} objectives: accepted is 'none', or one objective")
    if len(objectives) > 1 and sampler == "cmaes":
        raise UserError(f"sampler 'cmaes' with {len(objectives)} objectives: accepted is one; nsgaii and tpe take more")
    if pruner != "none" and objectives[0] not in METRICS:
        raise UserError(f"pruner '{pruner}' with objective {objectives[0]}: it has no value before a trial's end")
    if pruner in ("asha", "hyperband") and not rungs(length.grid()):
        raise UserError(f"pruner '{pruner}' with {length.num_evaluations} evaluations: accepted are 3 or more")
    if pruner in ("median", "percentile") and length.num_evaluations < 3:
        raise UserError(f"pruner '{pruner}' with {length.num_evaluations} evaluations: accepted are 3 or more")
    if pruner in OVER_SEEDS and length.num_seeds < 5:  # with fewer nothing is significant before the last
        raise UserError(f"pruner '{pruner}' with {length.num_seeds} seeds: it compares seeds, accepted are 5 or more")


def _space(recipe: Recipe, overrides: Mapping[str, object]) -> dict[str, Distribution]:
    space = recipe.searched(overrides)
    if all(distribution.size == 1 for distribution in space.values()):
        raise UserError("nothing is left to search: every hyperparameter of the space has a fixed value")
    return space


def _is_done(earlier: Earlier, question: Question, storage: str | os.PathLike[str] | None) -> bool:
    """Returns whether nothing is left to do of a search, which may share its study with others."""
    if not earlier.finished or int(info_of(earlier.directory).get("num_trials", 0)) < question.num_trials:
        return False
    if storage is None:
        warn_of_damage(earlier.directory / JOURNAL)
        return True
    return question.study(storage, shared=True).has_ended(question.num_trials)


def _planned(
    question: Question, batch_size: int | str, num_devices: int | None, memory: int | None, save_policies: bool
) -> Search:
    """Returns a search with the plan of its program."""
    env, length = question.env, question.length
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise UserError(f"batch_size {batch_size!r}: accepted is 'auto' or a whole number from 1")
    covered = cover(question.defaults, question.space, env)
    likely = _likely_tasks(question)
    each = batch_size if isinstance(batch_size, int) else max(1, question.num_trials // GENERATIONS)
    most_lanes = min(each * length.num_seeds, len(likely))
    mesh = devices.local_mesh(num_devices, most_lanes)
    if batch_size == "auto" and mesh.devices.flat[0].platform == "cpu":
        most_lanes = min(most_lanes, LANES_OF_A_CORE * mesh.size)
    machine = runs.machine_of(mesh)

    def planned(limit: int) -> tuple[Plan, Planner]:
        evaluations = length.num_evaluations, length.num_eval_episodes
        planner = Planner(env, length.total_timesteps, mesh.size, machine, limit, most_lanes, *evaluations)
        return planner.covering(covered, likely, repeats=max(1.0, question.num_trials / LIKELY)), planner

    plan, planner = runs.planned_within(memory, mesh, planned)
    lanes = OneProgram(env, length, question.defaults, plan, planner, mesh, question.seed, save_policies)
    return Search(question, covered, lanes)


def _likely_tasks(question: Question) -> list[Task]:
    """Returns tasks such as are to be expected: evenly spread points of the space.

    Raises:
        UserError: not one of them can be trained; the message says why the last cannot.
    """
    tasks: list[Task] = []
    refusal: UserError | None = None
    for sample in draw(question.space, min(question.num_trials, LIKELY), "qmc_sobol", question.seed):
        try:
            hyperparams = runs.configured(question.defaults, sample.values, question.env)
        except UserError as error:
            refusal = error
        else:
            tasks += [Task(sample.sample_id, seed, hyperparams) for seed in range(question.length.num_seeds)]
    if not tasks:
        raise UserError(f"no point of the space can be trained: {refusal}")
    return tasks
