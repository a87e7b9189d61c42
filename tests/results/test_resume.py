"""What a resumed run takes over from one that was cut short, or damaged."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from hyperlax.errors import UserError
from hyperlax.results import RunWriter, load_run
from hyperlax.results.directory import create_run_directory
from hyperlax.results.lock import DirectoryLock
from hyperlax.results.resume import Mark, latest_run, run_at, take_up
from hyperlax.runs import run_directory
from hyperlax.spaces.files import Sample

SAMPLES = [Sample(i, {"lr": 0.1 * i}) for i in range(4)]
REQUEST = {"recipe": "ppo_mlp", "budget_steps": 20}


@pytest.fixture
def directory(tmp_path):
    """A run: sample 0 has completed, 1 was on its way, 2 has diverged, 3 has failed."""
    path = tmp_path / "ppo_mlp" / "gymnax_cartpole" / "run_001"
    writer = RunWriter(path, {"request": REQUEST, "planned_memory": 7}, SAMPLES, [0])
    for sample, steps in ((0, (10, 20)), (1, (10,)), (2, (10,)), (3, (10,))):
        for step in steps:
            key = {"sample_id": sample, "seed": 0, "env_steps": step}
            writer.evaluations([{**key, "grid_step": step, "mean_return": 1.5, "wall_seconds": step / 10}])
            writer.metrics([{**key, "loss": 0.5}])
    writer.save_policy(0, 0, {"w": np.ones(3)}, {})
    writer.lane_finished(0, 0, "COMPLETED", 20)
    writer.lane_finished(2, 0, "DIVERGED", 12, diverged_at=12)
    writer.lane_finished(3, 0, "FAILED", 10)
    return path


def rows(directory, name):
    return load_run(directory).__getattribute__(name)[["sample_id", "env_steps"]].to_numpy().tolist()


def test_what_ended_stays_and_what_goes_on_is_taken_back_to_its_mark(directory):
    (directory / ".run.json.abc.tmp").write_text("half a fi")
    taken_up = take_up(directory, {(1, 0): Mark(10, 1)}, 2, policies=True)
    assert taken_up == ({(0, 0), (2, 0)}, {(1, 0)}, 2.0, 0)
    assert rows(directory, "evaluations") == rows(directory, "metrics") == [[0, 10], [0, 20], [1, 10], [2, 10]]
    assert rows(directory, "lanes") == [[0, 20], [2, 12]]
    assert not list(directory.glob(".*.tmp"))


def test_without_a_mark_a_lane_begins_anew(directory):
    assert take_up(directory, {}, 2, policies=True).going == set()
    assert rows(directory, "evaluations") == [[0, 10], [0, 20], [2, 10]]


def test_a_mark_of_which_evaluations_are_missing_is_none(directory):
    """A machine that lost its power may have kept the checkpoint and not the last rows."""
    assert take_up(directory, {(1, 0): Mark(20, 2)}, 2, policies=True).going == set()


@pytest.mark.parametrize("damage", ["evaluation", "metric", "policy", "no policy", "lane", "header"])
def test_what_is_damaged_is_named_and_trained_again(directory, caplog, damage):
    file = {
        "evaluation": directory / "evaluations.csv",
        "header": directory / "evaluations.csv",
        "metric": directory / "metrics.csv",
        "lane": directory / "lanes.csv",
    }.get(damage, directory / "policies" / "sample_000000_seed_0.npz")
    content = file.read_bytes()
    if damage == "no policy":
        file.unlink()
    elif damage == "header":
        file.write_bytes(b"\x00\xff" + content)
    else:
        file.write_bytes(content.replace(b"\n0,", b"\n\xff\x00,", 1) if file.suffix == ".csv" else content[:-30])
    taken_up = take_up(directory, {}, 2, policies=True)
    kept = set() if damage == "header" else {(2, 0)}
    assert taken_up.settled == kept
    named = file.name if damage != "no policy" and file.suffix == ".csv" else "of 1 trainings results are missing"
    assert named in caplog.text
    assert [0, 10] not in rows(directory, "evaluations")


def test_a_directory_is_written_by_one_process_at_a_time(directory):
    with DirectoryLock(directory), pytest.raises(UserError, match=f"is being written by process {os.getpid()} on "):
        DirectoryLock(directory)
    DirectoryLock(directory).__exit__()


def test_a_directory_that_another_process_is_beginning_is_not_taken(tmp_path, monkeypatch):
    for number in (1, 2):
        (tmp_path / "ppo" / "cartpole" / f"run_00{number}").mkdir(parents=True)
    (tmp_path / "ppo" / "cartpole" / "run_001" / "study.journal").touch()  # of a search that compiles

    def begun(resume):
        with run_directory(None, tmp_path, "ppo", "cartpole", resume) as directory:
            return directory.name

    with DirectoryLock(tmp_path / "ppo" / "cartpole" / "run_001"):
        assert begun(resume=True) == "run_002"
        with DirectoryLock(tmp_path / "ppo" / "cartpole" / "run_002"):
            assert begun(resume=True) == "run_003"
    assert begun(resume=True) == "run_001" and begun(resume=False) == "run_004"


def test_where_another_process_takes_a_new_directory_another_is_made(tmp_path, monkeypatch):
    locks = []

    def taken(*args):
        directory = create_run_directory(*args)
        if not locks:
            locks.append(DirectoryLock(directory))  # of a process that resumes
        return directory

    monkeypatch.setattr("hyperlax.runs.create_run_directory", taken)
    with run_directory(None, tmp_path, "ppo", "cartpole", resume=False) as directory, locks[0]:
        assert directory.name == "run_002"
        with pytest.raises(UserError, match="is being written by process"):
            DirectoryLock(directory)


def test_without_locks_nobody_is_sure_of_a_directory(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with DirectoryLock(tmp_path) as lock:
        assert lock.held and lock.directory == tmp_path
    monkeypatch.setattr("fcntl.flock", none)
    with DirectoryLock(tmp_path) as lock:
        assert not lock.held and "cannot be locked" in caplog.text
    (tmp_path / "ppo" / "cartpole" / "run_001").mkdir(parents=True)
    with run_directory(None, tmp_path, "ppo", "cartpole", resume=True) as directory:
        assert directory.name == "run_002"


def test_the_run_that_was_asked_the_same_is_found(directory):
    parent = directory.parent
    assert latest_run(parent, REQUEST) == (directory, False, 7)
    assert latest_run(parent, {**REQUEST, "budget_steps": 30}) is None
    assert latest_run(parent / "nothing", REQUEST) is None
    assert run_at(directory, REQUEST) == (directory, False, 7)


def test_another_run_is_refused_and_what_differs_is_said(directory, tmp_path):
    with pytest.raises(UserError) as refusal:
        run_at(directory, {"recipe": "ppo_mlp", "budget_steps": 30, "seed": 1})
    assert str(refusal.value).endswith(": another run: budget_steps 20 there, 30 here; seed null there, 1 here")
    with pytest.raises(UserError, match="no run in it"):
        run_at(tmp_path, REQUEST)
    (directory / "run.json").write_text("{half")
    with pytest.raises(UserError, match="damaged"):
        run_at(directory, REQUEST)
    assert latest_run(directory.parent, REQUEST) is None
