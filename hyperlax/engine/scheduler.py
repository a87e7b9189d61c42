"""Runs tasks through the lanes of a program: a lane that is free takes the next task at once."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hyperlax.engine.checkpoint import Checkpoints, SavedSlot
from hyperlax.engine.interrupt import Stop
from hyperlax.engine.program import Lanes, Program, Task
from hyperlax.recipes.run_length import RunLength

LONGEST_TICK = 5.0  # seconds between looks at the lanes
LOCKSTEP_SHARE = 1 / 8  # of the longest way to an evaluation, in one round of lanes in lockstep


class Queue(Protocol):
    """Where lanes get their tasks from, and who decides which of them are given up.

    Everything that it does must follow from what it was told, in that order, and not from time: then a run that was
    killed happens again the same way.
    """

    def first(self, num_lanes: int) -> list[Task | None]:
        """Returns the tasks that the lanes begin with; None leaves one free where nothing waits."""

    def going(self, sample_id: int, seed: int) -> Task | None:
        """Returns the task that a saved lane goes on with; None frees it."""

    def take(self) -> Task | None:
        """Returns the task of a lane that is free, or None."""

    def evaluated(self, rows: Sequence[Mapping[str, Any]], diverged: Sequence[Task]) -> Collection[Task]:
        """Hears the evaluations of a round and which tasks diverged in it; returns the tasks to be given up."""

    def ended(self, statuses: Mapping[Task, str]) -> None:
        """Hears which tasks have ended, and how, after their results went to the sink."""

    def state(self) -> Any:
        """Returns what a checkpoint must hold of it, as JSON can."""


class Waiting:
    """A queue of tasks that are known from the start, none of which is ever given up.

    Args:
        tasks: the first are given to the lanes in order; None leaves one free where nothing waits.
        going: those among them that go on from a checkpoint, if it is whole.
    """

    def __init__(self, tasks: Iterable[Task | None], going: Iterable[Task] = ()) -> None:
        self._tasks = deque(tasks)
        self._going = {(task.sample_id, task.seed): task for task in going}

    def first(self, num_lanes: int) -> list[Task | None]:
        """Returns the first tasks; the gaps among them are filled from the others."""
        order = [*self._tasks, *[None] * num_lanes]
        self._tasks = deque(order[num_lanes:])
        return [self.take() if task is None else task for task in order[:num_lanes]]

    def going(self, sample_id: int, seed: int) -> Task | None:
        """Returns a task that goes on, which then waits no more."""
        task = self._going.get((sample_id, seed))
        if task is not None:
            self._tasks.remove(task)
        return task

    def take(self) -> Task | None:
        """Returns the next task."""
        while self._tasks:
            task = self._tasks.popleft()
            if task is not None:
                return task
        return None

    def evaluated(self, rows: Sequence[Mapping[str, Any]], diverged: Sequence[Task]) -> Collection[Task]:
        """Gives up nothing."""
        del rows, diverged
        return ()

    def ended(self, statuses: Mapping[Task, str]) -> None:
        """Needs nothing of it."""

    def state(self) -> Any:
        """Needs nothing: a resumed run knows what is left."""
        return None


class Sink(Protocol):
    """Where results go; :class:`hyperlax.results.writer.RunWriter` is one."""

    @property
    def evaluations(self) -> Callable[[list[dict[str, Any]]], None]: ...
    @property
    def metrics(self) -> Callable[[list[dict[str, Any]]], None]: ...
    @property
    def lane_finished(self) -> Callable[..., None]: ...
    @property
    def save_policy(self) -> Callable[..., Any]: ...


@dataclass
class Slot:
    """The host's side of one lane.

    Attributes:
        task: what it runs.
        points: updates after which it is evaluated, one for each point of the grid.
        updates: done so far.
        passed: grid points evaluated so far.
        target: updates to be done in the present round.
        started: seconds since the run began.
    """

    task: Task
    points: list[int]
    updates: int = 0
    passed: int = 0
    target: int = 0
    started: float = 0.0

    @property
    def env_steps(self) -> int:
        """Environment steps done."""
        return self.updates * self.task.hyperparams.steps_per_update

    @property
    def last_point(self) -> int:
        """Updates done at the last evaluation."""
        return self.points[self.passed - 1] if self.passed else 0

    @property
    def interval(self) -> int:
        """Updates from the last evaluation to the next."""
        return self.points[self.passed] - self.last_point

    @property
    def remaining(self) -> int:
        """Updates to the next evaluation."""
        return self.points[self.passed] - self.updates


@dataclass
class Utilisation:
    """What happened to one program, beside what was predicted.

    Attributes:
        run_seconds: of ticks and evaluations.
        evaluation_seconds: of the evaluations among them.
        ticks: number of ticks.
        busy: updates that lanes did.
        slots: updates that they could have done: lanes × the longest of each tick, summed.
    """

    run_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    ticks: int = 0
    busy: int = 0
    slots: int = 0


@dataclass
class Scheduler:
    """Trains tasks in a program's lanes and passes results on.

    Args:
        program: compiled.
        number: of the program in the plan.
        length: the run length of every task.
        sink: where results go.
        clock: seconds since the run began.
        on_tick: called after each tick with the updates done in it by task, finished tasks
            and new evaluations as (task, mean return).
        save_policies: whether policies of finished lanes go to the sink.
        checkpoints: where lanes are saved now and then; None for nowhere.
        stop: asked after every tick.
    """

    program: Program
    number: int
    length: RunLength
    sink: Sink
    clock: Callable[[], float]
    on_tick: Callable[[dict[Task, int], list[Task], list[tuple[Task, float]]], None]
    save_policies: bool = True
    checkpoints: Checkpoints | None = None
    stop: Stop = field(default_factory=Stop)
    utilisation: Utilisation = field(default_factory=Utilisation)
    _fraction: float = 0.01  # of a round, in a tick; the first shows how long it takes

    def run(self, queue: Queue) -> None:
        """Runs all tasks of a queue to their end, from the checkpoint if there is one.

        Raises:
            KeyboardInterrupt: it was asked to stop; the checkpoint is up to date.
        """
        slots: list[Slot | None] = [None] * self.program.num_lanes
        lanes = self._restored(slots, queue)
        if lanes is None:
            first = queue.first(len(slots))
            if not any(first):
                return
            lanes = self.program.admit(self.program.empty(), self._filled(first))
            self._occupy(slots, first)
        else:
            lanes = self._refilled(lanes, slots, queue)
        while any(slots):
            lanes = self._round(lanes, slots, queue)
            lanes = self._refilled(lanes, slots, queue)
            self._save(lanes, slots, queue)
        if self.checkpoints is not None:
            self.checkpoints.remove()

    def _round(self, lanes: Lanes, slots: list[Slot | None], queue: Queue) -> Lanes:
        """Brings every lane to its target, in as many ticks as that takes, and handles those that have arrived.

        What happens in a round does not depend on time, so that it happens again the same way.
        """
        if not any(slot is not None and slot.updates < slot.target for slot in slots):
            self._aim(slots)
        diverged = np.asarray(lanes.diverged)
        while True:
            left = np.array([slot.target - slot.updates if slot is not None else 0 for slot in slots])
            updates = np.minimum(left, np.ceil(self._fraction * left.max()).astype(int))
            begins = np.array([slot is not None and slot.updates == slot.last_point for slot in slots]) & ~diverged
            started = time.perf_counter()
            lanes, metrics = self.program.tick(lanes, updates, begins)
            elapsed = time.perf_counter() - started
            self._fraction = min(1.0, max(0.01, self._fraction * LONGEST_TICK / elapsed))
            self._account(updates, elapsed)
            done, diverged = np.asarray(lanes.state.updates), np.asarray(lanes.diverged)
            for lane, slot in enumerate(slots):
                if slot is not None:
                    slot.updates = int(done[lane])
            progress = {slot.task: int(updates[lane]) for lane, slot in enumerate(slots) if slot is not None}
            if ((updates == left) | diverged).all():
                break
            self.on_tick(progress, [], [])
            self._save(lanes, slots, queue)
        self._record(slots, diverged, metrics)
        rows, scores = self._evaluate(lanes, slots, diverged)
        lost = [slot.task for lane, slot in enumerate(slots) if slot is not None and diverged[lane]]
        given_up = queue.evaluated(rows, lost)
        ended = self._retire(lanes, slots, diverged, given_up)
        queue.ended(ended)
        self.on_tick(progress, list(ended), scores)
        return lanes

    def _refilled(self, lanes: Lanes, slots: list[Slot | None], queue: Queue) -> Lanes:
        """Gives free lanes the next tasks."""
        arrivals = [queue.take() if slot is None else None for slot in slots]
        if any(arrivals):
            lanes = self.program.admit(lanes, arrivals)
            self._occupy(slots, arrivals)
        return lanes

    def _save(self, lanes: Lanes, slots: list[Slot | None], queue: Queue) -> None:
        """Saves the lanes when it is time, and stops when it is asked to."""
        if self.checkpoints is not None and (self.checkpoints.due or self.stop.requested):
            saved = [
                SavedSlot(i, slot.task.sample_id, slot.task.seed, slot.updates, slot.passed, slot.target, slot.started)
                for i, slot in enumerate(slots)
                if slot is not None
            ]
            self.checkpoints.save(lanes, saved, queue.state())
        if self.stop.requested:
            raise KeyboardInterrupt

    def _restored(self, slots: list[Slot | None], queue: Queue) -> Lanes | None:
        """Returns the lanes of the checkpoint and fills in their slots; None where there is nothing to go on with."""
        saved = self.checkpoints.load(self.program.like()) if self.checkpoints is not None else None
        if saved is None:
            return None
        for slot in saved.slots:
            task = queue.going(slot.sample_id, slot.seed)
            if task is not None:
                slots[slot.lane] = Slot(task, self._points(task), *slot[3:])
        return self.program.restore(saved.arrays, [None if slot is None else slot.task for slot in slots])

    def _filled(self, first: list[Task | None]) -> list[Task]:
        """Returns a task for each lane: one without a task of its own holds a neighbour's and never updates it."""
        filled = []
        for lane, task in enumerate(first):
            start = lane - lane % self.program.group
            candidates = [task, *first[start : start + self.program.group], *first]
            filled.append(next(candidate for candidate in candidates if candidate is not None))
        return filled

    def _occupy(self, slots: list[Slot | None], arrivals: list[Task | None]) -> None:
        for lane, task in enumerate(arrivals):
            if task is not None:
                slots[lane] = Slot(task, self._points(task), started=self.clock())

    def _points(self, task: Task) -> list[int]:
        return [task.hyperparams.num_updates(steps) for steps in self.length.grid()]

    def _aim(self, slots: list[Slot | None]) -> None:
        """Sets what lanes are to reach: lanes by themselves their next evaluation.

        Of lanes in lockstep each does a share of the longest way: the others arrive earlier and, at their end, make
        place.
        """
        share = 1.0 if self.program.group == 1 else LOCKSTEP_SHARE
        for first in range(0, len(slots), self.program.group):
            members = [slot for slot in slots[first : first + self.program.group] if slot is not None]
            most = math.ceil(share * max((slot.interval for slot in members), default=0))
            for slot in members:
                slot.target = slot.updates + min(slot.remaining, most)

    def _account(self, updates: np.ndarray, elapsed: float) -> None:
        use = self.utilisation
        use.ticks += 1
        use.run_seconds += elapsed
        use.busy += int(updates.sum())
        use.slots += int(updates.max()) * len(updates)

    def _record(self, slots: list[Slot | None], diverged: np.ndarray, metrics: dict[str, np.ndarray]) -> None:
        """Passes on the training metrics of the lanes that have reached a point of the grid, or diverged."""
        rows = []
        for lane, slot in enumerate(slots):
            if slot is not None and (slot.remaining <= 0 or diverged[lane]):
                row = {"sample_id": slot.task.sample_id, "seed": slot.task.seed, "env_steps": slot.env_steps}
                rows.append({**row, **{name: float(values[lane]) for name, values in metrics.items()}})
        self.sink.metrics(rows)

    def _evaluate(
        self, lanes: Lanes, slots: list[Slot | None], diverged: np.ndarray
    ) -> tuple[list[dict[str, Any]], list[tuple[Task, float]]]:
        """Evaluates the lanes that have reached a point of the grid; returns a row a point, and a score a lane."""
        due = np.array([s is not None and s.remaining <= 0 and not d for s, d in zip(slots, diverged, strict=True)])
        if not due.any():
            return [], []
        points = np.array([slot.passed if slot else 0 for slot in slots])
        started = time.perf_counter()
        returns, lengths = self.program.evaluate(lanes, due, points)
        elapsed = time.perf_counter() - started
        self.utilisation.run_seconds += elapsed
        self.utilisation.evaluation_seconds += elapsed
        rows, scores = [], []
        for lane in np.flatnonzero(due):
            slot = slots[lane]
            assert slot is not None
            scores.append((slot.task, float(returns[lane].mean())))
            # A lane with long updates may pass several points of the grid at once.
            while slot.passed < len(slot.points) and slot.remaining <= 0:
                rows.append(self._row(slot, returns[lane], lengths[lane]))
                slot.passed += 1
        self.sink.evaluations(rows)
        return rows, scores

    def _row(self, slot: Slot, returns: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
        return {
            "sample_id": slot.task.sample_id,
            "seed": slot.task.seed,
            "grid_step": self.length.grid()[slot.passed],
            "env_steps": slot.env_steps,
            "mean_return": float(returns.mean()),
            "std_return": float(returns.std()),
            "min_return": float(returns.min()),
            "max_return": float(returns.max()),
            "mean_length": float(lengths.mean()),
            "episodes": len(returns),
            "wall_seconds": round(self.clock(), 3),
        }

    def _retire(
        self, lanes: Lanes, slots: list[Slot | None], diverged: np.ndarray, given_up: Collection[Task]
    ) -> dict[Task, str]:
        """Frees the lanes whose task has ended, and says how it ended."""
        policies = None
        ended = {}
        for lane, slot in enumerate(slots):
            if slot is None:
                continue
            task = slot.task
            if diverged[lane]:
                status = "DIVERGED"
            elif slot.passed == len(slot.points):
                status = "COMPLETED"
            elif task in given_up:
                status = "PRUNED"
            else:
                continue
            if status == "COMPLETED" and self.save_policies:
                policies = policies or self.program.policies(lanes)
                self.sink.save_policy(task.sample_id, task.seed, *self.program.export(policies, lane, task))
            self.sink.lane_finished(
                task.sample_id,
                task.seed,
                status,
                slot.env_steps,
                diverged_at=slot.env_steps if diverged[lane] else None,
                num_params=task.hyperparams.num_params(self.program.env),
                program=self.number,
                lane=lane,
                wall_seconds_start=round(slot.started, 3),
                wall_seconds_end=round(self.clock(), 3),
                message="a parameter became non-finite" if diverged[lane] else "",
            )
            ended[task] = status
            slots[lane] = None
        return ended
