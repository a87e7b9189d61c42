"""Runs that are killed, really, and go on; `make chaos` does it many times."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import hyperlax
from hyperlax.cli import main
from hyperlax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
chaos = runpy.run_path(str(ROOT / "benchmarks" / "chaos.py"))
SWEEP = dict(
    samples=[{}, {"actor_lr": 1e-3}, {"rollout_length": 8}], overrides={"total_num_envs": 4}, run_length=2048,
    num_seeds=1, num_evaluations=4, num_eval_episodes=2, winner_seeds=0, plot=False, progress=False,
)  # fmt: skip


def finish(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    assert finish(chaos["run"](chaos["SWEEP"], tmp_path / "whole"))[0] == 0
    for kind, n in (("before json", 1), ("write", 3), ("after npz", 1)):
        code, errors = finish(chaos["run"](chaos["SWEEP"], tmp_path / "killed", kind, n))
        assert code == -9, (kind, errors)
    assert finish(chaos["run"](chaos["SWEEP"], tmp_path / "killed"))[0] == 0
    whole, killed = (chaos["contents"](tmp_path / name) for name in ("whole", "killed"))
    assert len(whole) > 15 and chaos["different"](whole, killed) == []


def test_a_run_that_has_finished_is_returned_and_another_begun_beside_it(tmp_path):
    first = hyperlax.sweep("ppo_mlp", "gymnax.cartpole", output_root=tmp_path, resume=True, **SWEEP)
    again = hyperlax.sweep("ppo_mlp", "gymnax.cartpole", output_root=tmp_path, resume=True, **SWEEP)
    assert first.path == again.path and "resumed_times" not in again.info
    assert not list((first.path / "checkpoints").glob("*"))
    taken = hyperlax.sweep("ppo_mlp", "gymnax.cartpole", output_root="elsewhere", resume_from=first.path, **SWEEP)
    assert taken.path == first.path
    with pytest.raises(UserError, match=r"another run: budget_steps 2048 there, 1024 here$"):
        hyperlax.sweep(
            "ppo_mlp", "gymnax.cartpole", output_root=tmp_path, resume_from=first.path, **(SWEEP | {"run_length": 1024})
        )
    assert [path.name for path in first.path.parent.iterdir()] == ["run_001"]


def test_a_stopped_run_saves_its_lanes_and_goes_on_from_there(tmp_path, monkeypatch):
    from hyperlax.engine import scheduler

    rounds = []
    save = scheduler.Scheduler._save

    def stopped(self, lanes, slots, queue):
        rounds.append(min((slot.updates for slot in slots if slot), default=0))
        self.stop.requested |= len(rounds) == 2
        save(self, lanes, slots, queue)

    whole = hyperlax.sweep("ppo_mlp", "gymnax.cartpole", output_root=tmp_path / "whole", **SWEEP)
    monkeypatch.setattr(scheduler.Scheduler, "_save", stopped)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep("ppo_mlp", "gymnax.cartpole", output_root=tmp_path / "stopped", resume=True, **SWEEP)
    stopped_at = rounds[-1]
    run = hyperlax.load_run(tmp_path / "stopped")
    assert run.info["state"] == "interrupted" and len(run.lanes) == 0 and stopped_at > 0
    hyperlax.sweep("ppo_mlp", "gymnax.cartpole", output_root=tmp_path / "stopped", resume=True, **SWEEP)
    assert rounds[2] >= stopped_at, "it began anew"
    assert chaos["different"](chaos["contents"](whole.path), chaos["contents"](run.path)) == []


def test_one_line_says_what_cannot_be_resumed(tmp_path, capsys):
    command = ["run-single-hp", "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole"]
    assert main([*command, "--resume-from", str(tmp_path)]) == 2
    refusal = f"error: resume_from '{tmp_path}': no run in it (no run.json); give a run directory\n"
    assert capsys.readouterr().err == refusal
