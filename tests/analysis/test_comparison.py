"""Families side by side: what is collected, drawn, tabulated and told in one file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyperlax.analysis.collection import collect
from hyperlax.analysis.comparison import aggregates, improvements, overall, plot_comparison, tables, warn_of_few
from hyperlax.cli import main
from hyperlax.errors import UserError
from hyperlax.results import RunWriter
from hyperlax.spaces.files import Sample


def make(folder, algorithm, level, count=12, environment="gymnax.cartpole", mode="batched", ends=None, **more):
    """A run whose final returns are level, level + 1, …; the last sample diverges before its first evaluation.

    ``ends`` are other statuses by sample, None of one that has not ended; ``more`` stands in run.json.
    """
    rng = np.random.default_rng(abs(level))
    samples = [Sample(i, {"lr": float(10 ** rng.uniform(-4, -1)), "layers": (32, 32)}) for i in range(count)]
    info = {
        "algorithm": algorithm, "network": "mlp", "recipe": f"{algorithm}_mlp", "mode": mode,
        "environment": environment, "budget_steps": 20, "versions": {"jax": "1"}, "command": "hyperlax <sweep> & more",
    }  # fmt: skip
    info |= more
    with RunWriter(folder, info, samples, [0, 1]) as writer:
        for i in range(count):
            for seed in (0, 1):
                if i + 1 < count:
                    key = {"sample_id": i, "seed": seed}
                    writer.evaluations([{**key, "grid_step": s, "mean_return": level + i * s / 20} for s in (10, 20)])
                status = (ends or {}).get(i, "COMPLETED" if i + 1 < count else "DIVERGED")
                if status is not None:
                    writer.lane_finished(i, seed, status, 20)
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
    assert len(collect([tree / "pqn_mlp", tree / "pqn_mlp" / "gymnax_cartpole" / "batched"])) == 1  # named twice


def test_namesakes_are_told_apart_by_recipe_and_by_where_they_lie(tree, tmp_path):
    fixed = dict(recipe="ppo_mlp_no_network_search")
    for environment in ("gymnax.pendulum", "gymnax.cartpole"):
        folder = environment.replace(".", "_")
        make(tmp_path / "b" / "ppo_mlp_fixed" / folder / "batched", "ppo", 20, environment=environment, **fixed)
        make(tmp_path / "c" / "ppo_mlp" / folder / "batched", "ppo", 30, environment=environment)
    make(tmp_path / "b" / "pqn_mlp" / "gymnax_cartpole" / "batched", "pqn", 50)
    names = {(e.family, e.environment): e.path.relative_to(tmp_path).parts[0]
             for e in collect([tmp_path / "c", tree, tmp_path / "b"]) if tmp_path in e.path.parents}  # fmt: skip
    pendulum, cartpole = "gymnax.pendulum", "gymnax.cartpole"
    assert names == {
        ("ppo_mlp", pendulum): "c", ("ppo_mlp", cartpole): "c", ("pqn_mlp (2)", cartpole): "b",
        ("ppo_mlp_no_network_search", pendulum): "b", ("ppo_mlp_no_network_search", cartpole): "b",
    }  # fmt: skip


def test_namesakes_in_directories_of_no_order_are_told_apart(tmp_path):
    for folder in ("x", "y"):
        make(tmp_path / folder / "run", "ppo", 10)
    assert [entry.family for entry in collect([tmp_path])] == ["ppo_mlp", "ppo_mlp (2)"]


def test_what_diverged_or_failed_counts_as_the_worst_of_all_families(tree, tmp_path, caplog):
    make(tmp_path / "a", "sac", 40, ends={10: "DIVERGED", 9: "FAILED"})  # both had high returns before
    make(tmp_path / "b", "dqn", 70, count=4, ends=dict.fromkeys(range(4), "DIVERGED"), network="tmlp")
    by_family = {entry.family: entry for entry in collect([tree, tmp_path]) if entry.environment == "gymnax.cartpole"}
    worst = 10.0  # of PPO's
    assert np.sort(by_family["sac_mlp"].returns).tolist() == [worst] * 3 + list(range(40, 49))
    assert by_family["sac_mlp"].peaks.max() == 50.0
    assert by_family["dqn_tmlp"].returns.tolist() == [worst] * 4
    row = aggregates(collect([tree, tmp_path])).set_index("family").loc["sac_mlp"]
    assert row["best"] == 48.0 and row["completed"] == 9
    plot_comparison([by_family["sac_mlp"]], tmp_path / "plots", formats=("svg",))
    curves = pd.read_csv(tmp_path / "plots" / "learning_curves.csv")
    assert curves["y"].iloc[-1] == np.median([*range(40, 51), worst])  # each as far as it came, then as the worst


def test_a_configuration_is_the_worst_from_where_its_first_seed_is_lost(tmp_path):
    samples = [Sample(i, {"lr": 0.1 * i}) for i in range(2)]
    info = {"algorithm": "ppo", "network": "mlp", "recipe": "ppo_mlp", "environment": "e", "budget_steps": 30}
    with RunWriter(tmp_path, info, samples, [0, 1]) as writer:
        for i, seed, status, steps in (
            (0, 0, "COMPLETED", (10, 20, 30)), (0, 1, "COMPLETED", (10, 20, 30)),
            (1, 0, "COMPLETED", (10, 20, 30)), (1, 1, "DIVERGED", (10,)),
        ):  # fmt: skip
            key = {"sample_id": i, "seed": seed}
            writer.evaluations([{**key, "grid_step": s, "mean_return": 100.0 * i + s} for s in steps])
            writer.lane_finished(i, seed, status, 30)
    plot_comparison(collect([tmp_path]), tmp_path / "plots", formats=("svg",))
    curves = pd.read_csv(tmp_path / "plots" / "learning_curves.csv")
    assert curves["y"].tolist() == [60.0, 20.0, 30.0]  # of 10 and 110, then of 20 and 30 alone: the other is the worst


def test_a_family_without_any_return_is_said_and_kept(tree, tmp_path, caplog):
    make(tmp_path / "b", "dqn", 70, count=1)
    entry = next(entry for entry in collect([tree, tmp_path]) if entry.family == "dqn_mlp")
    assert entry.returns.tolist() == [10.0] and "no configuration has a return: all count as the worst" in caplog.text
    assert len(plot_comparison(collect([tree, tmp_path]), tmp_path / "plots", formats=("svg",))) == 6


def test_configurations_that_have_not_ended_are_left_out_and_said(tmp_path, caplog):
    make(tmp_path / "run", "ppo", 10, ends=dict.fromkeys(range(4, 12)))
    (entry,) = collect([tmp_path / "run"])
    assert sorted(entry.returns) == [10, 11, 12, 13] and entry.left_out == 8
    assert "8 configurations have not ended: they are left out" in caplog.text
    make(tmp_path / "running", "ppo", 10, ends=dict.fromkeys(range(12)))
    (entry,) = collect([tmp_path / "running"])
    assert len(entry.returns) == 11, "nothing has ended: what there is"


def test_parts_of_a_cell_that_is_not_finished_are_no_families(tree, tmp_path, caplog):
    cell = tmp_path / "bench" / "sac_mlp" / "gymnax_cartpole" / "batched"
    make(cell / "units" / "000" / "sac_mlp" / "gymnax_cartpole" / "run_001", "sac", 10)
    with pytest.raises(UserError, match="no cell of this benchmark is finished yet"):
        collect([tmp_path])
    make(tmp_path / "bench" / "pqn_mlp" / "gymnax_cartpole" / "batched", "pqn", 10)
    assert [entry.family for entry in collect([tmp_path])] == ["pqn_mlp"]
    assert f"{cell}: this cell of a benchmark is not finished" in caplog.text


def test_aggregates_and_improvements(tree):
    entries = collect([tree])
    table = aggregates(entries).set_index(["environment", "family"])
    row = table.loc["gymnax.cartpole", "ppo_mlp"]
    assert row["completed"] == 11 and row["best"] == 20.0
    values = np.sort([*range(10, 21), 10])
    assert row["iqm"] == pytest.approx(values[3:9].mean()) and row["iqm_low"] < row["iqm"] < row["iqm_high"]
    better = improvements(entries).set_index(["family", "other"])
    # All are worse than those of PQN but the one that diverged, the worst of all: ten beat it, two are no better.
    assert better.loc[("ppo_mlp", "pqn_mlp"), "probability"] == pytest.approx((10 + 2 / 2) / 12**2)
    assert better.loc[("ppo_mlp", "ppo_mlp, sequential"), "probability"] == pytest.approx(0.5)


def test_over_all_environments_returns_are_scaled_and_families_of_one_left_out(tree):
    (row,) = overall(collect([tree])).to_dict("records")
    assert (row["family"], row["configurations"]) == ("ppo_mlp", 12)
    assert row["environments"] == "gymnax.cartpole, gymnax.pendulum"
    own = np.array([*range(11), 0])
    scaled = np.stack([own / 40, own / 10], axis=1)  # the best of all is 50 in one, in the other 10 above the worst
    assert row["mean"] == pytest.approx(scaled.mean())
    assert "optimality_gap" not in row  # by how much the best of all misses itself says nothing
    assert row["iqm_low"] < row["iqm"] < row["iqm_high"]
    assert len(overall(collect([tree / "pqn_mlp"]))) == 0


def test_goals_tell_by_how_much_configurations_miss_them(tree, tmp_path, capsys):
    found = tables(collect([tree]), {"gymnax.cartpole": 20.0, "gymnax.pendulum": -95.0})
    own = np.array([*range(11), 0])
    gap = np.mean([1 - own / 10, np.maximum(0, 1 - own / 5)])
    assert found.overall["optimality_gap"].tolist() == pytest.approx([gap])
    rows = found.aggregates.set_index(["environment", "family"])["optimality_gap"]
    assert rows["gymnax.pendulum", "ppo_mlp"] == pytest.approx(np.maximum(0, 5 - own).mean())
    assert rows["gymnax.cartpole", "pqn_mlp"] == pytest.approx(10 / 12)  # of the one that diverged
    out = ["--output", str(tmp_path)]
    for goal, message in (
        ("gymnax.cartpol=1", "did you mean gymnax.cartpole"),
        ("gymnax.cartpole=high", "accepted is a number"),
        ("gymnax.cartpole=10", "accepted are returns above 10"),
    ):
        assert main(["plot-benchmark", "--results-dir-to-plot", str(tree), "--goals", goal, *out]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_families_over_those_environments_that_most_of_them_have(tree, tmp_path):
    for environment in ("gymnax.pendulum", "gymnax.reacher"):
        make(tmp_path / environment / "sac" / environment / "run_001", "sac", 10, environment=environment)
    make(tmp_path / "gymnax.cartpole" / "pqn" / "e" / "run_001", "dqn", 10)
    make(tmp_path / "gymnax.pendulum" / "pqn" / "e" / "run_001", "dqn", 10, environment="gymnax.pendulum")
    table = overall(collect([tree, tmp_path]))
    assert set(table["family"]) == {"ppo_mlp", "dqn_mlp"}
    assert set(table["environments"]) == {"gymnax.cartpole, gymnax.pendulum"}


def test_what_families_have_in_common_need_be_no_ones_all(tmp_path):
    for family, environments in (("ppo", "abc"), ("dqn", "abd")):
        for environment in environments:
            make(tmp_path / family / environment / "run", family, 10, environment=environment)
    table = overall(collect([tmp_path]))
    assert set(table["family"]) == {"ppo_mlp", "dqn_mlp"} and set(table["environments"]) == {"a, b"}


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
    assert "sac_mlp, search" not in set(pd.read_csv(tmp_path / "plots" / "expected_best.csv")["family"])
    assert "sac_mlp, search" in set(pd.read_csv(tmp_path / "plots" / "best_found_returns.csv")["family"])
    found = tables(collect([tree, searched]))
    row = found.aggregates.set_index("family").loc["sac_mlp, search"]
    assert np.isfinite(row["iqm"]) and np.isnan(row["iqm_low"]) and row["configurations_are"] == "trials of a search"
    pair = found.improvements.set_index(["family", "other"]).loc[("ppo_mlp", "sac_mlp, search")]
    assert np.isfinite(pair["probability"]) and np.isnan(pair["low"])


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
    assert len(pictures) == 6
    for picture in pictures.values():
        for suffix in (".png", ".svg", ".pdf"):
            assert picture.with_suffix(suffix).stat().st_size > 3000
        numbers = pd.read_csv(picture.with_suffix(".csv"))
        assert {"environment", "family", "x", "y"} <= set(numbers.columns) and len(numbers)
    best = pd.read_csv(tmp_path / "plots" / "expected_best.csv").query("family == 'ppo_mlp' and x == 1")
    assert best["y"].tolist() == pytest.approx(
        [np.mean([*range(10, 21), 0]), np.mean([*range(-100, -89), -100])], rel=1e-5
    )  # the worst of CartPole is a published one; six digits are written
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
