"""Searches that are killed, whose disk is full or whose files are damaged end as if nothing had happened."""

from __future__ import annotations

import random
import shutil
import signal

import pytest

pytest.importorskip("optuna")

import hyperlax
from hyperlax.cli import main
from hyperlax.engine.scheduler import Scheduler
from hyperlax.errors import CannotWrite, UserError
from hyperlax.results.lock import DirectoryLock
from hyperlax.search.run import Search

SEARCH = dict(
    num_trials=4, pruner="asha", overrides={"total_num_envs": 4, "rollout_length": 16}, run_length=1152, num_seeds=1,
    num_evaluations=3, num_eval_episodes=1, batch_size=2, winner_seeds=1, num_devices=1, plot=False, progress=False,
)  # fmt: skip
WORDS = [
    "optuna-hp-search", "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole", "--n-trials", "4",
    "--pruner", "asha", "--set", "total_num_envs=4", "rollout_length=16", "--run-length-modifier", "1152",
    "--num-seeds", "1", "--num-evaluations", "3", "--num-eval-episodes", "1", "--no-plot", "--num-devices", "1",
    "--optuna-study-batch-size", "2",
]  # fmt: skip

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
        disk.fails(int(rng.expovariate(1 / 40)) if struck < 5 else None, killed())
        try:
            search(tmp_path)
        except killed:
            struck += 1
        else:
            break
    assert struck >= 4 and differences(whole, tmp_path) == []


def test_a_full_disk_is_one_line_and_nothing_is_lost(whole, tmp_path, disk, differences):
    for writes in (0, 5, 60):  # in the study, before anything has run, and while lanes train
        disk.fails(writes)
        with pytest.raises(CannotWrite, match=r"No space left on device; results so far: .*run_001; the same command"):
            search(tmp_path)
    disk.fails(None)
    search(tmp_path)
    assert differences(whole, tmp_path) == []


def test_a_signal_saves_and_says_how_to_go_on(whole, tmp_path, capsys, monkeypatch, differences):
    words = [*WORDS, "--output-root", str(tmp_path), "--resume", "True"]

    def signals_before(kind, name, which):
        """Sends a signal before a method is called for the so many-th time."""
        method, calls = getattr(kind, name), []

        def called(self, *args):
            calls.append(None)
            if len(calls) == which:
                signal.raise_signal(signal.SIGINT)
            return method(self, *args)

        monkeypatch.setattr(kind, name, called)

    signals_before(Scheduler, "_round", 4)
    signals_before(Search, "_retrained", 1)
    for _ in range(2):
        assert main(words) == 130
        (run_directory,) = tmp_path.glob("ppo_mlp/gymnax_cartpole/run_*")
        assert hyperlax.load_run(run_directory).info["state"] == "interrupted"
        hint = f"interrupted; results so far: {run_directory}; the same command with --resume True goes on\n"
        assert capsys.readouterr().err.endswith(hint)
    assert main(words) == 0
    assert differences(whole, tmp_path) == []


DAMAGED = ["evaluations.csv", "metrics.csv", "lanes.csv", "samples.csv", "summary.csv", "policies"]


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("how", ["cut short", "overwritten"])
def test_what_is_damaged_in_a_search_that_has_finished_is_named_and_made_again(
    whole, tmp_path, caplog, differences, name, how
):
    shutil.copytree(whole, tmp_path / "there")
    (directory,) = (tmp_path / "there").glob("ppo_mlp/gymnax_cartpole/run_001")
    file = directory / name if name != "policies" else sorted((directory / name).iterdir())[0]
    content = file.read_bytes()
    file.write_bytes(content[: 2 * len(content) // 3] if how == "cut short" else b"\x00\xff\n" * 40)
    search(tmp_path / "there")
    assert (file.name) in caplog.text
    assert differences(whole, tmp_path / "there") == []


@pytest.mark.parametrize("how", ["cut short", "overwritten"])
def test_a_damaged_journal_costs_a_search_that_has_finished_no_results(whole, tmp_path, caplog, how):
    shutil.copytree(whole, tmp_path / "there")
    (directory,) = (tmp_path / "there").glob("ppo_mlp/gymnax_cartpole/run_001")
    file = directory / "study.journal"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 3] if how == "cut short" else b"\x00\xff\n" * 40)
    kept = {path: path.read_bytes() for path in directory.rglob("*.csv")} | {file: file.read_bytes()}
    search(tmp_path / "there")
    assert f"{file} is damaged: the search may not be made longer" in caplog.text
    with pytest.raises(UserError, match=r"study 'ppo_mlp@gymnax.cartpole' is another or damaged: it lacks trials .* 3"):
        search(tmp_path / "there", num_trials=6)
    damaged = kept.pop(file)
    if how == "overwritten":
        assert (directory / "study.journal.damaged").read_bytes() == damaged
    assert kept == {path: path.read_bytes() for path in directory.rglob("*.csv")}


def test_who_resumes_beside_another_at_the_same_study_takes_a_directory_of_its_own(tmp_path):
    shared = dict(storage=str(tmp_path / "a.journal"))
    first = search(tmp_path, **shared)
    with DirectoryLock(first.path):
        second = search(tmp_path, **shared)
    assert second.path.name == "run_002" and len(second.samples) == 0
    assert search(tmp_path, **shared).path in (first.path, second.path)


def test_a_study_that_is_gone_costs_a_shared_search_no_results(tmp_path):
    run = search(tmp_path, storage=str(tmp_path / "a.journal"))
    kept = {path: path.read_bytes() for path in run.path.rglob("*.csv")}
    (tmp_path / "a.journal").unlink()
    with pytest.raises(UserError, match="it lacks trials 0, 1, 2, 3 of"):
        search(tmp_path, storage=str(tmp_path / "a.journal"))
    assert kept == {path: path.read_bytes() for path in run.path.rglob("*.csv")}


def test_a_damaged_checkpoint_is_named_and_its_lanes_begin_anew(
    whole, tmp_path, caplog, disk, killed, many_checkpoints, differences
):
    disk.fails(100, killed())
    with pytest.raises(killed):
        search(tmp_path)
    (file,) = tmp_path.rglob("program_000.npz")
    file.write_bytes(file.read_bytes()[:1000])
    disk.fails(None)
    search(tmp_path)
    assert f"{file} is damaged" in caplog.text
    assert differences(whole, tmp_path) == []


def test_a_damaged_run_json_is_named_and_another_run_begins(tmp_path, caplog):
    search(tmp_path, num_trials=1, winner_seeds=0)
    (file,) = tmp_path.rglob("run.json")
    file.write_text('{"half": ')
    assert search(tmp_path, num_trials=1, winner_seeds=0).path.name == "run_002"
    assert f"{file} is damaged" in caplog.text


def test_a_second_process_at_one_search_is_refused(tmp_path):
    search(tmp_path, num_trials=1, winner_seeds=0)
    (directory,) = tmp_path.glob("ppo_mlp/gymnax_cartpole/run_001")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with DirectoryLock(directory), pytest.raises(UserError, match="is being written by process"):
        search(tmp_path, num_trials=2, winner_seeds=0)
    assert {path: before[path] for path in before if path.name != ".lock"} == {
        path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_a_search_of_other_code_or_another_recipe_is_refused_and_what_differs_is_said(whole, caplog, monkeypatch):
    (directory,) = whole.glob("ppo_mlp/gymnax_cartpole/run_001")
    with pytest.raises(UserError, match=r'another run: recipe "ppo_mlp" there, "ppo_mlp_no_network_search" here'):
        hyperlax.optimize("ppo_mlp_no_network_search", "gymnax.cartpole", resume_from=directory, **SEARCH)
    monkeypatch.setattr("hyperlax.results.resume.code_digest", lambda: "0123456789ab")
    with pytest.raises(UserError, match=r'another run: code "hyperlax .*" there, "hyperlax .* 0123456789ab" here$'):
        search(whole, resume_from=directory)
    search(whole, dry_run=True)
    assert "run_001 is another run: code " in caplog.text


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_disk_that_is_full_from_the_start_ends_in_one_line(tmp_path, capsys, disk, writes):
    disk.fails(writes)
    assert main([*WORDS, "--output-root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "error: " in said and "No space left on device; results so far: " in said and "Traceback" not in said
