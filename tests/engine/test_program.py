"""A compiled program: what it evaluates, averages and reports, against plain loops on the host."""

from __future__ import annotations

import resource
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from hyperlax.algorithms import rng
from hyperlax.algorithms.dqn import DQN
from hyperlax.algorithms.lane import stream
from hyperlax.algorithms.ppo import PPO
from hyperlax.engine.devices import local_mesh
from hyperlax.engine.program import EVALUATION, PARAMETERS, TRAINING, Program, Task, entropy, lane_keys
from hyperlax.environments import make
from hyperlax.errors import UserError
from hyperlax.networks.mlp import MLP

EPISODES = 3
TASKS = [
    Task(4, 0, PPO(MLP((4,)), MLP((3,)), rollout_length=5, total_num_envs=2, num_minibatches=2, actor_lr=0.01)),
    Task(9, 1, PPO(MLP((3, 5)), MLP((6,)), rollout_length=4, total_num_envs=3, num_minibatches=1, actor_lr=0.01)),
]


@pytest.fixture(scope="module")
def program():
    env = make("gymnax.cartpole", max_episode_steps=12)
    shapes = [task.hyperparams.shape(env) for task in TASKS]
    program = Program(
        TASKS[0].hyperparams, env, shapes[0].merge(shapes[1]).together(), num_lanes=2, total_timesteps=100,
        num_eval_episodes=EPISODES, run_seed=1, mesh=local_mesh(1),
    )  # fmt: skip
    program.compile()
    return program


@pytest.fixture(scope="module")
def trained(program):
    lanes, _ = program.tick(program.admit(program.empty(), TASKS), np.array([4, 4]))
    return lanes


def test_evaluation_equals_episodes_played_one_by_one_with_the_exported_policy(program, trained):
    returns, lengths = program.evaluate(trained, np.ones(2, bool), np.array([2, 5]))
    env, policies = program.env, program.policies(trained)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    for lane, (task, point) in enumerate(zip(TASKS, (2, 5), strict=True)):
        agent = task.hyperparams.agent(env, task.hyperparams.shape(env))
        arrays, about = program.export(policies, lane, task)
        assert about["environment"] == "gymnax.cartpole" and about["hyperparameters"]["actor_lr"] == 0.01
        exact = task.hyperparams.traced(agent.shape, 100)
        act = jax.jit(partial(agent.act, agent.restore(arrays), exact))
        key = stream(rng.wrap(lane_keys(1, task)[1]), 0, np.int32(point))
        for episode in range(EPISODES):
            state, observation = reset(jax.random.split(key, EPISODES)[episode])
            total, length, over = 0.0, 0, False
            while not over:
                length += 1
                step_key = jax.random.split(jax.random.fold_in(key, length), EPISODES)[episode]
                state, (observation, reward, terminated, truncated) = step(step_key, state, act(observation[None])[0])
                total, over = total + float(reward), bool(terminated | truncated)
            assert returns[lane, episode] == pytest.approx(total, rel=1e-5)
            assert lengths[lane, episode] == length


def test_an_evaluation_does_not_depend_on_which_others_are_wanted(program, trained):
    both = program.evaluate(trained, np.ones(2, bool), np.array([1, 3]))
    again = program.evaluate(trained, np.array([False, True]), np.array([0, 3]))
    for a, b in zip(both, again, strict=True):
        np.testing.assert_array_equal(a[1], b[1])
    other = program.evaluate(trained, np.ones(2, bool), np.array([1, 4]))
    np.testing.assert_array_equal(both[0][0], other[0][0])


def test_metrics_are_means_over_all_updates_of_a_tick(program):
    def sums(ticks):
        lanes, rows = program.admit(program.empty(), TASKS), []
        for n in ticks:
            lanes, metrics = program.tick(lanes, np.array([n, n]))
            rows.append(metrics)
        return rows

    whole, parts = sums([4])[0], sums([1, 1, 2])
    for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"):
        mean = sum(weight * part[name] for weight, part in zip((1, 1, 2), parts, strict=True)) / 4
        np.testing.assert_allclose(whole[name], mean, rtol=1e-5, atol=1e-6)


def test_a_tick_of_no_updates_has_no_metrics_and_changes_nothing(program, trained):
    before = jax.device_get(trained)
    copy = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), before, trained)
    lanes, metrics = program.tick(copy, np.array([0, 0]))
    after = jax.device_get(lanes)._replace(metrics=0)
    jax.tree.map(np.testing.assert_array_equal, after, before._replace(metrics=0))
    assert all(np.isnan(values).all() for values in metrics.values())


def test_metrics_of_several_ticks_are_those_of_one_unless_they_restart(program):
    def begin():
        return program.admit(program.empty(), TASKS)

    _, whole = program.tick(begin(), np.array([4, 3]))
    lanes, first = program.tick(begin(), np.array([1, 2]))
    _, rest = program.tick(lanes, np.array([3, 1]), restart=np.array([False, True]))
    for name, values in whole.items():
        np.testing.assert_array_equal(rest[name][0], values[0], err_msg=name)
    assert rest["policy_loss"][1] not in (whole["policy_loss"][1], first["policy_loss"][1])


def test_every_purpose_of_every_task_has_randomness_of_its_own():
    tasks = [Task(sample, seed, None) for sample in range(4) for seed in range(4)]
    keys = np.concatenate([lane_keys(run, task) for run in range(3) for task in tasks])
    assert len(np.unique(keys, axis=0)) == 3 * 2 * len(tasks)
    purposes = {tuple(entropy(0, tasks[0], p)) for p in (TRAINING, EVALUATION, PARAMETERS)}
    assert len(purposes) == 3


def test_the_budget_is_rounded_up_to_whole_updates():
    hp = TASKS[0].hyperparams
    assert [hp.num_updates(steps) for steps in (1, 10, 11, 100)] == [1, 1, 2, 10]


def test_compiling_is_timed_and_memory_is_known(program, trained):
    assert program.compile_seconds > 0
    assert program.memory_bytes() >= sum(leaf.nbytes for leaf in jax.tree.leaves(trained))


def test_a_mesh_of_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="num_devices 1000"):
        local_mesh(1000)


@pytest.mark.parametrize("prioritised", [False, True])
def test_a_replay_is_held_once_and_the_planner_counts_all_there_is(prioritised):
    env = make("gymnax.cartpole", max_episode_steps=12)
    hp = DQN(
        MLP((2,)), total_num_envs=2, rollout_length=1, epochs=1, total_batch_size=2, total_buffer_size=40_000,
        use_prioritized_replay=prioritised,
    )  # fmt: skip
    program = Program(
        hp, env, hp.shape(env), num_lanes=4, group=1, total_timesteps=100, num_eval_episodes=2, run_seed=1,
        mesh=local_mesh(1),
    )  # fmt: skip
    program.compile()
    kept, working = hp.shape(env).memory(env_numbers=20, num_episodes=2)
    replay = hp.total_buffer_size * (2 * 4 + 4)  # numbers
    # Four lanes, and a copy of the one that works; the network here is too small for its estimate to be close.
    assert 16 * replay < program.memory_bytes() < 1.01 * (5 * kept + working)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process from /proc")
def test_a_tick_on_several_devices_keeps_no_memory_of_its_gradient_steps():
    env = make("gymnax.cartpole")
    hp = DQN(
        MLP((128,), use_layer_norm=True), total_num_envs=64, rollout_length=1, epochs=20, total_batch_size=512,
        total_buffer_size=512, warmup_rollout_length=8,
    )  # fmt: skip
    program = Program(
        hp, env, hp.shape(env), num_lanes=2, total_timesteps=10_000, num_eval_episodes=1, run_seed=1,
        mesh=local_mesh(2),
    )  # fmt: skip
    program.compile()
    lanes = program.admit(program.empty(), [Task(0, 0, hp), Task(1, 0, hp)])
    lanes, _ = program.tick(lanes, np.array([12, 12]))  # the first steps of which only fill the replay
    seen, over = [], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            pages = Path("/proc/self/statm").read_text().split()[1]
            seen.append(int(pages) * resource.getpagesize() / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    program.tick(lanes, np.array([40, 40]))
    over.set()
    watcher.join()
    assert len(seen) >= 8
    assert max(seen) - seen[len(seen) // 4] < 8  # MiB; with XLA's own options about 40


def test_a_copy_takes_up_all_of_its_source_but_its_keys_and_trains_with_its_own_hyperparameters(program):
    lanes, _ = program.tick(program.admit(program.empty(), TASKS), np.array([4, 4]))
    before = jax.device_get(lanes)
    wanted = replace(TASKS[0].hyperparams, actor_lr=0.5)
    lanes = program.copy(lanes, np.array([0, 0]), [None, Task(9, 1, wanted)])
    after = jax.device_get(lanes)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), after, before)
    for old, new in zip(jax.tree.leaves(before.state), jax.tree.leaves(after.state), strict=True):
        np.testing.assert_array_equal(new[1], old[0])
    np.testing.assert_array_equal(after.keys, before.keys)
    expected = wanted.traced(program.shape, 100)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), after.hyperparams, expected)
    lanes, _ = program.tick(lanes, np.array([1, 1]))
    moved = jax.device_get(lanes.state)
    change = [np.abs(a - b[0]).max() for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(before.state), strict=True)
              if a.dtype == np.float32]  # fmt: skip
    assert max(change) > 0.1  # what a learning rate of 0.5 does
