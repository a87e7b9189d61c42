"""Which hyperparameters tell good configurations from the rest: PED-ANOVA, with intervals.

PED-ANOVA (Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", 2023)
compares how a hyperparameter is distributed among the best configurations with how it is among all. The implementation
is Optuna's. Importances are never negative, so that chance alone gives every hyperparameter some: what chance gives is
told beside each.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from hyperlax.analysis.collection import Entry
from hyperlax.analysis.statistics import CONFIDENCE
from hyperlax.analysis.tables import FEWEST_SAMPLES, is_categorical, is_logarithmic
from hyperlax.errors import UserError

log = logging.getLogger(__name__)

ENOUGH_SAMPLES = 50  # with fewer, less than five of them are the best tenth
RESAMPLES = 100
_SHUFFLES = 20
_BEST_SHARE = 0.1
_FEWEST_BEST = 5
COLUMNS = ("hyperparameter", "importance", "low", "high", "chance", "configurations")


def importances(entry: Entry, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Returns a row a hyperparameter that varies, the most important first.

    Columns: ``hyperparameter``, its ``importance`` as a share of all (they sum to 1), ``low`` and ``high`` of a 95%
    bootstrap interval over configurations where they are independent draws, ``chance``, the mean where returns are
    shuffled, and the number of ``configurations``. What counts as best is the best tenth, or the best five where a
    tenth is fewer, by the final return or what else a search was for. A configuration without one counts as the worst;
    one that was pruned counts with what it had reached. Fewer than ``FEWEST_SAMPLES`` have no importances.

    Args:
        entry: its summary holds the configurations.
        resamples: of the bootstrap.

    Raises:
        UserError: optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("the importance of hyperparameters needs the package optuna: pip install 'hyperlax[search]'")
    returns = entry.scores
    names = [name for name in entry.hyperparameters if entry.summary[name].astype(str).nunique() > 1]
    if entry.run is not None and entry.run.info.get("matrices"):
        names = []  # rows of a design depend on each other, and have Sobol indices
    if len(returns) < FEWEST_SAMPLES or not names or entry.lost.all() or not np.isfinite(returns).all():
        return pd.DataFrame(columns=list(COLUMNS))
    rng = np.random.default_rng(0)
    with _quiet():
        study = _study(entry.summary[names], returns)
        value = _shares(study, names)
        rows = rng.integers(len(returns), size=(resamples if entry.is_drawn else 0, len(returns)))
        drawn = np.array([_shares(_resampled(study, some), names) for some in rows] or [np.full_like(value, np.nan)])
        orders = [rng.permutation(len(returns)) for _ in range(_SHUFFLES)]
        chance = np.mean([_shares(study, names, -returns[order]) for order in orders], axis=0)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    values = (names, value, low, high, chance, len(returns))
    table = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def warn_of_few(entries: Sequence[Entry]) -> None:
    """Logs a warning where configurations are too few to tell what is important."""
    for entry in entries:
        count = len(entry.summary)
        if count < ENOUGH_SAMPLES:
            log.warning(
                "%s on %s: importances of %d configurations %s; %d or more would tell",
                entry.family, entry.environment, count, "say nothing" if count < FEWEST_SAMPLES else "are rough",
                ENOUGH_SAMPLES,
            )  # fmt: skip


def _study(configurations: pd.DataFrame, returns: np.ndarray) -> Any:
    """Returns a study that has configurations as its trials, numbered as the rows are."""
    import optuna

    found = {name: _as_optuna(column) for name, column in configurations.items()}
    distributions = {name: distribution for name, (distribution, _) in found.items()}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.create_trial(
                params={name: values[row] for name, (_, values) in found.items()},
                distributions=distributions,
                value=float(value),
            )
            for row, value in enumerate(returns)
        ]
    )
    for trial in study.get_trials(deepcopy=False):
        trial.distributions = distributions  # the same objects: comparing copies of them takes a quarter of the time
    return study


def _resampled(study: Any, rows: np.ndarray) -> Any:
    """Returns a study as if it had other trials; none is copied, which would take most of the time."""
    trials = study.get_trials(deepcopy=False)
    other = copy.copy(study)
    other.get_trials = lambda deepcopy=True, states=None: [trials[row] for row in rows]
    return other


def _shares(study: Any, names: list[str], losses: np.ndarray | None = None) -> np.ndarray:
    """Returns the share of each hyperparameter, of other losses than the study's where there are some."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    target = None if losses is None else lambda trial: losses[trial.number]
    found = optuna.importance.get_param_importances(
        study, evaluator=evaluator(len(trials)), target=target, normalize=False
    )
    values = np.array([found[name] for name in names])
    return values / values.sum() if values.sum() > 0 else values


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
