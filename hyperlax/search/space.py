"""Our distributions as Optuna's, and what it suggests as our values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hyperlax.spaces.distributions import Categorical, Distribution, Fixed, Integer, LogUniform, show


class OptunaSpace:
    """A search space for Optuna.

    Choices that are no scalars, such as the sizes of layers, stand there as text: a study is stored as JSON.

    Args:
        space: distributions by name; those that are fixed take no part in the search.

    Attributes:
        distributions: by name.
    """

    def __init__(self, space: Mapping[str, Distribution]) -> None:
        self._fixed = {name: d.value for name, d in space.items() if isinstance(d, Fixed)}
        free = {name: d for name, d in space.items() if name not in self._fixed}
        self._choices = {
            name: {_label(choice): choice for choice in d.choices}
            for name, d in free.items()
            if isinstance(d, Categorical)
        }
        self.distributions: dict[str, BaseDistribution] = {name: self._translated(name, d) for name, d in free.items()}

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of a trial's parameters, with those that are fixed."""
        chosen = {
            name: self._choices[name][value] if name in self._choices else value for name, value in params.items()
        }
        return {**self._fixed, **chosen}

    def params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns values as a trial's parameters, the inverse of :meth:`values`."""
        return {
            name: _label(values[name]) if name in self._choices else values[name]
            for name in self.distributions
            if name in values
        }

    def _translated(self, name: str, distribution: Distribution) -> BaseDistribution:
        if isinstance(distribution, Categorical):
            return CategoricalDistribution(tuple(self._choices[name]))
        if isinstance(distribution, Integer):
            return IntDistribution(distribution.low, distribution.high, log=distribution.log)
        assert not isinstance(distribution, Fixed)
        return FloatDistribution(distribution.low, distribution.high, log=isinstance(distribution, LogUniform))


def _label(choice: Any) -> Any:
    """Returns a choice as it stands in a study."""
    return choice if isinstance(choice, bool | int | float | str) or choice is None else show(choice)
