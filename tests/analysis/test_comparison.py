"""Families side by side: what is collected, drawn, tabulated and told in one file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyperlax.analysis.collection import collect
from hyperlax.analysis.comparison import aggregates, improvements, overall, plot_comparison, warn_of_few
from hyperlax.cli import main
from hyperlax.errors import UserError
from hyperlax.results import RunWriter
from hyperlax.spaces.files import Sample


def make(folder, algorithm, level, count=12, environment="gymnax.cartpole", mode="batched"):
    """A run whose final returns are level, level + 1, …; the last sample diverges before its first evaluation."""
    rng = np.random.default_rng(abs(level))
    samples = [Sample(i, {"lr": float(10 ** rng.uniform(-4, -1)), "layers": (32, 32)}) for i in range(count)]
    info = {
        "algorithm": algorithm, "network": "mlp", "recipe": f"{algorithm}_mlp", "mode": mode,
        "environment": environment, "budget_steps": 20, "versions": {"jax": "1"}, "command": "hyperlax <sweep> & more",
    }  # fmt: skip
    with RunWriter(folder, info, samples, [0, 1]) as writer:
        for i in range(count):
            for seed in (0, 1):
                if i + 1 < count:
                    key = {"sample_id": i, "seed": seed}
                    writer.evaluations([{**key, "grid_step": s, "mean_return": level + i * s / 20} for s in (10, 20)])
                writer.lane_finished(i, seed, "COMPLETED" if i + 1 < count else "DIVERGED", 20)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    make(root / "ppo_mlp" / "gymnax_cartpole" / "batched", "ppo", 10)
    make(root / "pqn_mlp" / "gymnax_cartpole" / "batched", "pqn", 40)
    make(root / "ppo_mlp" / "gymnax_cartpole" / "sequential", "ppo", 10, mode="sequential")
    make(root / "ppo_mlp" / "gymnax_pendulum" / "batched", "ppo", -100, environment="gymnax.pendulum")
    return root


def published(folder):
    file = folder / "gymnax.cartpole_dqn-mlp_summary.csv"
    rows = {"hp id": range(8), "peak return": range(8), "final return": [*range(7), ""], "critic lr": 1e-3}
    pd.DataFrame(rows).assign(**{"sample id": range(8)}).to_csv(file, index=False)
    return file


def test_runs_trees_and_published_tables_are_collected_alike(tree, tmp_path):
    entries = collect([tree, published(tmp_path)])
    assert {(e.family, e.environment) for e in entries} == {
        ("ppo_mlp", "gymnax.cartpole"), ("ppo_mlp, sequential", "gymnax.cartpole"), ("ppo_mlp", "gymnax.pendulum"),
        ("pqn_mlp", "gymnax.cartpole"), ("dqn_mlp, published", "gymnax.cartpole"),
    }  # fmt: skip
    theirs = next(entry for entry in entries if "published" in entry.family)
    assert theirs.returns.tolist() == [0, 1, 2, 3, 4, 5, 6, 0]  # without a return: as the worst
    twice = collect([tree / "pqn_mlp", tree / "pqn_mlp"])
    assert [entry.family for entry in twice] == ["pqn_mlp", "pqn_mlp (2)"]


def test_aggregates_and_improvements(tree):
    entries = collect([tree])
    table = aggregates(entries).set_index(["environment", "family"])
    row = table.loc["gymnax.cartpole", "ppo_mlp"]
    assert row["completed"] == 11 and row["best"] == 20.0
    values = np.sort([*range(10, 21), 10])
    assert row["iqm"] == pytest.approx(values[3:9].mean()) and row["iqm_low"] < row["iqm"] < row["iqm_high"]
    better = improvements(entries).set_index(["family", "other"])
    assert better.loc[("ppo_mlp", "pqn_mlp"), "probability"] == 0.0
    assert better.loc[("ppo_mlp", "ppo_mlp, sequential"), "probability"] == pytest.approx(0.5)


def test_over_all_environments_returns_are_scaled_and_families_of_one_left_out(tree):
    (row,) = overall(collect([tree])).to_dict("records")
    assert (row["family"], row["configurations"]) == ("ppo_mlp", 12)
    assert row["environments"] == "gymnax.cartpole, gymnax.pendulum"
    own = np.array([*range(11), 0])
    scaled = np.stack([own / 40, own / 10], axis=1)  # the best of all is 50 in one, in the other 10 above the worst
    assert row["mean"] == pytest.approx(scaled.mean())
    assert row["optimality_gap"] == pytest.approx(1 - scaled.mean())
    assert row["iqm_low"] < row["iqm"] < row["iqm_high"]
    assert len(overall(collect([tree / "pqn_mlp"]))) == 0


def test_few_configurations_are_warned_of(tree, tmp_path, caplog):
    warn_of_few(collect([tree]))
    assert not caplog.records
    make(tmp_path / "run", "ppo", 10, count=9)
    warn_of_few(collect([tmp_path / "run"]))
    assert "ppo_mlp on gymnax.cartpole: intervals from 9 configurations are too narrow" in caplog.text


def test_trials_of_a_search_are_no_draws_of_which_the_best_of_k_could_be_told(tree, tmp_path):
    searched = make(tmp_path / "run", "sac", 10)
    info = json.loads((searched / "run.json").read_text())
    (searched / "run.json").write_text(json.dumps(info | {"study": "sac"}))
    plot_comparison(collect([tree, searched]), tmp_path / "plots", formats=("svg",))
    assert "sac_mlp" not in set(pd.read_csv(tmp_path / "plots" / "expected_best.csv")["family"])
    assert "sac_mlp" in set(pd.read_csv(tmp_path / "plots" / "best_found_returns.csv")["family"])


def test_curves_count_what_diverged_as_the_worst_and_what_was_pruned_as_it_was(tmp_path):
    samples = [Sample(i, {"lr": 0.1 * i}) for i in range(3)]
    info = {"algorithm": "ppo", "network": "mlp", "recipe": "ppo_mlp", "environment": "e", "budget_steps": 20}
    with RunWriter(tmp_path, info, samples, [0]) as writer:
        for i, status, steps in ((0, "COMPLETED", (10, 20)), (1, "PRUNED", (10,)), (2, "DIVERGED", ())):
            writer.evaluations([{"sample_id": i, "seed": 0, "grid_step": s, "mean_return": 5.0 * i + s} for s in steps])
            writer.lane_finished(i, 0, status, 20)
    plot_comparison(collect([tmp_path]), tmp_path / "plots", formats=("svg",))
    curves = pd.read_csv(tmp_path / "plots" / "learning_curves.csv")
    assert curves["y"].tolist() == [10.0, 15.0]  # of 10, 15, 10 and of 20, 15, 10


def test_pictures_have_three_formats_and_their_numbers(tree, tmp_path):
    pictures = plot_comparison(collect([tree, published(tmp_path)]), tmp_path / "plots")
    assert len(pictures) == 5
    for picture in pictures.values():
        for suffix in (".png", ".svg", ".pdf"):
            assert picture.with_suffix(suffix).stat().st_size > 3000
        numbers = pd.read_csv(picture.with_suffix(".csv"))
        assert {"environment", "family", "x", "y"} <= set(numbers.columns) and len(numbers)
    best = pd.read_csv(tmp_path / "plots" / "expected_best.csv").query("family == 'ppo_mlp' and x == 1")
    assert best["y"].tolist() == pytest.approx(
        [np.mean([*range(10, 21), 10]), np.mean([*range(-100, -89), -100])], rel=1e-5
    )  # six digits are written
    curves = pd.read_csv(tmp_path / "plots" / "learning_curves.csv")
    assert not curves["family"].str.contains("published").any()
    again = plot_comparison(collect([tree, published(tmp_path)]), tmp_path / "again")
    for one, other in zip(pictures.values(), again.values(), strict=True):
        assert one.with_suffix(".svg").read_bytes() == other.with_suffix(".svg").read_bytes()


def test_the_command_prints_a_table_and_where_the_pictures_are(tree, tmp_path, capsys):
    assert main(["plot-benchmark", "--results-dir-to-plot", str(tree), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "report.html" in shown and "pqn_mlp" in shown and Path(tmp_path / "out" / "report.html").exists()


def test_what_cannot_be_plotted_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine_summary.csv").write_text("a,b\n1,2\n")
    for name, message in (
        ("empty", "holds no run and no summary"),
        ("none", "does not exist"),
        ("foreign", "accepted"),
    ):
        assert main(["plot-benchmark", "--results-dir-to-plot", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    with RunWriter(tmp_path / "run", {"budget_steps": 1}, [Sample(0, {})], [0]):
        pass
    with pytest.raises(UserError, match="no configuration has a return yet"):
        collect([tmp_path / "run"])
