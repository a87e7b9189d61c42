"""What a hyperparameter may be drawn from: each distribution maps the unit interval onto its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from hyperlax.errors import UserError


@dataclass(frozen=True)
class Uniform:
    """Real numbers between ``low`` and ``high``, all equally likely.

    Raises:
        UserError: unless both are finite and ``low < high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = _real_bounds("uniform", self.low, self.high)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def size(self) -> int | None:
        """None: there is no end of them."""
        return None

    def from_unit(self, u: float) -> float:
        """Inverse of the cumulative distribution at ``u`` in ``[0, 1)``; never decreases with ``u``."""
        return _clip(self.low + _unit(u) * (self.high - self.low), self.low, self.high)

    def contains(self, value: object) -> bool:
        """Whether ``value`` is a number between ``low`` and ``high``, both included."""
        return _is_real(value) and self.low <= value <= self.high  # type: ignore[operator]

    def grid(self, points: int) -> tuple[float, ...]:
        """``points`` evenly spaced values from ``low`` to ``high``; a single one is the middle."""
        if _at_least_one(points) == 1:
            return (self.from_unit(0.5),)
        return tuple(np.linspace(self.low, self.high, points).tolist())

    def describe(self) -> str:
        """For example ``uniform 0.9 … 0.99``."""
        return f"uniform {self.low:g} … {self.high:g}"


@dataclass(frozen=True)
class LogUniform:
    """Positive numbers between ``low`` and ``high`` whose logarithm is uniform.

    Raises:
        UserError: unless both are finite and ``0 < low < high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = _real_bounds("log-uniform", self.low, self.high)
        if low <= 0:
            raise UserError(f"log-uniform low={low!r}: accepted is a number greater than 0")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def size(self) -> int | None:
        """None: there is no end of them."""
        return None

    def from_unit(self, u: float) -> float:
        """Inverse of the cumulative distribution at ``u`` in ``[0, 1)``; never decreases with ``u``."""
        return _clip(_between_logarithms(self.low, self.high, _unit(u)), self.low, self.high)

    def contains(self, value: object) -> bool:
        """Whether ``value`` is a number between ``low`` and ``high``, both included."""
        return _is_real(value) and self.low <= value <= self.high  # type: ignore[operator]

    def grid(self, points: int) -> tuple[float, ...]:
        """``points`` values in geometric progression from ``low`` to ``high``; a single one is their geometric mean."""
        if _at_least_one(points) == 1:
            return (self.from_unit(0.5),)
        inner = (self.from_unit(i / (points - 1)) for i in range(1, points - 1))
        return (self.low, *inner, self.high)

    def describe(self) -> str:
        """For example ``log-uniform 1e-05 … 0.001``."""
        return f"log-uniform {self.low:g} … {self.high:g}"


@dataclass(frozen=True)
class Integer:
    """Whole numbers from ``low`` to ``high``, both included; equally likely, or with ``log`` about as 1/value.

    Raises:
        UserError: unless both are whole and ``low < high``, and ``low >= 1`` with ``log``.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            if not _is_real(bound) or not float(bound).is_integer():
                raise UserError(f"integer {name}={bound!r}: accepted is a whole number")
            object.__setattr__(self, name, int(bound))
        if self.low >= self.high:
            raise UserError(f"integer low={self.low}, high={self.high}: accepted is low smaller than high")
        if self.log and self.low < 1:
            raise UserError(f"log-integer low={self.low}: accepted is 1 or more")

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return self.high - self.low + 1

    def from_unit(self, u: float) -> int:
        """Inverse of the cumulative distribution at ``u`` in ``[0, 1)``; never decreases with ``u``."""
        if self.log:
            # Half a step on either side, so that the outermost values get their whole share.
            value = round(_between_logarithms(self.low - 0.5, self.high + 0.5, _unit(u)))
        else:
            value = self.low + math.floor(_unit(u) * (self.high - self.low + 1))
        return min(max(value, self.low), self.high)

    def contains(self, value: object) -> bool:
        """Whether ``value`` is a whole number between ``low`` and ``high``, both included."""
        return _is_real(value) and self.low <= value <= self.high and float(value).is_integer()  # type: ignore

    def grid(self, points: int) -> tuple[int, ...]:
        """``points`` different values, as evenly spaced (in logarithm with ``log``) as they can be; at most all."""
        points = min(_at_least_one(points), self.high - self.low + 1)
        if points == 1:
            return (self.from_unit(0.5),)
        spaced = (np.geomspace if self.log else np.linspace)(self.low, self.high, points)
        values = [round(value) for value in spaced.tolist()]
        # Rounding may have put two on the same number: move them apart, upwards and then back below the end.
        for i in range(1, points):
            values[i] = max(values[i], values[i - 1] + 1)
        values[-1] = self.high
        for i in range(points - 2, -1, -1):
            values[i] = min(values[i], values[i + 1] - 1)
        return tuple(values)

    def describe(self) -> str:
        """For example ``integer 4 … 16`` or ``log-integer 32 … 512``."""
        return f"{'log-' if self.log else ''}integer {self.low} … {self.high}"


@dataclass(frozen=True)
class Categorical:
    """One of ``choices``, all equally likely; any values, lists become tuples.

    Raises:
        UserError: unless there is at least one choice, they differ, and their numbers are finite.
    """

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.choices, str) or not isinstance(self.choices, Sequence):
            raise UserError(f"categorical choices={self.choices!r}: accepted is a list of values")
        choices = tuple(plain(choice) for choice in self.choices)
        if not choices:
            raise UserError("categorical choices=[]: accepted is one value or more")
        for i, choice in enumerate(choices):
            _refuse_non_finite("categorical choice", choice)
            if any(_same(choice, other) for other in choices[:i]):
                raise UserError(f"categorical choice {show(choice)} is there twice: accepted are different values")
        object.__setattr__(self, "choices", choices)

    @property
    def size(self) -> int | None:
        """How many choices there are."""
        return len(self.choices)

    def from_unit(self, u: float) -> Any:
        """The choice in whose equal share of ``[0, 1)`` ``u`` lies, in their order."""
        return self.choices[min(math.floor(_unit(u) * len(self.choices)), len(self.choices) - 1)]

    def contains(self, value: object) -> bool:
        """Whether ``value`` equals a choice; True is not 1, and a list equals the tuple of its entries."""
        return any(_same(plain(value), choice) for choice in self.choices)

    def grid(self, points: int) -> tuple[Any, ...]:
        """All choices, whatever ``points``: there is nothing between them to leave out."""
        _at_least_one(points)
        return self.choices

    def describe(self) -> str:
        """For example ``one of [32, 32], [64, 64]``."""
        return f"one of {', '.join(show(choice) for choice in self.choices)}"


@dataclass(frozen=True)
class Fixed:
    """Always ``value``; takes no dimension of a sampler.

    Raises:
        UserError: if it is a number that is not finite.
    """

    value: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", plain(self.value))
        _refuse_non_finite("fixed value", self.value)

    @property
    def size(self) -> int | None:
        """One."""
        return 1

    def from_unit(self, u: float) -> Any:
        """The value, for every ``u`` in ``[0, 1)``."""
        _unit(u)
        return self.value

    def contains(self, value: object) -> bool:
        """Whether ``value`` equals the fixed one; True is not 1."""
        return _same(plain(value), self.value)

    def grid(self, points: int) -> tuple[Any, ...]:
        """The value alone."""
        _at_least_one(points)
        return (self.value,)

    def describe(self) -> str:
        """For example ``fixed at True``."""
        return f"fixed at {show(self.value)}"


Distribution = Uniform | LogUniform | Integer | Categorical | Fixed


def plain(value: Any) -> Any:
    """The value without array types (NumPy's, JAX's) and with tuples for lists, at any depth."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(plain(entry) for entry in value) if isinstance(value, list | tuple) else value


def show(value: Any) -> str:
    """The value as users write it: ``[64, 64]`` for a tuple, text without quotes."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(show(entry) for entry in value)}]"
    return str(value)


def _same(one: object, other: object) -> bool:
    """Equality under which True is not 1."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _is_real(value: object) -> bool:
    """Whether it is a finite number, neither a truth value nor text."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _real_bounds(kind: str, low: object, high: object) -> tuple[float, float]:
    for name, bound in (("low", low), ("high", high)):
        if not _is_real(bound):
            raise UserError(f"{kind} {name}={bound!r}: accepted is a finite number")
    low, high = float(low), float(high)  # type: ignore[arg-type]
    if not low < high:
        raise UserError(f"{kind} low={low!r}, high={high!r}: accepted is low smaller than high")
    if not math.isfinite(high - low):
        raise UserError(f"{kind} low={low!r}, high={high!r}: accepted is a finite distance between them")
    return low, high


def _refuse_non_finite(kind: str, value: Any) -> None:
    for entry in value if isinstance(value, tuple) else (value,):
        if isinstance(entry, tuple):
            _refuse_non_finite(kind, entry)
        elif isinstance(entry, float) and not math.isfinite(entry):
            raise UserError(f"{kind} {show(value)}: accepted are finite numbers")


def _between_logarithms(low: float, high: float, u: float) -> float:
    return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)  # rounding can leave the range by one unit in the last place


def _unit(u: float) -> float:
    u = float(u)
    if not 0 <= u < 1:
        raise ValueError(f"u={u!r} is not in [0, 1)")
    return u


def _at_least_one(points: int) -> int:
    if points < 1:
        raise ValueError(f"a grid of {points} points")
    return points
