"""The study of a search, in a file or a database: trials are asked for, report, and end there.

Every event is one that may be repeated: whoever goes on after a kill does again what came after the last checkpoint,
finds the trials that there are with their parameters, and writes only what is missing. A trial's parameters follow from
the seed, its number and what was in the study when it was begun; whether it is pruned, from what was there when it
reported. A decision is in the study before any event that follows from it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
import math
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hyperlax.errors import UserError
from hyperlax.results.lock import DirectoryLock
from hyperlax.results.resume import read_info
from hyperlax.search.samplers import SAMPLERS
from hyperlax.search.space import OptunaSpace
from hyperlax.search.storages import Journal
from hyperlax.spaces.samplers import MAX_SAMPLES, draw

log = logging.getLogger(__name__)

STATUS, PRUNED_AT, WORKER = "status", "pruned_at", "worker"  # attributes of a trial
_REQUEST = "hyperlax"  # attribute of a study
_MOST_DIFFERENCES = 4  # that are named
_LOOK_EVERY = 10.0  # seconds: for the trials of workers that are no more

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Study:
    """A study that lives in a storage, perhaps with other processes at work on it.

    Args:
        storage: where.
        name: of the study; made where there is none.
        request: what the study is of; one that exists must have been made for the same.
        space: what trials are drawn from.
        directions: ``maximize`` or ``minimize``, one an objective.
        sampler: a name in :data:`SAMPLERS`.
        pruner: decides.
        seed: of all sampling.
        shared: whether other processes may work on the study.

    Attributes:
        worker: name of this process's share, the same when it goes on after a kill.

    Raises:
        UserError: the study exists and is of something else; the message says what differs.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        request: Mapping[str, Any],
        space: Mapping[str, Any],
        directions: Sequence[str],
        sampler: str,
        pruner: BasePruner,
        seed: int,
        shared: bool = False,
    ) -> None:
        self.storage, self.name, self.worker, self.shared = storage, name, "", shared
        self.space, self._drawn_from = OptunaSpace(space), space
        self._sampler, self._pruner, self._seed = sampler, pruner, seed
        self._common: Any = None
        self._looked_at, self._unseen = -math.inf, set[str]()
        self._maximizes = directions[0] == "maximize"
        wanted = json.loads(json.dumps(request))
        made = [StudyDirection.MAXIMIZE if d == "maximize" else StudyDirection.MINIMIZE for d in directions]
        try:
            study_id = storage.create_new_study(made, name)
        except DuplicatedStudyError:
            study_id = storage.get_study_id_from_name(name)
        else:
            storage.set_study_user_attr(study_id, _REQUEST, wanted)
        self._id = study_id
        found = storage.get_study_user_attrs(study_id).get(_REQUEST)
        if found is None and not storage.get_all_trials(study_id, deepcopy=False):
            storage.set_study_user_attr(study_id, _REQUEST, wanted)  # whoever made it was killed there
        elif found != wanted:
            raise UserError(f"study '{name}' exists and is another: {_differences(found, wanted)}")
        if storage.get_study_directions(study_id) != made:
            raise UserError(f"study '{name}' exists and has other directions; give another --study-name")

    def join(self, directory: Path, worker: str | None = None) -> None:
        """Says who works on the study.

        Args:
            directory: of the run, which this process has locked. A worker whose directory is not locked has ended.
            worker: its name if it has worked on the study before.
        """
        self.worker = worker or uuid.uuid4().hex[:12]
        place = str(directory.resolve())
        if self._homes().get(self.worker) != place:
            self.storage.set_study_user_attr(self._id, f"{WORKER} {self.worker}", place)

    def _homes(self) -> dict[str, str]:
        """Returns the directories of all workers by their names, on their own hosts."""
        attributes = self.storage.get_study_user_attrs(self._id)
        prefix = f"{WORKER} "
        return {name.removeprefix(prefix): home for name, home in attributes.items() if name.startswith(prefix)}

    def take_over(self) -> list[FrozenTrial]:
        """Takes the trials that workers have left who are no more, when nothing else is left to begin; returns them.

        Who comes back before then goes on with its own. A worker has ended if nobody has locked its directory. What
        cannot be seen from here is left alone: a directory that says another worker is that of the same name on another
        host.
        """
        if not self.shared or time.monotonic() < self._looked_at + _LOOK_EVERY:
            return []
        self._looked_at = time.monotonic()
        left: dict[str, list[FrozenTrial]] = {}
        for trial in self.trials():
            worker = trial.user_attrs.get(WORKER, "")
            if not trial.state.is_finished() and worker != self.worker:
                left.setdefault(worker, []).append(trial)
        homes = self._homes() if left else {}
        return [taken for worker in left if worker in homes for taken in self._take(worker, Path(homes[worker]))]

    def _take(self, worker: str, home: Path) -> list[FrozenTrial]:
        if read_info(home).get(WORKER) != worker:
            if worker not in self._unseen:
                log.warning("trials of a worker in %s are left to it: the directory cannot be seen from here", home)
                self._unseen.add(worker)
            return []
        taken = []
        try:
            with DirectoryLock(home) as lock:  # nobody else takes them meanwhile, nor does the worker begin again
                for trial in self.trials() if lock.held else ():
                    if not trial.state.is_finished() and trial.user_attrs.get(WORKER) == worker:
                        log.info("trial %d goes on here: its process has ended", trial.number)
                        self.storage.set_trial_user_attr(trial._trial_id, WORKER, self.worker)
                        taken.append(self.storage.get_trial(trial._trial_id))
        except UserError as error:
            log.info("trials of another worker are left to it: %s", error)
        return taken

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials, whoever runs them, by number."""
        return self.storage.get_all_trials(self._id, deepcopy=False)

    def own(self) -> list[FrozenTrial]:
        """Returns the trials of this worker, by number."""
        return [trial for trial in self.trials() if trial.user_attrs.get(WORKER) == self.worker]

    def best_trials(self, objectives: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the best trial, whoever ran it; of several objectives all of the Pareto front.

        Each has its number as ``sample_id``, its values by the names of the objectives and, of a study with other
        workers, the ``directory`` where it was trained, on the host of that worker.
        """
        study = optuna.load_study(study_name=self.name, storage=self.storage)
        if not any(trial.state == TrialState.COMPLETE for trial in self.trials()):
            return []
        homes = self._homes() if self.shared else {}
        return [
            {"sample_id": trial.number, **dict(zip(objectives, trial.values, strict=True))}
            | ({"directory": homes.get(trial.user_attrs.get(WORKER, ""))} if self.shared else {})
            for trial in (study.best_trials if len(objectives) > 1 else [study.best_trial])
        ]

    def has_ended(self, num_trials: int) -> bool:
        """Returns whether it has so many trials, and all of them have ended."""
        trials = self.trials()
        return len(trials) >= num_trials and all(trial.state.is_finished() for trial in trials)

    def sync(self) -> None:
        """Waits until all that has been told is on the disk, as a database does of itself."""
        backend = getattr(self.storage, "_backend", None)
        if isinstance(backend, Journal):
            backend.sync()

    def create(self) -> FrozenTrial:
        """Begins a trial, yet without parameters."""
        trial = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={WORKER: self.worker})
        trial.datetime_start = datetime.now()
        trial_id = self.storage.create_new_trial(self._id, template_trial=trial)
        return self.storage.get_trial(trial_id)

    def suggest(self, trial: FrozenTrial) -> dict[str, Any]:
        """Returns the values of a trial; those that it does not have yet are drawn, and become its parameters."""
        missing = [name for name in self.space.distributions if name not in trial.params]
        params = dict(trial.params)
        if missing:
            drawn = self._draw(trial)
            for name in missing:
                params[name] = drawn[name]
                distribution = self.space.distributions[name]
                internal = distribution.to_internal_repr(drawn[name])
                self.storage.set_trial_param(trial._trial_id, name, internal, distribution)
        return self.space.values({name: params[name] for name in self.space.distributions})

    def _draw(self, trial: FrozenTrial) -> dict[str, Any]:
        """Returns parameters drawn with the study as it is, and a seed of the trial's own."""
        make = SAMPLERS[self._sampler].make
        if make is None:
            return self.space.params(self._sobol_point(trial.number))
        entropy = [self._seed, trial.number]
        if self.shared:  # two processes may be about to begin a trial of the same number
            entropy += self.worker.encode()
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        blank = copy.deepcopy(trial)
        blank.params, blank.distributions = {}, {}
        with quiet():
            sampler = make(seed)
            # What all trials have in common is found out once, not by every sampler anew: most of an ask's time.
            self._common = getattr(sampler, "_search_space", None) if self._common is None else self._common
            if self._common is not None:
                sampler._search_space = self._common  # type: ignore[attr-defined]
            study = optuna.load_study(study_name=self.name, storage=self.storage, sampler=sampler)
            together = sampler.infer_relative_search_space(study, blank)
            params = sampler.sample_relative(study, blank, together)
            for name, distribution in self.space.distributions.items():
                if name not in params:
                    params[name] = sampler.sample_independent(study, blank, name, distribution)
        return params

    def _sobol_point(self, number: int) -> dict[str, Any]:
        if number >= MAX_SAMPLES:
            raise UserError(f"sampler 'qmc': accepted are {MAX_SAMPLES} trials")
        count = 1 << number.bit_length()
        return dict(_sobol_points(tuple(self._drawn_from.items()), count, self._seed)[number].values)

    def report(self, trial: FrozenTrial, step: int, value: float, last: bool = False) -> bool:
        """Reports a value of a trial at a step; returns whether it is to be given up there, unless that is its last."""
        stored = self.storage.get_trial(trial._trial_id)
        if step in stored.intermediate_values or stored.state.is_finished():
            return stored.user_attrs.get(PRUNED_AT) == step
        losing = stored.user_attrs.get(PRUNED_AT) == step or (not last and self._is_losing(stored, step, value))
        if losing:
            self.storage.set_trial_user_attr(trial._trial_id, PRUNED_AT, step)
        self.storage.set_trial_intermediate_value(trial._trial_id, step, value)
        return losing

    def is_better(self, value: float, than: float) -> bool:
        """Returns whether a value of the first objective is better than another."""
        return value > than if self._maximizes else value < than

    def was_pruned_at(self, number: int, step: int) -> bool:
        """Returns whether a trial was given up at a step."""
        return bool(self.trials()[number].user_attrs.get(PRUNED_AT) == step)

    def _is_losing(self, stored: FrozenTrial, step: int, value: float) -> bool:
        if isinstance(self._pruner, optuna.pruners.NopPruner):
            return False
        reporting = copy.deepcopy(stored)
        reporting.intermediate_values[step] = value
        study = optuna.load_study(study_name=self.name, storage=self.storage)
        with quiet():
            return bool(self._pruner.prune(study, reporting))

    def finish(self, trial: FrozenTrial, status: str, values: Sequence[float] | None) -> None:
        """Ends a trial, unless it has ended already.

        Args:
            trial: of this worker.
            status: COMPLETED, PRUNED, DIVERGED or FAILED. A trial that diverged is a bad one, like one that was
                pruned; among several objectives Optuna knows no pruned trials, so that it has failed there.
            values: of the objectives; None where there are none.
        """
        stored = self.storage.get_trial(trial._trial_id)
        if stored.state.is_finished():
            return
        several = len(self.storage.get_study_directions(self._id)) > 1
        state = TrialState.COMPLETE if status == "COMPLETED" else TrialState.PRUNED
        missing = state == TrialState.COMPLETE and not (values and np.isfinite(values).all())
        if status == "FAILED" or missing or (several and state == TrialState.PRUNED):
            state, values = TrialState.FAIL, None
        elif state == TrialState.PRUNED:
            last = stored.last_step
            values = None if last is None else [stored.intermediate_values[last]]
        self.storage.set_trial_user_attr(trial._trial_id, STATUS, status)
        self.storage.set_trial_state_values(trial._trial_id, state, values)


@functools.lru_cache(maxsize=4)
def _sobol_points(space: tuple[tuple[str, Any], ...], count: int, seed: int) -> list[Any]:
    return draw(dict(space), count, "qmc_sobol", seed)


def _differences(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    if found is None:
        return "it was not made by hyperlax; give another --study-name"
    lines = []
    for name in {**found, **wanted}:
        there, here = found.get(name), wanted.get(name)
        if isinstance(there, dict) and isinstance(here, dict):
            lines += [
                f"{name} {inner}: {there.get(inner, 'none')} there, {here.get(inner, 'none')} here"
                for inner in {**there, **here}
                if there.get(inner) != here.get(inner)
            ]
        elif there != here:
            lines.append(f"{name} {there} there, {here} here")
    more = [f"and {len(lines) - _MOST_DIFFERENCES} more"] if len(lines) > _MOST_DIFFERENCES else []
    return "; ".join(lines[:_MOST_DIFFERENCES] + more)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna's notes on what it calls experimental help no user of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", module="optuna")
        yield
