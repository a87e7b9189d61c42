"""Carries out a search: trials on the lanes of one program."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from hyperlax import runs
from hyperlax.engine.checkpoint import Checkpoints, Restored
from hyperlax.engine.interrupt import stoppable
from hyperlax.engine.plan import Plan
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Program, Task
from hyperlax.engine.scheduler import Scheduler
from hyperlax.engine.sweep import final_returns, happened
from hyperlax.environments import Environment
from hyperlax.errors import RunFailed, UserError
from hyperlax.recipes import RunLength
from hyperlax.results.progress import Progress
from hyperlax.results.resume import Mark, info_of, take_up
from hyperlax.results.storage import read_table
from hyperlax.results.writer import EVALUATION_COLUMNS, LANE_COLUMNS, RunWriter
from hyperlax.search.cover import fits
from hyperlax.search.pruners import OVER_SEEDS, PRUNERS
from hyperlax.search.study import Study, open_storage, quiet
from hyperlax.search.trials import Trials
from hyperlax.spaces.distributions import Distribution, show
from hyperlax.spaces.hyperparameters import flatten

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What is searched for.

    Attributes:
        env: the environment.
        length: of every (trial, seed).
        defaults: hyperparameters of what is not drawn.
        space: distributions of what is.
        seed: of all randomness.
        num_trials: that the study is to have.
        study_name: in its storage.
        sampler: name of what draws.
        pruner: name of what gives trials up.
        objectives: columns of the summary.
        directions: ``maximize`` or ``minimize``, for each.
    """

    env: Environment
    length: RunLength
    defaults: Any
    space: Mapping[str, Distribution]
    seed: int
    num_trials: int
    study_name: str
    sampler: str
    pruner: str
    objectives: Sequence[str]
    directions: Sequence[str]

    def describe(self) -> dict[str, Any]:
        """Returns what all that work on one study must have in common, besides environment and length."""
        return {
            "space": {name: distribution.describe() for name, distribution in self.space.items()},
            "defaults": {name: show(value) for name, value in flatten(self.defaults).items() if name not in self.space},
            "objectives": list(self.objectives),
            "directions": list(self.directions),
        }

    def study(self, storage: str | os.PathLike[str], shared: bool) -> Study:
        """Opens the study, or makes it; ``shared`` with other processes.

        Raises:
            UserError: the storage cannot be reached, or the study there is another.
        """
        length = {
            "budget_steps": self.length.total_timesteps,
            "num_evaluations": self.length.num_evaluations,
            "num_eval_episodes": self.length.num_eval_episodes,
            "num_seeds": self.length.num_seeds,
        }
        request = {"environment": self.env.name, **length, **self.describe()}
        with quiet():
            pruner = PRUNERS[self.pruner][0](self.length.grid())
        return Study(
            open_storage(storage), self.study_name, request, self.space, self.directions, self.sampler, pruner,
            self.seed, shared,
        )  # fmt: skip


@dataclass
class Search:
    """A search with the program that it runs in.

    Args:
        question: what is searched for.
        covered: a shape that holds every point of the space.
        plan: of the one program.
        planner: that made it.
        mesh: devices.
        save_policies: whether final policies are kept.
    """

    question: Question
    covered: Any
    plan: Plan
    planner: Planner
    mesh: Mesh
    save_policies: bool

    def carry_out(
        self,
        directory: Path,
        info: dict[str, Any],
        study: Study,
        winner_seeds: int,
        progress: bool,
        resumed: bool,
    ) -> None:
        """Runs trials until the study has as many as it is to have, then trains the winner again on fresh seeds.

        Args:
            directory: of the run, locked.
            info: what ``run.json`` says before anything has run.
            study: is asked and told.
            winner_seeds: how many fresh ones.
            progress: whether it is shown.
            resumed: whether an earlier process began.

        Raises:
            RunFailed: it cannot go on; what there is is kept.
        """
        question, length = self.question, self.question.length
        self._started, self._seconds = time.perf_counter(), 0.0
        program = self._compiled()
        checkpoints = Checkpoints(directory / "checkpoints" / "program_000.npz")
        before = info_of(directory) if resumed else {}
        study.join(directory, before.get("worker"))
        over_seeds = question.pruner in OVER_SEEDS
        trials = Trials(study, self._configured, length, question.num_trials, question.objectives, over_seeds)
        if resumed:
            self._go_on(directory, trials, checkpoints.load(program.like()), before.get("state") == "finished")
        seeds = range(length.num_seeds)
        steps = question.num_trials * len(seeds) * length.total_timesteps
        info = {**info, "study": question.study_name, "worker": study.worker}
        with (
            RunWriter(directory, info, trials.samples, seeds) as writer,
            Progress(question.num_trials, steps, enabled=progress) as display,
            stoppable() as stop,
        ):
            trials.writer = writer
            shown = _Shown(question.num_trials, trials, display)
            clock, policies = self._clock, self.save_policies
            cost = self.planner.cost(self.plan.programs[0])
            scheduler = Scheduler(program, 0, length, writer, clock, shown.tick, policies, checkpoints, stop, cost)
            try:
                scheduler.run(trials)
                objective, sense = question.objectives[0], question.directions[0]
                retrained = partial(self._retrained, program, trials)
                winner = runs.winner(directory, winner_seeds, retrained, objective, sense == "maximize")
            except KeyboardInterrupt:
                log.warning("interrupted; results so far: %s; the same command with --resume True goes on", directory)
                raise
            except (UserError, RunFailed):
                raise
            except Exception as error:
                log.info("the failure", exc_info=True)
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                raise RunFailed(
                    f"{reason}; results so far: {directory}; the same command with --resume True goes on"
                ) from error
            finally:
                row = happened(self.plan, 0, program, scheduler.utilisation, 0.0)
                writer.update_info(programs=[row], seconds=round(self._clock(), 2), trials=dict(trials.counts))
            writer.update_info(winner=winner)

    def _compiled(self) -> Program:
        planned, length = self.plan.programs[0], self.question.length
        program = Program(
            self.question.defaults,
            self.question.env,
            planned.shape,
            num_lanes=planned.num_lanes,
            group=planned.group,
            total_timesteps=length.total_timesteps,
            num_eval_episodes=length.num_eval_episodes,
            run_seed=self.question.seed,
            mesh=self.mesh,
        )
        program.compile()
        return program

    def _configured(self, values: Mapping[str, Any]) -> Any:
        """Returns a trial's hyperparameters.

        Raises:
            UserError: they contradict one another.
        """
        hyperparams = runs.configured(self.question.defaults, values, self.question.env)
        if not fits(self.covered, hyperparams, self.question.env):
            raise UserError("the program has no room for it: the space was searched for its largest corner in vain")
        return hyperparams

    def _clock(self) -> float:
        """Returns seconds that the search has taken, those of earlier processes included."""
        return self._seconds + time.perf_counter() - self._started

    def _go_on(self, directory: Path, trials: Trials, saved: Restored | None, finished: bool) -> None:
        """Takes up what an earlier process left in a run directory, as it was at its last checkpoint."""
        if saved is not None:
            ended = trials.restore(saved.queue)
        else:
            lanes = read_table(directory / "lanes.csv", LANE_COLUMNS)
            everything = [(row.sample_id, row.seed) for row in lanes.itertuples()]
            ended = trials.restore(trials.everything(everything) if finished else trials.state())
        marks = {}
        for slot in saved.slots if saved is not None else ():
            task = trials.going(slot.sample_id, slot.seed)
            if task is not None:
                steps = slot.updates * task.hyperparams.steps_per_update
                marks[slot.sample_id, slot.seed] = Mark(steps, slot.passed)
        length = self.question.length
        taken_up = take_up(directory, marks, length.num_evaluations, self.save_policies, ended)
        evaluations = read_table(directory / "evaluations.csv", EVALUATION_COLUMNS)
        curves: dict[Any, dict[int, float]] = {}
        for row in evaluations.itertuples():
            curves.setdefault((row.sample_id, row.seed), {})[row.grid_step] = row.mean_return
        trials.take_up(curves, taken_up.settled, taken_up.going)
        self._seconds = taken_up.seconds
        log.info("%d trainings have ended, %d go on", len(taken_up.settled), len(taken_up.going))

    def _retrained(self, program: Program, trials: Trials, sample_id: int, count: int) -> np.ndarray:
        """Returns the returns of a trial on seeds that no one has seen."""
        values = next(sample.values for sample in trials.samples if sample.sample_id == sample_id)
        first, hyperparams = self.question.length.num_seeds, self._configured(values)
        tasks = [Task(sample_id, first + i, hyperparams) for i in range(count)]
        return final_returns(program, tasks, self.question.length)


class _Shown:
    """Shows how far a search is."""

    def __init__(self, num_trials: int, trials: Trials, display: Progress) -> None:
        self._num_trials, self._trials, self._display = num_trials, trials, display
        self._env_steps = 0

    def tick(self, updates: dict[Task, int], finished: list[Task], scores: list[tuple[Task, float]]) -> None:
        """Counts one tick."""
        del finished, scores
        self._env_steps += sum(count * task.hyperparams.steps_per_update for task, count in updates.items())
        trials, counts = self._trials, self._trials.counts
        pruned = f"{counts['PRUNED']} pruned" if counts["PRUNED"] else ""
        fraction = trials.done() / self._num_trials
        self._display.update(counts.total(), self._env_steps, fraction, trials.best, pruned)
