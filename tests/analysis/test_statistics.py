"""Statistics against rliable 1.2.0 (arch 7.2.0, 20,000 resamples), enumeration, and a closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hyperlax.analysis import statistics as st
from hyperlax.analysis.collection import entry_of
from hyperlax.analysis.report import write_run_report
from hyperlax.analysis.sensitivity import sensitivity
from hyperlax.results import RunWriter, load_run
from hyperlax.spaces.distributions import Uniform
from hyperlax.spaces.samplers import draw_matrices

RNG = np.random.default_rng(7)
SCORES, OTHER = RNG.gamma(2.0, 0.3, size=(10, 3)), RNG.gamma(2.5, 0.3, size=(8, 3))
THRESHOLDS = np.array([0.2, 0.5, 1.0])


@pytest.mark.parametrize(
    ("statistic", "value", "low", "high"),
    [
        (st.mean, 0.48082442, 0.38089021, 0.59392385),
        (st.median, 0.39035321, 0.32167978, 0.52974163),
        (st.interquartile_mean, 0.44400344, 0.34670833, 0.53541865),
        (st.optimality_gap, 0.5439696, 0.46280298, 0.62589864),
    ],
)
def test_aggregates_and_their_intervals_are_rliables(statistic, value, low, high):
    estimate = st.with_interval(SCORES, statistic, resamples=20_000)
    assert estimate.value == pytest.approx(value, abs=1e-8)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.006)  # two bootstraps differ by 0.002


def test_profiles_and_the_probability_of_improvement_are_rliables():
    profile = st.with_interval(SCORES, lambda scores: st.performance_profile(scores, THRESHOLDS), resamples=20_000)
    np.testing.assert_allclose(profile.value, [0.8, 0.46666667, 0.03333333], atol=1e-8)
    np.testing.assert_allclose(profile.low, [0.66666667, 0.3, 0.0], atol=1e-8)
    np.testing.assert_allclose(profile.high, [0.93333333, 0.63333333, 0.1], atol=1e-8)
    better = st.probability_of_improvement(SCORES, OTHER, resamples=20_000)
    assert better.value == pytest.approx(0.32083333, abs=1e-8)
    assert (better.low, better.high) == pytest.approx((0.175, 0.47510417), abs=0.01)
    assert st.probability_of_improvement(SCORES, SCORES, 10).value == pytest.approx(0.5)


def test_the_probability_of_improvement_is_the_share_of_pairs_that_are_better():
    one, other = RNG.integers(5, size=(7, 3)), RNG.integers(5, size=(4, 3))
    pairs = 0.5 + 0.5 * np.sign(one[:, None].astype(float) - other[None])
    assert st.probability_of_improvement(one, other, 10).value == pytest.approx(pairs.mean())


def test_rank_correlations_are_scipys():
    from scipy.stats import spearmanr

    x = RNG.normal(size=60)
    y = np.round(x + RNG.normal(size=60))  # with ties
    estimate = st.rank_correlation(x, y)
    assert estimate.value == pytest.approx(spearmanr(x, y).statistic)
    others = [spearmanr(x[rows], y[rows]).statistic for rows in np.random.default_rng(1).integers(60, size=(1000, 60))]
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(others, [0.025, 0.975]), abs=0.03)


def test_the_expected_best_of_k_is_the_mean_over_all_choices_of_k():
    values = RNG.normal(size=9)
    expected = [np.mean([max(some) for some in itertools.combinations(values, k)]) for k in range(1, 10)]
    estimate = st.expected_best(values, np.arange(1, 10))
    np.testing.assert_allclose(estimate.value, expected, atol=1e-12)
    assert (estimate.low <= estimate.value).all() and (estimate.value <= estimate.high).all()


def test_its_interval_covers_the_truth_about_as_often_as_it_says():
    """Of 40 uniform numbers, the best of 5 is 5/6 on average."""
    covered = 0
    for seed in range(200):
        values = np.random.default_rng(seed).random(40)
        estimate = st.expected_best(values, np.array([5]), resamples=300, seed=seed)
        covered += estimate.low[0] <= 5 / 6 <= estimate.high[0]
    assert 0.87 * 200 <= covered <= 0.99 * 200


def test_sobol_indices_of_ishigamis_function():
    def ishigami(x):
        return np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0])

    from scipy.stats import qmc

    points = np.pi * (2 * qmc.Sobol(6, rng=0).random(2048).T - 1)
    a, b = points[:3], points[3:]
    ab = [ishigami(np.where(np.arange(3)[:, None] == i, b, a)) for i in range(3)]
    found = st.sobol_indices(ishigami(a), ishigami(b), np.stack(ab))
    np.testing.assert_allclose(found.first_order.value, [0.3139, 0.4424, 0.0], atol=0.02)
    np.testing.assert_allclose(found.total_order.value, [0.5576, 0.4424, 0.2437], atol=0.02)
    truth = np.array([0.5576, 0.4424, 0.2437])
    assert ((found.total_order.low <= truth) & (truth <= found.total_order.high)).all()


def test_a_sweep_of_matrices_tells_what_each_hyperparameter_explains(tmp_path):
    space = {"x": Uniform(0, 1), "y": Uniform(0, 1), "z": Uniform(0, 1)}
    samples = draw_matrices(space, 256)
    info = {"budget_steps": 10, "matrices": list(space)}
    with RunWriter(tmp_path, info, samples, [0]) as writer:
        for sample in samples:
            value = 10 * sample.values["x"] + 5 * sample.values["y"]
            if sample.sample_id == 7:  # it has not ended: its row counts in no matrix
                continue
            row = {"sample_id": sample.sample_id, "seed": 0, "grid_step": 10, "env_steps": 10}
            writer.evaluations([{**row, "mean_return": value}])
            writer.lane_finished(sample.sample_id, 0, "COMPLETED", 10)
    table = sensitivity(entry_of(load_run(tmp_path))).set_index("hyperparameter")
    assert list(table.index) == ["x", "y", "z"] and set(table["rows"]) == {255}
    np.testing.assert_allclose(table["first_order"], [0.8, 0.2, 0.0], atol=0.02)
    np.testing.assert_allclose(table["total_order"], [0.8, 0.2, 0.0], atol=0.02)
    assert (table["first_order_low"] <= [0.8, 0.2, 0.0]).all() and (table["first_order_high"] >= [0.8, 0.2, 0.0]).all()
    with RunWriter(tmp_path, info, samples, [0]) as writer:
        writer.lane_finished(7, 0, "DIVERGED", 10)
    assert set(sensitivity(entry_of(load_run(tmp_path)))["rows"]) == {256}, "as the worst"
    report = write_run_report(load_run(tmp_path)).read_text()
    assert "Sobol indices of the final return, matrices of 256 rows" in report and "total order low" in report
    assert (tmp_path / "plots" / "sensitivity.csv").exists()
    assert not (tmp_path / "plots" / "expected_best.csv").exists(), "rows of a design are no draws"
