"""Replay against lists: what is remembered, drawn with which frequency, and how transitions of n steps are made."""

from __future__ import annotations

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.algorithms.dqn import DQN
from hyperlax.algorithms.replay import BRANCHES, Place, Replay, SumTree
from hyperlax.networks.mlp import MLP

GAMMA = 0.9


def make_replay(env, prioritized=False, num_envs=4, capacity=40):
    shape = DQN(MLP((4,)), total_num_envs=num_envs, total_buffer_size=capacity, total_batch_size=8).shape(env)
    return Replay(env, shape, 1, prioritized)


def transitions(rng, count, num_envs):
    """Random transitions, every number different; some end an episode, by its rules or cut."""
    rows = []
    for t in range(count):
        done = rng.random(num_envs) < 0.2
        terminated = done & (rng.random(num_envs) < 0.5)
        observation = np.stack([np.full(num_envs, t), np.arange(num_envs), np.zeros(num_envs)], 1)
        rows.append(
            dict(
                observation=observation, next_observation=observation + 0.5, action=np.full((num_envs, 1), t % 3),
                reward=rng.normal(size=num_envs), terminated=terminated, done=done,
            )
        )  # fmt: skip
    return rows


def filled(replay, place, rows):
    memory = replay.empty()
    for row in rows:
        padded = {k: np.pad(v, [(0, replay.num_envs - len(v)), *[(0, 0)] * (v.ndim - 1)]) for k, v in row.items()}
        memory = replay.write(memory, place, jnp.bool_(True), **jax.tree.map(jnp.asarray, padded))
    return memory


@pytest.mark.parametrize("written", [3, 13, 29])
@pytest.mark.parametrize("num_envs, steps", [(4, 10), (3, 5), (1, 1)])
def test_the_last_steps_are_remembered_and_nothing_else(make_spring, num_envs, steps, written):
    replay, place = make_replay(make_spring(True)), Place(jnp.int32(steps), jnp.int32(num_envs))
    rows = transitions(np.random.default_rng(0), written, num_envs)
    memory = filled(replay, place, rows)
    kept = min(steps, written)
    assert place.filled(memory) == kept * num_envs
    observed = replay.columns.split(memory.rows)["observation"]
    got = Counter((int(t), int(i)) for t, i, _ in np.asarray(observed)[: kept * num_envs])
    assert got == Counter((t, i) for t in range(written - kept, written) for i in range(num_envs))
    np.testing.assert_array_equal(memory.rows[steps * num_envs :], 0.0)
    untouched = replay.write(memory, place, jnp.bool_(False), **jax.tree.map(jnp.asarray, filled_row(replay, rows[0])))
    jax.tree.map(np.testing.assert_array_equal, untouched, memory)


def filled_row(replay, row):
    return {k: np.pad(v, [(0, replay.num_envs - len(v)), *[(0, 0)] * (v.ndim - 1)]) for k, v in row.items()}


def brute_force(rows, start, env, n_step, newest):
    """Walks the list of steps: reward, discount of the next value, last observation, steps walked."""
    total, discount, t = 0.0, 1.0, start
    while True:
        row = rows[t]
        total += discount * row["reward"][env]
        discount *= GAMMA
        if row["done"][env] or t - start + 1 == n_step or t == newest:
            terminated = row["terminated"][env]
            return total, 0.0 if terminated else discount, row["next_observation"][env]
        t += 1


@pytest.mark.parametrize("n_step", [1, 2, 4])
def test_transitions_of_several_steps_equal_walking_a_list(make_spring, n_step):
    replay, place = make_replay(make_spring(True)), Place(jnp.int32(7), jnp.int32(3))
    written = 17
    rows = transitions(np.random.default_rng(1), written, 3)
    memory = filled(replay, place, rows)
    indices = jnp.arange(21)
    got = replay.transitions(memory, place, indices, jnp.float32(GAMMA), jnp.int32(n_step), 4)
    for index in range(21):
        t, env = (int(x) for x in got["observation"][index, :2])
        reward, discount, last = brute_force(rows, t, env, n_step, written - 1)
        np.testing.assert_allclose(got["reward"][index], reward, rtol=1e-5)
        np.testing.assert_allclose(got["discount"][index], discount, rtol=1e-6)
        np.testing.assert_allclose(got["next_observation"][index], last)
        assert got["action"][index] == t % 3


def test_a_uniform_draw_takes_every_row_equally_often(make_spring):
    replay, place = make_replay(make_spring(True)), Place(jnp.int32(10), jnp.int32(3))
    memory = filled(replay, place, transitions(np.random.default_rng(0), 6, 3))
    draws = np.asarray(replay.uniform(jax.random.key(0), memory, place, 18_000))
    counts = np.bincount(draws, minlength=18)
    assert len(counts) == 18 and abs(counts - 1000).max() < 5 * np.sqrt(1000)
    few = replay.uniform(jax.random.key(0), memory, place, 10)
    np.testing.assert_array_equal(few, draws[:10])


def test_a_draw_by_priority_takes_rows_in_proportion(make_spring):
    replay, place = make_replay(make_spring(True), prioritized=True), Place(jnp.int32(10), jnp.int32(3))
    memory = filled(replay, place, transitions(np.random.default_rng(0), 6, 3))
    _, probability = replay.by_priority(jax.random.key(0), memory, place, 1800)
    np.testing.assert_allclose(probability, 1 / 18, rtol=1e-5)  # the new are alike
    wanted = np.r_[np.zeros(4), np.arange(1.0, 15.0)]
    on = jnp.arange(18) != 17
    memory = replay.prioritize(memory, jnp.arange(18), jnp.asarray(wanted), on)
    wanted[17] = 1.0
    draws, probability = replay.by_priority(jax.random.key(1), memory, place, 50_000)
    share = np.bincount(np.asarray(draws), minlength=18) / 50_000
    np.testing.assert_allclose(share, wanted / wanted.sum(), atol=0.01)
    np.testing.assert_allclose(probability, (wanted / wanted.sum())[draws], rtol=1e-5)
    assert memory.largest == 13.0
    after = filled_row(replay, transitions(np.random.default_rng(2), 1, 3)[0])
    memory = replay.write(memory, place, jnp.bool_(True), **jax.tree.map(jnp.asarray, after))
    np.testing.assert_array_equal(memory.priorities[0][18:21], 13.0)


@pytest.mark.parametrize("size", [5, 40, 300, 5000])
def test_a_sum_tree_holds_sums_and_finds_shares(size):
    rng, tree = np.random.default_rng(size), SumTree(size)
    values = np.zeros(size, np.float32)
    levels = tree.empty()
    for _ in range(5):
        indices = rng.integers(0, size, 64)
        new = (rng.random(size) * (rng.random(size) < 0.7)).astype(np.float32)
        on = rng.random(64) < 0.8
        levels = tree.write(levels, jnp.asarray(indices), jnp.asarray(new[indices]), jnp.asarray(on))
        values[indices[on]] = new[indices[on]]
        np.testing.assert_array_equal(levels[0][:size], values)
        for below, above in itertools.pairwise(levels):
            sums = np.asarray(below).reshape(-1, BRANCHES).sum(1)
            np.testing.assert_allclose(np.asarray(above)[: len(sums)], sums, rtol=1e-6)
    uniform = rng.random(200).astype(np.float32)
    found, value = tree.find(levels, jnp.asarray(uniform))
    ends = np.cumsum(values.astype(float))
    expected = np.searchsorted(ends, uniform * ends[-1], side="right")
    near = np.abs(ends[:, None] / ends[-1] - uniform).min(0) < 1e-5  # rounding decides there
    np.testing.assert_array_equal(np.asarray(found)[~near], expected[~near])
    np.testing.assert_array_equal(value, values[found])
    assert (np.asarray(value) > 0).all()


def test_more_leaves_change_no_draw():
    values, uniform = jnp.asarray(np.random.default_rng(0).random(200), jnp.float32), jnp.linspace(0, 0.999, 77)
    found = []
    for size in (200, 257, 3000, 100_000):
        tree = SumTree(size)
        levels = tree.write(tree.empty(), jnp.arange(200), values, jnp.ones(200, bool))
        found.append(tree.find(levels, uniform)[0])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
