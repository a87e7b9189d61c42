"""Runs a queue that makes up its tasks as it goes, in one program with room for all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from jax.sharding import Mesh

from hyperlax.engine.checkpoint import Checkpoints, Restored
from hyperlax.engine.interrupt import stoppable
from hyperlax.engine.plan import Plan
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Program, Task
from hyperlax.engine.scheduler import Queue, Scheduler
from hyperlax.engine.sweep import compiled, happened
from hyperlax.environments import Environment
from hyperlax.errors import RunFailed, UserError
from hyperlax.recipes import RunLength
from hyperlax.results.progress import Progress
from hyperlax.results.resume import Mark
from hyperlax.results.writer import RunWriter
from hyperlax.spaces.files import Sample

log = logging.getLogger(__name__)


class RecordedQueue(Queue, Protocol):
    """A queue that writes samples, and says how far it is."""

    writer: RunWriter
    samples: list[Sample]

    def progress(self) -> tuple[int, float, tuple[int, float] | None, str]:
        """Returns how many configurations are done, which share of all work, the best (sample, return), and a note."""

    def counted(self) -> Mapping[str, Any]:
        """Returns entries of ``run.json``."""


@dataclass
class OneProgram:
    """A program and where it runs.

    Args:
        env: the environment.
        length: of every task.
        example: hyperparameters of some task.
        plan: of the one program.
        planner: that made it.
        mesh: devices.
        run_seed: of all randomness.
        save_policies: whether final policies are kept.
        seconds: that earlier processes took.
    """

    env: Environment
    length: RunLength
    example: Any
    plan: Plan
    planner: Planner
    mesh: Mesh
    run_seed: int
    save_policies: bool
    seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    @cached_property
    def program(self) -> Program:
        """The compiled program."""
        return self._compiled()

    def _compiled(self) -> Program:
        compiler = ThreadPoolExecutor(1, "compile")
        planned = self.plan.programs[0]
        try:
            return compiler.submit(
                compiled, planned, self.example, self.env, self.length, self.run_seed, self.mesh
            ).result()
        finally:
            compiler.shutdown(wait=False)  # an interrupt does not wait for a compilation

    def clock(self) -> float:
        """Returns seconds that the run has taken, those of earlier processes included."""
        return self.seconds + time.perf_counter() - self._started

    def checkpoints(self, directory: Path) -> Checkpoints:
        """Returns where the lanes are saved."""
        return Checkpoints(directory / "checkpoints" / "program_000.npz")

    def run(
        self,
        queue: RecordedQueue,
        directory: Path,
        info: Mapping[str, Any],
        seeds: Sequence[int],
        total: int,
        progress: bool,
        conclude: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Runs a queue to its end.

        Args:
            queue: with the samples that are known already.
            directory: of the run, locked.
            info: what ``run.json`` says before anything has run.
            seeds: of every sample.
            total: configurations that there are to be.
            progress: whether it is shown.
            conclude: trains the winner again, and returns what ``run.json`` says of it.

        Raises:
            RunFailed: it cannot go on; what there is is kept.
        """
        program, planned, checkpoints = self.program, self.plan.programs[0], self.checkpoints(directory)
        if queue.samples and (directory / "run.json").exists() and not checkpoints.path.exists():
            checkpoints.save(None, [], queue.state())  # what an earlier process did is not done again
        steps = total * len(seeds) * self.length.total_timesteps
        with (
            RunWriter(directory, info, queue.samples, seeds) as writer,
            Progress(total, steps, enabled=progress) as display,
            stoppable() as stop,
        ):
            queue.writer = writer
            scheduler = Scheduler(
                program, 0, self.length, writer, self.clock, _Shown(queue, display).tick, self.save_policies,
                checkpoints, stop, self.planner.cost(planned),
            )  # fmt: skip
            try:
                scheduler.run(queue)
                if stop.requested:  # the winner is trained by who goes on
                    raise KeyboardInterrupt
                found = conclude()
            except (UserError, RunFailed, OSError):
                raise
            except Exception as error:
                log.info("the failure", exc_info=True)
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                raise RunFailed(
                    f"{reason}; results so far: {directory}; the same command with --resume True goes on"
                ) from error
            finally:
                row = happened(self.plan, 0, program, scheduler.utilisation, 0.0)
                writer.update_info(programs=[row], seconds=round(self.clock(), 2), **queue.counted())
            writer.update_info(**found)
        checkpoints.remove()


def marks_of(saved: Restored | None, queue: Queue) -> dict[tuple[int, int], Mark]:
    """Returns how far the (sample, seed)s of a checkpoint were that go on."""
    marks = {}
    for slot in saved.slots if saved is not None else ():
        task = queue.going(slot.sample_id, slot.seed)
        if task is not None:
            marks[slot.sample_id, slot.seed] = Mark(slot.updates * task.hyperparams.steps_per_update, slot.passed)
    return marks


class _Shown:
    """Shows how far a queue is."""

    def __init__(self, queue: RecordedQueue, display: Progress) -> None:
        self._queue, self._display, self._env_steps = queue, display, 0

    def tick(self, updates: dict[Task, int], finished: list[Task], scores: list[tuple[Task, float]]) -> None:
        """Counts one tick."""
        del finished, scores
        self._env_steps += sum(count * task.hyperparams.steps_per_update for task, count in updates.items())
        done, fraction, best, note = self._queue.progress()
        self._display.update(done, self._env_steps, fraction, best, note)
