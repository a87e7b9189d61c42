"""Checks of the options that a user passes to :func:`hyperlax.environments.make`."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable
from typing import Any

from hyperlax.errors import UserError, unknown


def keywords(function: Callable[..., Any]) -> list[str]:
    """Returns the names that ``function`` takes as keyword arguments (``**kwargs`` names none)."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in named]


def refuse_unknown(environment: str, options: Iterable[str], accepted: Iterable[str]) -> None:
    """Raises :class:`UserError` for the first option that is not among the accepted ones."""
    accepted = list(accepted)
    for option in options:
        if option not in accepted:
            raise unknown(f"option of {environment}", option, accepted)


def like_default(environment: str, option: str, value: Any, default: Any) -> Any:
    """Returns ``value`` if it is of the same kind as ``default``, else raises :class:`UserError`."""
    if isinstance(default, bool):
        accepted, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        accepted, expected = isinstance(value, numbers.Integral) and not isinstance(value, bool), "a whole number"
    elif isinstance(default, float):
        accepted, expected = isinstance(value, numbers.Real) and not isinstance(value, bool), "a number"
    else:
        return value
    if not accepted:
        raise UserError(f"option '{option}' of {environment}: received {value!r}, accepted: {expected}")
    return type(default)(value)  # NumPy scalars, and 2 for 2.0, behave as the default does


def episode_steps(environment: str, value: Any) -> int:
    """Returns the time limit in steps if it is a whole number of at least 1, else raises :class:`UserError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise UserError(
            f"option 'max_episode_steps' of {environment}: received {value!r}, accepted: a whole number of at least 1"
        )
    return int(value)


def construct(environment: str, build: Callable[[], Any]) -> Any:
    """Returns ``build()``; a suite's complaint about its arguments becomes a :class:`UserError`."""
    try:
        return build()
    except UserError:
        raise
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0] or "a value is out of its range"
        raise UserError(f"options of {environment} were refused: {reason}") from error
