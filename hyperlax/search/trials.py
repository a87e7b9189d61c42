"""Trials on lanes: a free lane takes the next trial of a study, and every evaluation is reported to it at once."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from hyperlax.engine.program import Task
from hyperlax.engine.scheduler import Verdict
from hyperlax.errors import RunFailed, UserError
from hyperlax.recipes.run_length import RunLength
from hyperlax.results.summary import METRICS, curve_metrics
from hyperlax.results.writer import RunWriter
from hyperlax.search.study import STATUS, Study
from hyperlax.spaces.files import Sample

log = logging.getLogger(__name__)

MOST_REFUSED = 100  # in a row
Curves = dict[int, dict[int, float]]  # seed → grid step → mean return
Key = tuple[int, int]  # trial, seed


@dataclass
class Running:
    """A trial that has been begun and has not ended.

    Attributes:
        trial: in the study.
        tasks: one a seed.
        waiting: seeds that no lane has taken yet.
        taken: how many lanes have taken.
        curves: evaluations so far.
        reported: points of the grid that the study knows.
        statuses: of the seeds that have ended.
        given_up: whether it is not worth going on.
    """

    trial: FrozenTrial
    tasks: list[Task]
    waiting: deque[int]
    taken: int = 0
    curves: Curves = field(default_factory=dict)
    reported: int = 0
    statuses: dict[int, str] = field(default_factory=dict)
    given_up: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether a lane is at one of its seeds."""
        return self.taken > len(self.statuses)

    def take(self) -> Task:
        """Returns its next seed."""
        self.taken += 1
        return self.tasks[self.waiting.popleft()]

    def common_points(self) -> int:
        """Returns how many points of the grid all seeds have reached."""
        return min((len(self.curves.get(task.seed, ())) for task in self.tasks), default=0)

    def give_up(self) -> None:
        """Ends it: no further seed begins, and those that train are to end."""
        self.given_up = True
        self.waiting.clear()


class Trials:
    """The queue of a search.

    Args:
        study: is asked for parameters, and told of results.
        configured: makes hyperparameters of values; raises UserError where they contradict one another.
        length: of every (trial, seed).
        num_trials: that the study is to have, whoever runs them.
        objectives: columns of the summary; the first is reported while a trial runs.
        over_seeds: whether the seeds of a trial run one after the other, and the pruner compares those.

    Attributes:
        samples: of all trials that have begun.
        counts: of trials that have ended, by status.
        best: number and first objective of the best that has completed here.
        writer: who is told of samples before their trials begin.
    """

    writer: RunWriter

    def __init__(
        self,
        study: Study,
        configured: Callable[[Mapping[str, Any]], Any],
        length: RunLength,
        num_trials: int,
        objectives: Sequence[str] = ("final_return",),
        over_seeds: bool = False,
    ) -> None:
        self.study, self._configured, self._length, self._grid = study, configured, length, length.grid()
        self._num_trials, self._objectives, self._over_seeds = num_trials, tuple(objectives), over_seeds
        self._recorded = deque(study.own())  # begun by an earlier process, perhaps not yet by this one
        self._begun: set[int] = set()
        self._running: dict[int, Running] = {}
        self._ended: set[Key] = set()
        self._repairs: dict[Key, Task] = {}  # ended, but what was written of them is damaged
        self._repairs_waiting: deque[Task] = deque()
        self.samples: list[Sample] = []
        self.counts: Counter[str] = Counter()
        self.best: tuple[int, float] | None = None

    # --- the queue ---------------------------------------------------------------------------------

    def first(self, num_lanes: int) -> list[Task | None]:
        """Returns a task for every lane, as far as there are so many."""
        return [self.take() for _ in range(num_lanes)]

    def take(self) -> Task | None:
        """Returns the next seed of a trial that has begun, or the first of a new one."""
        if self._repairs_waiting:
            return self._repairs_waiting.popleft()
        ready = (r for r in self._running.values() if r.waiting and not (self._over_seeds and r.is_busy))
        running = next(ready, None) or self._begin()
        return None if running is None else running.take()

    def going(self, sample_id: int, seed: int) -> Task | None:
        """Returns the task that a saved lane goes on with."""
        running = self._running.get(sample_id)
        return None if running is None else running.tasks[seed]

    def evaluated(self, rows: Sequence[Mapping[str, Any]], diverged: Sequence[Task]) -> Verdict:
        """Reports points that all seeds of a trial have reached; gives up the trials that are not worth going on."""
        news: dict[int, Running] = {}
        given_up: set[Task] = set()
        for row in rows:
            number, seed = row["sample_id"], row["seed"]
            if number in self._running:
                news[number] = self._running[number]
                news[number].curves.setdefault(seed, {})[row["grid_step"]] = row["mean_return"]
            elif (number, seed) in self._repairs and self.study.was_pruned_at(number, row["grid_step"]):
                given_up.add(self._repairs[number, seed])
        for task in diverged:
            if task.sample_id in self._running:
                self._running[task.sample_id].give_up()
        for running in news.values():
            self._report(running)
        lost = (running for running in self._running.values() if running.given_up)
        return Verdict(given_up | {task for running in lost for task in running.tasks})

    def _report(self, running: Running) -> None:
        """Tells the study of the points that all seeds have reached since."""
        objective = self._objectives[0]
        if self._over_seeds or len(self._objectives) > 1 or objective not in METRICS:
            return
        for point in range(running.reported, running.common_points()):
            if running.given_up:
                return
            running.reported += 1
            value = self._metric(objective, running.curves, point + 1)
            last = point + 1 == len(self._grid)
            if math.isfinite(value) and self.study.report(running.trial, self._grid[point], value, last):
                running.give_up()

    def ended(self, statuses: Mapping[Task, str]) -> None:
        """Ends the trials whose last seed has ended."""
        numbers: dict[int, None] = {}
        for task, status in statuses.items():
            self._ended.add((task.sample_id, task.seed))
            self._repairs.pop((task.sample_id, task.seed), None)
            if task.sample_id in self._running:
                numbers[task.sample_id] = None
                self._running[task.sample_id].statuses[task.seed] = status
        for number in numbers:
            running = self._running[number]
            if self._over_seeds and not running.given_up:
                self._compare_seeds(running)
            repaired = any(sample_id == number for sample_id, _ in self._repairs)
            if not running.waiting and not running.is_busy and not repaired:
                self._finish(self._running.pop(number))

    def _compare_seeds(self, running: Running) -> None:
        seed = max(running.statuses)
        value = self._metric(self._objectives[0], {seed: running.curves[seed]}, len(self._grid))
        if self.study.report(running.trial, seed, value, last=not running.waiting):
            running.give_up()

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold, which is not to be ahead of the study on the disk."""
        self.study.sync()
        return {
            "begun": sorted(self._begun),
            "running": [[n, list(r.waiting), r.taken, sorted(r.statuses.items())] for n, r in self._running.items()],
            "ended": sorted(self._ended - set(self._repairs)),
            "repairs": sorted(self._repairs),
            "counts": dict(self.counts),
        }

    # --- going on ----------------------------------------------------------------------------------

    def restore(self, state: Mapping[str, Any]) -> set[Key]:
        """Goes back to where a checkpoint was; returns the (trial, seed)s that had ended then.

        Trials that another process has taken over meanwhile are left out.
        """
        own = {trial.number: trial for trial in self._recorded}
        self._begun = set(state["begun"]) & set(own)
        self._recorded = deque(trial for number, trial in own.items() if number not in self._begun)
        self.counts = Counter(state["counts"])
        refused = {trial.number for trial in own.values() if trial.user_attrs.get(STATUS) == "FAILED"}
        values = {number: self.study.suggest(own[number]) for number in sorted(self._begun - refused)}
        for number, waiting, taken, statuses in state["running"]:
            if number in own:
                running = self._made(own[number], values[number])
                running.waiting, running.taken, running.statuses = deque(waiting), taken, dict(statuses)
                self._running[number] = running
        self._ended = {(number, seed) for number, seed in state["ended"] if number in own}
        self.samples = [Sample(number, values[number]) for number in values]
        for number, seed in state["repairs"]:
            if number in own:
                self._repair(number, seed)
        return set(self._ended)

    def everything(self, ends: Collection[Key]) -> dict[str, Any]:
        """Returns the state in which the trials that have ended are done, given their (trial, seed)s, and no more."""
        done = [trial for trial in self._recorded if trial.state.is_finished() and trial.params]
        counts = Counter(trial.user_attrs[STATUS] for trial in done if STATUS in trial.user_attrs)
        begun = [trial.number for trial in done]
        return {**self.state(), "begun": begun, "ended": sorted(ends), "counts": counts}

    def take_up(self, curves: Mapping[Key, dict[int, float]], settled: Collection[Key], going: Collection[Key]) -> None:
        """Takes up what was written up to the checkpoint.

        Args:
            curves: returns by grid step.
            settled: those that have ended and of which everything is there; the others are trained again.
            going: those that go on in their lanes; other seeds that had begun begin again.
        """
        for number, seed in sorted(self._ended - set(settled)):
            self._repair(number, seed)
        for number, running in self._running.items():
            lost = [s for s in range(self._length.num_seeds) if s not in running.waiting and s not in running.statuses]
            for seed in lost:
                if (number, seed) not in going:
                    running.waiting.appendleft(seed)
                    running.taken -= 1
            running.curves = {s: curves.get((number, s), {}) for s in range(self._length.num_seeds)}
            running.curves = {s: curve for s, curve in running.curves.items() if curve and s not in running.waiting}
            running.reported = running.common_points()

    def _repair(self, number: int, seed: int) -> None:
        values = next(sample.values for sample in self.samples if sample.sample_id == number)
        task = Task(number, seed, self._configured(values))
        self._repairs[number, seed] = task
        self._repairs_waiting.append(task)

    # --- how it goes -------------------------------------------------------------------------------

    def progress(self) -> tuple[int, float, tuple[int, float] | None, str]:
        """Returns how many trials are done, which share of all of them, the best, and how many were pruned."""
        running = sum(trial.common_points() for trial in self._running.values()) / len(self._grid)
        done, pruned = self.counts.total(), self.counts["PRUNED"]
        return done, (done + running) / self._num_trials, self.best, f"{pruned} pruned" if pruned else ""

    def counted(self) -> dict[str, Any]:
        """Returns the trials by status, for ``run.json``."""
        return {"trials": dict(self.counts)}

    # --- trials ------------------------------------------------------------------------------------

    def _begin(self) -> Running | None:
        """Begins a trial that was begun before, or a new one; None if there are as many as there are to be."""
        for _ in range(MOST_REFUSED):
            trial = self._next_trial()
            if trial is None:
                return None
            values = self.study.suggest(trial)
            self._begun.add(trial.number)
            try:
                running = self._made(trial, values)
            except UserError as error:
                refusal = error
                log.warning("trial %d cannot be trained: %s", trial.number, error)
                self.study.finish(trial, "FAILED", None)
                self.counts["FAILED"] += 1
                continue
            self._running[trial.number] = running
            self.samples.append(Sample(trial.number, values))
            self.writer.add_samples(self.samples[-1:])
            return running
        raise RunFailed(f"{MOST_REFUSED} trials one after the other cannot be trained, the last because: {refusal}")

    def _next_trial(self) -> FrozenTrial | None:
        recorded = self._next_recorded()
        if recorded is None and len(self.study.trials()) >= self._num_trials:
            self._recorded.extend(self.study.take_over())
            return self._next_recorded()
        if recorded is not None:
            return recorded
        trial = self.study.create()
        if trial.number >= self._num_trials:  # another process was faster
            self.study.finish(trial, "FAILED", None)
            return None
        return trial

    def _next_recorded(self) -> FrozenTrial | None:
        while self._recorded:
            trial = self._recorded.popleft()
            if not trial.params and trial.number >= self._num_trials:
                self.study.finish(trial, "FAILED", None)  # one too many, see above
            elif trial.params or not trial.state.is_finished():
                return trial
        return None

    def _made(self, trial: FrozenTrial, values: Mapping[str, Any]) -> Running:
        hyperparams = self._configured(values)
        seeds = range(self._length.num_seeds)
        return Running(trial, [Task(trial.number, seed, hyperparams) for seed in seeds], deque(seeds))

    def _finish(self, running: Running) -> None:
        for task in running.tasks:
            if task.seed not in running.statuses:  # it was given up before this seed began
                self.writer.lane_finished(task.sample_id, task.seed, "PRUNED", 0)
                self._ended.add((task.sample_id, task.seed))
        ends = set(running.statuses.values())
        status = next((end for end in ("DIVERGED", "PRUNED") if end in ends), "COMPLETED")
        if status == "COMPLETED" and running.given_up:  # between two of its seeds
            status = "PRUNED"
        values = [self._value(name, running) for name in self._objectives] if status == "COMPLETED" else None
        self.study.finish(running.trial, status, values)
        self.counts[status] += 1
        if values is not None and (self.best is None or self.study.is_better(values[0], self.best[1])):
            self.best = running.trial.number, values[0]

    def _value(self, objective: str, running: Running) -> float:
        if objective in METRICS:
            return self._metric(objective, running.curves, len(self._grid))
        return float(self.writer.summary_of(running.trial.number)[objective])

    def _metric(self, name: str, curves: Curves, points: int) -> float:
        """Returns a metric of the mean curve over seeds, as far as some points, as the summary has it."""
        steps = self._grid[:points]
        returns = np.array([[curve[step] for step in steps] for curve in curves.values()])
        return curve_metrics(np.array(steps, float), returns.mean(axis=0), float(self._length.total_timesteps))[name]
