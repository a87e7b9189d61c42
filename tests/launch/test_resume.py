"""Benchmarks that are killed, whose disk is full or whose files are damaged end as if nothing had happened."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from dataclasses import replace

import pytest

from hyperlax.cli import main
from hyperlax.engine import scheduler
from hyperlax.errors import CannotWrite, UserError
from hyperlax.launch import benchmark as launched
from hyperlax.launch.benchmark import Benchmark, run_benchmark, work
from hyperlax.launch.suite import Suite
from hyperlax.results import load_run
from hyperlax.results.lock import DirectoryLock

SUITE = Suite(
    ("ppo_mlp", "pqn_mlp"), ("gymnax.cartpole",), num_samples_per_run=2, run_length_modifier=512, num_seeds=1,
    num_evaluations=2, num_eval_episodes=1, set={"total_num_envs": 4, "rollout_length": 16, "epochs": 1},
)  # fmt: skip

APART = replace(SUITE, algos=("ppo_mlp",), sweep_modes=("sequential",), num_samples_per_run=3)

pytestmark = pytest.mark.usefixtures("compiled_once")


def benchmark(root, suite=SUITE):
    return run_benchmark(suite, root / "bench", resume=True, progress=False)


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
        disk.fails(int(rng.expovariate(1 / 25)) if struck < 4 else None, killed())
        try:
            benchmark(tmp_path)
        except killed:
            struck += 1
        else:
            break
    assert struck >= 3 and differences(whole, tmp_path) == []


def test_a_full_disk_is_one_line_and_nothing_is_lost(whole, tmp_path, disk, differences):
    disk.fails(0)
    with pytest.raises(UserError, match=r"cannot begin a benchmark there: No space left on device; give a directory"):
        benchmark(tmp_path)
    for writes in (5, 40):
        disk.fails(writes)
        with pytest.raises(CannotWrite, match=r"No space left on device; results so far: .*; the same command"):
            benchmark(tmp_path)
        assert not list(tmp_path.rglob("failed.json"))
    disk.fails(None)
    benchmark(tmp_path)
    assert differences(whole, tmp_path) == []


def test_a_signal_saves_and_says_how_to_go_on(whole, tmp_path, capsys, monkeypatch, differences):
    words = ["run-benchmark", "--algos", "ppo_mlp", "pqn_mlp", "--envs", "gymnax.cartpole", "--num-samples-per-run"]
    words += ["2", "--run-length-modifier", "512", "--num-seeds", "1", "--num-evaluations", "2", "--num-eval-episodes"]
    words += ["1", "--set", "total_num_envs=4", "rollout_length=16", "epochs=1", "--no-plot", "--resume", "True"]
    words += ["--output-root"]
    words += [str(tmp_path / "bench")]
    calls = []

    def signalled(self, *args):
        calls.append(None)
        if len(calls) in (1, 4):  # the first lanes, and the winner of the first cell
            signal.raise_signal(signal.SIGINT)
        return advance(self, *args)

    advance = scheduler.Scheduler._round
    monkeypatch.setattr(scheduler.Scheduler, "_round", signalled)
    for _ in range(2):
        assert main(words) == 130
        said = capsys.readouterr().err
        assert said.count("WARNING interrupted; results so far: ") == 1
        assert said.endswith("; the same command with --resume True goes on\n")
    assert main(words) == 0
    assert len(calls) > 4
    assert differences(whole, tmp_path) == ["bench/benchmark.json"]  # where what is set stands as it was typed


@pytest.mark.parametrize("name", ["evaluations.csv", "lanes.csv", "samples.csv", "summary.csv", "run.json", "policies"])
def test_what_is_damaged_in_a_cell_is_named_and_made_again(whole, tmp_path, caplog, differences, name):
    shutil.copytree(whole, tmp_path / "there")
    file = tmp_path / "there" / "bench" / "ppo_mlp" / "gymnax_cartpole" / "batched" / name
    if name == "policies":
        file = sorted(file.iterdir())[0]
    file.write_bytes(b"\x00\xff\n" * 40 if name == "lanes.csv" else file.read_bytes()[:-100])
    benchmark(tmp_path / "there")
    assert (file.name) in caplog.text
    assert differences(whole, tmp_path / "there") == []


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A benchmark whose samples are units of their own."""
    root = tmp_path_factory.mktemp("apart")
    benchmark(root, APART)
    return root


@pytest.fixture
def trained(monkeypatch):
    """The samples that are trained."""
    real, samples = launched.sweep, []

    def counted(*args, **kwargs):
        samples.extend(sample.sample_id for sample in kwargs.get("samples", ()))
        return real(*args, **kwargs)

    monkeypatch.setattr(launched, "sweep", counted)
    return samples


@pytest.mark.parametrize(
    ("name", "again"),
    [("policies/sample_000001_seed_0.npz", [1]), ("evaluations.csv", [2]), ("metrics.csv", [2]), ("lanes.csv", [2])]
    + [("samples.csv", []), ("summary.csv", [])],
)
def test_of_a_damaged_cell_only_those_units_are_trained_again_that_lack_something(
    apart, tmp_path, trained, differences, name, again
):
    shutil.copytree(apart, tmp_path / "there")
    cell = tmp_path / "there" / "bench" / "ppo_mlp" / "gymnax_cartpole" / "sequential"
    (cell / name).write_bytes((cell / name).read_bytes()[:-10])
    benchmark(tmp_path / "there", APART)
    assert trained == again and differences(apart, tmp_path / "there") == []
    before, after = (load_run(root / cell.relative_to(tmp_path / "there")) for root in (apart, tmp_path / "there"))
    assert [row["program"] for row in after.info["programs"]] == [0, 1, 2]
    assert sorted(after.rounds["program"]) == sorted(before.rounds["program"])


@pytest.mark.usefixtures("many_checkpoints")
def test_a_damaged_cell_that_is_made_again_may_be_killed_at_any_write(apart, tmp_path, disk, killed, differences):
    rng = random.Random(0)
    struck = 0
    for number in range(6):
        shutil.copytree(apart, tmp_path / str(number))
        cell = tmp_path / str(number) / "bench" / "ppo_mlp" / "gymnax_cartpole" / "sequential"
        (cell / "policies" / "sample_000001_seed_0.npz").unlink()
        for after in (rng.randrange(30), rng.randrange(30), None):
            disk.fails(after, killed())
            try:
                benchmark(tmp_path / str(number), APART)
            except killed:
                struck += 1
        assert differences(apart, tmp_path / str(number)) == []
    assert struck >= 6


def test_without_a_damaged_plan_it_is_planned_again_and_what_has_been_trained_is_kept(
    whole, tmp_path, monkeypatch, differences
):
    shutil.copytree(whole, tmp_path / "there")
    plan = tmp_path / "there" / "bench" / "benchmark.json"
    plan.write_bytes(plan.read_bytes()[:300])
    with pytest.raises(UserError, match=r"benchmark.json': damaged: .*; without that file the same command with"):
        benchmark(tmp_path / "there")
    plan.unlink()
    monkeypatch.setattr(scheduler.Scheduler, "run", lambda self, queue: pytest.fail("something was trained again"))
    benchmark(tmp_path / "there")
    assert differences(whole, tmp_path / "there") == []


def test_a_second_process_at_one_benchmark_leaves_what_the_first_does(tmp_path, capsys):
    first = Benchmark.planned(tmp_path / "bench", SUITE)
    first.save()
    units = [unit for units in first.units.values() for unit in units]
    for unit in units:
        unit.folder.mkdir(parents=True)
    locks = [DirectoryLock(unit.folder) for unit in units]
    second = benchmark(tmp_path)
    assert second.unfinished() == list(first.units) and second.table().empty
    assert not list(tmp_path.rglob("run.json"))
    for lock in locks:
        lock.__exit__()


def test_a_finished_benchmark_in_an_archive_that_is_only_read_is_printed(tmp_path, disk, capsys):
    words = ["run-benchmark", "--algos", "ppo_mlp", "--envs", "gymnax.cartpole", "--num-samples-per-run", "2"]
    words += ["--run-length-modifier", "512", "--num-seeds", "1", "--num-evaluations", "2", "--num-eval-episodes", "1"]
    words += ["--set", "total_num_envs=4", "rollout_length=16", "epochs=1", "--resume", "True", "--output-root"]
    words += [str(tmp_path / "bench")]
    assert main(words) == 0
    said = capsys.readouterr().out
    for lock in tmp_path.rglob(".lock"):
        lock.unlink()
        lock.mkdir()
    disk.fails(0, OSError(errno.EROFS, os.strerror(errno.EROFS)))
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == said and "Read-only file system" in again.err


def test_several_processes_need_locks_and_one_does_without(tmp_path, monkeypatch, differences, whole):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    done = benchmark(tmp_path)
    assert done.unfinished() == [] and differences(whole, tmp_path) == []
    with pytest.raises(UserError, match=r"bench': several processes at a benchmark need a file system with locks"):
        work(done.root)


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"--output-root '.*bench': cannot begin a benchmark there: Not a directory"):
        benchmark(tmp_path / "file")


def test_a_benchmark_by_other_code_is_refused_and_what_differs_is_said(whole, monkeypatch):
    monkeypatch.setattr("hyperlax.results.resume.code_digest", lambda: "0123456789ab")
    with pytest.raises(UserError, match=r"begun by other code: hyperlax .* there, hyperlax .* 0123456789ab here"):
        benchmark(whole)
