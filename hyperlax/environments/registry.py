"""Names of environments: ``make("gymnax.pendulum")``, ``make("brax.ant@mjx")``, and one's own by ``register``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hyperlax.environments import brax, gymnax
from hyperlax.environments.protocol import Environment
from hyperlax.errors import UserError, unknown

Factory = Callable[..., Environment]


@dataclass(frozen=True)
class _Entry:
    factory: Factory
    backends: tuple[str, ...] = ()


_ENTRIES: dict[str, _Entry] = {
    **{f"gymnax.{short}": _Entry(partial(gymnax.make, short)) for short in gymnax.IDS},
    **{f"brax.{short}": _Entry(partial(brax.make, short), brax.backends(short)) for short in brax.NAMES},
}


def names() -> list[str]:
    """Returns the names of all environments, sorted, without importing any suite."""
    return sorted(_ENTRIES)


def make(name: str, **options: Any) -> Environment:
    """Returns a new environment.

    Args:
        name: one of :func:`names`; ``suite.name@backend`` is short for the option ``backend=``.
        **options: passed to the environment's factory, for example ``max_episode_steps=100``.

    Raises:
        UserError: the name, a backend or an option is not known, or the suite is not installed.
    """
    base, at, backend = str(name).partition("@")
    if base not in _ENTRIES:
        raise unknown("environment", base, _ENTRIES, hint="(`hyperlax list environments` shows all)")
    entry = _ENTRIES[base]
    if at:
        if options.get("backend", backend) != backend:
            raise UserError(f"environment '{name}' contradicts the option backend={options['backend']!r}: give one")
        options["backend"] = backend
    if at and not entry.backends:
        raise UserError(f"environment '{name}': {base} has no backends to choose from")
    if entry.backends and options.get("backend", entry.backends[0]) not in entry.backends:
        raise unknown(f"backend of {base}", options["backend"], entry.backends)
    return _build(base, entry.factory, options)


def register(name: str, factory: Factory, backends: Sequence[str] = ()) -> None:
    """Adds an environment of the user's own.

    Args:
        name: how it is asked for, by convention ``suite.name``; without ``@``, commas and white space.
        factory: called with the options of :func:`make`, returns an :class:`Environment`; a class will do.
        backends: values of its option ``backend`` that ``name@backend`` accepts, if it has any.

    Raises:
        UserError: the name is taken or malformed, or the factory cannot be called.
    """
    if not isinstance(name, str) or not name or any(c in "@," or c.isspace() for c in name):
        raise UserError(f"environment name {name!r}: accepted is a text without '@', commas and white space")
    if name in _ENTRIES:
        raise UserError(f"environment '{name}' is already registered")
    if not callable(factory):
        raise UserError(f"environment '{name}': received {factory!r}, accepted: a callable that returns an environment")
    _ENTRIES[name] = _Entry(factory, tuple(backends))


def _build(name: str, factory: Factory, options: dict[str, Any]) -> Environment:
    """Calls the factory; options it does not take and results that are no environment become a UserError."""
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise UserError(f"options of {name} were refused: {error}") from error
    except ValueError:
        pass  # some built-in callables do not tell what they take
    environment = factory(**options)
    if not isinstance(environment, Environment):
        raise UserError(
            f"environment '{name}': its factory returned a {type(environment).__name__}, which lacks some of: "
            "name, observation_shape, action_space, max_episode_steps, reset, step"
        )
    return environment
