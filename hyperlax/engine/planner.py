"""Which samples share a program: the assignment that is estimated to finish first.

A program does in lockstep what its lanes do: an update takes as long as the longest of its loops,
and every lane computes at the largest shape. So samples that differ in work waste each other's time,
and samples that do not waste a compilation if they are kept apart. The planner starts from one
program for each distinct structure and merges the two programs whose union saves most, until nothing
saves any more. How far the estimates were off is written beside them when the run has ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import jax
import numpy as np

from hyperlax.engine.program import Task
from hyperlax.environments.protocol import Discrete, Environment, observation_size
from hyperlax.errors import UserError


@dataclass(frozen=True)
class Machine:
    """Speeds of one kind of device, measured; times in seconds.

    Attributes:
        compile: one program, with tracing.
        launch: of one iteration of an inner loop, whatever the number of lanes.
        lane: of one iteration, for each lane.
        flops: floating-point operations a second within networks, for all lanes of a device.
        environment: one step of one copy of a cheap environment.
        max_lanes: more lanes on a device do not help any more.
    """

    compile: float
    launch: float
    lane: float
    flops: float
    environment: float
    max_lanes: int


# CPU: one core of an AMD EPYC (AVX-512); GPU: estimated, to be measured (`make bench` prints both).
MACHINES = {
    "cpu": Machine(compile=6.0, launch=30e-6, lane=10e-6, flops=62e9, environment=25e-9, max_lanes=64),
    "gpu": Machine(compile=15.0, launch=400e-6, lane=0.2e-6, flops=5e12, environment=0.1e-9, max_lanes=4096),
}


@dataclass(frozen=True)
class PlannedProgram:
    """One program of a plan.

    Attributes:
        tasks: in the order in which lanes take them, longest first.
        shape: what it is compiled for.
        num_lanes: over all devices.
        seconds: estimated time to run, without compilation.
        padding: estimated share of the work that no sample asked for.
        memory: estimated bytes on all devices.
    """

    tasks: tuple[Task, ...]
    shape: Any
    num_lanes: int
    seconds: float
    padding: float
    memory: int


@dataclass(frozen=True)
class Plan:
    """How all tasks are assigned to programs, which run one after the other.

    Attributes:
        programs: longest first.
        compile_seconds: estimated time to compile all programs, some of it while others run.
        num_devices: over which the lanes of a program are spread.
    """

    programs: tuple[PlannedProgram, ...]
    compile_seconds: float
    num_devices: int
    limit: int = field(default=0)

    @property
    def seconds(self) -> float:
        """Estimated time of all programs, with compilation."""
        return self.compile_seconds + sum(program.seconds for program in self.programs)

    @property
    def padding(self) -> float:
        """Estimated share of all work that no sample asked for."""
        total = sum(program.seconds for program in self.programs)
        return sum(program.seconds * program.padding for program in self.programs) / total

    def describe(self) -> str:
        """Returns the plan as a table in plain text."""
        lines = [
            f"{'program':>7} {'samples':>7} {'tasks':>6} {'lanes':>6} {'padding':>8} {'memory':>10} {'seconds':>9}  shape"
        ]
        for number, program in enumerate(self.programs):
            samples = len({task.sample_id for task in program.tasks})
            lines.append(
                f"{number:>7} {samples:>7} {len(program.tasks):>6} {program.num_lanes:>6} {program.padding:>8.0%} "
                f"{program.memory / 2**20:>6.0f} MiB {program.seconds:>9.1f}  {program.shape.describe()}"
            )
        lines.append(
            f"{len(self.programs)} programs on {self.num_devices} devices, {self.padding:.0%} padding, at most "
            f"{max(p.memory for p in self.programs) / 2**30:.2f} GiB; estimated {self.seconds:.0f} s, of which "
            f"compilation {self.compile_seconds:.0f} s"
        )
        return "\n".join(lines)


class Planner:
    """Estimates and assigns.

    Args:
        env: the environment.
        total_timesteps: environment steps of every task.
        num_devices: over which lanes are spread.
        machine: speeds; see :data:`MACHINES`.
        memory: bytes that one program may use on all devices.
        max_lanes: most lanes of one program; None for what the machine makes use of.
    """

    def __init__(
        self,
        env: Environment,
        total_timesteps: int,
        num_devices: int,
        machine: Machine,
        memory: int,
        max_lanes: int | None = None,
    ) -> None:
        self.env, self.total_timesteps, self.machine = env, total_timesteps, machine
        self.num_devices, self.memory = num_devices, memory
        self.max_lanes = max_lanes or machine.max_lanes * num_devices
        self._inputs = observation_size(env)
        self._outputs = env.action_space.n if isinstance(env.action_space, Discrete) else env.action_space.size
        state, _ = jax.eval_shape(env.reset, jax.random.key(0))
        self._state_numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))

    # --- plans -----------------------------------------------------------------------------------

    def batched(self, tasks: Sequence[Task]) -> Plan:
        """Returns the plan that is estimated to finish first."""
        groups = self._group(tasks, lambda task: task.hyperparams.shape(self.env))
        programs = [self._program(group) for group in self._coarsen(groups)]
        return self._plan(self._merge(programs))

    def grouped(self, tasks: Sequence[Task]) -> Plan:
        """Returns the plan with one program for each distinct structure."""
        groups = self._group(tasks, lambda t: (t.hyperparams.shape(self.env), t.hyperparams.work(t.hyperparams.shape(self.env))))
        return self._plan([self._program(group) for group in groups])

    def sequential(self, tasks: Sequence[Task]) -> Plan:
        """Returns the plan in which every task runs alone, in its own exact shape."""
        one = Planner(self.env, self.total_timesteps, 1, self.machine, self.memory, max_lanes=1)
        groups = self._group(tasks, lambda task: task.hyperparams.shape(self.env))
        return one._plan([one._program(group) for group in groups])

    def _plan(self, programs: Sequence[PlannedProgram]) -> Plan:
        ordered = tuple(sorted(programs, key=lambda program: -program.seconds))
        return Plan(ordered, self.machine.compile * len(ordered), self.num_devices)

    @staticmethod
    def _group(tasks: Sequence[Task], key: Callable[[Task], Any]) -> list[list[Task]]:
        groups: dict[Any, list[Task]] = {}
        for task in tasks:
            groups.setdefault(key(task), []).append(task)
        return list(groups.values())

    def _coarsen(self, groups: list[list[Task]], most: int = 96) -> list[list[Task]]:
        """Joins groups of like work until pairs of them can be compared in about a second."""
        step = 0.0
        while len(groups) > most:
            step += 0.5
            tasks = [task for group in groups for task in group]
            groups = self._group(tasks, lambda task, s=step: tuple(round(x / s) for x in self._signature(task)))
        return groups

    def _signature(self, task: Task) -> tuple[float, ...]:
        """Returns logarithms of what must be alike for tasks to waste little of each other's time."""
        hyperparams = task.hyperparams
        work = hyperparams.work(hyperparams.shape(self.env))
        numbers = [hyperparams.num_updates(self.total_timesteps), *(x for w in work for x in w)]
        return tuple(math.log2(n) for n in numbers)

    def _merge(self, programs: list[PlannedProgram]) -> list[PlannedProgram]:
        """Merges the pair that saves most until no pair saves anything."""
        savings: dict[tuple[int, int], tuple[float, PlannedProgram]] = {}
        alive = dict(enumerate(programs))
        fresh = list(alive)
        while True:
            for a in fresh:
                for b in alive:
                    if a != b and (min(a, b), max(a, b)) not in savings:
                        union = self._program([*alive[a].tasks, *alive[b].tasks])
                        saved = alive[a].seconds + alive[b].seconds + self.machine.compile - union.seconds
                        savings[min(a, b), max(a, b)] = (saved, union)
            if not savings:
                return list(alive.values())
            (a, b), (saved, union) = max(savings.items(), key=lambda item: item[1][0])
            if saved <= 0:
                return list(alive.values())
            del alive[a], alive[b]
            savings = {pair: value for pair, value in savings.items() if not {a, b} & set(pair)}
            fresh = [max([*alive, a, b]) + 1]
            alive[fresh[0]] = union

    # --- estimates -------------------------------------------------------------------------------

    def _program(self, tasks: Sequence[Task]) -> PlannedProgram:
        tasks = sorted(tasks, key=lambda task: -task.hyperparams.num_updates(self.total_timesteps))
        merged = reduce(lambda a, b: a.merge(b), {task.hyperparams.shape(self.env) for task in tasks})
        candidates = []
        for shape in merged.variants():
            num_lanes, memory = self._lanes(shape, len(tasks))
            seconds = self._seconds(tasks, shape, num_lanes)
            candidates.append((seconds, num_lanes, memory, shape))
        seconds, num_lanes, memory, shape = min(candidates, key=lambda candidate: candidate[0])
        alone = sum(self._arithmetic(task) for task in tasks)
        padding = max(0.0, 1.0 - alone / self._padded_arithmetic(tasks, shape, num_lanes))
        return PlannedProgram(tuple(tasks), shape, num_lanes, seconds, padding, memory)

    def _lanes(self, shape: Any, num_tasks: int) -> tuple[int, int]:
        """Returns how many lanes a program gets, and the bytes they need.

        Raises:
            UserError: not even one lane on each device fits.
        """
        each = shape.memory(self._inputs, self._outputs, self._state_numbers)
        fit = self.memory // each // self.num_devices * self.num_devices
        if fit < self.num_devices:
            raise UserError(
                f"memory does not suffice: {self.num_devices} lanes need {self.num_devices * each / 2**30:.2f} GiB, "
                f"{self.memory / 2**30:.2f} GiB may be used; smaller are total_num_envs, rollout_length, layer_sizes"
            )
        wanted = min(num_tasks, self.max_lanes)
        lanes = min(-(-wanted // self.num_devices) * self.num_devices, fit)
        rounds = -(-num_tasks // lanes)  # the same number of rounds with fewer lanes wastes less
        lanes = min(lanes, -(-(-(-num_tasks // rounds)) // self.num_devices) * self.num_devices)
        return lanes, lanes * each

    def _loops(self, tasks: Sequence[Task], shape: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns, a task each, the updates and the iterations of both loops of an update."""
        work = [task.hyperparams.work(shape) for task in tasks]
        updates = np.array([task.hyperparams.num_updates(self.total_timesteps) for task in tasks], float)
        return updates, np.array([w[0].iterations for w in work], float), np.array([w[1].iterations for w in work], float)

    def _iteration_seconds(self, shape: Any, lanes_per_device: float) -> tuple[float, float]:
        """Returns the time of one environment step and of one gradient evaluation, of all lanes."""
        machine, (step_flops, gradient_flops) = self.machine, shape.flops(self._inputs, self._outputs)
        envs, chunk = shape.num_envs, shape.chunk
        step = machine.lane + envs * (step_flops / machine.flops + machine.environment)
        gradient = machine.lane + chunk * gradient_flops / machine.flops
        return machine.launch + lanes_per_device * step, machine.launch + lanes_per_device * gradient

    def _lockstep(self, tasks: Sequence[Task], shape: Any, num_lanes: int) -> tuple[float, float]:
        """Returns how often each of the two loop bodies runs; tasks must be ordered longest first.

        While several lanes run, an update takes the most iterations that any of them needs. Tasks
        beyond the lanes are taken to start when those before them end.
        """
        updates, steps, gradients = self._loops(tasks, shape)
        total_steps = total_gradients = 0.0
        for start in range(0, len(tasks), num_lanes):
            wave = slice(start, start + num_lanes)
            lasting = -np.diff(np.append(updates[wave], 0.0))
            total_steps += float(lasting @ np.maximum.accumulate(steps[wave]))
            total_gradients += float(lasting @ np.maximum.accumulate(gradients[wave]))
        return total_steps, total_gradients

    def _seconds(self, tasks: Sequence[Task], shape: Any, num_lanes: int) -> float:
        steps, gradients = self._lockstep(tasks, shape, num_lanes)
        step_seconds, gradient_seconds = self._iteration_seconds(shape, num_lanes / self.num_devices)
        return steps * step_seconds + gradients * gradient_seconds

    def _padded_arithmetic(self, tasks: Sequence[Task], shape: Any, num_lanes: int) -> float:
        steps, gradients = self._lockstep(tasks, shape, num_lanes)
        step_flops, gradient_flops = shape.flops(self._inputs, self._outputs)
        return num_lanes * (steps * shape.num_envs * step_flops + gradients * shape.chunk * gradient_flops)

    def _arithmetic(self, task: Task) -> float:
        """Returns the floating-point operations of a task alone, in its exact shape."""
        shape = task.hyperparams.shape(self.env)
        updates = task.hyperparams.num_updates(self.total_timesteps)
        flops = shape.flops(self._inputs, self._outputs)
        return updates * sum(w.iterations * w.batch * f for w, f in zip(task.hyperparams.work(shape), flops, strict=True))

    def weight(self, task: Task) -> float:
        """Returns the estimated work of a task alone, for showing how much of a run is done."""
        return self._arithmetic(task)
