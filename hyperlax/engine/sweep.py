"""Carries out a plan: compiles the next program while one runs, and collects results."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from hyperlax.engine.checkpoint import Checkpoints
from hyperlax.engine.devices import local_mesh
from hyperlax.engine.interrupt import Stop, stoppable
from hyperlax.engine.plan import Plan, PlannedProgram
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Program, Task
from hyperlax.engine.scheduler import Queue, Scheduler, Sink, Utilisation, Waiting
from hyperlax.environments.protocol import Environment
from hyperlax.errors import RunFailed
from hyperlax.recipes.run_length import RunLength
from hyperlax.results.resume import Mark, info_of, take_up

log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """One run of a plan.

    Args:
        env: the environment.
        length: run length of every task.
        planner: that made the plan; its estimates weigh the progress.
        plan: what to do.
        mesh: devices.
        run_seed: seed of all randomness.
        save_policies: whether final policies are kept.
        checkpoints: the directory of checkpoints; None for none.
        settled: tasks that an earlier process has ended.
        going: tasks that go on from their checkpoint, with the environment steps that they have done.
        seconds: that it took.
    """

    env: Environment
    length: RunLength
    planner: Planner
    plan: Plan
    mesh: Mesh
    run_seed: int
    save_policies: bool = True
    checkpoints: Path | None = None
    settled: set[Task] = field(default_factory=set)
    going: dict[Task, int] = field(default_factory=dict)
    seconds: float = 0.0
    programs: dict[int, Program] = field(default_factory=dict)
    report: list[dict[str, Any]] = field(default_factory=list)
    _failed: set[int] = field(default_factory=set)
    _started: float = field(default_factory=time.perf_counter)

    @property
    def tasks(self) -> list[Task]:
        """All tasks, by sample and seed."""
        planned = [task for program in self.plan.programs for task in program.real_tasks]
        return sorted(planned, key=lambda task: (task.sample_id, task.seed))

    def go_on_from(self, directory: Path) -> None:
        """Takes up what an earlier process left in a run directory, to be called before anything is written there."""
        tasks = {(task.sample_id, task.seed): task for task in self.tasks}
        marks = {}
        for number in range(len(self.plan.programs)):
            checkpoints = self._checkpoints(number)
            for slot in checkpoints.slots() if checkpoints is not None else ():
                key = slot.sample_id, slot.seed
                if key in tasks:
                    marks[key] = Mark(slot.updates * tasks[key].hyperparams.steps_per_update, slot.passed)
        taken_up = take_up(directory, marks, self.length.num_evaluations, self.save_policies)
        self.settled = {tasks[key] for key in taken_up.settled if key in tasks}
        self.going = {tasks[key]: marks[key].env_steps for key in taken_up.going}
        self.seconds = taken_up.seconds
        self.report = [row for row in info_of(directory).get("programs", ()) if "run_seconds" in row]
        log.info("of %d trainings %d have ended, %d go on", len(tasks), len(self.settled), len(self.going))

    def run(self, sink: Sink, display: Any) -> None:
        """Trains everything; the tasks of a program that fails are tried again, each by itself.

        Args:
            sink: where results go.
            display: where progress goes.

        Raises:
            RunFailed: some task failed by itself too; raised after all others have run.
            OSError: results cannot be written.
        """
        self._started, self.sink = time.perf_counter(), sink
        self._progress = _Progress(self.planner, self.plan, display, self.settled, self.going)
        failure: Exception | None = None
        compiler = ThreadPoolExecutor(1, "compile")
        ahead: list[Future[Program]] = []
        left = [(n, p) for n, p in enumerate(self.plan.programs) if set(p.real_tasks) - self.settled]
        try:
            for i, (number, planned) in enumerate(left):
                while len(ahead) <= min(i + 1, len(left) - 1):
                    ahead.append(compiler.submit(self._compiled, left[len(ahead)][1]))
                try:
                    self._run_program(number, planned, ahead[i])
                except OSError:  # a full disk: no other program could keep its results either
                    raise
                except Exception as error:
                    log.warning("program %d failed, its samples are trained one by one: %s", number, error)
                    log.info("the failure", exc_info=True)
                    self.programs.pop(number, None)
                    self._failed.add(number)
                    failure = self._one_by_one(number, planned) or failure
        finally:
            compiler.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for a compilation
        if failure is not None:
            raise RunFailed(f"some samples failed, the others' results are kept: {_first_line(failure)}") from failure

    def outcome(self) -> list[dict[str, Any]]:
        """Returns what was predicted of each program and, for those that have run, what happened."""
        happened = {row["program"]: row for row in self.report}
        return [happened.get(row["program"], row) for row in self.plan.as_rows()]

    def clock(self) -> float:
        """Returns seconds that the run has taken, those of earlier processes included."""
        return self.seconds + time.perf_counter() - self._started

    def _alone(self, planned: PlannedProgram) -> Program:
        return self._compiled(planned, local_mesh(1))

    def _compiled(self, planned: PlannedProgram, mesh: Mesh | None = None) -> Program:
        example = planned.real_tasks[0].hyperparams
        return compiled(planned, example, self.env, self.length, self.run_seed, mesh or self.mesh)

    def _run_program(self, number: int, planned: PlannedProgram, compiled: Future[Program]) -> None:
        waiting = time.perf_counter()
        self._progress.note(f"compiling program {number + 1} of {len(self.plan.programs)}")
        program = compiled.result()
        waited = time.perf_counter() - waiting
        self._progress.note(f"program {number + 1} of {len(self.plan.programs)}, {planned.num_lanes} lanes")
        self.programs[number] = program
        tasks = [None if task in self.settled else task for task in planned.tasks]
        with stoppable() as stop:
            saved = self._checkpoints(number)
            scheduler = self._scheduler(program, number, planned, saved, stop)
            scheduler.run(Waiting(tasks, [task for task in planned.real_tasks if task in self.going]))
            if saved is not None:
                saved.remove()
        self.report.append(happened(self.plan, number, program, scheduler.utilisation, waited))

    def _checkpoints(self, number: int) -> Checkpoints | None:
        return None if self.checkpoints is None else Checkpoints(self.checkpoints / f"program_{number:03d}.npz")

    def _scheduler(
        self,
        program: Program,
        number: int,
        planned: PlannedProgram,
        saved: Checkpoints | None,
        stop: Stop,
    ) -> Scheduler:
        on_tick, policies, cost = self._progress.tick, self.save_policies, self.planner.cost(planned)
        return Scheduler(program, number, self.length, self.sink, self.clock, on_tick, policies, saved, stop, cost)

    def _one_by_one(self, number: int, planned: PlannedProgram) -> Exception | None:
        """Trains what a failed program left, each configuration in a program of its own; returns the last failure."""
        left = [task for task in planned.real_tasks if task not in self._progress.finished]
        failure: Exception | None = None
        for single in self.planner.sequential(left).programs:
            try:
                with stoppable() as stop:
                    self._scheduler(self._alone(single), number, single, None, stop).run(Waiting(single.tasks))
            except OSError:
                raise
            except Exception as error:
                log.info("alone, a sample failed too", exc_info=True)
                failure, message = error, _first_line(error)
                for task in set(single.real_tasks) - self._progress.finished:
                    self.sink.lane_finished(task.sample_id, task.seed, "FAILED", 0, program=number, message=message)
        return failure

    def repeat_on_fresh_seeds(self, sample_id: int, num_seeds: int) -> np.ndarray:
        """Trains one sample again on seeds that no one has seen, and returns their final returns.

        Selecting the best of many overstates it; this is what may be quoted. It runs in the program
        that trained the sample, so nothing is compiled unless that program failed.

        Returns:
            ``(num_seeds,)`` mean returns of the last evaluation, NaN where a seed diverged.
        """
        number, planned = next(
            (n, p) for n, p in enumerate(self.plan.programs) if any(t.sample_id == sample_id for t in p.real_tasks)
        )
        task = next(task for task in planned.real_tasks if task.sample_id == sample_id)
        first = 1 + max(task.seed for planned in self.plan.programs for task in planned.real_tasks)
        if number in self._failed:
            program = self._alone(self.planner.sequential([task]).programs[0])
        else:
            program = self.programs.get(number) or self._compiled(planned)
        return final_returns(program, [replace(task, seed=first + i) for i in range(num_seeds)], self.length)


def compiled(
    planned: PlannedProgram, example: Any, env: Environment, length: RunLength, run_seed: int, mesh: Mesh
) -> Program:
    """Returns a planned program, compiled; ``example`` is of any task that will be admitted."""
    program = Program(
        example,
        env,
        planned.shape,
        num_lanes=planned.num_lanes,
        group=planned.group,
        total_timesteps=length.total_timesteps,
        num_eval_episodes=length.num_eval_episodes,
        run_seed=run_seed,
        mesh=mesh,
    )
    program.compile()
    return program


def final_returns(
    program: Program,
    tasks: Sequence[Task],
    length: RunLength,
    queue: Callable[[list[Task | None]], Queue] | None = None,
) -> np.ndarray:
    """Trains seeds of one sample and returns their returns at the end, ``(tasks,)``, NaN where one diverged.

    Args:
        program: compiled.
        tasks: one a seed.
        length: of each.
        queue: makes one of the tasks by lane, if something is to happen to them between evaluations.
    """
    collected = _LastReturns()
    order = _spread(list(tasks), program.num_lanes, program.mesh.size)
    if queue is None:
        length = replace(length, num_evaluations=1)
    with stoppable() as stop:
        scheduler = Scheduler(program, 0, length, collected, time.perf_counter, _ignore, False, None, stop)
        scheduler.run((queue or Waiting)(order))
    return np.array([collected.returns.get(task.seed, np.nan) for task in tasks])


def happened(plan: Plan, number: int, program: Program, use: Utilisation, waited: float) -> dict[str, Any]:
    """Returns the prediction for one program beside what happened."""
    on_cpu = program.mesh.devices.flat[0].platform == "cpu"
    return plan.as_rows()[number] | {
        "run_seconds": round(use.run_seconds, 2),
        "evaluation_seconds": round(use.evaluation_seconds, 2),
        "compile_seconds": round(program.compile_seconds, 2),
        "waited_for_compilation_seconds": round(waited, 2),
        "lanes_busy": round(use.lane_seconds / max(use.seconds * program.num_lanes, 1e-9), 4),
        "cores_busy": round(use.cpu_seconds / max(use.seconds * program.num_devices, 1e-9), 4) if on_cpu else None,
        "ticks": use.ticks,
        "memory_mib": round(program.memory_bytes() / 2**20, 1),
    }


def _spread(tasks: list[Task | None], num_lanes: int, num_devices: int) -> list[Task | None]:
    """Returns tasks by lane such that every device gets its share; what is too much follows."""
    each = num_lanes // num_devices
    per_device = min(each, -(-len(tasks) // num_devices))
    order: list[Task | None] = []
    for device in range(num_devices):
        share = tasks[device * per_device : (device + 1) * per_device]
        order += share + [None] * (each - len(share))
    return order + tasks[num_devices * per_device :]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


def _ignore(*_: Any, **__: Any) -> None:
    pass


class _LastReturns:
    """A sink that keeps the last return of each seed that does not diverge."""

    def __init__(self) -> None:
        self.returns: dict[int, float] = {}

    def evaluations(self, rows: Sequence[dict[str, Any]]) -> None:
        self.returns |= {row["seed"]: row["mean_return"] for row in rows}

    def lane_finished(self, sample_id: int, seed: int, status: str, *_: Any, **__: Any) -> None:
        if status == "DIVERGED":
            self.returns.pop(seed, None)

    metrics = rounds = save_policy = sync = staticmethod(_ignore)


class _Progress:
    """Adds up what lanes of very different pace have done; the best sample is that of the best mean over its seeds."""

    def __init__(
        self, planner: Planner, plan: Plan, display: Any, settled: Iterable[Task] = (), going: Mapping[Task, int] = {}
    ) -> None:
        self._display = display
        tasks = [task for program in plan.programs for task in program.real_tasks]
        self._weights = {task: planner.arithmetic(task) for task in tasks}
        self._updates = {task: task.hyperparams.num_updates(planner.total_timesteps) for task in tasks}
        self._total = sum(self._weights.values())
        self.finished: set[Task] = set(settled)
        steps = {task: self._updates[task] * task.hyperparams.steps_per_update for task in tasks}
        done = dict.fromkeys(tasks, 0) | dict(going) | {task: steps[task] for task in self.finished}
        self._fractions = {task: done[task] / steps[task] for task in tasks}
        self._env_steps = sum(done.values())
        self._seeds = Counter(task.sample_id for task in tasks)
        self._scores: dict[int, dict[int, float]] = {sample_id: {} for sample_id in self._seeds}
        self._note = ""

    def note(self, text: str) -> None:
        """Shows what is going on."""
        self._note = text
        self._show()

    def tick(self, updates: dict[Task, int], finished: list[Task], scores: list[tuple[Task, float]]) -> None:
        """Counts one tick."""
        for task, count in updates.items():
            self._fractions[task] += count / self._updates[task]
            self._env_steps += count * task.hyperparams.steps_per_update
        self._fractions |= dict.fromkeys(finished, 1.0)  # also of what diverged
        self.finished |= set(finished)
        for task, score in scores:
            self._scores[task.sample_id][task.seed] = score
        self._show()

    def _show(self) -> None:
        done = sum(self._weights[task] * min(1.0, fraction) for task, fraction in self._fractions.items())
        finished = Counter(task.sample_id for task in self.finished)
        configurations = sum(finished[sample_id] == seeds for sample_id, seeds in self._seeds.items())
        whole = {s: float(np.mean(list(x.values()))) for s, x in self._scores.items() if len(x) == self._seeds[s]}
        best = max(whole.items(), key=lambda item: item[1], default=None)
        self._display.update(configurations, self._env_steps, done / self._total, best, self._note)
