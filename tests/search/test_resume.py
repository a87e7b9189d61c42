"""Searches that are killed, whose disk is full or whose files are damaged end as if nothing had happened."""

from __future__ import annotations

import random
import signal
import threading

import pytest

pytest.importorskip("optuna")

import hyperlax  # noqa: E402
from hyperlax.cli import main  # noqa: E402
from hyperlax.engine import scheduler  # noqa: E402
from hyperlax.errors import CannotWrite, UserError  # noqa: E402
from hyperlax.results.lock import DirectoryLock  # noqa: E402

SEARCH = dict(
    num_trials=4, pruner="asha", overrides={"total_num_envs": 4, "rollout_length": 16}, run_length=1152, num_seeds=1,
    num_evaluations=3, num_eval_episodes=1, batch_size=2, winner_seeds=1, num_devices=1, plot=False, progress=False,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("compiled_once")


def search(root, **changes):
    return hyperlax.optimize("ppo_mlp", "gymnax.cartpole", output_root=root, resume=True, **(SEARCH | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    search(root)
    return root


@pytest.mark.usefixtures("many_checkpoints")
def test_a_search_that_is_killed_at_any_write_ends_like_one_that_is_not(whole, tmp_path, disk, killed, differences):
    rng = random.Random(0)
    struck = 0
    while True:
        disk.fails(int(rng.expovariate(1 / 40)) if struck < 6 else None, killed())
        try:
            search(tmp_path)
        except killed:
            struck += 1
        else:
            break
    assert struck >= 4 and differences(whole, tmp_path) == []
