"""Benchmarks that are killed, whose disk is full or whose files are damaged end as if nothing had happened."""

from __future__ import annotations

import random

import pytest

from hyperlax.launch.benchmark import run_benchmark
from hyperlax.launch.suite import Suite

SUITE = Suite(
    ("ppo_mlp", "pqn_mlp"), ("gymnax.cartpole",), num_samples_per_run=2, run_length_modifier=512, num_seeds=1,
    num_evaluations=2, num_eval_episodes=1, set={"total_num_envs": 4, "rollout_length": 16, "epochs": 1},
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("compiled_once")


def benchmark(root):
    return run_benchmark(SUITE, root / "bench", resume=True, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    benchmark(root)
    return root


@pytest.mark.usefixtures("many_checkpoints")
def test_a_benchmark_that_is_killed_at_any_write_ends_like_one_that_is_not(whole, tmp_path, disk, killed, differences):
    rng = random.Random(0)
    struck = 0
    while True:
        disk.fails(int(rng.expovariate(1 / 25)) if struck < 6 else None, killed())
        try:
            benchmark(tmp_path)
        except killed:
            struck += 1
        else:
            break
    assert struck >= 4 and differences(whole, tmp_path) == []
