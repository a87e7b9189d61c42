"""The picture and the table of a sweep, and the numbers in them."""

import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from hyperlax.analysis import important_hyperparameters, plot_sweep, top_table
from hyperlax.errors import UserError
from hyperlax.results import RunWriter, load_run
from hyperlax.spaces.files import Sample


def make_run(directory, count, seeds=(0, 1), odd=False):
    """Final return is 10 x sample id (+ seed); ``odd`` adds diverged, failed and NaN samples."""
    samples = [
        Sample(i, {"lr": 10.0 ** (i - 5), "layers": [(32, 32), (128, 128)][i % 2], "same": 3, "norm": i % 3 == 0})
        for i in range(count)
    ]
    with RunWriter(directory, {"recipe": "ppo_mlp", "budget_steps": 20}, samples, seeds) as writer:
        for i in range(count):
            for seed in seeds:
                rows = [
                    {"sample_id": i, "seed": seed, "grid_step": step, "mean_return": value}
                    for step, value in ((10, 0.0), (20, 10.0 * i + seed))
                ]
                status = "COMPLETED"
                if odd and i == 1:
                    status, rows = "FAILED", []
                if odd and i == 2 and seed == 1:
                    status, rows[1]["mean_return"] = "DIVERGED", math.nan
                writer.evaluations(rows)
                writer.lane_finished(i, seed, status, 20)
    return load_run(directory)


def shown(table, width=120):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    console.file.close()
    return console.export_text()


def test_top_table(tmp_path):
    run = make_run(tmp_path, 6, odd=True)
    lines = [line.split() for line in shown(top_table(run, k=3), 200).splitlines()]
    rows = [line for line in lines if line and line[0] in ("1", "2", "3")]
    assert [row[1] for row in rows] == ["5", "4", "3"]
    assert rows[0][2:7] == ["50.5", "±", "0.71", "50.5", "COMPLETED"]
    assert "same" not in shown(top_table(run))
    assert "Best 6 of 6" in shown(top_table(run, k=20))


def test_table_fits_a_narrow_terminal(tmp_path):
    assert max(map(len, shown(top_table(make_run(tmp_path, 6)), 80).splitlines())) <= 80


def test_importance():
    rng = np.random.default_rng(0)
    returns = np.arange(30.0)
    table = pd.DataFrame(
        {
            "final_return": returns,
            "exact": np.exp(-returns),
            "noise": rng.permutation(30),
            "group": np.where(returns < 15, "low", "high"),
            "flag": rng.permutation(30) % 2 == 0,
            "constant": 1,
        }
    )
    names = ["noise", "flag", "constant", "group", "exact"]
    got = dict(important_hyperparameters(table, names))
    assert got["exact"] == pytest.approx(1)
    # Ranks 1..15 against 16..30: between 1687.5 of 2247.5; within 560 / 28 against 2247.5 / 29.
    assert got["group"] == pytest.approx(math.sqrt(1 - 20 / (2247.5 / 29)))
    assert got["noise"] < 0.4 and got["flag"] < 0.4 and "constant" not in got
    assert [name for name, _ in important_hyperparameters(table, names)][:2] == ["exact", "group"]
    few = important_hyperparameters(table[::5], names)  # six of them
    assert {importance for _, importance in few} == {0.0}


@pytest.mark.parametrize(("count", "seeds", "odd"), [(1, (0,), False), (2, (0,), False), (12, (0, 1), True)])
def test_plot(tmp_path, count, seeds, odd):
    run = make_run(tmp_path / "run", count, seeds, odd)
    path = plot_sweep(run, tmp_path / "plots" / "sweep")
    assert path == tmp_path / "plots" / "sweep.png"
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    numbers = pd.read_csv(path.with_suffix(".csv"))
    ranked = numbers[numbers["panel"] == "final return"]
    assert ranked["sample_id"].tolist() == run.summary["sample_id"].tolist()
    np.testing.assert_array_equal(ranked["y"], run.summary["final_return"])
    best = numbers[(numbers["panel"] == "learning curve") & (numbers["sample_id"] == count - 1)]
    assert best["y"].tolist() == [0, 10 * (count - 1) + np.mean(seeds)]
    panels = set(numbers["panel"]) - {"learning curve", "final return"}
    assert panels == ({"lr", "layers", "norm"} if count > 1 else set())


def test_nothing_to_plot(tmp_path):
    with RunWriter(tmp_path, {}, [Sample(0, {"lr": 1.0})], [0]):
        pass
    with pytest.raises(UserError, match="nothing to plot"):
        plot_sweep(load_run(tmp_path), tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
