"""Searches from the outside: what they write, who may share them, and what is refused."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

optuna = pytest.importorskip("optuna")
from optuna.exceptions import StorageInternalError  # noqa: E402

import hyperlax  # noqa: E402
from hyperlax.cli import main  # noqa: E402
from hyperlax.engine import scheduler  # noqa: E402
from hyperlax.errors import UserError  # noqa: E402
from hyperlax.search.storages import open_storage, without_password  # noqa: E402
from hyperlax.search.study import Study  # noqa: E402
from hyperlax.search.trials import Trials  # noqa: E402

WALL = ["wall_seconds", "wall_seconds_start", "wall_seconds_end", "lane"]
SEARCH = dict(
    num_trials=8, pruner="asha", overrides={"total_num_envs": 4, "rollout_length": 16}, run_length=2304, num_seeds=2,
    num_evaluations=9, num_eval_episodes=2, batch_size=2, winner_seeds=1, plot=False, progress=False,
)  # fmt: skip


def search(root, **changes):
    return hyperlax.optimize("ppo_mlp", "gymnax.cartpole", output_root=root, **(SEARCH | changes))


def trials_of(run):
    storage = open_storage(run.path / "study.journal")
    return storage.get_all_trials(0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return search(tmp_path_factory.mktemp("whole"))


def test_every_trial_stands_in_the_tables_as_in_the_study(whole):
    trials = trials_of(whole)
    assert len(trials) == len(whole.samples) == len(whole.summary) == 8
    states = {"COMPLETED": "COMPLETE", "PRUNED": "PRUNED"}
    by_id = whole.summary.set_index("sample_id")
    assert {"COMPLETED", "PRUNED"} == set(by_id["status"])
    for trial in trials:
        row = by_id.loc[trial.number]
        assert states[row["status"]] == trial.state.name
        assert trial.params["gamma"] == row["gamma"]
        assert trial.values == pytest.approx([row["final_return"]])
        curve = whole.evaluations[whole.evaluations["sample_id"] == trial.number].groupby("grid_step")["mean_return"]
        assert list(trial.intermediate_values) == sorted(curve.groups)
        last = max(trial.intermediate_values)
        assert trial.intermediate_values[last] == pytest.approx(row["final_return"])
    assert whole.info["trials"] == dict(by_id["status"].value_counts())
    assert whole.info["winner"]["sample_id"] == by_id[by_id["status"] == "COMPLETED"]["final_return"].idxmax()
    act = hyperlax.load_policy(whole.path, whole.info["winner"]["sample_id"])
    assert act(np.zeros(4, np.float32)) in (0, 1)


def test_a_trial_computes_what_the_same_sample_does_in_a_sweep(whole, tmp_path):
    completed = whole.summary[whole.summary["status"] == "COMPLETED"]["sample_id"].iloc[0]
    sample = whole.samples[whole.samples["sample_id"] == completed]
    settings = {name: SEARCH[name] for name in ("overrides", "run_length", "num_seeds", "num_evaluations")}
    alone = hyperlax.sweep(
        "ppo_mlp", "gymnax.cartpole", samples=sample, num_eval_episodes=2, winner_seeds=0, plot=False, progress=False,
        output_root=tmp_path, **settings,
    )  # fmt: skip
    there = whole.evaluations[whole.evaluations["sample_id"] == completed].sort_values(["seed", "grid_step"])
    here = alone.evaluations.sort_values(["seed", "grid_step"])
    np.testing.assert_allclose(there["mean_return"].to_numpy()[:2], here["mean_return"].to_numpy()[:2])


def test_a_search_that_was_stopped_goes_on_to_the_same_end_and_can_be_made_longer(whole, tmp_path, monkeypatch):
    calls, save = [], scheduler.Scheduler._save

    def stopped(self, lanes, slots, queue):
        calls.append(None)
        self.stop.requested |= len(calls) == 9
        save(self, lanes, slots, queue)

    monkeypatch.setattr(scheduler.Scheduler, "_save", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, resume=True)
    stopped_run = hyperlax.load_run(tmp_path)
    assert stopped_run.info["state"] == "interrupted" and 0 < len(stopped_run.samples) < 8
    with monkeypatch.context() as patch:  # lanes go on where they were: no first task is asked for
        patch.setattr(Trials, "first", None)
        again = search(tmp_path, resume=True)
    assert again.path == stopped_run.path
    for name in ("samples", "evaluations", "metrics", "lanes"):
        one, other = (getattr(run, name).drop(columns=WALL, errors="ignore") for run in (whole, again))
        pd.testing.assert_frame_equal(one, other)
    assert again.info["winner"] == whole.info["winner"]
    assert search(tmp_path, resume=True).info["state"] == "finished"
    more = search(tmp_path, resume=True, num_trials=10)
    assert more.path == again.path and len(more.summary) == len(trials_of(more)) == 10
    kept = more.evaluations[more.evaluations["sample_id"] < 8]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), again.evaluations)


@pytest.fixture
def postgres(tmp_path):
    """The URL of a PostgreSQL server of the test's own."""
    pytest.importorskip("psycopg")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hyperlax-postgres-", dir="/tmp"))
    as_user = []
    if os.getuid() == 0:  # which the server refuses to run as
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = dict(check=True, stdout=subprocess.DEVNULL, cwd=folder)
    subprocess.run(
        [*as_user, programs[-1].with_name("initdb"), "-D", folder / "data", "-A", "trust", "-U", "me"], **run
    )
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    control = [*as_user, programs[-1], "-D", folder / "data", "-w", "-l", folder / "log"]
    subprocess.run([*control, "-o", settings, "start"], **run)
    yield f"postgresql://me:secret@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder)


def test_several_objectives_have_several_best_trials(tmp_path):
    names = ["final_return", "num_params"]
    run = search(tmp_path, objectives=names, sampler="nsgaii", pruner="none", num_trials=4, num_seeds=1)
    values = run.summary.set_index("sample_id")[names]
    assert trials_of(run)[0].values == pytest.approx(values.loc[0].tolist())
    best = {trial["sample_id"] for trial in run.info["best_trials"]}

    def is_beaten(one):
        returns, size = values["final_return"] - values.loc[one, "final_return"], values["num_params"]
        size = size - values.loc[one, "num_params"]
        return ((returns >= 0) & (size <= 0) & ((returns > 0) | (size < 0))).any()

    assert best == {one for one in values.index if not is_beaten(one)}


@pytest.fixture(params=["journal", pytest.param("postgres", marks=pytest.mark.slow)])
def storage(request, tmp_path):
    return request.getfixturevalue("postgres") if request.param == "postgres" else str(tmp_path / "shared.journal")


def test_two_processes_share_a_study_and_a_killed_ones_trials_are_run_again(tmp_path, storage):
    words = [
        sys.executable, "-m", "hyperlax", "optuna-hp-search", "--algo-and-network-config", "ppo_mlp", "--env-config",
        "gymnax.cartpole", "--n-trials", "10", "--num-seeds", "1", "--num-evaluations", "3", "--num-eval-episodes", "2",
        "--run-length-modifier", "20480", "--set", "total_num_envs=4", "rollout_length=16", "epochs=4", "--no-plot",
        "--optuna-study-batch-size", "2", "--storage", storage, "--output-root",
    ]  # fmt: skip
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    first = subprocess.Popen([*words, str(tmp_path / "a")], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while first.poll() is None and not list((tmp_path / "a").rglob("samples.csv")):
        time.sleep(0.05)
    first.kill()  # while it trains its first trials
    first.communicate()
    others = [
        subprocess.Popen([*words, str(tmp_path / name)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for name in ("b", "c")
    ]
    for process in others:
        _, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors.decode()
    opened = open_storage(storage)
    trials = opened.get_all_trials(opened.get_all_studies()[0]._study_id)
    states = [trial.state.name for trial in trials[:10]]
    assert states == ["COMPLETE"] * 10
    runs = [hyperlax.load_run(tmp_path / name) for name in ("b", "c") if list((tmp_path / name).rglob("lanes.csv"))]
    trained = [number for run in runs for number in run.lanes["sample_id"]]
    assert sorted(trained) == list(range(10))  # each by one process, once
    last = max(runs, key=lambda run: run.info["end_time"])
    (best,) = last.info["best_trials"]
    assert best["final_return"] == max(trial.values[0] for trial in trials[:10])
    there = hyperlax.load_run(best["directory"])
    assert best["sample_id"] in set(there.lanes["sample_id"])
    assert there.info["winner"]["selected_final_return"] == pytest.approx(best["final_return"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampler", "tpee"], "unknown sampler 'tpee': did you mean tpe?"),
        (["--pruner", "medain"], "unknown pruner 'medain': did you mean median?"),
        (["--objective-names", "final_retrun"], "unknown objective 'final_retrun': did you mean final_return"),
        (["--objective-names", "final_return", "num_params", "--pruner", "asha"], "pruner 'asha' with 2 objectives"),
        (["--objective-directions", "maximise"], "unknown direction 'maximise': did you mean maximize"),
        (["--objective-directions", "maximize", "minimize"], "2 directions for 1 objectives"),
        (["--pruner", "asha", "--num-evaluations", "2"], "with 2 evaluations: accepted are 3 or more"),
        (["--pruner", "wilcoxon", "--num-seeds", "2"], "with 2 seeds: it compares seeds, accepted are 5 or more"),
        (["--n-trials", "0"], "--n-trials 0"),
        (["--storage", "postgresql://me:secret@localhost:1/none"], "storage 'postgresql://me:***@localhost:1/none'"),
        (["--storage", "sqlite:////proc/none/study.db"], "storage 'sqlite:////proc/none/study.db' cannot be reached: "),
        (["--storage", "/proc/none/study.journal"], "storage '/proc/none/study.journal' cannot be written"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, words, message):
    common = ["--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole", "--output-root", str(tmp_path)]
    assert main(["optuna-hp-search", *common, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "secret" not in error
    assert not list(tmp_path.iterdir())


def test_a_database_that_only_reads_or_that_is_lost_is_one_line(tmp_path, capsys, monkeypatch):
    words = [
        "optuna-hp-search", "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole", "--set",
        "total_num_envs=4", "rollout_length=16", "--run-length-modifier", "1152", "--num-seeds", "1", "--n-trials", "2",
        "--num-evaluations", "3", "--num-eval-episodes", "1", "--no-plot", "--num-devices", "1", "--output-root",
        str(tmp_path / "results"),
    ]  # fmt: skip
    open_storage(f"sqlite:///{tmp_path}/study.db")
    reading = f"sqlite:///file:{tmp_path}/study.db?mode=ro&uri=true"
    assert main([*words, "--storage", reading]) == 2
    error = capsys.readouterr().err
    assert "cannot be used: " in error and "readonly database" in error and error.count("\n") == 1

    def lost(*_, **__):
        raise StorageInternalError("in a commit") from OSError("server closed the connection")

    monkeypatch.setattr(Study, "finish", lost)
    assert main([*words, "--storage", f"sqlite:///{tmp_path}/study.db"]) == 1
    error = capsys.readouterr().err
    assert "error: the study's storage cannot be reached any more: server closed the connection; --resume True" in error


def test_a_study_of_another_space_is_refused(tmp_path):
    few = dict(num_trials=1, pruner="none", num_seeds=1, num_evaluations=1, run_length=256, winner_seeds=0)
    storage = str(tmp_path / "study.journal")
    search(tmp_path / "one", storage=storage, study_name="mine", **few)
    other = {"total_num_envs": 4, "rollout_length": 16, "gamma": 0.9}
    with pytest.raises(UserError, match=r"study 'mine' exists and is another: space gamma: uniform 0.9 … 0.999 there"):
        search(tmp_path / "two", storage=storage, study_name="mine", **few | {"overrides": other})
    assert not (tmp_path / "two").exists()


def test_a_dry_run_prints_a_plan_and_writes_nothing(tmp_path, capsys):
    plan = search(tmp_path, dry_run=True)
    assert "1 program" in plan.describe() and not list(tmp_path.iterdir())


def test_passwords_stay_out_of_what_is_written():
    command = "hyperlax optuna-hp-search --storage postgresql://me:se-cr.et@host:5432/db --study-name a@b:c@d"
    assert without_password(command) == command.replace("se-cr.et", "***")
    assert without_password("sqlite:////a/b.db and mysql://me@host/db") == "sqlite:////a/b.db and mysql://me@host/db"
