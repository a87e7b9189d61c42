"""The library called from Python: what a sweep returns, what a policy does, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.experimental.compilation_cache import compilation_cache

import hyperlax
from hyperlax.algorithms import rng
from hyperlax.algorithms.lane import stream
from hyperlax.engine.plan import Plan
from hyperlax.engine.program import EVALUATION, Program, Task, lane_keys
from hyperlax.environments import vector
from hyperlax.errors import UserError
from hyperlax.networks.mlp import MLP
from hyperlax.recipes import RunLength, get_recipe
from hyperlax.results import Run

SEED, EPISODES, STEPS = 7, 3, 30
SAMPLES = [
    {"actor_network.layer_sizes": [8], "rollout_length": 16, "total_num_envs": 4, "num_minibatches": 2, "epochs": 1},
    {"actor_network.layer_sizes": [16, 16], "rollout_length": 8, "total_num_envs": 8, "num_minibatches": 4},
    {"actor_network.activation": "relu", "rollout_length": 32, "total_num_envs": 4, "normalize_rewards": True},
]
LENGTH = RunLength(total_timesteps=600, num_evaluations=3, num_eval_episodes=EPISODES, num_seeds=2)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps all compiled programs, for this process and those beside it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def env() -> Any:
    """Episodes so short that rounding has no time to grow."""
    return hyperlax.make_env("gymnax.pendulum", max_episode_steps=STEPS)


@pytest.fixture(scope="session")
def run(env: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A sweep of three samples of different structure, two seeds each."""
    root = tmp_path_factory.mktemp("sweep")
    result = hyperlax.sweep("ppo_mlp", env, samples=SAMPLES, seed=SEED, run_length=LENGTH, output_root=root)
    assert isinstance(result, Run)
    return result


def _plan(tmp_path: Path, **arguments: Any) -> Plan:
    """Plans a sweep, which may not write anything."""
    plan = hyperlax.sweep("ppo_mlp", "gymnax.cartpole", dry_run=True, output_root=tmp_path / "none", **arguments)
    assert isinstance(plan, Plan)
    assert not (tmp_path / "none").exists()
    return plan


def _tasks(plan: Plan) -> dict[tuple[int, int], Any]:
    return {(t.sample_id, t.seed): t.hyperparams for program in plan.programs for t in program.tasks if t is not None}


def test_a_sweep_returns_frames(run: Run) -> None:
    assert sorted(run.summary["sample_id"]) == [0, 1, 2]
    assert run.summary["final_return"].is_monotonic_decreasing
    assert set(run.summary["status"]) == {"COMPLETED"}
    assert list(run.summary["seeds_completed"]) == [2, 2, 2]
    assert len(run.evaluations) == 3 * 2 * 3
    assert sorted(run.evaluations["grid_step"].unique()) == LENGTH.grid() == [200, 400, 600]
    assert (run.evaluations["env_steps"] >= run.evaluations["grid_step"]).all()
    assert (run.evaluations["episodes"] == EPISODES).all()
    assert (run.evaluations["mean_length"] == STEPS).all()
    assert np.isfinite(run.evaluations["mean_return"]).all()
    # A sample never does an update more than the budget asks for.
    assert dict(zip(run.lanes["sample_id"], run.lanes["env_steps"], strict=True)) == {0: 640, 1: 640, 2: 640}


def test_the_samples_hold_every_hyperparameter(run: Run) -> None:
    samples = run.samples.set_index("sample_id")
    assert list(samples["actor_network.layer_sizes"]) == ["[8]", "[16, 16]", "[64, 64]"]
    assert list(samples["rollout_length"]) == [16, 8, 32]
    assert set(samples["gamma"]) == {get_recipe("ppo_mlp").defaults_for("gymnax.pendulum").gamma}


def test_a_run_is_loaded_as_it_was_returned(run: Run) -> None:
    loaded = hyperlax.load_run(run.path)
    for name in ("samples", "evaluations", "metrics", "lanes", "summary"):
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(run, name))
    assert loaded.info == run.info
    assert run.info["state"] == "finished"
    assert run.info["versions"]["hyperlax"] == hyperlax.__version__


def test_the_winner_is_trained_again_on_fresh_seeds(run: Run) -> None:
    winner = run.info["winner"]
    assert winner["sample_id"] == run.summary["sample_id"].iloc[0]
    assert winner["selected_final_return"] == pytest.approx(run.summary["final_return"].iloc[0])
    assert winner["fresh_seeds"] == 2
    assert winner["fresh_seeds_final_return"] != winner["selected_final_return"]
    assert winner["fresh_seeds_standard_error"] > 0


@pytest.mark.parametrize("sample_id", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_loaded_policy_earns_what_was_reported(run: Run, env: Any, sample_id: int, seed: int) -> None:
    """Plays the episodes of the last evaluation again, from the same random numbers."""
    act = hyperlax.load_policy(run.path, sample_id, seed, env=env)
    key = stream(rng.wrap(lane_keys(SEED, Task(sample_id, seed, None))[EVALUATION]), 0, jnp.int32(2))
    states, observations = vector.reset(env, key, EPISODES)
    returns = np.zeros(EPISODES)
    for t in range(1, STEPS + 1):
        keys = jax.random.split(jax.random.fold_in(key, t), EPISODES)
        states, transition = jax.vmap(env.step)(keys, states, act(observations))
        returns += np.asarray(transition.reward)
        observations = transition.observation
    reported = run.evaluations.query("sample_id == @sample_id and seed == @seed and grid_step == 600").iloc[0]
    assert returns.mean() == pytest.approx(reported["mean_return"], rel=1e-3)
    assert returns.min() == pytest.approx(reported["min_return"], rel=1e-3)


def test_a_policy_takes_one_observation_or_many(run: Run) -> None:
    act = hyperlax.load_policy(run.path, 1)
    observations = jax.random.normal(jax.random.key(0), (5, 3))
    actions = act(observations)
    assert actions.shape == (5, 1)
    np.testing.assert_allclose(act(observations[3]), actions[3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(act)(observations), actions, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(act(observations[3].tolist()), actions[3], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"observations of shape \(7,\): accepted are one of .*, \(3,\), and batches"):
        act(np.zeros(7))
    other_seed = hyperlax.load_policy(run.path, 1, seed=1)
    assert not np.allclose(other_seed(observations), actions)


def test_a_policy_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no policy of sample 9, seed 0; saved: 0 \(seed 0\), 0 \(seed 1\)"):
        hyperlax.load_policy(run.path, 9)
    with pytest.raises(UserError, match="no such directory"):
        hyperlax.load_policy(tmp_path / "nowhere", 0)


def test_policies_pictures_and_the_winner_can_be_left_out(
    env: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hyperlax.sweep(
        "ppo_mlp",
        env,
        samples=SAMPLES[:1],
        run_length=64,
        num_seeds=1,
        num_evaluations=1,
        num_eval_episodes=1,
        winner_seeds=0,
        save_policies=False,
        plot=False,
        progress=False,
        output_root=tmp_path,
    )
    run = hyperlax.load_run(tmp_path)
    assert run.info["winner"] is None
    assert not (run.path / "policies").exists()
    assert not list(run.path.glob("*.png"))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_samples_may_be_a_frame_a_list_or_a_file(run: Run, tmp_path: Path) -> None:
    file = run.path / "samples.csv"
    from_frame = _tasks(_plan(tmp_path, samples=run.samples, run_length=LENGTH))
    from_file = _tasks(_plan(tmp_path, samples=file, run_length=LENGTH))
    from_summary = _tasks(_plan(tmp_path, samples=run.path / "summary.csv", run_length=LENGTH))
    assert from_frame == from_file == from_summary
    assert set(from_frame) == {(sample, seed) for sample in (0, 1, 2) for seed in (0, 1)}
    assert from_frame[1, 0].actor_network.layer_sizes == (16, 16)
    named = _tasks(_plan(tmp_path, samples=[{"sample_id": 12, "gamma": 0.5}], run_length=LENGTH))
    assert named[12, 1].gamma == 0.5


def test_num_samples_takes_the_first_of_given_samples(run: Run, tmp_path: Path) -> None:
    plan = _plan(tmp_path, samples=run.path / "samples.csv", num_samples=2, num_seeds=1)
    assert set(_tasks(plan)) == {(0, 0), (1, 0)}
    with pytest.raises(UserError, match="num_samples 4: 3 samples are given, accepted is 1 … 3"):
        _plan(tmp_path, samples=run.path / "samples.csv", num_samples=4)


def test_sixteen_samples_are_drawn_by_default(tmp_path: Path) -> None:
    assert set(_tasks(_plan(tmp_path, num_seeds=1))) == {(sample, 0) for sample in range(16)}


def test_overrides_hold_in_every_sample(tmp_path: Path) -> None:
    drawn = _tasks(_plan(tmp_path, num_samples=4, num_seeds=1, overrides={"gamma": "0.5", "epochs": 3}))
    assert {(h.gamma, h.epochs) for h in drawn.values()} == {(0.5, 3)}
    assert len({h.actor_lr for h in drawn.values()}) == 4
    given = _tasks(_plan(tmp_path, samples=[{"gamma": 0.9}, {}], overrides={"gamma": 0.5}))
    assert {h.gamma for h in given.values()} == {0.5}


def test_tuned_values_are_the_defaults_of_their_environment(tmp_path: Path) -> None:
    recipe = dataclasses.replace(get_recipe("ppo_mlp"), tuned={"gymnax.cartpole": {"gae_lambda": 0.8}})
    for env, expected in (("gymnax.cartpole", 0.8), ("gymnax.acrobot", recipe.defaults.gae_lambda)):
        plan = hyperlax.sweep(recipe, env, samples=[{}], dry_run=True, output_root=tmp_path)
        assert isinstance(plan, Plan)
        assert {h.gae_lambda for h in _tasks(plan).values()} == {expected}


def test_plans_say_what_would_be_done(tmp_path: Path) -> None:
    batched = _plan(tmp_path, num_samples=8, run_length="quick")
    sequential = _plan(tmp_path, num_samples=8, run_length="quick", sequential=True)
    grouped = _plan(tmp_path, num_samples=8, run_length="quick", group_by_structure=True)
    assert set(_tasks(batched)) == set(_tasks(sequential)) == set(_tasks(grouped))
    assert len(batched.programs) < len(grouped.programs) <= 8
    assert {program.num_lanes for program in sequential.programs} == {1}
    assert sequential.padding == pytest.approx(0, abs=1e-6)
    narrow = _plan(tmp_path, num_samples=8, run_length="quick", hparam_batch_size=2)
    assert max(program.num_lanes for program in narrow.programs) <= 4  # two samples of two seeds


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"recipe": "ppo_mpl"}, "unknown recipe 'ppo_mpl': did you mean ppo_mlp"),
    ({"env": "gymnax.cartpol"}, "unknown environment 'gymnax.cartpol': did you mean gymnax.cartpole"),
    ({"sampling_method": "sobol"}, "unknown sampling method 'sobol': did you mean qmc_sobol"),
    ({"num_samples": 0}, "num_samples=0: accepted is 1 …"),
    ({"num_samples": -1}, "num_samples=-1: accepted is 1 …"),
    ({"seed": -1}, "seed -1: accepted is 0 …"),
    ({"run_length": "brief"}, "run length 'brief': accepted are quick, default, long or a number of steps"),
    ({"run_length": 0}, "total_timesteps 0: accepted is 1 …"),
    ({"num_seeds": 0}, "num_seeds 0: accepted is 1 …"),
    ({"num_evaluations": 0}, "num_evaluations 0: accepted is 1 …"),
    (
        {"num_evaluations": 6, "run_length": 5},
        "num_evaluations 6: accepted is at most one for each of the 5 environment",
    ),
    ({"hparam_batch_size": 0}, "hparam_batch_size 0: accepted is 'auto' or a whole number from 1"),
    ({"num_devices": 99}, "num_devices 99: this machine has 1 …"),
    ({"memory_limit_gib": 0.0}, "memory_limit_gib 0.0: accepted is a finite number greater than 0"),
    ({"memory_limit_gib": float("inf")}, "memory_limit_gib inf: accepted is a finite number"),
    ({"memory_limit_gib": 1e-5}, "memory does not suffice: "),
    ({"overrides": {"gama": 0.9}}, "unknown hyperparameter 'gama': did you mean gamma"),
    ({"overrides": {"gamma": 1.5}}, "hyperparameter gamma got 1.5; accepted: a finite float32, from 0 to 1"),
    ({"samples": []}, "samples are empty"),
    ({"samples": [{"gamma": float("nan")}]}, "hyperparameter gamma got nan; accepted: a finite float32"),
    ({"samples": [{}, {"actor_lr": -1.0}]}, "sample 1: hyperparameter actor_lr got -1.0"),
    ({"samples": [{"num_minibatches": 3}]}, "num_minibatches 3 does not divide rollout_length"),
    ({"samples": {"gamma": 0.9}}, "samples {'gamma': 0.9}: accepted is a file, a frame, or a list of one mapping"),
    ({"samples": [{"sample_id": 1}, {"sample_id": 1}]}, "samples have duplicate ids"),
    ({"samples": [{"sample_id": -1}]}, "sample_id -1: accepted is a whole number, 0 or more"),
    ({"samples": [{"sample_id": "a"}]}, "sample_id 'a': accepted is a whole number, 0 or more"),
    ({"samples": "nowhere.csv"}, "samples file nowhere.csv cannot be read"),
    (
        {"recipe": "dqn_mlp", "samples": [{"warmup_rollout_length": n} for n in (99_999, 88_888)]},
        "warmup_rollout_length 88888 × total_num_envs 8 = 711104: learning would start beyond the budget of 100000",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[str(arguments) for arguments, _ in REFUSED])
def test_bad_arguments_are_refused_before_anything_is_done(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Program, "compile", lambda self: pytest.fail("something was compiled"))
    call = {"recipe": "ppo_mlp", "env": "gymnax.cartpole", "output_root": tmp_path / "out", **arguments}
    with pytest.raises(UserError) as refusal:
        hyperlax.sweep(**call)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "defaults, message",
    [
        ({"gamma": 1.5}, "recipe own: hyperparameter gamma got 1.5; accepted: a finite float32, from 0 to 1"),
        ({"critic_lr": -1.0}, "recipe own: hyperparameter critic_lr got -1.0"),
        ({"total_num_envs": 0}, "recipe own: hyperparameter total_num_envs got 0"),
        ({"critic_network": MLP((8,), "rel")}, "recipe own: hyperparameter critic_network.activation got 'rel'"),
    ],
)
def test_defaults_of_a_recipe_of_ones_own_are_checked(defaults: dict[str, Any], message: str) -> None:
    known = get_recipe("dqn_mlp")
    with pytest.raises(UserError) as refusal:
        dataclasses.replace(known, name="own", defaults=dataclasses.replace(known.defaults, **defaults))
    assert str(refusal.value).startswith(message)
    lists = dataclasses.replace(known.defaults, critic_network=MLP([32, 32]), gamma=1)  # type: ignore[arg-type]
    parsed = dataclasses.replace(known, name="own", defaults=lists).defaults
    assert parsed.critic_network.layer_sizes == (32, 32) and isinstance(parsed.gamma, float)


@pytest.mark.parametrize("length", ["quick", "default"])
@pytest.mark.parametrize("recipe", ["dqn_mlp", "sac_mlp"])
def test_samples_that_would_start_to_learn_too_late_do_not_keep_the_others_from_it(
    recipe: str, length: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "hyperlax")
    logging.getLogger("hyperlax").propagate = True
    name = f"benchmarked.01_static_qmc_sampling_S64.{recipe}"
    plan = hyperlax.sweep(name, "gymnax.cartpole", num_samples=8, run_length=length, dry_run=True)
    assert "of 8 samples would start to learn beyond the budget of" in caplog.text
    assert plan is not None


@pytest.mark.parametrize(
    "overrides, warning",
    [
        ({"rollout_length": 500}, "1 of 1 samples take more than twice the budget of 1000 steps in a single update"),
        (
            {"total_buffer_size": 128, "rollout_length": 32},
            "1 of 1 samples collect more in an update than total",
        ),
        ({}, ""),
    ],
)
def test_updates_of_a_size_that_is_hardly_meant_are_warned_of(
    overrides: dict[str, object], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "hyperlax")
    logging.getLogger("hyperlax").propagate = True
    hyperlax.sweep(
        "dqn_mlp", "gymnax.cartpole", samples=[{"warmup_rollout_length": 0}], run_length=1000, overrides=overrides,
        dry_run=True,
    )  # fmt: skip
    assert warning in caplog.text and bool(caplog.text) == bool(warning)


def test_a_circuit_as_actor_and_a_perceptron_as_critic(tmp_path):
    """A sweep with lanes of both kinds of both; its policies are loaded as what they are."""
    samples = [{"actor_network.n_vstack": 2}, {"critic_network.layer_sizes": (8,), "actor_network.n_layers": 1}]
    run = hyperlax.sweep(
        "ppo_drpqc+mlp", "gymnax.cartpole", samples=samples, run_length=2_000, num_seeds=1, num_evaluations=1,
        num_eval_episodes=2, output_root=tmp_path, progress=False, plot=False, winner_seeds=0,
        overrides={"total_num_envs": 4, "rollout_length": 16, "num_minibatches": 2, "epochs": 1},
    )  # fmt: skip
    circuit = lambda qubits, layers: qubits * 2 * 3 * (layers + 1) + 2 * (qubits + 1)  # noqa: E731
    critic = 4 * 64 + 64 + 64 * 64 + 64 + 65
    assert list(run.summary.sort_values("sample_id")["num_params"]) == [
        circuit(4, 5) + critic, circuit(2, 1) + 4 * 8 + 8 + 9
    ]  # fmt: skip
    assert int(hyperlax.load_policy(run.path, 1)(np.zeros(4, np.float32))) in (0, 1)


def test_updates_that_pass_several_evaluations_are_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Each point has its row, and several are at the same step."""
    ask = partial(
        hyperlax.sweep, "ppo_mlp", "gymnax.cartpole", num_samples=1, num_seeds=1, run_length=1024, num_evaluations=4,
        num_eval_episodes=1, overrides={"total_num_envs": 8, "rollout_length": 128, "epochs": 1}, output_root=tmp_path,
        plot=False, progress=False, resume=True,
    )  # fmt: skip
    run = ask()
    assert len(run.evaluations) == 4 and run.evaluations["env_steps"].nunique() == 1
    written = (run.path / "lanes.csv").stat().st_mtime_ns
    again = ask()
    assert again.path == run.path and (run.path / "lanes.csv").stat().st_mtime_ns == written
    assert "damaged" not in caplog.text
