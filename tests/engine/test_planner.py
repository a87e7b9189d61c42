"""Plans: every task once, like networks in lockstep, memory kept, and never a worse estimate than the simple plans."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import reduce
from types import SimpleNamespace

import numpy as np
import pytest

from hyperlax.algorithms.dqn import DQN
from hyperlax.algorithms.ppo import PPO
from hyperlax.engine.devices import local_mesh
from hyperlax.engine.machine import MACHINES
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Program, Task
from hyperlax.engine.scheduler import Scheduler
from hyperlax.environments import make
from hyperlax.errors import UserError
from hyperlax.networks.mlp import MLP

ENV = make("gymnax.cartpole")


def tasks(number, seeds=2, seed=0):
    """Random configurations of the kind that people sweep over."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731

    def mlp():
        size = pick(32, 64, 128)
        return MLP((size,) * pick(1, 2), pick("tanh", "relu"), bool(pick(True, False)))

    samples = [
        PPO(mlp(), mlp(), rollout_length=pick(8, 64), total_num_envs=pick(4, 64), num_minibatches=pick(1, 4, 16))
        for _ in range(number)
    ]
    return [Task(i, repetition, sample) for i, sample in enumerate(samples) for repetition in range(seeds)]


def planner(
    steps=100_000, machine="cpu", devices=2, memory=16 << 30, max_lanes=None, num_evaluations=5, num_eval_episodes=16,
    **changes,
):  # fmt: skip
    evaluations = num_evaluations, num_eval_episodes
    return Planner(ENV, steps, devices, replace(MACHINES[machine], **changes), memory, max_lanes, *evaluations)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("steps", [20_000, 5_000_000])
@pytest.mark.parametrize("max_lanes", [None, 6])
def test_every_task_has_a_lane_and_lanes_in_lockstep_agree(machine, steps, max_lanes):
    given = tasks(12)
    plan = planner(steps, machine, max_lanes=max_lanes).batched(given)
    assert Counter(task for program in plan.programs for task in program.real_tasks) == Counter(given)
    for program in plan.programs:
        assert program.num_lanes % (2 * program.group) == 0 and program.num_lanes <= (max_lanes or 10**9)
        for task in program.real_tasks:  # it has room for the task
            exact = task.hyperparams.shape(ENV)
            only = program.shape.only(program.shape.choice(task.hyperparams))
            assert only.num_envs >= exact.num_envs and only.rollout_length >= exact.rollout_length
            for name in ("actor", "critic"):
                (padded,), (own,) = only.role(name).networks.shapes, exact.role(name).networks.shapes
                assert padded.merge(own) == padded
        for first in range(0, program.num_lanes, program.group):
            members = program.tasks[first : first + program.group]
            assert len({program.shape.choice(task.hyperparams) for task in members if task}) <= 1
        if program.group > 1 and len(program.tasks) > program.num_lanes:  # whoever comes next must fit
            assert len({program.shape.choice(task.hyperparams) for task in program.real_tasks}) == 1


def test_a_plan_is_estimated_to_be_no_slower_than_the_simple_ones():
    for steps in (20_000, 500_000):
        some = planner(steps)
        given = tasks(12)
        best = some.batched(given).seconds
        assert best <= some.grouped(given).seconds and best <= some.sequential(given).seconds


def test_dear_compilation_makes_few_programs_and_long_budgets_many():
    given = tasks(16, seeds=1)
    few = planner(compile=1e6).batched(given)
    many = planner(compile=0.0, alternative=0.0).batched(given)
    assert len(few.programs) == 1 < len(many.programs) and many.padding <= few.padding


def test_the_more_tasks_are_to_come_the_more_code_pays():
    given = tasks(12)
    shape = reduce(lambda a, b: a.merge(b), sorted({task.hyperparams.shape(ENV) for task in given}, key=repr))
    few, many = (planner(5_000).covering(shape, given, repeats=number).programs[0] for number in (1, 1000))
    assert many.shape.num_alternatives > few.shape.num_alternatives
    assert many.padding < few.padding


def test_less_memory_makes_fewer_lanes_and_none_is_an_error():
    given = tasks(8)
    roomy = planner().batched(given)
    enough = 2 * max(program.memory for program in planner().sequential(given).programs)  # a lane on each device
    assert any(program.memory > enough for program in roomy.programs)
    tight = planner(memory=enough).batched(given)
    assert all(program.memory <= enough for program in tight.programs)
    assert Counter(task for program in tight.programs for task in program.real_tasks) == Counter(given)
    with pytest.raises(UserError, match=r"memory does not suffice: a lane on each of 2 devices needs .*fewer devices"):
        planner(memory=1000).batched(given)


def test_a_plan_says_when_memory_limits_how_many_train_at_a_time():
    env = make("gymnax.cartpole")
    hyperparams = DQN(MLP((4,)), total_buffer_size=100_000)
    given = [Task(0, seed, hyperparams) for seed in range(64)]

    def plan(memory):
        return Planner(env, 100_000, 2, MACHINES["cpu"], memory, None, 5, 16).batched(given)

    assert "memory for" not in plan(2**32).describe()
    tight = plan(100 * 2**20)  # a replay takes 4.6 MiB
    (program,) = tight.programs
    assert 8 <= program.num_lanes < 22 and program.memory <= 100 * 2**20
    assert f"program 0: memory for {program.num_lanes} of its 64 tasks at a time" in tight.describe()


def test_lanes_in_lockstep_with_other_networks_are_refused():
    given = [Task(i, 0, PPO(MLP(size), MLP((4,)))) for i, size in enumerate([(4,), (6,)])]
    shape = given[0].hyperparams.shape(ENV).merge(given[1].hyperparams.shape(ENV))
    program = Program(
        given[0].hyperparams, ENV, shape, num_lanes=4, group=2, total_timesteps=100, num_eval_episodes=1, run_seed=0,
        mesh=local_mesh(1),
    )  # fmt: skip
    with pytest.raises(ValueError, match="lockstep"):
        program._check_lockstep([given[0], given[1], None, None])
    program._choices = [None] * 4
    program._check_lockstep([given[0], given[0], given[1], None])


def test_a_lane_without_a_task_of_its_own_holds_a_neighbours():
    scheduler = Scheduler(SimpleNamespace(group=2), 0, *[None] * 4)
    a, b = tasks(2, seeds=1)
    assert scheduler._filled([a, None, None, b, None, None]) == [a, a, b, b, a, a]


@pytest.mark.parametrize("max_lanes", [2, 5])
def test_no_program_has_more_lanes_than_allowed(max_lanes):
    plan = planner(max_lanes=max_lanes).batched(tasks(6))
    assert max(program.num_lanes for program in plan.programs) <= max_lanes


def test_evaluations_cost_time_and_memory():
    given = tasks(2)
    few, many = (planner(num_evaluations=5, num_eval_episodes=n).batched(given) for n in (10, 100_000))
    assert many.seconds > 2 * few.seconds and many.memory > 2 * few.memory
