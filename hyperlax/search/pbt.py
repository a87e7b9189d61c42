"""Trains populations: :func:`population_based_training`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np

from hyperlax import runs
from hyperlax.engine import devices
from hyperlax.engine.plan import Plan
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Task
from hyperlax.engine.sweep import final_returns
from hyperlax.environments import Environment
from hyperlax.errors import UserError
from hyperlax.recipes import Recipe, RunLength
from hyperlax.results.lineage import LINEAGE, ancestry
from hyperlax.results.reader import Run
from hyperlax.results.resume import mend_derived, resumable, take_up
from hyperlax.search.one_program import OneProgram, marks_of
from hyperlax.search.population import Evolution, Populations, Replay, changeable
from hyperlax.spaces.distributions import Distribution
from hyperlax.spaces.files import Sample
from hyperlax.spaces.hyperparameters import declarations, replace
from hyperlax.spaces.samplers import draw

log = logging.getLogger(__name__)

MOST_MEMBERS = 100_000


def population_based_training(
    recipe: str | Recipe,
    env: str | Environment,
    *,
    population_size: int = 16,
    num_populations: int = 1,
    exploit_every: int = 2,
    exploit_quantile: float = 0.25,
    perturbation: float = 0.1,
    resample_probability: float = 0.25,
    overrides: Mapping[str, object] | None = None,
    seed: int = 42,
    run_length: str | int | RunLength = "default",
    num_evaluations: int | None = 20,
    num_eval_episodes: int | None = None,
    num_devices: int | None = None,
    kernel: str | None = None,
    memory_limit_gib: float | None = None,
    winner_seeds: int = 4,
    output_root: str | os.PathLike[str] = "results",
    dry_run: bool = False,
    save_policies: bool = True,
    progress: bool = True,
    plot: bool = True,
    resume: bool = False,
    resume_from: str | os.PathLike[str] | None = None,
) -> Run | Plan:
    """Trains populations whose worst members take up, now and then, the state of the best, with other hyperparameters.

    Members begin with points of the recipe's space. What a member copies is everything; what then changes are the
    hyperparameters of the space that are only numbers in the program (:func:`hyperlax.search.population.changeable`).
    Populations are independent repetitions, trained side by side. The arguments that are not listed are those of
    :func:`hyperlax.sweep`.

    Args:
        recipe: a name or a :class:`~hyperlax.recipes.Recipe`.
        env: a name or an :class:`~hyperlax.environments.Environment`.
        population_size: members, each of them a lane.
        num_populations: independent ones.
        exploit_every: evaluations from one generation to the next.
        exploit_quantile: share of the members that are replaced in each, by as many of the best.
        perturbation: how far a hyperparameter moves, as a share of its range on its own scale.
        resample_probability: that it is drawn anew instead.
        winner_seeds: fresh seeds on which the winner's hyperparameters are tried again, as they changed in its line.

    Returns:
        The results as frames, one sample a member, or the plan.

    Raises:
        UserError: an argument is wrong; the message says what is accepted.
    """
    recipe, env, length = runs.resolved(
        recipe, env, run_length, seed, kernel,
        num_seeds=1, num_evaluations=num_evaluations, num_eval_episodes=num_eval_episodes,
    )  # fmt: skip
    runs.check_actions(recipe, env)
    _check_size(population_size, num_populations)
    evolution = Evolution(exploit_every, exploit_quantile, perturbation, resample_probability)
    evolution.check(length.num_evaluations)
    overrides = overrides or {}
    defaults, space = replace(recipe.defaults_for(env.name), overrides), recipe.searched(overrides)
    scalars = [name for name, declaration in declarations(defaults).items() if declaration.kind == "scalar"]
    changing = changeable(space, scalars)
    if not changing:
        raise UserError("nothing is left to change: every number of the space has a fixed value")
    request = runs.request_of(
        "population", recipe, env, length, overrides={name: str(value) for name, value in overrides.items()},
        population_size=population_size, num_populations=num_populations, evolution=asdict(evolution), seed=seed,
        winner_seeds=winner_seeds, save_policies=save_policies, memory_limit_gib=memory_limit_gib,
    )  # fmt: skip
    earlier = runs.earlier_run(output_root, recipe.group, env.name, request, resume, resume_from)
    samples = draw(space, population_size * num_populations, "qmc_sobol", seed)
    if earlier is not None and earlier.finished and not dry_run:
        log.info("%s has finished, nothing is left to do", earlier.directory)
        mend_derived(earlier.directory, samples)
        return runs.completed(earlier.directory, plot, anew=False)
    memory = runs.memory_limit(memory_limit_gib) if earlier is None else earlier.memory
    lanes = _planned(env, length, defaults, samples, seed, num_devices, memory, save_policies)
    if dry_run:
        return lanes.plan
    info = runs.describe_run(recipe, env, length, overrides, recipe.space, seed, lanes.plan, lanes.mesh)
    info |= {"request": request, "planned_memory": lanes.planner.memory, "evolution": asdict(evolution)}
    info |= {"population_size": population_size, "changing": list(changing)}
    place = runs.run_directory(earlier, output_root, recipe.group, env.name, resume)
    with place as directory, resumable(directory):
        log.info("results go to %s; the plan:\n%s", directory, lanes.plan.describe())
        training = _Training(lanes, defaults, samples, population_size, evolution, changing)
        training.carry_out(directory, info, winner_seeds, progress, earlier is not None)
        return runs.completed(directory, plot, anew=True)


def _check_size(population_size: int, num_populations: int) -> None:
    if population_size < 2:
        raise UserError(f"population_size {population_size}: accepted is 2 or more")
    if num_populations < 1:
        raise UserError(f"num_populations {num_populations}: accepted is 1 or more")
    if population_size * num_populations > MOST_MEMBERS:
        raise UserError(f"{num_populations} populations of {population_size}: accepted are {MOST_MEMBERS} members")


def _planned(
    env: Environment,
    length: RunLength,
    defaults: Any,
    samples: Sequence[Sample],
    seed: int,
    num_devices: int | None,
    memory: int | None,
    save_policies: bool,
) -> OneProgram:
    """Returns the program in which every member has a lane.

    Raises:
        UserError: a member cannot be trained, or memory does not suffice.
    """
    tasks = [Task(s.sample_id, 0, runs.configured(defaults, s.values, env)) for s in samples]
    mesh = devices.local_mesh(num_devices, len(tasks))
    num_lanes = -(-len(tasks) // mesh.size) * mesh.size
    shape = reduce(lambda a, b: a.merge(b), sorted({task.hyperparams.shape(env) for task in tasks}, key=repr))

    def planned(limit: int) -> tuple[Plan, Planner]:
        evaluations = length.num_evaluations, length.num_eval_episodes
        # Lanes that take up others' state are, for a moment, there twice.
        planner = Planner(
            env, length.total_timesteps, mesh.size, runs.machine_of(mesh), limit, num_lanes, *evaluations, times=2
        )
        return planner.covering(shape, tasks, all_at_once=True), planner

    plan, planner = runs.planned_within(memory, mesh, planned)
    return OneProgram(env, length, tasks[0].hyperparams, plan, planner, mesh, seed, save_policies)


@dataclass
class _Training:
    """Populations with the program that they train in.

    Args:
        lanes: the program.
        defaults: hyperparameters of what is not drawn.
        samples: of all members.
        size: of a population.
        evolution: how they change.
        changing: distributions of what may change.
    """

    lanes: OneProgram
    defaults: Any
    samples: list[Sample]
    size: int
    evolution: Evolution
    changing: Mapping[str, Distribution]

    def carry_out(
        self, directory: Path, info: dict[str, Any], winner_seeds: int, progress: bool, resumed: bool
    ) -> None:
        """Trains all members to their end, then tries the winner's hyperparameters on fresh seeds."""
        queue = self._queue(directory)
        if resumed:
            queue = self._go_on(directory, queue)

        def conclude() -> dict[str, Any]:
            return {"winner": runs.winner(directory, winner_seeds, partial(self._retrained, queue))}

        self.lanes.run(queue, directory, info, [0], len(self.samples), progress, conclude)

    def _queue(self, directory: Path) -> Populations:
        lanes = self.lanes
        configured = partial(runs.configured, self.defaults, env=lanes.env)
        order = [None if task is None else task.sample_id for task in lanes.plan.programs[0].tasks]
        return Populations(
            self.samples, self.size, self.evolution, self.changing, configured, lanes.length.grid(), lanes.run_seed,
            order, directory / LINEAGE,
        )  # fmt: skip

    def _go_on(self, directory: Path, queue: Populations) -> Populations:
        """Returns the queue as it was at the last checkpoint; where that is not whole, all begins anew."""
        checkpoints, length = self.lanes.checkpoints(directory), self.lanes.length
        saved = checkpoints.load(self.lanes.program.like())
        evaluations, policies = length.num_evaluations, self.lanes.save_policies
        if saved is not None:
            ended = queue.restore(saved.queue)
            marks = {key: queue.mark(key[0], mark) for key, mark in marks_of(saved, queue).items()}
            taken_up = take_up(directory, marks, evaluations, policies, ended, complete=False)
            self.lanes.seconds = taken_up.seconds
            all_there = saved.arrays is not None or len(ended) == len(self.samples)
            if all_there and not taken_up.damaged and taken_up.settled == ended:
                return queue
            log.warning("%s: results of some members are lost, all of them are trained again", directory)
            checkpoints.remove()
        take_up(directory, {}, evaluations, policies, ended=())
        return self._queue(directory)

    def _retrained(self, queue: Populations, member: int, count: int) -> np.ndarray:
        """Returns the returns of fresh seeds whose hyperparameters change as those of a member's ancestors did."""
        line = ancestry(queue.lineage, member)
        values, grid = self.samples[line[0]["member"]].values, self.lanes.length.grid()
        changes = []
        for row in line:
            changed = {**values, **{name: row[name] for name in self.changing}}
            points = grid.index(row["grid_step"]) + 1 if row["grid_step"] else 0
            changes.append((points, runs.configured(self.defaults, changed, self.lanes.env)))
        tasks = [Task(member, 1 + i, changes[0][1]) for i in range(count)]
        return final_returns(self.lanes.program, tasks, self.lanes.length, partial(Replay, changes=changes))
