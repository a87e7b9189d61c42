"""Which samples share a program: the assignment that is estimated to finish first.

The lanes of a device run in groups, one group after the other; the lanes of a group run in lockstep.
A group does in lockstep what its lanes do: an update takes as long as the longest of its loops. On a
GPU one group of all lanes is right, because every launch costs the same however wide it is. On a CPU
core a wide launch costs what its lanes cost, so that small groups lose nothing, keep their state in
the cache, and do not wait for each other; lanes by themselves take the branch of their own network,
which costs its compilation and no padding. Samples that share no program pay for another
compilation. The planner starts from one program for each distinct structure and merges
the two programs whose union saves most, until nothing saves any more.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperlax.engine.machine import Machine
from hyperlax.engine.plan import Plan, PlannedProgram, in_bytes
from hyperlax.engine.program import Task
from hyperlax.environments import vector
from hyperlax.environments.protocol import Discrete, Environment, observation_size
from hyperlax.errors import CannotShare, UserError


class MemoryShortage(UserError):
    """Not even one lane on each device fits."""


class Planner:
    """Estimates and assigns.

    Args:
        env: the environment.
        total_timesteps: environment steps of every task.
        num_devices: over which lanes are spread.
        machine: speeds; see :data:`hyperlax.engine.machine.MACHINES`.
        memory: bytes that one program may use on all devices.
        max_lanes: most lanes of one program, at least one a device; None for what the machine makes use of.
        num_evaluations: of every task; episodes are taken to last as long as they may.
        num_eval_episodes: of each evaluation.
        times: how often lanes are there at a moment: twice where they take up each other's state.
    """

    def __init__(
        self,
        env: Environment,
        total_timesteps: int,
        num_devices: int,
        machine: Machine,
        memory: int,
        max_lanes: int | None = None,
        num_evaluations: int = 0,
        num_eval_episodes: int = 0,
        times: int = 1,
    ) -> None:
        self.env, self.total_timesteps, self.machine = env, total_timesteps, machine
        self.num_devices, self.memory = num_devices, memory
        self.max_lanes = max_lanes or machine.max_lanes * num_devices
        self.num_evaluations, self.num_eval_episodes, self.times = num_evaluations, num_eval_episodes, times
        self._alone: dict[Any, float] = {}
        state, _ = jax.eval_shape(env.reset, jax.random.key(0))
        action = jnp.int32(0) if isinstance(env.action_space, Discrete) else jnp.zeros(env.action_space.size)
        operations = vector.count_operations(env.step, jax.random.key(0), state, action)
        self._env_seconds = machine.operation * operations
        self._env_numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state)) + observation_size(env)

    # --- plans -----------------------------------------------------------------------------------

    def batched(self, tasks: Sequence[Task]) -> Plan:
        """Returns the plan that is estimated to finish first."""
        groups = self._coarsen(self._group(tasks, self._shape))
        return self._plan(self._merge([program for group in groups for program in self._fitting(group)]))

    def grouped(self, tasks: Sequence[Task]) -> Plan:
        """Returns the plan with one program for each distinct structure."""

        def structure(task: Task) -> Any:
            shape = task.hyperparams.shape(self.env)
            return shape, shape.work(task.hyperparams)

        groups = self._group(tasks, structure)
        return self._plan([self._program(group) for group in groups])

    def sequential(self, tasks: Sequence[Task]) -> Plan:
        """Returns the plan in which every task runs alone, in its own exact shape."""
        evaluation = self.num_evaluations, self.num_eval_episodes
        one = Planner(self.env, self.total_timesteps, 1, self.machine, self.memory, 1, *evaluation)
        groups = self._group(tasks, self._shape)
        return one._plan([one._program(group) for group in groups])

    def covering(self, shape: Any, tasks: Sequence[Task], all_at_once: bool = False, repeats: float = 1.0) -> Plan:
        """Returns the plan of one program whose lanes take tasks in any order, none of which is known yet.

        Args:
            shape: that holds whatever may come.
            tasks: such as are to be expected; they decide between ways to run the program.
            all_at_once: whether there is to be a lane for each of them.
            repeats: how many tasks each of them stands for.

        Raises:
            MemoryShortage: there cannot be.
        """
        return self._plan([self._program(tasks, shape, all_at_once, repeats)])

    def _shape(self, task: Task) -> Any:
        return task.hyperparams.shape(self.env)

    def _plan(self, programs: Sequence[PlannedProgram]) -> Plan:
        ordered = tuple(sorted(programs, key=lambda program: -program.seconds))
        return Plan(ordered, self.num_devices)

    @staticmethod
    def _group(tasks: Sequence[Task], key: Callable[[Task], Any]) -> list[list[Task]]:
        groups: dict[Any, list[Task]] = {}
        for task in tasks:
            groups.setdefault(key(task), []).append(task)
        return list(groups.values())

    def _coarsen(self, groups: list[list[Task]]) -> list[list[Task]]:
        """Joins groups of like work until pairs of them can be compared in a small part of the time they save."""
        alone = sum(self._program([group[0]]).seconds * len(group) for group in groups)
        most, step = (80 if alone > 600 else 32), 0.25
        while len(groups) > most:
            step *= 1.5
            tasks = [task for group in groups for task in group]
            groups = self._group(tasks, partial(self._signature, step=step))
        return groups

    def _signature(self, task: Task, step: float) -> tuple[int, ...]:
        """Returns what must be alike for tasks to share a program well, on a logarithmic grid."""
        hyperparams = task.hyperparams
        shape = hyperparams.shape(self.env)
        numbers = [hyperparams.num_updates(self.total_timesteps), shape.num_params()]
        numbers += [x for work in shape.work(hyperparams) for x in work]
        return tuple(round(math.log2(n) / step) for n in numbers)

    def _fitting(self, tasks: Sequence[Task]) -> list[PlannedProgram]:
        """Returns one program for the tasks, or one for each shape if what holds them all needs too much memory."""
        try:
            return [self._program(tasks)]
        except (MemoryShortage, CannotShare):
            groups = self._group(tasks, self._shape)
            if len(groups) == 1:
                raise
            return [self._program(group) for group in groups]

    def _merge(self, programs: list[PlannedProgram]) -> list[PlannedProgram]:
        """Merges the pair that saves most until no pair saves anything."""
        savings: dict[tuple[int, int], tuple[float, PlannedProgram]] = {}
        alive = dict(enumerate(programs))
        fresh = list(alive)
        while True:
            for a in fresh:
                for b in alive:
                    if a != b and (min(a, b), max(a, b)) not in savings:
                        savings[min(a, b), max(a, b)] = self._saving(alive[a], alive[b])
            if not savings:
                return list(alive.values())
            (a, b), (saved, union) = max(savings.items(), key=lambda item: item[1][0])
            if saved <= 0:
                return list(alive.values())
            del alive[a], alive[b]
            savings = {pair: value for pair, value in savings.items() if not {a, b} & set(pair)}
            fresh = [max([*alive, a, b]) + 1]
            alive[fresh[0]] = union

    def _saving(self, a: PlannedProgram, b: PlannedProgram) -> tuple[float, PlannedProgram]:
        """Returns the seconds saved if one program takes the tasks of two, and that program."""
        try:
            union = self._program([*a.real_tasks, *b.real_tasks])
        except (MemoryShortage, CannotShare):
            return -math.inf, a
        return a.total_seconds + b.total_seconds - union.total_seconds, union

    # --- estimates -------------------------------------------------------------------------------

    def _program(
        self, tasks: Sequence[Task], covered: Any = None, all_at_once: bool = False, repeats: float = 1.0
    ) -> PlannedProgram:
        """Returns the fastest way to run some tasks as one program, or tasks like them as they come, if ``covered``."""
        shapes = sorted({task.hyperparams.shape(self.env) for task in tasks}, key=repr)
        merged = covered if covered is not None else reduce(_merged, shapes)
        alone = sum(map(self.arithmetic, tasks))
        best: PlannedProgram | None = None
        shortage: MemoryShortage | None = None
        for shape in merged.variants():
            compiling = self.machine.compile + self.machine.alternative * (shape.num_alternatives - 2)
            costs = self._costs(tasks, shape)
            speeds = self._speeds(shape, {cost.choice for cost in costs})
            for wanted in self.machine.groups:
                try:
                    lanes = self._lanes(shape, costs, wanted, any_order=covered is not None)
                except MemoryShortage as error:
                    shortage = error
                    break
                if lanes is None:
                    continue
                if all_at_once and lanes[0] < len(tasks):
                    shortage = shortage or MemoryShortage(
                        f"memory does not suffice: {len(tasks)} lanes are needed at a time, "
                        f"{in_bytes(self.memory)} hold {lanes[0]}"
                    )
                    continue
                num_lanes, group, memory, limited = lanes
                order, seconds, arithmetic = self._arrange(costs, shape, speeds, num_lanes, group)
                seconds *= repeats
                if best is None or seconds + compiling < best.total_seconds:
                    padding = max(0.0, 1.0 - alone / arithmetic)
                    best = PlannedProgram(order, shape, num_lanes, group, seconds, compiling, padding, memory, limited)
        if best is None:
            raise shortage or CannotShare("more tasks than lanes, and networks that cannot be in lockstep")
        return best

    def _costs(self, tasks: Sequence[Task], shape: Any) -> list[_Cost]:
        """Returns what each task does in a program of ``shape``; like tasks beside each other, the longest first."""
        costs = []
        for task in tasks:
            steps, gradients = shape.work(task.hyperparams)
            updates = task.hyperparams.num_updates(self.total_timesteps)
            choice = shape.choice(task.hyperparams)
            costs.append(_Cost(choice, updates, gradients.iterations, steps.iterations, task))
        return sorted(costs, key=lambda cost: cost[:-1], reverse=True)

    def _lanes(
        self, shape: Any, costs: Sequence[_Cost], group: int, any_order: bool = False
    ) -> tuple[int, int, int, bool] | None:
        """Returns how many lanes a program gets, how many in lockstep, the bytes they need, and whether memory limits
        them; None if it cannot be.

        Raises:
            MemoryShortage: not even one lane on each device fits.
        """
        kept, working = shape.memory(self._env_numbers, self.num_eval_episodes)

        def needed(each: int, group: int) -> int:
            """Bytes on a device: if its lanes are not all in lockstep, the group that works is a copy."""
            return each * kept * self.times + group * (working + (kept if group < each else 0))

        num_tasks = len(costs)
        each = min(-(-num_tasks // self.num_devices), max(1, self.max_lanes // self.num_devices))
        share = self.memory // self.num_devices
        if share < kept * self.times + working:
            decides = shape.most_memory()
            where = f"a lane on each of {self.num_devices} devices" if self.num_devices > 1 else "a lane"
            fewer = "; fewer devices need less" if self.num_devices > 1 else ""
            raise MemoryShortage(
                f"memory does not suffice: {where} needs {in_bytes(self.num_devices * (kept * self.times + working))}, "
                f"{in_bytes(self.memory)} may be used; {decides} most of it{fewer}"
            )
        group = max(1, min(group or each, each, share // (kept + working)))
        wanted = each
        each = max(n for n in range(group, each + 1) if needed(n, group) <= share)
        limited = each < wanted
        rounds = -(-num_tasks // (each * self.num_devices))  # as many rounds with fewer lanes waste less
        each = -(-num_tasks // (rounds * self.num_devices))
        group = min(group, each)
        # Groups of one choice each; the last of a choice may have lanes to spare.
        choices = Counter(cost.choice for cost in costs)
        groups = sum(-(-n // group) for n in choices.values())
        if any_order:
            each = each // group * group
            fits = group == 1 or shape.num_choices == 1
            return (each * self.num_devices, group, self.num_devices * needed(each, group), limited) if fits else None
        wanted = -(-groups // self.num_devices) * group
        if wanted * self.num_devices <= self.max_lanes and needed(wanted, group) <= share:
            each = wanted
        elif group > 1 and len(choices) > 1:
            return None  # a lane that becomes free would have to wait for a task with its neighbours' choice
        else:
            each = each // group * group
        return each * self.num_devices, group, self.num_devices * needed(each, group), limited

    def _arrange(
        self, costs: Sequence[_Cost], shape: Any, speeds: dict[Any, _Speed], num_lanes: int, group: int
    ) -> tuple[tuple[Task | None, ...], float, float]:
        """Puts like tasks into one group and spreads groups over devices, the costliest first.

        Tasks beyond the lanes are taken to start together when those before them end.

        Args:
            costs: of all tasks, like ones beside each other.
            shape: of the program.
            speeds: by choice of alternatives.
            num_lanes: over all devices.
            group: lanes in lockstep.

        Returns:
            The tasks in the order of lanes, estimated seconds and floating-point operations.
        """
        update_seconds = group * shape.rows * self.machine.row
        times = {choice: self._iteration_seconds(speed, group) for choice, speed in speeds.items()}
        order: list[Task | None] = []
        seconds = arithmetic = 0.0
        if group == 1:  # any task may follow any other: the costliest first

            def alone(cost: _Cost) -> float:
                step, gradient = times[cost.choice]
                training = cost.updates * (cost.steps * step + cost.gradients * gradient)
                return training + self._evaluation_seconds(speeds[cost.choice], group)

            costs = sorted(costs, key=alone, reverse=True)
        for start in range(0, len(costs), num_lanes):
            groups = []
            for members in _groups(costs[start : start + num_lanes], group):
                (step_seconds, gradient_seconds), speed = times[members[0].choice], speeds[members[0].choice]
                steps, gradients = _lockstep(members)
                cost = steps * step_seconds + gradients * gradient_seconds + members[0].updates * update_seconds
                cost += self._evaluation_seconds(speed, group)
                groups.append((cost, [member.task for member in members]))
                arithmetic += group * (steps * speed.of_step() + gradients * speed.gradient_flops)
            placed, longest = self._spread(groups, num_lanes, group)
            seconds += longest
            order += placed
        return tuple(order), seconds, arithmetic

    def _spread(
        self, groups: list[tuple[float, list[Task]]], num_lanes: int, group: int
    ) -> tuple[list[Task | None], float]:
        """Gives each group to the device with least to do; returns tasks by lane and the longest device's time."""
        room = num_lanes // self.num_devices // group
        loads = [0.0] * self.num_devices
        lanes: list[list[Task | None]] = [[] for _ in range(self.num_devices)]
        for cost, members in sorted(groups, key=lambda item: -item[0]):
            device = min((d for d in range(self.num_devices) if len(lanes[d]) < room * group), key=loads.__getitem__)
            loads[device] += cost
            lanes[device] += [*members, *[None] * (group - len(members))]
        for held in lanes:
            held += [None] * (room * group - len(held))
        return [task for held in lanes for task in held], max(loads)

    def _speeds(self, shape: Any, choices: Iterable[Any]) -> dict[Any, _Speed]:
        """Returns what an iteration costs a lane with each choice of alternatives."""
        speeds = {}
        for choice in choices:
            only = shape.only(choice)
            step_flops, gradient_flops = only.flops()
            per_step, per_gradient = only.flops_per_call()
            params = only.num_params()
            gradient_flops = per_gradient + only.chunks[0] * gradient_flops
            speeds[choice] = _Speed(only.num_envs, step_flops, per_step, gradient_flops, params)
        return speeds

    def _iteration_seconds(self, speed: _Speed, group: int) -> tuple[float, float]:
        """Returns the time of one environment step and of one gradient evaluation of a group of lanes."""
        machine = self.machine
        cached = 28 * speed.params * group < machine.cache
        optimizer = speed.params * (machine.param if cached else machine.param_uncached)
        rate = machine.flops * (machine.alone if group == 1 else 1.0)
        transitions = speed.num_envs * (machine.transition + self._env_seconds)
        step = machine.lane + speed.of_step() / rate + transitions
        gradient = machine.lane + optimizer + speed.gradient_flops / rate
        return machine.launch + group * step, machine.launch + group * gradient

    def _evaluation_seconds(self, speed: _Speed, group: int) -> float:
        """Returns the time of all evaluations of a group of lanes."""
        step, _ = self._iteration_seconds(speed._replace(num_envs=self.num_eval_episodes), group)
        return self.num_evaluations * self.env.max_episode_steps * step

    def cost(self, program: PlannedProgram) -> Callable[[Task], float]:
        """Returns what gives the estimated seconds of one update of a task in a program's lane."""
        shape, group = program.shape, program.group
        speeds: dict[Any, _Speed] = {}

        def seconds(task: Task) -> float:
            choice = shape.choice(task.hyperparams)
            if choice not in speeds:
                speeds[choice] = self._speeds(shape, [choice])[choice]
            step, gradient = self._iteration_seconds(speeds[choice], group)
            steps, gradients = shape.work(task.hyperparams)
            each = steps.iterations * step + gradients.iterations * gradient
            return (each + group * shape.rows * self.machine.row) / group

        return lru_cache(maxsize=10_000)(seconds)

    def arithmetic(self, task: Task) -> float:
        """Returns the floating-point operations of a task alone, in its exact shape."""
        if task.hyperparams not in self._alone:
            shape = task.hyperparams.shape(self.env)
            flops = shape.flops()
            parts = zip(shape.work(task.hyperparams), flops, shape.flops_per_call(), strict=True)
            each = sum(w.iterations * (w.batch * f + per_call) for w, f, per_call in parts)
            self._alone[task.hyperparams] = each * task.hyperparams.num_updates(self.total_timesteps)
        return self._alone[task.hyperparams]


@lru_cache(maxsize=100_000)
def _merged(a: Any, b: Any) -> Any:
    return a.merge(b)


class _Cost(NamedTuple):
    """What a task does in a program: which alternatives it uses, its updates, and iterations of each."""

    choice: Any
    updates: int
    gradients: int
    steps: int
    task: Task


class _Speed(NamedTuple):
    """What a lane does in the two loops.

    Attributes:
        num_envs: environments in a step.
        step_flops: operations of a step of one environment.
        step_flops_per_call: of a step however many they are.
        gradient_flops: of a gradient.
        params: trained parameters.
    """

    num_envs: int
    step_flops: int
    step_flops_per_call: int
    gradient_flops: int
    params: int

    def of_step(self) -> int:
        """Returns the operations of a step of all environments."""
        return self.step_flops_per_call + self.num_envs * self.step_flops


def _groups(costs: Sequence[_Cost], most: int) -> Iterator[Sequence[_Cost]]:
    """Yields neighbours with the same choice, so many at a time."""
    for _, same in itertools.groupby(costs, key=lambda cost: cost.choice if most > 1 else None):
        members = list(same)
        for first in range(0, len(members), most):
            yield members[first : first + most]


def _lockstep(members: Sequence[_Cost]) -> tuple[int, int]:
    """Returns how often the two loop bodies of a group run; members are ordered by updates, most first.

    As long as several members run, an update takes the most iterations that any of them needs.
    """
    total_steps = total_gradients = most_steps = most_gradients = 0
    for number, member in enumerate(members):
        most_steps, most_gradients = max(most_steps, member.steps), max(most_gradients, member.gradients)
        lasting = member.updates - (members[number + 1].updates if number + 1 < len(members) else 0)
        total_steps += lasting * most_steps
        total_gradients += lasting * most_gradients
    return total_steps, total_gradients
