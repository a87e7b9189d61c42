"""Every example runs as it is read, with a small budget."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hyperlax

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(file.stem for file in (ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for compiled programs that all examples, in all processes of pytest-xdist, share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"


def _run(name: str, cache: Path, *arguments: str) -> str:
    """Runs an example and returns what it prints."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    assert EXAMPLES == ["own_circuit", "own_environment", "own_recipe", "play_policy", "sweep_from_python"]


def test_own_circuit(tmp_path: Path, cache: Path) -> None:
    printed = _run("own_circuit", cache, "--steps", "1024", "--output-root", str(tmp_path))
    table = [[float(cell) for cell in line.split()] for line in printed.splitlines()[-3:]]
    circuit = lambda layers: 4 * 3 * layers  # noqa: E731, a scale and two angles a qubit and layer
    assert [row[:2] for row in sorted(table)] == [[n, 2 * circuit(n) + 3 * 3 + 3] for n in (1, 2, 4)]


def test_sweep_from_python(tmp_path: Path, cache: Path) -> None:
    printed = _run("sweep_from_python", cache, "--steps", "2048", "--output-root", str(tmp_path))
    run = hyperlax.load_run(tmp_path / "ppo_mlp" / "gymnax_cartpole" / "run_001")
    assert list(run.summary["status"]) == ["COMPLETED"] * 6
    assert run.summary["actor_network.layer_sizes"].nunique() > 1
    assert run.summary["rollout_length"].nunique() > 1
    assert sorted(run.evaluations["grid_step"].unique()) == [512, 1024, 1536, 2048]
    assert len(run.evaluations) == 6 * 2 * 4
    table = [line.split() for line in printed.splitlines()[1:7]]
    assert [int(cells[0]) for cells in table] == list(run.summary["sample_id"])
    assert [float(cells[1]) for cells in table] == pytest.approx(list(run.summary["final_return"]), abs=1e-4)
    assert f"sample {run.info['winner']['sample_id']}: " in printed
    assert str(run.path) in printed


def test_own_recipe(tmp_path: Path, cache: Path) -> None:
    printed = _run("own_recipe", cache, "--steps", "2048", "--output-root", str(tmp_path))
    run = hyperlax.load_run(tmp_path)
    assert run.info["recipe"] == "ppo_mlp_depth"
    assert list(run.info["space"]) == ["actor_network.layer_sizes", "actor_lr", "epochs"]
    counts = run.summary["actor_network.layer_sizes"].value_counts()
    assert counts.to_dict() == {"[64]": 3, "[64, 64]": 3, "[32, 32, 32, 32]": 3}  # a Latin hypercube is even
    assert set(run.summary["rollout_length"]) == {64}
    assert run.summary["actor_lr"].between(1e-4, 3e-3).all()
    for sizes in counts.index:
        row = next(line for line in printed.splitlines() if line.startswith(f"{sizes} "))
        returns = run.summary[run.summary["actor_network.layer_sizes"] == sizes]["final_return"]
        assert [float(cell) for cell in row[len(sizes) :].split()] == pytest.approx(
            [returns.mean(), returns.max(), 3], abs=0.051
        )


def test_own_environment(tmp_path: Path, cache: Path) -> None:
    printed = _run("own_environment", cache, "--steps", "2048", "--output-root", str(tmp_path))
    run = hyperlax.load_run(tmp_path / "ppo_mlp" / "own_icy_table")
    assert run.info["environment"] == "own.icy_table"
    assert run.evaluations["mean_length"].between(1, 60).all()
    # No episode loses more than the edge costs, and the 60 steps at the largest distance from the centre.
    assert run.evaluations["min_return"].min() > -30 - 60 * 2**0.5
    assert run.evaluations["max_return"].max() < 0
    pushes = re.search(r"pushes ([+-]\d\.\d\d) along x, ([+-]\d\.\d\d) along y", printed)
    assert pushes is not None
    assert all(-1 <= float(push) <= 1 for push in pushes.groups())


def test_play_policy(tmp_path: Path, cache: Path) -> None:
    printed = _run("play_policy", cache, "--steps", "2048", "--output-root", str(tmp_path))
    run = hyperlax.load_run(tmp_path)
    played = re.fullmatch(
        r"gymnax\.cartpole, sample 0: return (\d+)\.0 in (\d+) steps\n"
        r"mean return of its last evaluation: (\d+\.\d)\n",
        printed,
    )
    assert played is not None, printed
    assert 1 <= int(played[1]) <= 500
    assert played[1] == played[2]  # CartPole pays 1 a step
    assert float(played[3]) == pytest.approx(run.summary["final_return"].iloc[0], abs=0.051)
    again = _run("play_policy", cache, "--run", str(run.path))
    assert again == printed
    assert len(list(tmp_path.rglob("run.json"))) == 1  # playing a run makes no new one
