"""Commands as a user types them, from the first word to the last file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from jax.experimental.compilation_cache import compilation_cache

import hyperlax
from hyperlax.cli import main
from hyperlax.engine.program import Program
from hyperlax.recipes import get_recipe

QUICK_START = [
    "sweep-hp-samples", "--algo-and-network-config", "ppo_mlp_no_network_search", "--env-config", "gymnax.pendulum",
    "--hparam-batch-size", "4", "--log-level", "INFO",
]  # fmt: skip
SHORT = ["--run-length-modifier", "2048", "--num-seeds", "2", "--num-evaluations", "4", "--num-eval-episodes", "4"]
SWEEP = ["sweep-hp-samples", "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole"]
SINGLE = ["run-single-hp", "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole"]
GENERATE = ["generate-hp-samples", "--algo-and-network-config", "ppo_mlp"]

# The first columns of every published table, and the last one; ours come after.
PUBLISHED_METRICS = [
    "hp id", "peak return", "peak timestep", "final return", "auc at budget", "stability score", "time to target",
    "early learning rate", "forgetting score",
]  # fmt: skip

# Two rows as they are published, with all their columns, and a third that is never run.
PUBLISHED_TABLE = """\
hp id,peak return,peak timestep,final return,auc at budget,stability score,time to target,early learning rate,\
forgetting score,actor network › pre torso › layer sizes,actor network › pre torso › use layer norm,\
actor network › pre torso › activation,critic network › pre torso › layer sizes,\
critic network › pre torso › use layer norm,critic network › pre torso › activation,actor lr,critic lr,gamma,\
gae lambda,clip eps,ent coef,vf coef,max grad norm,rollout length,epochs,num minibatches,total num envs,\
standardize advantages,decay learning rates,normalize observations,sample id
6,500,3506176,318.7,0.6081,0.7183,2.45e+06,0.0001981,0.3626,"[128, 128]",False,tanh,"[128, 128]",False,tanh,\
0.000118,0.0001947,0.9857,0.9363,0.3366,0.0009843,0.6471,0.477,4,4,512,4096,False,False,True,6
5,500,2752512,484.5,0.7626,0.9721,8.34e+05,7.584e-05,0.03098,"[64, 64]",True,silu,"[32, 32]",False,tanh,\
8.372e-05,0.0004422,0.9533,0.9134,0.4707,2.869e-05,0.8621,0.7288,8,1,256,1024,False,True,True,5
60,9.4,128,9.3,0,1,inf,nan,0.01,"[32, 32]",True,relu,"[64, 64]",True,silu,\
1.1e-05,2e-05,0.95,0.93,0.2,0.001,0.7,0.5,1,1,128,1024,True,True,True,60
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind but for its files."""

    code: int
    out: str
    err: str


def _hyperlax(*argv: str | Path) -> Outcome:
    """Runs a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps all compiled programs, for this process and those beside it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The quick start with a smaller budget: its output root and what it printed."""
    root = tmp_path_factory.mktemp("quick") / "results" / "quickstart_classical"
    return root, _hyperlax(*QUICK_START, *SHORT, "--num-samples", "4", "--output-root", root)


@pytest.fixture
def first(quick_start: tuple[Path, Outcome]) -> Path:
    """The run directory of the quick start."""
    return quick_start[0] / "ppo_mlp" / "gymnax_pendulum" / "run_001"


def _without_times(file: Path) -> pd.DataFrame:
    table = pd.read_csv(file).drop(columns="wall_seconds")
    return table.sort_values(["sample_id", "seed", "grid_step"], ignore_index=True)


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_the_quick_start_prints_a_table_and_where_everything_is(quick_start: tuple[Path, Outcome], first: Path) -> None:
    _, outcome = quick_start
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("Best 4 of 4 samples")
    assert outcome.out.count("COMPLETED") == 4
    assert f"\nresults  {first}\n" in outcome.out
    assert f"\npicture  {first / 'sweep.png'}\n" in outcome.out
    assert "4/4 configurations done" in outcome.err
    assert "the plan" in outcome.err  # --log-level INFO


def test_the_summary_has_one_row_a_sample_under_the_published_headers(first: Path) -> None:
    table = pd.read_csv(first / "summary.csv")
    assert list(table.columns[:9]) == PUBLISHED_METRICS
    assert sorted(table["sample id"]) == [0, 1, 2, 3]
    published = PUBLISHED_TABLE.split("\n", 1)[0].split(",")
    assert set(published) <= set(table.columns)
    assert list(table["final return"]) == sorted(table["final return"], reverse=True)
    assert (table["env steps"] >= 2 * 2048).all()
    assert table["forgetting score"].between(0, 1).all()
    assert table["peak return"].between(-2000, 0).all()


def test_all_samples_are_evaluated_on_one_grid(first: Path) -> None:
    table = pd.read_csv(first / "evaluations.csv")
    assert len(table) == 4 * 2 * 4
    for _, rows in table.groupby(["sample_id", "seed"]):
        assert list(rows.sort_values("grid_step")["grid_step"]) == [512, 1024, 1536, 2048]
    assert (table["env_steps"] >= table["grid_step"]).all()
    assert (table["episodes"] == 4).all()
    assert (table["min_return"] <= table["mean_return"]).all()


def test_run_json_says_what_ran(first: Path) -> None:
    info = json.loads((first / "run.json").read_text())
    assert info["recipe"] == "ppo_mlp_no_network_search"
    assert info["environment"] == "gymnax.pendulum"
    assert (info["budget_steps"], info["num_seeds"], info["seed"], info["state"]) == (2048, 2, 42, "finished")
    assert {"python", "jax", "numpy", "gymnax", "hyperlax"} <= info["versions"].keys()
    assert not any(name.startswith(("actor_network", "critic_network")) for name in info["space"])
    assert sum(program["tasks"] for program in info["programs"]) == 8
    for program in info["programs"]:
        assert program["predicted_seconds"] > 0
        assert program["run_seconds"] > 0
        assert 0 <= program["predicted_padding"] < 1
        assert 0 < program["lanes_busy"] <= 1


def test_every_policy_can_be_loaded(first: Path) -> None:
    assert len(list((first / "policies").glob("*.npz"))) == 8
    for sample_id in range(4):
        action = hyperlax.load_policy(first, sample_id, seed=1)(np.array([1.0, 0.0, 0.5], np.float32))
        assert action.shape == (1,)
        assert np.isfinite(action).all()


def test_the_same_seed_gives_the_same_results_beside_the_first(quick_start: tuple[Path, Outcome], first: Path) -> None:
    root, _ = quick_start
    before = {file: file.read_bytes() for file in _files(first) if file.is_file()}
    again = _hyperlax(*QUICK_START, *SHORT, "--num-samples", "4", "--output-root", root)
    assert again.code == 0
    second = first.with_name("run_002")
    assert f"\nresults  {second}\n" in again.out
    assert {file: file.read_bytes() for file in _files(first) if file.is_file()} == before
    assert (second / "samples.csv").read_bytes() == (first / "samples.csv").read_bytes()
    pd.testing.assert_frame_equal(
        _without_times(second / "evaluations.csv"), _without_times(first / "evaluations.csv"), check_exact=True
    )
    for policy in sorted((first / "policies").iterdir()):
        with np.load(policy) as one, np.load(second / "policies" / policy.name) as other:
            assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_sequential_gives_what_the_batch_gave(first: Path, tmp_path: Path) -> None:
    outcome = _hyperlax(
        *QUICK_START, *SHORT, "--num-samples", "2", "--sequential", "True", "--no-plot", "--output-root", tmp_path
    )
    assert outcome.code == 0, outcome.err
    alone = _without_times(tmp_path / "ppo_mlp" / "gymnax_pendulum" / "run_001" / "evaluations.csv")
    batched = _without_times(first / "evaluations.csv").query("sample_id < 2").reset_index(drop=True)
    exactly = ["sample_id", "seed", "grid_step", "env_steps", "mean_length", "episodes"]
    pd.testing.assert_frame_equal(alone[exactly], batched[exactly])
    # Float rounding differs between the shapes, and 200 steps of a pendulum let it grow.
    np.testing.assert_allclose(alone["mean_return"], batched["mean_return"], rtol=1e-3)


def test_a_published_table_is_a_samples_file(tmp_path: Path) -> None:
    file = tmp_path / "gymnax.cartpole_ppo-mlp_summary.csv"
    file.write_text(PUBLISHED_TABLE, encoding="utf-8")
    outcome = _hyperlax(
        *SWEEP, "--samples-file", file, "--num-samples", "2", "--run-length-modifier", "8192", "--num-seeds", "1",
        "--num-evaluations", "1", "--num-eval-episodes", "2", "--no-plot", "--output-root", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    ours = pd.read_csv(tmp_path / "out/ppo_mlp/gymnax_cartpole/run_001/summary.csv").set_index("sample id")
    published = pd.read_csv(file).set_index("sample id")
    assert set(ours.index) == {6, 5}
    assert set(ours["status"]) == {"COMPLETED"}
    drawn = [name for name in published.columns if name not in PUBLISHED_METRICS]
    assert len(drawn) == 21
    pd.testing.assert_frame_equal(ours.loc[[6, 5], drawn], published.loc[[6, 5], drawn])
    assert ours.loc[6, "env steps"] == 16384  # one update of 4096 environments × 4 steps


def test_samples_are_generated_once_and_trained_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "samples.csv"
    generated = _hyperlax(*GENERATE, "--num-samples", "8", "--output-file", file)
    assert (generated.code, generated.out) == (0, f"8 samples of ppo_mlp in {file}\n")
    from_file = _hyperlax(*SWEEP, "--samples-file", file, "--dry-run")
    drawn = _hyperlax(*SWEEP, "--num-samples", "8", "--dry-run")
    assert from_file.code == 0
    assert from_file.out == drawn.out


def test_a_single_run_trains_the_defaults_with_what_is_set(tmp_path: Path) -> None:
    outcome = _hyperlax(
        *SINGLE, "--set", "gamma=0.9", "rollout_length=32", "actor_network.layer_sizes=[16]", "--run-length-modifier",
        "1_024", "--num-seeds", "1", "--num-evaluations", "2", "--num-eval-episodes", "2", "--output-root", tmp_path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    run = hyperlax.load_run(tmp_path)
    row = run.summary.iloc[0]
    assert len(run.summary) == 1
    assert (row["gamma"], row["rollout_length"], row["actor_network.layer_sizes"]) == (0.9, 32, "[16]")
    assert row["total_num_envs"] == get_recipe("ppo_mlp").defaults_for("gymnax.cartpole").total_num_envs
    assert list(run.evaluations["grid_step"]) == [512, 1024]
    assert run.info["winner"] is None  # there was nothing to select from


def test_a_dry_run_prints_the_plan_and_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "compile", lambda self: pytest.fail("something was compiled"))
    outcome = _hyperlax(
        *SWEEP, "--num-samples", "8", "--run-length-modifier", "quick", "--dry-run", "--save-logs",
        "--output-root", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    header = lines[0].split()
    assert {"program", "samples", "tasks", "lanes", "padding", "memory", "seconds", "shape"} <= set(header)
    rows = [line.split() for line in lines[1:-1]]
    assert sum(int(row[header.index("samples")]) for row in rows) == 8
    assert sum(int(row[header.index("tasks")]) for row in rows) == 16
    closing = r"(\d+) programs? on \d+ devices?, \d+% padding, at most [\d.]+ [MG]iB; estimated \d+ s, .*"
    match = re.fullmatch(closing, lines[-1])
    assert match is not None, lines[-1]
    assert int(match[1]) == len(rows)
    assert not _files(tmp_path)


BAD_OPTIONS: list[tuple[list[str], str]] = [
    ([*SWEEP, "--algo-and-network-config", "ppo_mpl"], "unknown recipe 'ppo_mpl': did you mean ppo_mlp"),
    ([*SWEEP, "--env-config", "gymnax.cartpol"], "unknown environment 'gymnax.cartpol': did you mean gymnax.cartpole"),
    ([*SWEEP, "--env-config", "gymnax.cartpole@fast"], "environment 'gymnax.cartpole@fast': gymnax.cartpole has no"),
    ([*SWEEP, "--env-config", "brax.ant@fast"], "unknown backend of brax.ant 'fast': accepted: "),
    ([*SWEEP, "--sampling-method", "sobol"], "unknown sampling method 'sobol': did you mean qmc_sobol?"),
    ([*SWEEP, "--smapling-method", "lhs"], "no such option --smapling-method: did you mean --sampling-method?"),
    ([*SWEEP, "--set", "gama=0.9"], "unknown hyperparameter 'gama': did you mean gamma"),
    (
        [*SWEEP, "--set", "gamma=1.1"],
        "hyperparameter gamma got '1.1'; accepted: a finite float32, from 0 to 1",
    ),
    (
        [*SWEEP, "--set", "actor_lr=-1e-3"],
        "hyperparameter actor_lr got '-1e-3'; accepted: a finite float32, greater",
    ),
    ([*SWEEP, "--set", "actor_lr=nan"], "hyperparameter actor_lr got 'nan'; accepted: a finite float32"),
    ([*SWEEP, "--set", "actor_lr=inf"], "hyperparameter actor_lr got 'inf'; accepted: a finite float32"),
    ([*SWEEP, "--set", "epochs=0"], "hyperparameter epochs got '0'; accepted: an int32, 1 or more"),
    ([*SWEEP, "--set", "epochs=2.5"], "hyperparameter epochs got '2.5'; accepted: an int32"),
    ([*SWEEP, "--set", "actor_network.activation=rleu"], "hyperparameter actor_network.activation got 'rleu'"),
    ([*SWEEP, "--set", "actor_network.layer_sizes=[64, 0]"], "hyperparameter actor_network.layer_sizes got '[64, 0]'"),
    ([*SINGLE, "--set", "num_minibatches=3"], "num_minibatches 3 does not divide rollout_length "),
    ([*SWEEP, "--set", "num_minibatches=3"], "sample 0: num_minibatches 3 does not divide rollout_length"),
    (
        [*SWEEP, "--algo-and-network-config", "dqn_mlp", "--env-config", "gymnax.pendulum"],
        "dqn cannot take the continuous actions of gymnax.pendulum; algorithms that can: ppo, sac",
    ),
    (
        [*SWEEP, "--algo-and-network-config", "dqn_mlp", "--set", "total_buffer_size=64", "total_batch_size=128"],
        "sample 0: total_buffer_size 64 is smaller than total_batch_size 128; accepted: 128 or more",
    ),
    (
        [*SWEEP, "--algo-and-network-config", "sac_mlp", "--set", "warmup_rollout_length=1000000"],
        "warmup_rollout_length 1000000 × total_num_envs ",
    ),
    (
        [*SWEEP, "--algo-and-network-config", "ppo_tmlp", "--set", "actor_network.bond_dim=1000"],
        "sample 0: actor_network: bond_dim 1000 does not",
    ),
    (
        [*SWEEP, "--algo-and-network-config", "ppo_cnn"],
        "sample 0: actor_network: a convolutional network needs images (height, width, channels), not inputs (4,)",
    ),
    ([*SWEEP, "--num-samples", "0"], "--num-samples 0: "),
    ([*SWEEP, "--num-samples", "2097152"], "num_samples=2097152: accepted is 1 … 1048576"),
    ([*SWEEP, "--sampling-method", "grid"], "num_samples is not given: grid needs it"),
    ([*SWEEP, "--seed", "-1"], "--seed -1: "),
    ([*SWEEP, "--seed", "4294967296"], "seed 4294967296: accepted is 0 … 4294967295"),
    ([*SWEEP, "--run-length-modifier", "brief"], "run length 'brief': accepted are quick, default, long or a number"),
    ([*SWEEP, "--run-length-modifier", "0"], "--run-length-modifier 0: the number of steps is a positive whole"),
    ([*SWEEP, "--run-length-modifier", "-100"], "--run-length-modifier -100: the number of steps is a positive whole"),
    ([*SWEEP, "--run-length-modifier", "nan"], "--run-length-modifier nan: the number of steps is a positive whole"),
    ([*SWEEP, "--run-length-modifier", "1e12"], "total_timesteps 1000000000000: accepted is 1 … "),
    ([*SWEEP, "--num-evaluations", "0"], "--num-evaluations 0: "),
    ([*SWEEP, "--num-seeds", "-2"], "--num-seeds -2: "),
    ([*SWEEP, "--hparam-batch-size", "0"], "--hparam-batch-size 0: accepted are auto and a positive whole number"),
    ([*SWEEP, "--hparam-batch-size", "many"], "--hparam-batch-size many: accepted are auto and a positive"),
    ([*SWEEP, "--num-devices", "64"], "num_devices 64: this machine has 1 … "),
    ([*SWEEP, "--memory-limit-gib", "1e-5"], "memory does not suffice: "),
    ([*SWEEP, "--memory-limit-gib", "-1"], "--memory-limit-gib -1: accepted is a positive number"),
    ([*SWEEP, "--memory-limit-gib", "inf"], "--memory-limit-gib inf: accepted is a positive number"),
    ([*SWEEP, "--samples-file", "nowhere.csv"], "samples file nowhere.csv cannot be read: No such file"),
    ([*GENERATE, "--num-samples", "0", "--output-file", "x.csv"], "--num-samples 0: "),
    ([*GENERATE, "--sampling-method", "sobol", "--output-file", "x.csv"], "unknown sampling method 'sobol'"),
    (["show", "ppo_mpl"], "unknown recipe 'ppo_mpl': did you mean ppo_mlp"),
    (["show", "ppo_mlp", "--env-config", "gymnax.cartpol"], "unknown environment 'gymnax.cartpol'"),
]


def _refused(argv: list[str | Path], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command that must be refused in one line, before anything is compiled or written."""
    monkeypatch.setattr(Program, "compile", lambda self: pytest.fail("something was compiled"))
    monkeypatch.chdir(folder)
    before = _files(folder)
    outcome = _hyperlax(*argv)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith(f"error: {message}"), outcome.err
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    assert _files(folder) == before


@pytest.mark.parametrize(("argv", "message"), BAD_OPTIONS, ids=[" ".join(argv[5:]) for argv, _ in BAD_OPTIONS])
def test_bad_options_are_refused(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refused([*argv], message, tmp_path, monkeypatch)


BAD_FILES = {
    "empty": ("", "samples file {file} is empty"),
    "header only": ("sample_id,gamma\n", "{file}: there are no samples in it"),
    "semicolons": ("sample_id;gamma\n0;0.9\n", "{file}: columns seem to be separated by ';'; accepted: ','"),
    "no hyperparameter": ("seeds,status\n2,COMPLETED\n", "{file}: no column is a hyperparameter or sample_id"),
    "unknown column": (
        "sample_id,gama\n0,0.9\n",
        "{file}, column 2: unknown hyperparameter 'gama': did you mean gamma",
    ),
    "column twice": ("gamma,gamma\n0.9,0.9\n", "{file}: column 'gamma' is there twice"),
    "short row": ("sample_id,gamma\n0\n", "{file}, line 2: 1 cells, but 2 columns"),
    "open quote": ('sample_id,gamma\n0,"0.9\n', "{file}, line 2: not CSV: "),
    "missing value": ("sample_id,gamma\n0,\n", "{file}, line 2, column 'gamma': the value is missing"),
    "not a number": ("sample_id,gamma\n0,high\n", "{file}, line 2, column 'gamma': got 'high'"),
    "not finite": ("sample_id,actor lr\n0,inf\n", "{file}, line 2, column 'actor lr': got 'inf'"),
    "negative": ("sample_id,actor lr\n0,-0.1\n", "{file}, line 2, column 'actor lr': got '-0.1'"),
    "duplicate ids": ("sample_id,gamma\n3,0.9\n3,0.8\n", "{file}, line 3: sample_id 3 is taken by line 2 already"),
    "negative id": ("sample_id,gamma\n-3,0.9\n", "{file}, line 2, column 'sample_id': got '-3'"),
    "minibatches": ("sample_id,num_minibatches\n4,2\n9,3\n", "sample 9: num_minibatches 3 does not divide"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_sample_files_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = BAD_FILES[kind]
    file = tmp_path / "samples.csv"
    file.write_text(content)
    _refused([*SWEEP, "--samples-file", file], message.format(file=file), tmp_path, monkeypatch)


def test_more_samples_than_a_file_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "samples.csv"
    file.write_text("sample_id,gamma\n0,0.9\n1,0.8\n")
    message = "num_samples 3: 2 samples are given, accepted is 1 … 2"
    _refused([*SWEEP, "--samples-file", file, "--num-samples", "3"], message, tmp_path, monkeypatch)


@pytest.mark.parametrize("command", [SWEEP, SINGLE])
def test_an_output_root_that_cannot_be_written_to_is_refused(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    root = tmp_path / "file" / "results"
    message = f"--output-root '{root}': cannot make a run directory there: Not a directory"
    _refused([*command, "--output-root", root], message, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "argv",
    [[*SINGLE, "--set", "num_minibatches=3"], [*SWEEP, "--memory-limit-gib", "1e-5"]],
    ids=["contradiction", "memory"],
)
def test_a_process_is_refused_in_one_line_too(argv: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hyperlax", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not _files(tmp_path)
