"""Other processes that work off a benchmark: submitit's jobs, here on this machine, and Ray's workers."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import replace

import pytest

from hyperlax.cli import main
from hyperlax.errors import RunFailed, UserError
from hyperlax.launch.benchmark import Benchmark
from hyperlax.launch.launchers import Worker, _of_slurm, check_launcher, launch
from hyperlax.launch.suite import Suite

SUITE = Suite(
    ("ppo_mlp",), ("gymnax.cartpole",), num_samples_per_run=2, run_length_modifier=512, num_seeds=1, num_evaluations=1,
    num_eval_episodes=1, set={"total_num_envs": 4, "rollout_length": 16, "epochs": 1},
)  # fmt: skip


def planned(root):
    benchmark = Benchmark.planned(root, SUITE)
    benchmark.save()
    return benchmark


def test_submitits_jobs_work_off_a_benchmark_and_are_queued_again(tmp_path):
    pytest.importorskip("submitit")
    benchmark = planned(tmp_path / "bench")
    launch("slurm", benchmark.root, 2, {}, cluster="local")
    assert benchmark.unfinished() == []
    again = Worker().checkpoint(str(benchmark.root))
    assert isinstance(again.function, Worker) and again.args == (str(benchmark.root),)


def test_when_all_jobs_fail_it_says_why(tmp_path):
    pytest.importorskip("submitit")
    (tmp_path / "bench").mkdir()
    with pytest.raises(RunFailed, match=r"all 1 workers have failed: .*no benchmark in it"):
        launch("slurm", tmp_path / "bench", 1, {}, cluster="local")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("0:30", 1), ("90:00", 90), ("24:00:00", 1440), ("0:0:1", 1), ("2-0", 2880), ("1-2:30", 1590)]
    + [("1-0:0:1", 1441)],
)
def test_a_time_limit_is_given_to_submitit_in_minutes(text, minutes):
    """With ``24:00:00`` submitit cannot tell whether a job's time is over, and queues none again."""
    pytest.importorskip("submitit")
    assert _of_slurm({"time": text, "partition": "all"}) == {"slurm_time": minutes, "slurm_partition": "all"}


def slurm(*words):
    """What a command of SLURM says; nothing where there is none, or no cluster."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not slurm("sinfo", "-h"), reason="no SLURM; containers/slurm_single_node.sh start sets one up")
def test_jobs_of_a_real_slurm_work_off_a_benchmark_and_go_on_when_they_are_requeued(tmp_path):
    pytest.importorskip("submitit")
    longer = replace(SUITE, num_samples_per_run=4, run_length_modifier=2_000_000, num_evaluations=40)
    benchmark = Benchmark.planned(tmp_path / "bench", longer)
    benchmark.save()
    settings = {"time": "10", "cpus_per_task": "1"}
    launcher = threading.Thread(target=launch, args=("slurm", benchmark.root, 2, settings))
    launcher.start()
    while not any(file.read_text().count("\n") > 1 for file in benchmark.root.rglob("evaluations.csv")):
        time.sleep(0.5)  # pytest-timeout ends what never begins
    running = slurm("squeue", "-h", "-t", "RUNNING", "-o", "%i").split()
    assert running
    subprocess.run(["scontrol", "requeue", *running], check=True)
    launcher.join()
    assert benchmark.unfinished() == []
    assert any("resumed_times" in path.read_text() for path in benchmark.root.rglob("run.json"))


@pytest.mark.slow
def test_rays_workers_work_off_a_benchmark(tmp_path):
    ray = pytest.importorskip("ray")
    benchmark = planned(tmp_path / "bench")
    try:
        launch("ray", benchmark.root, 2, {"num_cpus": "1"})
    finally:
        ray.shutdown()
    assert benchmark.unfinished() == []


def test_what_cannot_launch_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    words = ["run-benchmark", "--algos", "ppo_mlp", "--envs", "gymnax.cartpole", "--output-root", str(tmp_path / "b")]
    for more, message in (
        (["--launcher", "slrum"], "unknown launcher 'slrum': did you mean slurm?"),
        (["--workers", "3"], "--workers 3: the local launcher is one process"),
        (["--launcher-options", "time"], "--launcher-options time: accepted is NAME=VALUE"),
        (["--launcher-options", "time=60"], "--launcher-options time: the local launcher has none"),
        (["--launcher", "slurm", "--launcher-options", "time=1 day"], "--launcher-options time=1 day: accepted are mi"),
        (["--launcher", "slurm", "--launcher-options", "tiem=5"], "unknown --launcher-options 'tiem': did you mean ti"),
        (
            ["--launcher", "ray", "--launcher-options", "num_cpus=many"],
            "--launcher ray: The type of keyword 'num_cpus'",
        ),
        (["--launcher", "ray", "--launcher-options", "cpus=2"], "--launcher ray: Invalid option keyword cpus"),
    ):
        for package in {"slurm", "ray"} & set(more):
            pytest.importorskip({"slurm": "submitit"}.get(package, package))
        assert main([*words, *more]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "b").exists()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="launcher 'slurm': there is no sbatch here"):
        check_launcher("slurm", 2, {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package ray: pip install ray"):
        check_launcher("ray", 2, {})
