"""Which hyperparameters tell good configurations from the rest: PED-ANOVA, with intervals.

PED-ANOVA (Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", 2023)
compares how a hyperparameter is distributed among the best configurations with how it is among all. The implementation
is Optuna's. Importances are never negative, so that chance alone gives every hyperparameter some: what chance gives is
told beside each.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from hyperlax.analysis.collection import Entry
from hyperlax.analysis.statistics import CONFIDENCE
from hyperlax.analysis.tables import is_categorical, is_logarithmic
from hyperlax.errors import UserError

log = logging.getLogger(__name__)

FEWEST_SAMPLES = 50  # with fewer, less than five of them are the best tenth
RESAMPLES = 100
_SHUFFLES = 20
_BEST_SHARE = 0.1
_FEWEST_BEST = 5
COLUMNS = ("hyperparameter", "importance", "low", "high", "chance", "configurations")


def importances(entry: Entry, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Returns a row a hyperparameter that varies, the most important first.

    Columns: ``hyperparameter``, its ``importance`` as a share of all (they sum to 1), ``low`` and ``high`` of a 95%
    bootstrap interval over configurations, ``chance``, the mean where returns are shuffled, and the number of
    ``configurations``. What counts as best is the best tenth, or the best five where a tenth is fewer. A configuration
    without a return counts as the worst; one that was pruned counts with what it had reached.

    Args:
        entry: its summary holds the configurations.
        resamples: of the bootstrap.

    Raises:
        UserError: optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("the importance of hyperparameters needs the package optuna: pip install 'hyperlax[search]'")
    returns = entry.returns
    names = [name for name in entry.hyperparameters if entry.summary[name].astype(str).nunique() > 1]
    if len(returns) < 2 or not names or not np.isfinite(returns).all():
        return pd.DataFrame(columns=list(COLUMNS))
    if len(returns) < FEWEST_SAMPLES:
        log.warning(
            "%s on %s: importances of %d configurations are rough; %d or more would tell",
            entry.family, entry.environment, len(returns), FEWEST_SAMPLES,
        )  # fmt: skip
    columns = {name: entry.summary[name] for name in names}
    rng = np.random.default_rng(0)
    everything = np.arange(len(returns))
    drawn = [everything, *rng.integers(len(returns), size=(resamples, len(returns)))]
    shuffled = [rng.permutation(returns) for _ in range(_SHUFFLES)]
    with _quiet():
        shares = _shares(columns, [(rows, returns[rows]) for rows in drawn])
        chance = _shares(columns, [(everything, values) for values in shuffled])
    low, high = np.quantile(shares[1:] if resamples else shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    values = (names, shares[0], low, high, chance.mean(axis=0), len(returns))
    table = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _shares(columns: Mapping[str, pd.Series], cases: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns importances of some configurations given by their rows and returns, ``(cases, hyperparameters)``."""
    import optuna

    found = [_as_optuna(column) for column in columns.values()]
    distributions = dict(zip(columns, (distribution for distribution, _ in found), strict=True))
    configurations = [dict(zip(columns, row, strict=True)) for row in zip(*(v for _, v in found), strict=True)]
    shares = []
    for rows, returns in cases:
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            [
                optuna.create_trial(params=configurations[row], distributions=distributions, value=float(value))
                for row, value in zip(rows, returns, strict=True)
            ]
        )
        importance = optuna.importance.get_param_importances(study, evaluator=evaluator(len(rows)), normalize=False)
        values = np.array([importance[name] for name in columns])
        shares.append(values / values.sum() if values.sum() > 0 else values)
    return np.array(shares)


def evaluator(configurations: int) -> Any:
    """Returns Optuna's PED-ANOVA for so many configurations."""
    from optuna.importance import PedAnovaImportanceEvaluator

    best = min(0.5, max(_BEST_SHARE, _FEWEST_BEST / configurations))
    known = inspect.signature(PedAnovaImportanceEvaluator).parameters
    name = "target_quantile" if "target_quantile" in known else "baseline_quantile"  # the latter before Optuna 5
    share: Any = {name: best}
    return PedAnovaImportanceEvaluator(**share)


def _as_optuna(column: pd.Series) -> tuple[Any, list[Any]]:
    """Returns the distribution that a column of samples seems to be from, and its values as that has them.

    A number with few different values is a category: on a grid of 50 points it would leave most of them empty.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if is_categorical(column) or column.isna().any():
        values = column.astype(str).tolist()
        return CategoricalDistribution(sorted(set(values))), values
    kind = IntDistribution if pd.api.types.is_integer_dtype(column) else FloatDistribution
    return kind(column.min(), column.max(), log=is_logarithmic(column)), column.tolist()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from telling of every study that is made, and of what it calls experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
