"""Samplers: the points are those of scipy, spread evenly, the same again, and refused in one line."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from hyperlax.errors import UserError
from hyperlax.spaces import MAX_SAMPLES, SAMPLERS, Categorical, Fixed, Integer, LogUniform, Uniform, draw
from hyperlax.spaces.samplers import draw_matrices

CUBE = {name: Uniform(0, 1) for name in "abcd"}
MIXED = {
    "lr": LogUniform(1e-5, 1e-3),
    "normalize": Fixed(True),
    "layers": Categorical(((32, 32), (64, 64), (128, 128))),
    "epochs": Integer(1, 10),
    "gamma": Uniform(0.9, 0.99),
}
METHODS = ["qmc_sobol", "qmc_halton", "lhs", "random"]


def points(method: str, n: int, seed: int = 42) -> np.ndarray:
    return np.array([list(sample.values.values()) for sample in draw(CUBE, n, method, seed)])


def test_the_registry_describes_each():
    assert list(SAMPLERS) == [*METHODS, "grid"]
    assert all(str(sampler) == sampler.description != "" for sampler in SAMPLERS.values())


@pytest.mark.parametrize("n", [1, 2, 8, 50, 64])
def test_points_are_those_of_scipy(n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sobol = qmc.Sobol(4, rng=42).random(n)
    assert np.array_equal(points("qmc_sobol", n), sobol)
    assert np.array_equal(points("qmc_halton", n), qmc.Halton(4, rng=42).random(n))
    assert np.array_equal(points("lhs", n), qmc.LatinHypercube(4, rng=42).random(n))
    assert np.array_equal(points("random", n), np.random.default_rng(42).random((n, 4)))


@pytest.mark.parametrize("method", ["qmc_sobol", "qmc_halton", "random"])
@settings(max_examples=20)
@given(few=st.integers(1, 70), more=st.integers(0, 70))
def test_more_samples_begin_with_the_same(method, few, more):
    assert draw(MIXED, few + more, method)[:few] == draw(MIXED, few, method)


def test_sobol_warns_of_no_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(draw(MIXED, 37)) == 37


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_samples_and_another_others(method):
    assert draw(MIXED, 16, method, seed=7) == draw(MIXED, 16, method, seed=7)
    assert draw(MIXED, 16, method, seed=7) != draw(MIXED, 16, method, seed=8)


def test_evenness():
    discrepancies = {method: qmc.discrepancy(points(method, 64)) for method in METHODS}
    for method in ("qmc_sobol", "qmc_halton", "lhs"):
        assert discrepancies[method] < discrepancies["random"] / 2
    for method in ("qmc_sobol", "lhs"):
        for column in points(method, 64).T:
            assert sorted((column * 64).astype(int)) == list(range(64)), "one sample in each 64th of a dimension"


def test_choices_are_drawn_equally_often():
    samples = draw({"a": Categorical((1, 2, 4, 8)), "b": Categorical((True, False))}, 64)
    pairs = [tuple(sample.values.values()) for sample in samples]
    assert {pairs.count(pair) for pair in itertools.product((1, 2, 4, 8), (True, False))} == {8}


@pytest.mark.parametrize("method", [*METHODS, "grid"])
def test_every_value_belongs_to_its_distribution(method):
    samples = draw(MIXED, 50, method)
    assert [sample.sample_id for sample in samples] == list(range(50))
    for sample in samples:
        assert list(sample.values) == list(MIXED)
        assert all(MIXED[name].contains(value) for name, value in sample.values.items())


def test_fixed_ones_take_no_dimension():
    without = {name: distribution for name, distribution in MIXED.items() if name != "normalize"}
    with_fixed = [dict(sample.values) for sample in draw(MIXED, 16)]
    assert {values.pop("normalize") for values in with_fixed} == {True}
    assert with_fixed == [sample.values for sample in draw(without, 16)]


@pytest.mark.parametrize("method", METHODS)
def test_a_space_in_which_all_is_fixed(method):
    assert [sample.values for sample in draw({"a": Fixed(1)}, 3, method)] == [{"a": 1}] * 3


def rows(space, num_samples):
    return [tuple(sample.values.values()) for sample in draw(space, num_samples, "grid")]


def test_grid_of_a_discrete_space_is_everything_with_the_last_fastest():
    space = {"a": Categorical(("x", "y")), "f": Fixed(0), "b": Integer(1, 3)}
    everything = [(a, 0, b) for a in ("x", "y") for b in (1, 2, 3)]
    assert rows(space, None) == rows(space, 6) == everything
    assert rows(space, 5) == everything[:5]
    assert rows({"f": Fixed(0)}, None) == [(0,)]


def test_grid_takes_the_fewest_points_on_ranges_that_suffice():
    space = {"a": Categorical((True, False)), "u": Uniform(0, 1), "l": LogUniform(1, 100)}
    assert rows(space, 8) == [(a, u, v) for a in (True, False) for u in (0.0, 1.0) for v in (1.0, 100.0)]
    assert rows(space, 9)[:3] == [(True, 0.0, 1.0), (True, 0.0, pytest.approx(10)), (True, 0.0, 100.0)]
    assert rows(space, 2) == [(True, 0.5, pytest.approx(10)), (False, 0.5, pytest.approx(10))]
    assert rows({"n": Integer(1, 2), "u": Uniform(0, 1)}, 6) == [(n, u) for n in (1, 2) for u in (0, 0.5, 1)]


def test_a_corner_of_the_grid_is_warned_of(caplog):
    space = {"a": Categorical(("x", "y")), "f": Fixed(0), "b": Integer(1, 3), "c": Categorical((1, 2))}
    draw(space, 12, "grid")
    draw(space, 3, "qmc_sobol")
    assert not caplog.records
    draw(space, 3, "grid")
    assert [r.getMessage() for r in caplog.records] == ["3 samples are a corner of the grid, in which b never change"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MIXED, 0), f"num_samples=0: accepted is 1 … {MAX_SAMPLES}"),
        ((MIXED, -3), f"num_samples=-3: accepted is 1 … {MAX_SAMPLES}"),
        ((MIXED, 2.5), f"num_samples=2.5: accepted is 1 … {MAX_SAMPLES}"),
        ((MIXED, True), f"num_samples=True: accepted is 1 … {MAX_SAMPLES}"),
        ((MIXED, 10**12), f"num_samples=1000000000000: accepted is 1 … {MAX_SAMPLES}"),
        ((MIXED, 4, "sobol"), "unknown sampling method 'sobol': did you mean qmc_sobol?"),
        ((MIXED, 4, "random", -1), "seed=-1: accepted is an integer, 0 or more"),
        ((MIXED, 4, "random", "a"), "seed='a': accepted is an integer, 0 or more"),
        (
            (MIXED, None, "grid"),
            "num_samples is not given: grid needs it for a space with continuous hyperparameters",
        ),
        (
            ({"n": Integer(1, 2**21)}, None, "grid"),
            f"num_samples is not given: the whole grid has 2097152 points, accepted is 1 … {MAX_SAMPLES}",
        ),
        (({"n": Integer(1, 3), "b": Categorical((1, 2))}, 7, "grid"), "num_samples=7: the whole grid has 6 points"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(UserError) as caught:
        draw(*arguments)
    assert str(caught.value) == message


def test_importing_spaces_is_cheap():
    heavy = ("scipy", "pandas", "jax")
    code = f"import sys, hyperlax.spaces; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_matrices_are_two_designs_and_one_with_each_column_of_the_other():
    space = {
        "lr": LogUniform(1e-4, 1e-1),
        "kind": Fixed("a"),
        "layers": Categorical(((32,), (64,))),
        "n": Integer(1, 9),
    }
    samples = draw_matrices(space, 8, seed=3)
    assert [sample.sample_id for sample in samples] == list(range(8 * 5))
    assert {sample.values["kind"] for sample in samples} == {"a"}
    a, b, *mixed = ([sample.values for sample in samples[i : i + 8]] for i in range(0, 40, 8))
    for name, rows in zip(("lr", "layers", "n"), mixed, strict=True):
        assert rows == [{**first, name: second[name]} for first, second in zip(a, b, strict=True)]
    assert len({row["lr"] for row in a + b}) == 16
    assert draw_matrices(space, 4, seed=3)[0] == samples[0]
    with pytest.raises(UserError, match="no hyperparameter varies"):
        draw_matrices({"kind": Fixed("a")}, 8)
