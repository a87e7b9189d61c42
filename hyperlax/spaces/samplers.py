"""Drawing samples from a space: points of the unit cube, one dimension a hyperparameter, mapped by its distribution.

Dimension *i* is the *i*-th hyperparameter of the space that is not fixed, so the order of the space matters.
With Sobol, Halton and random points the first *n* samples are the same however many are drawn.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlax.errors import UserError, unknown
from hyperlax.spaces.distributions import Categorical, Distribution, Fixed, show
from hyperlax.spaces.files import Sample

log = logging.getLogger(__name__)

DEFAULT_NUM_SAMPLES = 16
MAX_SAMPLES = 2**20

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Sampler:
    """A way to draw.

    Attributes:
        description: one line for the user.
        function: ``(distributions, number of samples or None, seed)`` to one tuple of values a sample.
    """

    description: str
    function: Callable[[Sequence[Distribution], int | None, int], Iterable[Sequence[Any]]]

    def __str__(self) -> str:
        return self.description


def draw(
    space: Mapping[str, Distribution], num_samples: int | None, method: str = "qmc_sobol", seed: int = 42
) -> list[Sample]:
    """Draws samples numbered from 0; the same arguments give the same samples.

    Args:
        space: distribution by name of hyperparameter; the fixed ones take no dimension.
        num_samples: how many; None for 16, with ``grid`` for all that there are.
        method: a name in ``SAMPLERS``.
        seed: of the scrambling or of the generator; unused by ``grid``.

    Raises:
        UserError: if the method is unknown, or the number or the seed is not accepted.
    """
    if method not in SAMPLERS:
        raise unknown("sampling method", method, SAMPLERS)
    if num_samples is None and method != "grid":
        num_samples = DEFAULT_NUM_SAMPLES
    if num_samples is not None and not (_is_integer(num_samples) and 1 <= num_samples <= MAX_SAMPLES):
        raise UserError(f"num_samples={num_samples!r}: accepted is 1 … {MAX_SAMPLES}")
    if not (_is_integer(seed) and seed >= 0):
        raise UserError(f"seed={seed!r}: accepted is an integer, 0 or more")
    fixed = {name: distribution.value for name, distribution in space.items() if isinstance(distribution, Fixed)}
    free = {name: distribution for name, distribution in space.items() if name not in fixed}
    rows = SAMPLERS[method].function(tuple(free.values()), num_samples and int(num_samples), int(seed))
    samples = []
    for sample_id, row in enumerate(rows):
        drawn = {**fixed, **dict(zip(free, row, strict=True))}
        samples.append(Sample(sample_id, {name: drawn[name] for name in space}))
    if method == "grid" and len(samples) > 1:
        same = [name for name, d in free.items() if d.size != 1 and len({show(s.values[name]) for s in samples}) == 1]
        if same:
            log.warning("%d samples are a corner of the grid, in which %s never change", len(samples), ", ".join(same))
    return samples


def varied(space: Mapping[str, Distribution], but: Iterable[str] = ()) -> list[str]:
    """Returns the hyperparameters that have a choice, without some that are given."""
    return [name for name, distribution in space.items() if distribution.size != 1 and name not in set(but)]


def draw_matrices(space: Mapping[str, Distribution], num_rows: int | None, seed: int = 42) -> list[Sample]:
    """Draws the design from which Sobol indices are estimated: matrices A and B, and A with each column from B.

    The samples are numbered A first, then B, then A with the first column from B, and so on.

    Args:
        space: distribution by name of hyperparameter.
        num_rows: of each matrix; 16 by default. With powers of two the points are most even.
        seed: of the scrambling.

    Raises:
        UserError: nothing varies, or the number or the seed is not accepted.
    """
    free = {name: space[name] for name in varied(space)}
    if not free:
        raise UserError("no hyperparameter varies: Sobol indices need one or more")
    halves = {f"{half}{name}": distribution for half in "AB" for name, distribution in free.items()}
    rows = draw(halves, num_rows, "qmc_sobol", seed)
    fixed = {name: distribution.from_unit(0.0) for name, distribution in space.items() if name not in free}
    designs: list[dict[str, str]] = [dict.fromkeys(free, half) for half in "AB"]
    designs += [{**designs[0], name: "B"} for name in free]
    if len(designs) * len(rows) > MAX_SAMPLES:
        raise UserError(f"num_samples={num_rows!r}: {len(designs)} matrices of so many rows exceed {MAX_SAMPLES}")
    return [
        Sample(i, {name: row.values[f"{design[name]}{name}"] if name in free else fixed[name] for name in space})
        for i, (design, row) in enumerate(itertools.product(designs, rows))
    ]


def _sobol(dimensions: int, num_samples: int, seed: int) -> Points:
    from scipy.stats import qmc

    # Only powers of two are balanced, and scipy warns about others: draw the next one, keep the first part.
    points: Points = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2((num_samples - 1).bit_length())
    return points[:num_samples]


def _halton(dimensions: int, num_samples: int, seed: int) -> Points:
    from scipy.stats import qmc

    points: Points = qmc.Halton(dimensions, scramble=True, rng=seed).random(num_samples)
    return points


def _latin_hypercube(dimensions: int, num_samples: int, seed: int) -> Points:
    from scipy.stats import qmc

    points: Points = qmc.LatinHypercube(dimensions, rng=seed).random(num_samples)
    return points


def _random(dimensions: int, num_samples: int, seed: int) -> Points:
    return np.random.default_rng(seed).random((num_samples, dimensions))


def _mapped(
    points: Callable[[int, int, int], Points],
) -> Callable[[Sequence[Distribution], int | None, int], list[list[Any]]]:
    """The sampler that maps points of the unit cube ``(num_samples, dimensions)`` by the distributions."""

    def sample(distributions: Sequence[Distribution], num_samples: int | None, seed: int) -> list[list[Any]]:
        assert num_samples is not None
        if not distributions:
            return [[] for _ in range(num_samples)]
        # A Latin hypercube may touch 1, which belongs to no distribution's domain.
        cube = np.minimum(points(len(distributions), num_samples, seed), np.nextafter(1.0, 0.0))
        return [[d.from_unit(u) for d, u in zip(distributions, row, strict=True)] for row in cube.tolist()]

    return sample


def _grid(distributions: Sequence[Distribution], num_samples: int | None, seed: int) -> Iterable[Sequence[Any]]:
    """The first ``num_samples`` of the Cartesian product, in which the last hyperparameter changes fastest.

    Categoricals give all their choices; real and integer ranges the same number of points each (integers at most all
    they have), the smallest with which the product reaches ``num_samples``. None takes every value of every one.
    """
    del seed
    points = _grid_points(distributions, num_samples)
    return itertools.islice(itertools.product(*(d.grid(points) for d in distributions)), num_samples)


def _grid_points(distributions: Sequence[Distribution], num_samples: int | None) -> int:
    """The number of points on each range, see :func:`_grid`."""
    if num_samples is None:
        sizes = [d.size for d in distributions if d.size is not None]
        if len(sizes) < len(distributions):
            raise UserError("num_samples is not given: grid needs it for a space with continuous hyperparameters")
        total = math.prod(sizes)
        if total > MAX_SAMPLES:
            raise UserError(
                f"num_samples is not given: the whole grid has {total} points, accepted is 1 … {MAX_SAMPLES}"
            )
        return max(sizes, default=1)

    def product(points: int) -> int:
        return math.prod(
            len(d.choices) if isinstance(d, Categorical) else min(points, d.size or points) for d in distributions
        )

    if product(num_samples) < num_samples:
        raise UserError(f"num_samples={num_samples}: the whole grid has {product(num_samples)} points")
    return next(points for points in range(1, num_samples + 1) if product(points) >= num_samples)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


SAMPLERS: dict[str, Sampler] = {
    "qmc_sobol": Sampler("scrambled Sobol points, most even for powers of two", _mapped(_sobol)),
    "qmc_halton": Sampler("scrambled Halton points, even for any number", _mapped(_halton)),
    "lhs": Sampler("a Latin hypercube: every hyperparameter evenly, for the number drawn", _mapped(_latin_hypercube)),
    "random": Sampler("independent random points", _mapped(_random)),
    "grid": Sampler("every combination of choices and evenly spaced values", _grid),
}
