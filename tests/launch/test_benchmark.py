"""Benchmarks: the grid, what a cell is, units that are killed, fail or are shared."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hyperlax
from hyperlax.cli import main
from hyperlax.environments import names
from hyperlax.errors import RunFailed, UserError
from hyperlax.launch import benchmark as launched
from hyperlax.launch.benchmark import Benchmark, Unit, run_benchmark, work
from hyperlax.launch.suite import Suite, load_suite, make_suite

FIXED = {"total_num_envs": 4, "rollout_length": 16, "epochs": 1}
SMALL = dict(
    num_samples_per_run=3, run_length_modifier=1024, num_seeds=2, num_evaluations=2, num_eval_episodes=2, set=FIXED
)
SUITE = Suite(algos=("ppo_mlp",), envs=("gymnax.cartpole",), **SMALL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_benchmark(SUITE, tmp_path_factory.mktemp("whole") / "bench", progress=False)


def cell_of(benchmark):
    (cell,) = benchmark.units
    return hyperlax.load_run(benchmark.root / cell.folder)


def test_a_cell_is_the_sweep_of_its_samples(whole, tmp_path):
    run = cell_of(whole)
    alone = hyperlax.sweep(
        "ppo_mlp", "gymnax.cartpole", num_samples=3, overrides=FIXED, run_length=1024, num_seeds=2, num_evaluations=2,
        num_eval_episodes=2, output_root=tmp_path, plot=False, progress=False,
    )  # fmt: skip
    pd.testing.assert_frame_equal(run.samples, alone.samples)
    wall = ["wall_seconds", "wall_seconds_start", "wall_seconds_end", "lane", "program"]
    for name in ("evaluations", "lanes"):
        one, other = (getattr(r, name).drop(columns=wall, errors="ignore") for r in (run, alone))
        pd.testing.assert_frame_equal(one, other)
    assert run.info["winner"] == alone.info["winner"]
    assert len(list((run.path / "policies").iterdir())) == 6
    assert {path.name for path in run.path.iterdir()} >= {"sweep.png", "summary.csv", "metrics.csv"}
    assert not (run.path / "units").exists()
    numbers = [row["program"] for row in run.info["programs"]]
    assert numbers == sorted(set(numbers)) and set(run.lanes["program"]) == set(run.rounds["program"]) == set(numbers)
    ends = run.lanes.groupby("program")["wall_seconds_end"].max()
    assert ends.is_monotonic_increasing and ends.max() <= run.info["seconds"] + 1
    table = pd.read_csv(whole.root / "benchmark.csv")
    assert table.loc[0, "best"] == pytest.approx(run.summary["final_return"].max())


def test_a_benchmark_that_was_stopped_goes_on_and_another_is_refused(whole, tmp_path, monkeypatch):
    root, real = tmp_path / "bench", launched.sweep

    def stopped(*args, **kwargs):
        if kwargs.get("dry_run"):
            return real(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(launched, "sweep", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(SUITE, root, resume=True, progress=False)
    monkeypatch.setattr(launched, "sweep", real)
    with pytest.raises(UserError, match="holds a benchmark: --resume True goes on"):
        run_benchmark(SUITE, root, progress=False)
    with pytest.raises(UserError, match="holds another benchmark: num_seeds 2 there, 1 here"):
        run_benchmark(Suite(("ppo_mlp",), ("gymnax.cartpole",), **SMALL | {"num_seeds": 1}), root, resume=True)
    again = run_benchmark(SUITE, root, resume=True, progress=False)
    np.testing.assert_array_equal(cell_of(again).summary["final_return"], cell_of(whole).summary["final_return"])
    before = (root / "benchmark.json").read_text()
    monkeypatch.setattr(launched, "sweep", stopped)  # nothing is left to train
    assert run_benchmark(SUITE, root, resume=True, progress=False).unfinished() == []
    assert run_benchmark(SUITE, tmp_path / "other", resume_from=root, progress=False).root == root
    with pytest.raises(UserError, match=r"resume_from '.*other': no benchmark in it \(no benchmark.json\)"):
        run_benchmark(SUITE, root, resume_from=tmp_path / "other")
    assert (root / "benchmark.json").read_text() == before


def test_several_processes_take_units_in_turn_and_none_twice(tmp_path, monkeypatch):
    root, taken, real = tmp_path / "bench", [], launched.sweep
    suite = Suite(("ppo_mlp", "pqn_mlp"), ("gymnax.cartpole",), **SMALL | {"num_seeds": 1})
    Benchmark.planned(root, suite).save()

    def counted(*args, **kwargs):
        taken.append((kwargs["recipe"], tuple(sample.sample_id for sample in kwargs["samples"])))
        return real(*args, **kwargs)

    monkeypatch.setattr(launched, "sweep", counted)
    workers = [threading.Thread(target=work, args=(root,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    work(root)  # whoever ended first may have left the other's cell for the end
    done = Benchmark.opened(root)
    assert done.unfinished() == [] and sorted(taken) == sorted(set(taken))
    assert {recipe for recipe, _ in taken} == {"ppo_mlp", "pqn_mlp"}


def test_what_fails_costs_no_other_cell_its_results(tmp_path, monkeypatch):
    suite = Suite(("ppo_mlp", "pqn_mlp"), ("gymnax.cartpole",), **SMALL | {"num_seeds": 1})
    real = launched.sweep

    def failing(*args, **kwargs):
        if kwargs["recipe"] == "pqn_mlp" and not kwargs.get("dry_run"):
            raise RuntimeError("out of luck")
        return real(*args, **kwargs)

    monkeypatch.setattr(launched, "sweep", failing)
    with pytest.raises(RunFailed, match=r"1 of 2 cells failed in part; pqn_mlp on gymnax.cartpole, batched: .*luck"):
        run_benchmark(suite, tmp_path / "bench", progress=False)
    assert len(pd.read_csv(tmp_path / "bench" / "benchmark.csv")) == 1
    monkeypatch.setattr(launched, "sweep", real)
    assert run_benchmark(suite, tmp_path / "bench", resume=True, progress=False).unfinished() == []


def test_of_two_that_begin_at_once_one_plans_and_the_other_helps(tmp_path, monkeypatch):
    suite = Suite(("ppo_mlp",), ("gymnax.cartpole",), **SMALL | {"num_seeds": 1})
    planned, begun = Benchmark.planned, []

    def slowly(root, suite):
        benchmark = planned(root, suite)
        if not begun:
            begun.append(launched._begin(planned(root, suite)))  # the other, meanwhile
        return benchmark

    monkeypatch.setattr(Benchmark, "planned", slowly)
    with pytest.raises(UserError, match="holds a benchmark: --resume True goes on with it"):
        run_benchmark(suite, tmp_path / "bench", progress=False)
    assert begun == [True]
    plan = (tmp_path / "bench" / "benchmark.json").read_bytes()
    assert launched._begin(planned(tmp_path / "bench", suite)) is False
    assert (tmp_path / "bench" / "benchmark.json").read_bytes() == plan


def test_a_unit_that_another_plan_had_other_samples_in_is_not_done(whole):
    unit = Unit(next(iter(whole.units)), cell_of(whole).path, (0, 1, 2), 1.0, 1)
    assert unit.is_done and not replace(unit, samples=(0, 1)).is_done and not replace(unit, samples=(0, 1, 3)).is_done


def test_a_pair_that_cannot_be_trained_is_skipped(tmp_path):
    suite = Suite(("pqn_cnn", "ppo_mlp"), ("gymnax.cartpole",), **SMALL)
    done = run_benchmark(suite, tmp_path / "bench", dry_run=True)
    assert [cell.recipe for cell in done.units] == ["ppo_mlp"]
    ((cell, why),) = done.skipped.items()
    assert cell.recipe == "pqn_cnn" and "a convolutional network needs images" in why


def test_cells_that_no_worker_has_finished_are_a_failure(tmp_path):
    suite = Suite(("ppo_mlp",), ("gymnax.cartpole",), **SMALL)
    with pytest.raises(RunFailed, match=r"1 of 1 cells are not finished, .*: a worker has failed; .* --resume True"):
        run_benchmark(suite, tmp_path / "bench", launcher=lambda root: None, progress=False)


def test_the_published_command_plans(tmp_path, capsys):
    recipes = [f"benchmarked.01_static_qmc_sampling_S64.{a}_{n}" for a in ("dqn", "sac") for n in ("mlp", "tmlp")]
    words = ["run-benchmark", "--algos", *recipes, "--envs", "gymnax.cartpole", "gymnax.pendulum"]
    words += ["--num-samples-per-run", "4", "--sweep-modes", "sequential", "--run-length-modifier", "long"]
    words += ["--sampling-method", "qmc_sobol", "--output-root", str(tmp_path / "bench"), "--dry-run"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("skipped: ") for line in lines) == 2 and "6 cells" in lines[-1]
    assert not (tmp_path / "bench").exists()


def test_suites_are_files_and_options_replace_their_entries():
    suite = make_suite("ppo_mlp_vs_drpqc", num_samples_per_run=5, num_seeds=None)
    assert suite.algos[1].endswith("ppo_drpqc") and suite.num_samples_per_run == 5 and suite.num_seeds == 2
    for name, pairs in (("ppo_mlp_vs_drpqc", 4), ("published", 27)):
        suite = Suite(**load_suite(name))
        assert set(suite.envs) <= set(names())
        light = [env for env in suite.envs if not env.startswith("brax.")]  # which may be missing
        cells, skipped = replace(suite, envs=light).cells()
        assert cells and len(cells) + len(skipped) == pairs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to run: give --algos, or a suite with --base-config"),
        (["--base-config", "ppo_mlp_vs_drpq"], "unknown suite 'ppo_mlp_vs_drpq': did you mean ppo_mlp_vs_drpqc?"),
        (["--algos", "ppo_mpl", "--envs", "gymnax.cartpole"], "unknown recipe 'ppo_mpl'"),
        (["--algos", "ppo_mlp", "--envs", "gymnax.cartpol"], "unknown environment 'gymnax.cartpol'"),
        (["--algos", "ppo_mlp", "--envs", "gymnax.cartpole", "--sweep-modes", "batch"], "unknown sweep mode 'batch'"),
        (["--algos", "dqn_mlp", "--envs", "gymnax.pendulum"], "nothing can be run: dqn cannot take the continuous"),
        (["--algos", "ppo_mlp", "--envs", "gymnax.cartpole", "--set", "gama=1"], "unknown hyperparameter 'gama'"),
        (["--algos", "ppo_mlp", "--envs", "gymnax.cartpole", "--num-samples-per-run", "0"], "--num-samples-per-run 0"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, words, message):
    assert main(["run-benchmark", *words, "--output-root", str(tmp_path / "bench")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "bench").exists()


def test_a_file_with_an_unknown_entry_or_a_wrong_value_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    for text, message in (
        ('algoz = ["ppo_mlp"]', "unknown entry of .* 'algoz': did you mean algos?"),
        ("algos = [", "mine.toml: Invalid"),
        ('algos = "ppo_mlp"\nenvs = ["gymnax.cartpole"]', "algos 'ppo_mlp': accepted is a list of names"),
        ('algos = [1]\nenvs = ["b"]', r"algos \[1\]: accepted is a list of names"),
        ('algos = ["a"]\nenvs = ["b"]\nsampling_method = ["c"]', "unknown sampling method"),
        ('algos = ["ppo_mlp"]\nenvs = ["gymnax.cartpole"]\nseed = -1', "seed -1: accepted is a whole number"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            make_suite(str(file))


def test_a_damaged_plan_is_named(whole, tmp_path):
    (tmp_path / "benchmark.json").write_text(json.dumps({"suite": {}}))
    with pytest.raises(UserError, match=r"benchmark.json': damaged"):
        Benchmark.opened(tmp_path)
