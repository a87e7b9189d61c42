"""The samplers of a search, by the names that users give them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import optuna
from optuna.samplers import BaseSampler

from hyperlax.errors import UserError, unknown


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, warn_independent_sampling=False)


def _cmaes(seed: int) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _nsgaii(seed: int) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed)


def _nsgaiii(seed: int) -> BaseSampler:
    return optuna.samplers.NSGAIIISampler(seed=seed)


class Sampler(NamedTuple):
    """How the next trial is chosen.

    Attributes:
        description: one line for the user.
        make: with a seed; None for our own points.
        packages: that it needs.
    """

    description: str
    make: Callable[[int], BaseSampler] | None
    packages: tuple[str, ...] = ()


SAMPLERS = {
    "tpe": Sampler("tree-structured Parzen estimators, of all hyperparameters jointly", _tpe),
    "cmaes": Sampler("covariance matrix adaptation; choices are drawn at random", _cmaes, packages=("cmaes",)),
    "gp": Sampler("Gaussian processes, for few and long trials", _gp, packages=("torch",)),
    "qmc": Sampler("scrambled Sobol points, the same as those of a sweep", None),
    "random": Sampler("independent random points", _random),
    "nsgaii": Sampler("a genetic algorithm, for two or three objectives", _nsgaii),
    "nsgaiii": Sampler("a genetic algorithm, for more objectives", _nsgaiii),
}


def check_sampler(name: str) -> None:
    """Raises UserError if there is no such sampler, or it lacks a package."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    for package in SAMPLERS[name].packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"sampler '{name}' needs the package {package}: pip install {package}")
