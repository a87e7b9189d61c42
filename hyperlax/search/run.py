"""Carries out a search: trials on the lanes of one program."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.exceptions import StorageInternalError

from hyperlax import runs
from hyperlax.engine.program import Task
from hyperlax.engine.sweep import final_returns
from hyperlax.environments import Environment
from hyperlax.errors import UserError
from hyperlax.recipes import RunLength
from hyperlax.results.resume import info_of, take_up
from hyperlax.results.storage import read_table, read_text
from hyperlax.results.writer import EVALUATION_COLUMNS, TABLE_KEYS
from hyperlax.search.cover import fits
from hyperlax.search.one_program import OneProgram, marks_of
from hyperlax.search.pruners import OVER_SEEDS, PRUNERS
from hyperlax.search.storages import open_storage, reason_of, without_password
from hyperlax.search.study import Study, quiet
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
        opened = open_storage(storage, own=not shared)
        try:
            return Study(
                opened, self.study_name, request, self.space, self.directions, self.sampler, pruner, self.seed, shared
            )
        except StorageInternalError as error:
            shown = without_password(str(storage))
            raise UserError(f"storage '{shown}' cannot be used: {reason_of(error.__cause__ or error)}") from None


@dataclass
class Search:
    """A search with the program that it runs in.

    Args:
        question: what is searched for.
        covered: a shape that holds every point of the space.
        lanes: the program.
    """

    question: Question
    covered: Any
    lanes: OneProgram

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
        before = info_of(directory) if resumed else {}
        study.join(directory, before.get("worker"))
        over_seeds = question.pruner in OVER_SEEDS
        trials = Trials(study, self._configured, length, question.num_trials, question.objectives, over_seeds)
        if resumed:
            self._go_on(directory, trials, before.get("state") == "finished")

        def conclude() -> dict[str, Any]:
            retrain, maximize = partial(self._retrained, trials), question.directions[0] == "maximize"
            winner = runs.winner(directory, winner_seeds, retrain, question.objectives[0], maximize)
            return {"winner": winner, "best_trials": study.best_trials(question.objectives)}

        info = {**info, "study": question.study_name, "worker": study.worker}
        seeds = range(length.num_seeds)
        self.lanes.run(trials, directory, info, seeds, question.num_trials, progress, conclude)

    def _configured(self, values: Mapping[str, Any]) -> Any:
        """Returns a trial's hyperparameters.

        Raises:
            UserError: they contradict one another.
        """
        hyperparams = runs.configured(self.question.defaults, values, self.question.env)
        if not fits(self.covered, hyperparams, self.question.env):
            raise UserError("the program has no room for it: the space was searched for its largest corner in vain")
        return hyperparams

    def _go_on(self, directory: Path, trials: Trials, finished: bool) -> None:
        """Takes up what an earlier process left in a run directory, as it was at its last checkpoint.

        Raises:
            UserError: the study does not have the trials that were trained.
        """
        checkpoints = self.lanes.checkpoints(directory)
        saved = checkpoints.load(self.lanes.program.like())
        if saved is not None:
            _check_that_it_has(trials.study, saved.queue["begun"], directory)
            ended = trials.restore(saved.queue)
        elif finished or checkpoints.path.exists():  # which is damaged: what has ended is kept
            trained = _trained(directory)
            _check_that_it_has(trials.study, (number for number, _ in trained), directory)
            known = {trial.number for trial in trials.study.own() if trial.state.is_finished()}
            ended = trials.restore(trials.everything({key for key in trained if key[0] in known}))
        else:
            ended = trials.restore(trials.state())
        length, marks = self.question.length, marks_of(saved, trials)
        taken_up = take_up(directory, marks, length.num_evaluations, self.lanes.save_policies, ended)
        evaluations = read_table(directory / "evaluations.csv", EVALUATION_COLUMNS)
        curves: dict[Any, dict[int, float]] = {}
        for row in evaluations.itertuples():
            curves.setdefault((row.sample_id, row.seed), {})[row.grid_step] = row.mean_return
        trials.take_up(curves, taken_up.settled, taken_up.going)
        self.lanes.seconds = taken_up.seconds
        log.info("%d trainings have ended, %d go on", len(taken_up.settled), len(taken_up.going))

    def _retrained(self, trials: Trials, sample_id: int, count: int) -> np.ndarray:
        """Returns the returns of a trial on seeds that no one has seen."""
        values = next(sample.values for sample in trials.samples if sample.sample_id == sample_id)
        first, hyperparams = self.question.length.num_seeds, self._configured(values)
        tasks = [Task(sample_id, first + i, hyperparams) for i in range(count)]
        return final_returns(self.lanes.program, tasks, self.question.length)


def _check_that_it_has(study: Study, numbers: Iterable[int], directory: Path) -> None:
    """Raises UserError if a study lacks trials that a run has trained."""
    lost = sorted(set(numbers) - {trial.number for trial in study.trials()})
    if lost:
        some = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
        raise UserError(
            f"study '{study.name}' is another or damaged: it lacks trials {some} of {directory}, whose results stay as "
            "they are; give the storage that they were made with, or begin a search without --resume"
        )


def _trained(directory: Path) -> set[tuple[int, int]]:
    """Returns the (trial, seed)s of a search that has finished, also those of which one of its tables is damaged."""
    tables = [read_text(directory / f"{name}.csv", TABLE_KEYS[name]) for name in ("lanes", "evaluations")]
    return {(int(key[0]), int(key[1])) for table in tables for key in table.rows}
