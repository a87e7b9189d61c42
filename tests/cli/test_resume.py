"""Runs that are killed, really, and go on; `make chaos` does it many times."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hyperlax
from hyperlax.cli import main
from hyperlax.errors import CannotWrite, UserError

ROOT = Path(__file__).resolve().parents[2]
chaos = runpy.run_path(str(ROOT / "benchmarks" / "chaos.py"))
SWEEP = dict(
    samples=[{}, {"actor_lr": 1e-3}, {"rollout_length": 8}], overrides={"total_num_envs": 4}, run_length=2048,
    num_seeds=1, num_evaluations=4, num_eval_episodes=2, winner_seeds=0, plot=False, progress=False,
)  # fmt: skip


def sweep(root, **changes):
    return hyperlax.sweep("ppo_mlp", "gymnax.cartpole", output_root=root, resume=True, **(SWEEP | changes))


def finish(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    assert finish(chaos["run"](chaos["SWEEP"], tmp_path / "whole"))[0] == 0
    for kind, n in (("write", 3), ("after npz", 2)):
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


@pytest.mark.usefixtures("compiled_once")
def test_lanes_are_saved_before_submitit_queues_a_job_again(tmp_path, monkeypatch):
    from hyperlax.engine import scheduler

    rounds = []

    def signalled(self, *args):
        rounds.append(None)
        if len(rounds) == 2:
            signal.raise_signal(signal.SIGUSR2)
        return advance(self, *args)

    advance = scheduler.Scheduler._round
    monkeypatch.setattr(scheduler.Scheduler, "_round", signalled)
    before = signal.signal(signal.SIGUSR2, lambda *_: sys.exit(-1))  # as submitit's handler does in the end
    try:
        with pytest.raises(SystemExit):
            sweep(tmp_path)
    finally:
        signal.signal(signal.SIGUSR2, before)
    run = hyperlax.load_run(tmp_path)
    assert run.info["state"] == "interrupted" and list((run.path / "checkpoints").glob("*.npz"))
    assert sweep(tmp_path).path == run.path


def test_one_line_says_what_cannot_be_resumed(tmp_path, capsys):
    command = ["run-single-hp", "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole"]
    assert main([*command, "--resume-from", str(tmp_path)]) == 2
    refusal = f"error: resume_from '{tmp_path}': no run in it (no run.json); give a run directory\n"
    assert capsys.readouterr().err == refusal


@pytest.mark.usefixtures("compiled_once", "many_checkpoints")
def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path, disk, differences):
    whole = sweep(tmp_path / "whole")
    for writes in (1, 20):
        disk.fails(writes)
        with pytest.raises(CannotWrite, match=r"No space left on device; results so far: .*run_001; the same command"):
            sweep(tmp_path / "full")
    disk.fails(None)
    assert "FAILED" not in set(hyperlax.load_run(tmp_path / "full").lanes["status"])
    assert differences(whole.path, sweep(tmp_path / "full").path) == []


def mount(folder, options):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.fixture
def small(tmp_path):
    """A file system of its own of 24 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        mounted = mount(folder, "size=24k")
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.usefixtures("compiled_once")
def test_a_small_file_system_fills_up_and_grows_and_is_made_read_only(tmp_path, small, capsys, differences):
    with pytest.raises(CannotWrite, match="No space left on device; results so far: "):
        sweep(small)
    assert mount(small, "remount,size=10m")
    there = sweep(small)
    assert differences(there.path, sweep(tmp_path / "whole").path) == []
    assert mount(small, "remount,ro")
    assert sweep(small).path == there.path  # has finished
    with pytest.raises(UserError, match="cannot make a run directory there: Read-only file system"):
        sweep(small, seed=1)


def test_a_run_whose_directory_cannot_be_written_to_is_refused(tmp_path):
    run = sweep(tmp_path)
    (run.path / "summary.csv").unlink()  # so that something is left to do
    (run.path / ".lock").unlink()
    (run.path / ".lock").mkdir()
    with pytest.raises(UserError, match="run_001' cannot be written to: Is a directory"):
        sweep(tmp_path)


def test_a_picture_that_is_missing_is_drawn(tmp_path):
    run = sweep(tmp_path)
    assert not (run.path / "sweep.png").exists()
    sweep(tmp_path, plot=True)
    assert (run.path / "sweep.png").exists()
