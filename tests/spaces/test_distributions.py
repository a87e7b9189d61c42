"""Distributions: inverse cumulative distributions, membership, grids, words, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hyperlax.errors import UserError
from hyperlax.spaces import Categorical, Fixed, Integer, LogUniform, Uniform

UNIT = st.floats(0, 1, exclude_max=True)
LAST = math.nextafter(1.0, 0.0)
ALL = [
    Uniform(0.9, 0.99),
    Uniform(-1e300, 1e-300),
    LogUniform(1e-5, 1e-3),
    LogUniform(5e-324, 1.7e308),
    Integer(4, 16),
    Integer(-3, 3),
    Integer(32, 512, log=True),
    Integer(1, 2, log=True),
]


@pytest.mark.parametrize("distribution", ALL, ids=lambda d: d.describe())
@given(one=UNIT, other=UNIT)
def test_from_unit_stays_inside_and_never_decreases(distribution, one, other):
    low, high = sorted((one, other))
    assert distribution.from_unit(low) <= distribution.from_unit(high)
    assert distribution.contains(distribution.from_unit(one))
    assert distribution.low <= distribution.from_unit(0.0) <= distribution.from_unit(LAST) <= distribution.high


@given(u=UNIT)
def test_continuous_ones_are_the_inverse_distributions_of_scipy(u):
    assert Uniform(0.1, 0.5).from_unit(u) == pytest.approx(stats.uniform(0.1, 0.4).ppf(u), rel=1e-12)
    assert LogUniform(1e-5, 1e-1).from_unit(u) == pytest.approx(stats.loguniform(1e-5, 1e-1).ppf(u), rel=1e-12)
    assert Integer(4, 16).from_unit(u) == max(4, stats.randint(4, 17).ppf(u)) or (u * 13).is_integer()


def test_values_are_plain_python_numbers():
    assert type(Uniform(np.float32(0), 1).from_unit(np.float64(0.5))) is float
    assert type(Integer(np.int64(1), 3.0).from_unit(0.5)) is int
    assert Integer(1, 3.0) == Integer(1, 3)


def test_every_choice_has_an_equal_share():
    choices = Categorical(((32, 32), "relu", True))
    assert [choices.from_unit(i / 3 + 0.01) for i in range(3)] == [(32, 32), "relu", True]
    assert choices.from_unit(LAST) is True
    shares = [Integer(1, 4).from_unit((i + 0.5) / 400) for i in range(400)]
    assert [shares.count(value) for value in (1, 2, 3, 4)] == [100] * 4


def test_log_integer_has_the_shares_of_its_logarithm():
    distribution = Integer(1, 100, log=True)
    drawn = [distribution.from_unit((i + 0.5) / 100_000) for i in range(100_000)]
    for value in (1, 2, 50, 100):
        share = math.log((value + 0.5) / (value - 0.5)) / math.log(100.5 / 0.5)
        assert drawn.count(value) / 100_000 == pytest.approx(share, abs=2e-5)


@pytest.mark.parametrize("u", [-0.1, 1.0, math.nan])
@pytest.mark.parametrize("distribution", [*ALL, Categorical((1,)), Fixed(1)], ids=lambda d: d.describe())
def test_outside_the_unit_interval_is_a_bug_of_the_caller(distribution, u):
    with pytest.raises(ValueError, match=r"not in \[0, 1\)"):
        distribution.from_unit(u)


def test_contains():
    assert Uniform(0, 1).contains(1) and not Uniform(0, 1).contains(1.1) and not Uniform(0, 1).contains(True)
    assert not Uniform(0, 1).contains("0.5") and not Uniform(0, 1).contains(math.nan)
    assert not Uniform(0, 1).contains(10**400)
    assert Integer(1, 4).contains(4.0) and not Integer(1, 4).contains(2.5) and not Integer(1, 4).contains(5)
    layers = Categorical(((32, 32), (64, 64)))
    assert layers.contains([64, 64]) and layers.contains(np.array([32, 32])) and not layers.contains((64,))
    assert Categorical((0, 1)).contains(np.int32(1)) and not Categorical((0, 1)).contains(True)
    assert Fixed(True).contains(np.bool_(True)) and not Fixed(True).contains(1)


def test_grids():
    assert Uniform(0, 1).grid(5) == (0, 0.25, 0.5, 0.75, 1)
    assert Uniform(0.9, 0.99).grid(1) == (pytest.approx(0.945),)
    assert LogUniform(1e-5, 1e-3).grid(3) == (1e-5, pytest.approx(1e-4), 1e-3)
    assert LogUniform(1e-4, 1e-2).grid(1) == (pytest.approx(1e-3),)
    assert Integer(4, 16).grid(3) == (4, 10, 16)
    assert Integer(1, 3).grid(10) == (1, 2, 3)
    assert Integer(1, 100, log=True).grid(3) == (1, 10, 100)
    assert Categorical(("tanh", "relu")).grid(1) == ("tanh", "relu")
    assert Fixed((64, 64)).grid(7) == ((64, 64),)
    with pytest.raises(ValueError, match="grid of 0 points"):
        Uniform(0, 1).grid(0)


@given(low=st.integers(1, 50), width=st.integers(1, 60), points=st.integers(1, 120), log=st.booleans())
def test_integer_grids_have_no_value_twice(low, width, points, log):
    grid = Integer(low, low + width, log).grid(points)
    assert len(grid) == min(points, width + 1)
    assert list(grid) == sorted(set(grid)) and low <= grid[0] and grid[-1] <= low + width
    if points > 1:
        assert (grid[0], grid[-1]) == (low, low + width)


def test_sizes():
    sizes = [d.size for d in (Uniform(0, 1), LogUniform(1, 2), Integer(4, 16), Categorical((1, 2)), Fixed(0))]
    assert sizes == [None, None, 13, 2, 1]


def test_words():
    assert Uniform(0.9, 0.99).describe() == "uniform 0.9 … 0.99"
    assert LogUniform(1e-5, 1e-3).describe() == "log-uniform 1e-05 … 0.001"
    assert Integer(4, 16).describe() == "integer 4 … 16"
    assert Integer(32, 512, log=True).describe() == "log-integer 32 … 512"
    assert Categorical(([32, 32], (64, 64))).describe() == "one of [32, 32], [64, 64]"
    assert Categorical((True, "relu", None)).describe() == "one of True, relu, None"
    assert Fixed(True).describe() == "fixed at True"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Uniform(1, 1), "uniform low=1.0, high=1.0: accepted is low smaller than high"),
        (lambda: Uniform(math.nan, 1), "uniform low=nan: accepted is a finite number"),
        (lambda: Uniform(0, math.inf), "uniform high=inf: accepted is a finite number"),
        (lambda: Uniform("0", 1), "uniform low='0': accepted is a finite number"),
        (
            lambda: Uniform(-1.7e308, 1.7e308),
            "uniform low=-1.7e+308, high=1.7e+308: accepted is a finite distance between them",
        ),
        (lambda: LogUniform(0, 1), "log-uniform low=0.0: accepted is a number greater than 0"),
        (lambda: LogUniform(2, 1), "log-uniform low=2.0, high=1.0: accepted is low smaller than high"),
        (lambda: Integer(1.5, 3), "integer low=1.5: accepted is a whole number"),
        (lambda: Integer(3, True), "integer high=True: accepted is a whole number"),
        (lambda: Integer(3, 3), "integer low=3, high=3: accepted is low smaller than high"),
        (lambda: Integer(0, 3, log=True), "log-integer low=0: accepted is 1 or more"),
        (lambda: Categorical(()), "categorical choices=[]: accepted is one value or more"),
        (lambda: Categorical("relu"), "categorical choices='relu': accepted is a list of values"),
        (lambda: Categorical((1, 2, 1.0)), "categorical choice 1.0 is there twice: accepted are different values"),
        (
            lambda: Categorical(((8, 8), [8, 8])),
            "categorical choice [8, 8] is there twice: accepted are different values",
        ),
        (lambda: Categorical((1.0, math.inf)), "categorical choice inf: accepted are finite numbers"),
        (lambda: Categorical(((1.0, (math.nan,)),)), "categorical choice [nan]: accepted are finite numbers"),
        (lambda: Fixed(math.nan), "fixed value nan: accepted are finite numbers"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value) == message


def test_true_and_one_are_different_choices():
    assert Categorical((1, True)).choices == (1, True)


def test_equal_distributions_are_equal_and_hashable():
    assert {Categorical(([8], [9])), Categorical(((8,), (9,)))} == {Categorical(((8,), (9,)))}
