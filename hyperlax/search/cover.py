"""The shape that holds every configuration that a search may ask for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from hyperlax.environments.protocol import Environment
from hyperlax.spaces.distributions import Distribution
from hyperlax.spaces.hyperparameters import declarations, replace

MOST_POINTS = 4096
MOST_VALUES = 64


def cover(defaults: Any, space: Mapping[str, Distribution], env: Environment) -> Any:
    """Returns the least shape with room for every point of a space.

    Sizes grow with each hyperparameter by itself, so that they are largest at a corner. Networks are listed: each kind
    that there may be is an alternative.

    Args:
        defaults: hyperparameters of what is not drawn.
        space: distributions by name.
        env: the environment.
    """
    structural = {name for name, declaration in declarations(defaults).items() if declaration.kind == "structural"}
    groups: dict[str, dict[str, Distribution]] = {}
    for name, distribution in space.items():
        role, dot, _ = name.partition(".")
        if dot or name in structural:
            groups.setdefault(role if dot else "", {})[name] = distribution
    points: list[Mapping[str, Any]] = [{}]
    for group in groups.values():
        points += _product(group)
    shapes = dict.fromkeys(replace(defaults, point).shape(env) for point in points)
    return reduce(lambda a, b: a.merge(b), sorted(shapes, key=repr))


def fits(shape: Any, hyperparams: Any, env: Environment) -> bool:
    """Returns whether what :func:`cover` returned has room for some hyperparameters."""
    return bool(shape.merge(hyperparams.shape(env)) == shape)


def _product(space: Mapping[str, Distribution]) -> Iterator[dict[str, Any]]:
    """Yields every combination of values or, if they are too many, of the ends of ranges, or each value by itself."""
    values = {name: _values(distribution) for name, distribution in space.items()}
    ends = {name: _ends(distribution) for name, distribution in space.items()}
    for choices in (values, ends):
        if math.prod(map(len, choices.values())) <= MOST_POINTS:
            for chosen in itertools.product(*choices.values()):
                yield dict(zip(choices, chosen, strict=True))
            return
    for end in (0, -1):
        base = {name: some[end] for name, some in ends.items()}
        for name, some in values.items():
            for choice in some:
                yield {**base, name: choice}


def _values(distribution: Distribution) -> Sequence[Any]:
    """Returns all values, or some if they are many."""
    return distribution.grid(min(distribution.size or 2, MOST_VALUES))


def _ends(distribution: Distribution) -> Sequence[Any]:
    """Returns the values among which the largest and smallest sizes are."""
    values = _values(distribution)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return (min(numbers), max(numbers)) if len(numbers) == len(values) > 2 else values
