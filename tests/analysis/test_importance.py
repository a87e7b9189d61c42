"""Importances against a function whose important hyperparameter is known, and against Optuna's own study."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
import pandas as pd
import pytest

from hyperlax.analysis.collection import Entry, entry_of
from hyperlax.analysis.importance import COLUMNS, evaluator, importances, warn_of_few
from hyperlax.errors import UserError

pytest.importorskip("optuna")


def entry(count, seed=0, **changed):
    """Only the learning rate matters: 1e-3 is best."""
    rng = np.random.default_rng(seed)
    columns = {
        "lr": 10 ** rng.uniform(-5, -1, count),
        "gamma": rng.uniform(0.9, 1.0, count),
        "kind": rng.choice(["tanh", "relu", "silu"], count),
        "steps": rng.integers(10, 40, count),
        "same": np.full(count, 3),
    }
    table = pd.DataFrame(columns)
    table["final_return"] = -((np.log10(table["lr"]) + 3) ** 2)
    table = table.assign(**changed)
    names = [name for name in table if name != "final_return"]
    table["status"] = "COMPLETED"
    return Entry("ppo_mlp", "gymnax.cartpole", table, names, None, None)


def optunas(table, rows):
    """Importances of some rows in a study as a user of Optuna would have made it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    d, returns = optuna.distributions, table["final_return"].tolist()
    distributions = {
        "lr": d.FloatDistribution(table["lr"].min(), table["lr"].max(), log=True),
        "gamma": d.FloatDistribution(table["gamma"].min(), table["gamma"].max()),
        "kind": d.CategoricalDistribution(["relu", "silu", "tanh"]),
        "steps": d.IntDistribution(table["steps"].min(), table["steps"].max()),
    }
    study = optuna.create_study(direction="maximize")
    for row in rows:
        params = {name: table[name].tolist()[row] for name in distributions}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=returns[row]))
    return optuna.importance.get_param_importances(study, evaluator=evaluator(len(rows)))


def test_the_hyperparameter_that_matters_is_found():
    table = importances(entry(128)).set_index("hyperparameter")
    assert list(table.columns) == list(COLUMNS[1:]) and set(table["configurations"]) == {128}
    assert table.index[0] == "lr" and set(table.index) == {"lr", "gamma", "kind", "steps"}
    assert table.loc["lr", "importance"] > 0.7 and table["importance"].sum() == pytest.approx(1)
    assert table.loc["lr", "low"] > table.loc["lr", "chance"]
    others = table.drop("lr")
    assert (others["low"] < others["chance"]).all()


@pytest.mark.parametrize("count", [12, 64])
def test_importances_are_optunas(count):
    some = entry(count)
    table = importances(some, resamples=1).set_index("hyperparameter")
    own = optunas(some.summary, range(count))
    assert table["importance"].to_dict() == pytest.approx(own)
    drawn = np.random.default_rng(0).integers(count, size=(1, count))[0]
    resampled = optunas(some.summary, drawn)
    assert table["low"].to_dict() == pytest.approx(resampled) and table["high"].to_dict() == pytest.approx(resampled)


def test_a_configuration_without_a_return_counts_as_the_worst():
    whole = entry(64)
    returns = whole.summary["final_return"].to_numpy().copy()
    lowest = np.argsort(returns)[:20]
    absent = returns.copy()
    absent[lowest[:-1]] = np.nan
    returns[lowest] = returns[lowest[-1]]
    pd.testing.assert_frame_equal(
        importances(entry(64, final_return=absent), 5), importances(entry(64, final_return=returns), 5)
    )


def test_few_configurations_are_warned_of(caplog):
    warn_of_few([entry(50)])
    assert not caplog.records
    warn_of_few([entry(49), entry(7)])
    assert importances(entry(7), 2).empty
    assert "importances of 49 configurations are rough; 50 or more would tell" in caplog.text
    assert "importances of 7 configurations say nothing; 50" in caplog.text


@pytest.mark.parametrize("changed", [{"final_return": np.nan}, {n: 1 for n in ("lr", "gamma", "kind", "steps")}])
def test_nothing_to_tell(changed):
    assert importances(entry(10, **changed)).empty


def test_equal_returns_tell_nothing():
    assert (importances(entry(60, final_return=1.0), 2)["importance"] == 0).all()


def test_without_optuna_it_says_what_to_install(monkeypatch, write_run, tmp_path, caplog):
    from hyperlax.analysis.run_pictures import plot_run

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else found(name, *a))
    with pytest.raises(UserError, match=r"pip install 'hyperlax\[search\]'"):
        importances(entry(10))
    caplog.set_level(logging.INFO)
    run = write_run(tmp_path / "run", [{"lr": 0.1 * (i + 1)} for i in range(9)], lambda values: values["lr"])
    drawn = plot_run(entry_of(run), tmp_path / "plots", ["importance", "slices"], ["png"])
    assert [file.name for file in drawn.values()] == ["slices.png"] and "its picture is left out" in caplog.text
