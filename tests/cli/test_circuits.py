"""``draw-circuit`` and ``export-circuit``: what they print, write and refuse, and what exported networks give."""

from __future__ import annotations

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

import hyperlax
from hyperlax.api import restore_policy
from hyperlax.circuits import circuit_of, load_circuit
from hyperlax.cli import main
from hyperlax.quantum import executor
from hyperlax.quantum.export import to_pennylane
from hyperlax.quantum.tape import lower, shape_of

SMALL = {"rollout_length": 8, "total_num_envs": 8, "epochs": 2, "normalize_observations": True}
REPLAY = {"warmup_rollout_length": 16, "total_batch_size": 32}
RUNS = {
    "logits": ("ppo_drpqc", "gymnax.cartpole", {"actor_network.n_layers": 2, "critic_network.n_layers": 1}),
    "means": (
        "sac_hepqc",
        "gymnax.pendulum",
        {
            "actor_network.scale_outputs": True,
            "actor_network.entangler": "cnot",
            "actor_network.n_layers": 2,
            "critic_network.n_layers": 1,
            **REPLAY,
        },
    ),
    "values": ("dqn_hepqc", "gymnax.cartpole", {"critic_network.n_qubits": 3, "use_dueling": True, **REPLAY}),
    "values of actions alone": (
        "dqn_hepqc",
        "gymnax.cartpole",
        {"critic_network.n_layers": 1, "use_dueling": False, **REPLAY},
    ),
    "dense": ("pqn_mlp", "gymnax.cartpole", {}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run directories by name, trained for a few hundred steps when they are first asked for."""
    made = {}

    def run(name):
        if name not in made:
            recipe, env, overrides = RUNS[name]
            trained = hyperlax.sweep(
                recipe, env, samples=[{}], overrides={**SMALL, **overrides},
                run_length=640, num_seeds=1, num_evaluations=1, num_eval_episodes=1, winner_seeds=0, plot=False,
                progress=False, output_root=tmp_path_factory.mktemp("runs"),
            )  # fmt: skip
            made[name] = trained.path
        return made[name]

    return run


def hyperlax_(capsys, *argv):
    """Runs a command; returns its exit code and what it printed."""
    code = main([str(word) for word in argv])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("name", [name for name in RUNS if name != "dense"])
def test_an_exported_script_gives_what_the_trained_network_gives(runs, name, tmp_path, capsys):
    path = runs(name)
    role = "critic" if name.startswith("values") else "actor"
    code, out, _ = hyperlax_(capsys, "export-circuit", path, "--sample-id", 0, "--output", tmp_path / "new")
    files = [tmp_path / "new" / f"{role}.qasm", tmp_path / "new" / f"{role}_pennylane.py"]
    assert (code, out.split()) == (0, [str(file) for file in files])
    outputs = runpy.run_path(str(files[1]))["outputs"]
    restored = restore_policy(path, 0)
    agent, lane = restored.agent, restored.lane
    mean, deviation = restored.policy["statistics"].mean, restored.policy["statistics"].deviation()
    size = restored.env.observation_shape[0]
    # Beyond the clip of ten deviations too.
    observation = np.random.default_rng(3).normal(size=(16, size)) * 5 * deviation[:size] + mean[:size]
    observation = np.asarray(observation, np.float32)
    expected = agent.meant(agent.outputs(restored.policy, lane, observation), lane).T
    np.testing.assert_allclose(outputs(observation), expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))
    with jax.enable_x64(True):
        policy = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), restored.policy)
        exact = agent.meant(agent.outputs(policy, lane, observation.astype(float)), lane).T
    np.testing.assert_allclose(outputs(observation), exact, rtol=0, atol=1e-12 * max(1, np.abs(exact).max()))
    actions = {"logits": lambda x: x.argmax(-1), "means": lambda x: np.tanh(x[:, :1])}
    act = actions.get(name, actions["logits"])
    played = hyperlax.load_policy(path, 0)(observation)
    np.testing.assert_allclose(act(outputs(observation)), played, rtol=0, atol=1e-5)
    np.testing.assert_allclose(outputs(observation[2]), exact[2], rtol=0, atol=1e-12 * max(1, np.abs(exact).max()))


def test_a_trained_circuit_is_one_that_has_learnt(runs):
    trained = load_circuit(runs("means"), 0)
    assert trained.meaning.startswith("means of the actions before tanh")
    assert trained.output_scale is not None and np.all(np.abs(trained.output_scale - 1) > 1e-4)
    assert trained.kernel.shape == (2, 4) and trained.limit == 10 and np.all(trained.deviation > 0)
    x = np.random.default_rng(4).normal(size=(3, 5))
    with jax.enable_x64(True):
        shape, tape = shape_of(trained.circuit), lower(trained.circuit)
        expected = np.asarray(executor.expectations(tape, trained.params, x, shape))
    np.testing.assert_allclose(np.stack(to_pennylane(trained.circuit, trained.params)(x.T)), expected, atol=1e-12)


def test_one_format_alone_and_nothing_is_overwritten_unasked(runs, tmp_path, capsys):
    command = ["export-circuit", runs("logits"), "--sample-id", 0, "--output", tmp_path]
    file = tmp_path / "actor.qasm"
    origin = f"policy: ppo_drpqc on gymnax.cartpole, sample 0, seed 0 of {runs('logits')}\n"
    assert hyperlax_(capsys, *command, "--format", "openqasm", "--seed", 0) == (0, f"{file}\n", origin)
    assert list(tmp_path.iterdir()) == [file]
    file.write_text("mine")
    refused = (2, "", f"error: {file}: exists already; overwrite=True (--overwrite) replaces it\n")
    assert hyperlax_(capsys, *command) == refused
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "mine"
    assert hyperlax_(capsys, *command, "--overwrite")[0] == 0
    assert file.read_text().startswith("OPENQASM 3.0;")


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("logits", ["--sample-id", "7"], "no policy of sample 7, seed 0; saved: 0 (seed 0)"),
        ("logits", ["--sample-id", "0", "--seed", "3"], "no policy of sample 0, seed 3; saved: 0 (seed 0)"),
        ("logits", ["--sample-id", "0", "--network", "actr"], "unknown network 'actr': did you mean actor?"),
        (
            "logits",
            ["--sample-id", "0", "--network", "critic"],
            "sample 0: its critic was not saved; accepted is actor, the network that acts",
        ),
        ("logits", ["--sample-id", "0", "--format", "qasm"], "unknown format 'qasm': did you mean openqasm?"),
        (
            "dense",
            ["--sample-id", "0"],
            "sample 0: its critic is no quantum circuit but MLP; accepted are the networks hepqc, drpqc",
        ),
        ("logits", ["--sample-id", "-1"], "--sample-id -1: "),
        ("logits", [], "missing --sample-id (see `hyperlax export-circuit --help`)"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(runs, name, argv, message, tmp_path, capsys):
    code, out, err = hyperlax_(capsys, "export-circuit", runs(name), *argv, "--output", tmp_path / "x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and message in err
    assert not (tmp_path / "x").exists()


def test_places_that_cannot_be_written_to_and_runs_without_policies_are_refused(runs, tmp_path, capsys):
    command = ["export-circuit", runs("logits"), "--sample-id", 0, "--output"]
    (tmp_path / "file").write_text("mine")
    for place, message in [
        (tmp_path / "file", "is a file, accepted is a folder"),
        (Path("/proc/nowhere"), "cannot be written"),
        (tmp_path / "file" / "below", "cannot be written"),
    ]:
        code, out, err = hyperlax_(capsys, *command, place)
        assert (code, out, err.count("\n")) == (2, "", 1) and message in err and str(place) in err
    path = runs("dense")
    for policy in (path / "policies").iterdir():
        policy.rename(tmp_path / policy.name)
    try:
        code, _, err = hyperlax_(capsys, "export-circuit", path, "--sample-id", 0)
        assert code == 2 and err.endswith("no policy of sample 0, seed 0; none was saved\n")
    finally:
        for policy in tmp_path.glob("*.npz"):
            policy.rename(path / "policies" / policy.name)
    code, _, err = hyperlax_(capsys, "export-circuit", tmp_path / "nowhere", "--sample-id", 0)
    assert code == 2 and "no such directory" in err


def test_a_drawn_circuit_is_printed_counted_and_painted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "70")
    settings = ["--set", "actor_network.n_layers=1", "actor_network.n_qubits=3"]
    code, out, err = hyperlax_(capsys, "draw-circuit", "ppo_hepqc", "--env", "gymnax.pendulum", *settings)
    assert (code, err) == (0, "")
    assert (
        out
        == """\
ppo_hepqc on gymnax.pendulum: actor

q0: ─RX(w0·x0)─RY(t3)─RZ(t6)─╭●────╭●─┤ Z
q1: ─RX(w1·x1)─RY(t4)─RZ(t7)─╰●─╭●─┼──┤ Z
q2: ─RX(w2·x2)─RY(t5)─RZ(t8)────╰●─╰●─┤ Z

qubits       3
layers       1, depth 6
gates        12: 3 RX, 3 RY, 3 RZ, 3 CZ
parameters   9 of the circuit, 4 of the dense head
observables  ZII, IZI, IIZ
picture      ppo_hepqc_gymnax_pendulum_actor.png
"""
    )
    first = Path("ppo_hepqc_gymnax_pendulum_actor.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    # A second picture stands beside the first; the other spellings of recipe and environment mean the same.
    other = ["--algo-and-network-config", "ppo_hepqc", "--env-config", "gymnax.pendulum", "--network", "actor"]
    code, again, _ = hyperlax_(capsys, "draw-circuit", *other, *settings)
    assert code == 0 and again == out.replace("actor.png", "actor_2.png")
    assert Path("ppo_hepqc_gymnax_pendulum_actor_2.png").read_bytes() == first


@pytest.mark.parametrize(
    ("recipe", "env", "network", "num_inputs", "head", "copies"),
    [
        ("ppo_hepqc", "gymnax.pendulum", "critic", 3, 5, 1),
        ("sac_hepqc", "gymnax.pendulum", "actor", 3, 10, 1),
        ("sac_hepqc", "gymnax.pendulum", "critic", 4, 5, 2),  # sees observation and action
        ("sac_hepqc", "gymnax.cartpole", "critic", 4, 10, 2),  # a value for each discrete action
        ("dqn_hepqc", "gymnax.cartpole", None, 4, 10, 1),
    ],
)
def test_a_network_sees_what_the_algorithm_gives_it(recipe, env, network, num_inputs, head, copies):
    found = circuit_of(recipe, env, network)
    assert (found.circuit.num_inputs, found.head_parameters, found.copies) == (num_inputs, head, copies)


@pytest.mark.parametrize("recipe", ["sac_hepqc", "dqn_drpqc", "ppo_drpqc"])
@pytest.mark.parametrize("extra", [{}, {"scale_outputs": True}])
def test_the_counts_add_up_to_the_trained_parameters(recipe, extra):
    env, total = hyperlax.make_env("gymnax.cartpole"), 0
    roles = ["critic"] if recipe.startswith("dqn") else ["actor", "critic"]
    overrides = {f"{role}_network.{name}": value for role in roles for name, value in extra.items()}
    for role in roles:
        found = circuit_of(recipe, env, role, overrides)
        total += found.copies * (found.circuit.num_params + found.scale_parameters + found.head_parameters)
    from hyperlax.recipes import get_recipe
    from hyperlax.spaces.hyperparameters import replace

    assert total == replace(get_recipe(recipe).defaults_for(env.name), overrides).num_params(env)


DRAW = ["draw-circuit", "ppo_drpqc", "--env", "gymnax.cartpole"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["draw-circuit", "ppo_mlp", "--env", "gymnax.cartpole"],
            "recipe ppo_mlp: its actor is no quantum circuit but MLP; accepted are the networks hepqc, drpqc",
        ),
        (["draw-circuit", "--env", "gymnax.cartpole"], "missing RECIPE (see `hyperlax draw-circuit --help`)"),
        (["draw-circuit", "ppo_drpqc"], "missing --env or --env-config (see `hyperlax draw-circuit --help`)"),
        (
            [*DRAW, "--algo-and-network-config", "ppo_drpqc"],
            "RECIPE and --algo-and-network-config: accepted is one of them (see `hyperlax draw-circuit --help`)",
        ),
        ([*DRAW, "--network", "target"], "unknown network 'target': accepted: actor, critic (recipe ppo_drpqc)"),
        ([*DRAW, "--output", "x.jpg"], "--output x.jpg: accepted are names that end in .png, .pdf, .svg"),
        ([*DRAW, "--output", "/proc/x.png"], "/proc/x.png: cannot be written (No such file or directory)"),
        (
            [*DRAW, "--set", "actor_network.n_layers=0"],
            "hyperparameter actor_network.n_layers got '0'; accepted: an int32, 1 or more",
        ),
        (
            ["draw-circuit", "dqn_drpqc", "--env", "gymnax.pendulum"],
            "dqn cannot take the continuous actions of gymnax.pendulum; algorithms that can: ppo, sac",
        ),
        (
            ["draw-circuit", "ppo_hepqc", "--env", "gymnax.cartpole", "--set", "actor_network.n_qubits=30"],
            "actor_network: num_qubits 30: accepted is 1 … 24",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert hyperlax_(capsys, *argv) == (2, "", f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_not_overwritten_unasked(tmp_path, capsys):
    file = tmp_path / "deep" / "circuit.SVG"
    assert hyperlax_(capsys, *DRAW, "--output", file)[0] == 0
    assert file.read_text().startswith("<?xml")
    file.write_text("mine")
    refused = (2, "", f"error: {file}: exists already; overwrite=True (--overwrite) replaces it\n")
    assert hyperlax_(capsys, *DRAW, "--output", file) == refused
    assert file.read_text() == "mine"
    assert hyperlax_(capsys, *DRAW, "--output", file, "--overwrite")[0] == 0
    assert file.read_text().startswith("<?xml")
