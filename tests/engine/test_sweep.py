"""What becomes of a plan when parts of it fail, and of the winner's second training."""

from __future__ import annotations

import pytest

from hyperlax import api
from hyperlax.engine.program import Program
from hyperlax.engine.sweep import _spread
from hyperlax.errors import RunFailed

SMALL = {"total_num_envs": 2, "num_minibatches": 1, "epochs": 1, "actor_network.layer_sizes": (4,),
         "critic_network.layer_sizes": (4,)}  # fmt: skip


def run(tmp_path, monkeypatch, fails):
    """A sweep of three samples; programs for which ``fails(program)`` raise when they are to train."""
    whole = Program.tick

    def tick(self, lanes, *args):
        if fails(self):
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand so on")
        return whole(self, lanes, *args)

    monkeypatch.setattr(Program, "tick", tick)
    samples = [{"rollout_length": length} for length in (8, 16, 24)]
    return api.sweep(
        "ppo_mlp", "gymnax.cartpole", samples=samples, overrides=SMALL,
        run_length=64, num_seeds=1, num_evaluations=1, num_eval_episodes=2, output_root=tmp_path, progress=False,
        plot=False,
    )  # fmt: skip


def test_samples_of_a_failed_program_are_trained_one_by_one(tmp_path, monkeypatch):
    result = run(tmp_path, monkeypatch, lambda program: program.num_lanes > 1)
    assert list(result.summary["status"]) == ["COMPLETED"] * 3
    assert result.info["state"] == "finished" and result.info["winner"]["fresh_seeds_final_return"] > 0


def test_a_sample_that_fails_by_itself_too_costs_no_other_its_results(tmp_path, monkeypatch):
    with pytest.raises(RunFailed, match=r"RESOURCE_EXHAUSTED.*run_001$"):
        run(tmp_path, monkeypatch, lambda program: program.num_lanes > 1 or program.shape.rollout_length == 16)
    result = api.load_run(tmp_path)
    status = result.summary.set_index("sample_id")["status"]
    assert dict(status) == {0: "COMPLETED", 1: "FAILED", 2: "COMPLETED"}
    assert result.info["state"] == "failed" and result.info["programs"][0]["samples"] == [0, 1, 2]


def test_repetitions_are_spread_over_devices():
    assert _spread([1, 2, 3], 8, 2) == [1, 2, None, None, 3, None, None, None]
    assert _spread([1, 2, 3, 4, 5], 4, 2) == [1, 2, 3, 4, 5]
    assert _spread([1], 2, 2) == [1, None]
    assert _spread([1, 2, 3], 1, 1) == [1, 2, 3]
