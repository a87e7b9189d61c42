"""The summary's formulas on curves small enough to compute by hand, and the published tables."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyperlax.results import read_summary, summarise
from hyperlax.results.summary import curve_metrics, header_of, name_of, to_published

PUBLISHED = sorted(
    (Path(__file__).parents[2].parent / "shared" / "reference" / "hyperlax_published").glob("*_summary.csv")
)
LANE_COLUMNS = [
    "sample_id", "seed", "status", "env_steps", "diverged_at", "num_params", "wall_seconds_start", "wall_seconds_end"
]  # fmt: skip


def metrics(steps, returns, budget):
    return curve_metrics(np.array(steps, float), np.array(returns, float), budget)


def frames(curves, lanes=()):
    """Evaluations, samples and lanes; ``curves`` maps (sample, seed) to {step: return}."""
    rows = [(sample, seed, step, value) for (sample, seed), curve in curves.items() for step, value in curve.items()]
    evaluations = pd.DataFrame(rows, columns=["sample_id", "seed", "grid_step", "mean_return"])
    ids = sorted({sample for sample, _ in curves} | {lane[0] for lane in lanes})
    samples = pd.DataFrame({"sample_id": ids, "actor_network.layer_sizes": ["[32, 32]"] * len(ids)})
    return evaluations, samples, pd.DataFrame(list(lanes), columns=LANE_COLUMNS)


def test_curve_with_a_peak_in_the_middle():
    got = metrics([10, 20, 30, 40], [0, 100, 80, 60], budget=40)
    assert got == {
        "peak_return": 100,
        "peak_timestep": 20,
        "final_return": 60,
        "auc_at_budget": pytest.approx((50 + 90 + 70) / 100 / 3),
        "stability_score": 1,
        "time_to_target": pytest.approx(19),  # 90 between 0 at 10 and 100 at 20
        "early_learning_rate": pytest.approx(10),
        "forgetting_score": pytest.approx(0.4),
    }


def test_final_return_and_stability_take_the_last_tenth():
    returns = [0.0] * 36 + [10.0, 20.0, 30.0, 40.0]
    got = metrics(range(1, 41), returns, budget=40)
    assert got["final_return"] == 25
    assert got["stability_score"] == pytest.approx(1 - math.sqrt(125) / 25)
    assert got["forgetting_score"] == pytest.approx(15 / 40)
    assert got["time_to_target"] == pytest.approx(39.6)
    assert got["early_learning_rate"] == 0


def test_negative_returns_have_a_target_that_can_be_reached():
    got = metrics([1, 2, 3], [-1000, -200, -300], budget=3)
    assert got["peak_return"] == -200
    assert got["forgetting_score"] == pytest.approx(0.5)
    assert got["time_to_target"] == pytest.approx(1 + 780 / 800)  # -220


def test_forgetting_and_stability_stay_in_bounds():
    got = metrics([1, 2], [100, -500], budget=2)
    assert got["forgetting_score"] == 1
    assert metrics([1, 2], [-1, 1], budget=100)["stability_score"] == 0


def test_constant_curve_is_as_published():
    got = metrics([1, 2, 3, 4], [9.4] * 4, budget=4)
    assert (got["auc_at_budget"], got["stability_score"], got["time_to_target"]) == (0, 1, 1)
    assert (got["forgetting_score"], got["early_learning_rate"]) == (0, pytest.approx(0))


def test_a_curve_that_stops_early_earns_no_area_afterwards():
    whole = metrics([0, 10, 20], [0, 1, 1], budget=20)["auc_at_budget"]
    stopped = metrics([0, 10], [0, 1], budget=20)["auc_at_budget"]
    assert (whole, stopped) == (pytest.approx(0.75), pytest.approx(0.25))


def test_mean_and_spread_over_seeds():
    curves = {(3, 0): {1: 0, 2: 10}, (3, 1): {1: 0, 2: 30}}
    lanes = [(3, 0, "COMPLETED", 2, None, 17, 1.0, 5.0), (3, 1, "COMPLETED", 2, None, 17, 2.0, 9.0)]
    row = summarise(*frames(curves, lanes), 2).iloc[0]
    assert row["final_return"] == 20
    assert row["final_return_std"] == pytest.approx(math.sqrt(200))
    assert (row["status"], row["seeds"], row["seeds_completed"]) == ("COMPLETED", 2, 2)
    assert (row["env_steps"], row["num_params"], row["wall_seconds"]) == (4, 17, 8)


def test_order_and_samples_without_evaluations():
    curves = {(0, 0): {1: 1.0}, (1, 0): {1: 5.0}, (4, 0): {1: math.nan}}
    lanes = [(2, 0, "FAILED", 0, None, None, 0.0, 1.0)]
    table = summarise(*frames(curves, lanes), 1)
    assert list(table["sample_id"]) == [1, 0, 2, 4]
    assert list(table["status"]) == ["UNFINISHED", "UNFINISHED", "FAILED", "UNFINISHED"]
    nothing = table.iloc[2]
    assert math.isnan(nothing["final_return"]) and math.isinf(nothing["time_to_target"])
    assert (nothing["peak_timestep"], nothing["auc_at_budget"]) == (0, 0)


def test_of_equal_returns_the_higher_peak_and_then_the_sooner_comes_first():
    curves = {(0, 0): {1: 0.0, 2: 5.0, 3: 5.0}, (1, 0): {1: 5.0, 2: 5.0, 3: 5.0}, (2, 0): {1: 0.0, 2: 6.0, 3: 5.0}}
    assert list(summarise(*frames(curves, []), 3)["sample_id"]) == [2, 1, 0]


@pytest.mark.parametrize(
    ("statuses", "expected", "completed"),
    [
        (["COMPLETED", "COMPLETED"], "COMPLETED", 2),
        (["COMPLETED"], "UNFINISHED", 1),
        (["COMPLETED", "PRUNED"], "PRUNED", 1),
        (["DIVERGED", "PRUNED"], "DIVERGED", 0),
        (["TIMED_OUT", "DIVERGED"], "DIVERGED", 0),
        (["FAILED", "DIVERGED"], "FAILED", 0),
    ],
)
def test_status_is_the_worst_of_the_seeds(statuses, expected, completed):
    lanes = [(0, seed, status, 5, 7 + seed, 17, 0.0, 1.0) for seed, status in enumerate(statuses)]
    row = summarise(*frames({(0, 0): {1: 1.0}}, lanes), 1, seeds=2).iloc[0]
    assert (row["status"], row["seeds_completed"], row["diverged_at"]) == (expected, completed, 7)


def test_rows_written_again_by_a_resumed_run_count_once():
    evaluations, samples, lanes = frames({(0, 0): {1: 1.0, 2: 2.0}})
    again = pd.concat([evaluations, evaluations.assign(mean_return=[1.0, 4.0])])
    assert summarise(again, samples, lanes, 2)["final_return"].iloc[0] == 4


def test_headers_on_disk_are_the_published_ones(tmp_path):
    table = summarise(*frames({(0, 0): {1: 1.0, 2: 2.0}}), 2)
    (tmp_path / "summary.csv").write_bytes(to_published(table))
    headers = (tmp_path / "summary.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert headers[:2] == ["hp id", "peak return"]
    assert "actor network › pre torso › layer sizes" in headers
    again = read_summary(tmp_path)
    assert list(again.columns) == list(table.columns)
    assert again["final_return"].iloc[0] == table["final_return"].iloc[0]


@pytest.mark.skipif(not PUBLISHED, reason="the published tables are not here")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_tables(path):
    table = read_summary(path)
    assert [header_of(name) for name in table.columns] == list(pd.read_csv(path, nrows=0).columns)
    assert len(table) == 64 and "gamma" in table.columns
    some = table[table["peak_return"].notna()]
    forgetting = ((some["peak_return"] - some["final_return"]) / some["peak_return"].abs()).clip(0, 1)
    np.testing.assert_allclose(some["forgetting_score"], forgetting, atol=1e-3)
    # What the inferred definitions say of constant and missing curves.
    constant = some[(some["auc_at_budget"] == 0)]
    assert (constant["peak_return"] == constant["final_return"]).all() and (constant["stability_score"] == 1).all()
    missing = table[table["peak_return"].isna()]
    assert np.isinf(missing["time_to_target"]).all() and (missing["auc_at_budget"] == 0).all()
    reached = some[(some["peak_return"] > 0) & (some["time_to_target"] < 5e6)]
    assert (reached["time_to_target"] <= reached["peak_timestep"] * 1.001).all()
    if "pendulum" in path.name:
        assert (some["time_to_target"] == 5e6).all()


def test_names_map_both_ways():
    for name in ("peak_return", "sample_id", "seeds_completed", "gamma", "actor_network.layer_sizes"):
        assert name_of(header_of(name)) == name
