"""Runs tasks through the lanes of a program: a lane that is free takes the next task at once."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from hyperlax.engine.checkpoint import Checkpoints, SavedSlot
from hyperlax.engine.interrupt import Stop
from hyperlax.engine.program import Lanes, Program, Task
from hyperlax.recipes.run_length import RunLength

LONGEST_TICK = 5.0  # seconds between looks at the lanes
LOCKSTEP_SHARE = 1 / 8  # of the longest way to an evaluation, in one round of lanes in lockstep
SHORTEST_ROUND = 1 / 8  # of what the device with most to do would need for all of it


class Copy(NamedTuple):
    """A lane's new beginning: the state of another lane, with hyperparameters of its own.

    Attributes:
        source: the task whose state is taken up.
        task: what the lane goes on with; its sample and seed, and so its randomness, are those it had before.
    """

    source: Task
    task: Task


class Verdict(NamedTuple):
    """What a queue makes of a round.

    Attributes:
        given_up: tasks that end before their time.
        copies: what the lanes of some tasks take up, all of them at once.
        held: tasks, after that, that are trained no further until a later verdict leaves them out; if they diverged,
            they wait too.
    """

    given_up: Collection[Task] = ()
    copies: Mapping[Task, Copy] = MappingProxyType({})
    held: Collection[Task] = ()


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

    def evaluated(self, rows: Sequence[Mapping[str, Any]], diverged: Sequence[Task]) -> Verdict:
        """Hears the evaluations of a round and which tasks diverged in it; says what follows."""

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

    def evaluated(self, rows: Sequence[Mapping[str, Any]], diverged: Sequence[Task]) -> Verdict:
        """Lets everything go on."""
        del rows, diverged
        return Verdict()

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
    def rounds(self) -> Callable[[list[dict[str, Any]]], None]: ...
    @property
    def lane_finished(self) -> Callable[..., None]: ...
    @property
    def save_policy(self) -> Callable[..., Any]: ...
    def sync(self) -> None:
        """Waits until all that has been written is on the disk: a checkpoint is not to be ahead of it."""


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
        turn: grows with each evaluation of any lane: what has waited longest since its last goes first.
        held: whether it waits for others.
    """

    task: Task
    points: list[int]
    updates: int = 0
    passed: int = 0
    target: int = 0
    started: float = 0.0
    turn: int = 0
    held: bool = False

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
        cpu_seconds: of this process in them, over all cores.
        ticks: number of ticks.
        seconds: of all rounds, what the host does between ticks included.
        lane_seconds: of all lanes that had a task, summed over rounds.
    """

    run_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    cpu_seconds: float = 0.0
    ticks: int = 0
    seconds: float = 0.0
    lane_seconds: float = 0.0

    @contextmanager
    def running(self, evaluation: bool = False) -> Iterator[None]:
        """Counts the time of a tick or an evaluation."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        elapsed = time.perf_counter() - wall
        self.run_seconds += elapsed
        self.cpu_seconds += time.process_time() - cpu
        self.evaluation_seconds += elapsed if evaluation else 0.0


class _Piece(NamedTuple):
    """What a group of lanes is to do next: its turn, what that costs, and updates by slot."""

    turn: int
    seconds: float
    ways: list[tuple[Slot, int]]


class _Begun(NamedTuple):
    """When a round began, and what had been counted then."""

    seconds: float
    run_seconds: float
    cpu_seconds: float


def _ways(slots: Iterable[Slot | None]) -> np.ndarray:
    """Returns the updates that each lane has to do in the present round, ``(lanes,)``."""
    return np.array([slot.target - slot.updates if slot is not None else 0 for slot in slots])


def _next_turn(slots: Iterable[Slot | None]) -> int:
    return 1 + max((slot.turn for slot in slots if slot is not None), default=0)


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
        cost: of an update of a task, in estimated seconds or any other unit.
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
    cost: Callable[[Task], float] = lambda task: 1.0
    utilisation: Utilisation = field(default_factory=Utilisation)
    _fraction: float = 0.01  # of a round, in a tick; the first shows how long it takes
    _last_round: float | None = None  # when it ended, in seconds since the run began

    def run(self, queue: Queue) -> None:
        """Runs all tasks of a queue to their end, from the checkpoint if there is one.

        The last checkpoint holds the state of the queue alone: whoever has nothing left to do removes it.

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
            self.sink.sync()
            self.checkpoints.save(None, [], queue.state())

    def _round(self, lanes: Lanes, slots: list[Slot | None], queue: Queue) -> Lanes:
        """Brings every lane to its target, in as many ticks as that takes, and handles those that have arrived.

        What happens in a round does not depend on time, so that it happens again the same way.
        """
        if not any(slot is not None and slot.updates < slot.target for slot in slots):
            self._aim(slots)
        begun = self._round_began()
        diverged = np.asarray(lanes.diverged)
        way = left = _ways(slots)
        while True:
            updates = np.minimum(left, np.ceil(self._fraction * way).astype(int))  # of every lane the same share
            begins = np.array([slot is not None and slot.updates == slot.last_point for slot in slots]) & ~diverged
            before = self.utilisation.run_seconds
            with self.utilisation.running():
                lanes, metrics = self.program.tick(lanes, updates, begins)
            elapsed = self.utilisation.run_seconds - before
            self._fraction = min(1.0, max(0.01, self._fraction * LONGEST_TICK / elapsed))
            self.utilisation.ticks += 1
            done, diverged = np.asarray(lanes.state.updates), np.asarray(lanes.diverged)
            for lane, slot in enumerate(slots):
                if slot is not None:
                    slot.updates = int(done[lane])
            progress = {slot.task: int(updates[lane]) for lane, slot in enumerate(slots) if slot is not None}
            if ((updates == left) | diverged).all():
                break
            left = _ways(slots)
            self.on_tick(progress, [], [])
            self._save(lanes, slots, queue)
        self._record(slots, diverged, metrics)
        rows, scores = self._evaluate(lanes, slots, diverged)
        lost = [s.task for lane, s in enumerate(slots) if s is not None and diverged[lane] and not s.held]
        verdict = queue.evaluated(rows, lost)
        lanes = self._copied(lanes, slots, verdict.copies)
        self._hold(slots, verdict.held)
        diverged = np.asarray(lanes.diverged)
        self._report_round(slots, begun)
        ended = self._retire(lanes, slots, diverged, verdict.given_up)
        queue.ended(ended)
        self.on_tick(progress, list(ended), scores)
        return lanes

    def _hold(self, slots: list[Slot | None], held: Collection[Task]) -> None:
        for slot in slots:
            if slot is not None:
                slot.held = slot.task in held
                if slot.held:
                    slot.target = slot.updates

    def _copied(self, lanes: Lanes, slots: list[Slot | None], copies: Mapping[Task, Copy]) -> Lanes:
        """Gives some lanes the state of others, and hyperparameters of their own."""
        if not copies:
            return lanes
        at = {slot.task: (lane, slot) for lane, slot in enumerate(slots) if slot is not None}
        sources = np.arange(len(slots))
        tasks: list[Task | None] = [None] * len(slots)
        for task, copy in copies.items():
            (lane, slot), (source, model) = at[task], at[copy.source]
            sources[lane], tasks[lane] = source, copy.task
            slots[lane] = Slot(
                copy.task, self._points(copy.task), model.updates, model.passed, model.updates, slot.started, slot.turn
            )
        return self.program.copy(lanes, sources, tasks)

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
                SavedSlot(
                    lane, slot.task.sample_id, slot.task.seed,
                    slot.updates, slot.passed, slot.target, slot.started, slot.turn, slot.held,
                )
                for lane, slot in enumerate(slots)
                if slot is not None
            ]  # fmt: skip
            self.sink.sync()
            self.checkpoints.save(lanes, saved, queue.state())
        if self.stop.requested:
            raise KeyboardInterrupt

    def _restored(self, slots: list[Slot | None], queue: Queue) -> Lanes | None:
        """Returns the lanes of the checkpoint and fills in their slots; None where there is nothing to go on with."""
        saved = self.checkpoints.load(self.program.like()) if self.checkpoints is not None else None
        if saved is None or saved.arrays is None:
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
                slots[lane] = Slot(task, self._points(task), started=self.clock(), turn=_next_turn(slots))

    def _points(self, task: Task) -> list[int]:
        return [task.hyperparams.num_updates(steps) for steps in self.length.grid()]

    def _aim(self, slots: list[Slot | None]) -> None:
        """Sets what lanes are to reach in a round, such that no device waits for another.

        Lanes by themselves go for their next evaluation. Of lanes in lockstep each does a share of the longest way:
        the others arrive earlier and, at their end, make place. A device does as much of it as the one that has least
        to do, in the order in which its lanes were evaluated last.
        """
        each = len(slots) // self.program.num_devices
        devices = [self._pieces(slots[first : first + each]) for first in range(0, len(slots), each)]
        loads = [sum(piece.seconds for piece in pieces) for pieces in devices]
        budget = max(min(load for load in loads if load > 0), SHORTEST_ROUND * max(loads))
        for pieces in devices:
            left = budget
            for number, piece in enumerate(sorted(pieces, key=lambda piece: piece.turn)):
                part = min(1.0, max(0.0, left / piece.seconds))
                left -= piece.seconds
                for slot, updates in piece.ways:
                    # The first goes on in any case, however long its updates are.
                    wanted = part * updates
                    slot.target = slot.updates + (math.ceil(wanted) if number == 0 else round(wanted))

    def _pieces(self, slots: Sequence[Slot | None]) -> list[_Piece]:
        """Returns what each group of a device is to do next."""
        pieces = []
        for first in range(0, len(slots), self.program.group):
            group = slots[first : first + self.program.group]
            members = [slot for slot in group if slot is not None and not slot.held]
            if members:
                share = 1.0 if self.program.group == 1 else LOCKSTEP_SHARE
                most = math.ceil(share * max(slot.interval for slot in members))
                ways = [(slot, min(slot.remaining, most)) for slot in members]
                seconds = max(updates * self.cost(slot.task) for slot, updates in ways)
                pieces.append(_Piece(min(slot.turn for slot in members), seconds, ways))
        return pieces

    def _round_began(self) -> _Begun:
        use = self.utilisation
        return _Begun(self.clock(), use.run_seconds, use.cpu_seconds)

    def _report_round(self, slots: list[Slot | None], begun: _Begun) -> None:
        """Says how long a round took, how much of it devices worked, and how many lanes had a task."""
        use, now = self.utilisation, self.clock()
        start = begun.seconds if self._last_round is None else self._last_round
        self._last_round = now
        occupied = sum(slot is not None and not slot.held for slot in slots)
        use.seconds += now - start
        use.lane_seconds += occupied * (now - start)
        row = {
            "program": self.number,
            "wall_seconds_start": round(start, 4),
            "wall_seconds_end": round(now, 4),
            "run_seconds": round(use.run_seconds - begun.run_seconds, 4),
            "cpu_seconds": round(use.cpu_seconds - begun.cpu_seconds, 4),
            "devices": self.program.num_devices,
            "lanes": len(slots),
            "lanes_busy": occupied,
        }
        self.sink.rounds([row])

    def _record(self, slots: list[Slot | None], diverged: np.ndarray, metrics: dict[str, np.ndarray]) -> None:
        """Passes on the training metrics of the lanes that have reached a point of the grid, or diverged."""
        rows = []
        for lane, slot in enumerate(slots):
            if slot is not None and not slot.held and (slot.remaining <= 0 or diverged[lane]):
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
        with self.utilisation.running(evaluation=True):
            returns, lengths = self.program.evaluate(lanes, due, points)
        rows, scores = [], []
        for lane in np.flatnonzero(due):
            slot = slots[lane]
            assert slot is not None
            scores.append((slot.task, float(returns[lane].mean())))
            # A lane with long updates may pass several points of the grid at once.
            while slot.passed < len(slot.points) and slot.remaining <= 0:
                rows.append(self._row(slot, returns[lane], lengths[lane]))
                slot.passed += 1
            slot.turn = _next_turn(slots)
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
            if slot is None or slot.held:
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
