"""Registries whose entries are imported when they are first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from hyperlax.errors import UserError


class Lazy(Mapping[str, Any]):
    """Objects by name.

    Args:
        places: ``module:object`` of each.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places: dict[str, Any] = dict(places)

    def __getitem__(self, name: str) -> Any:
        place = self._places[name]
        if not isinstance(place, str):
            return place
        module, _, attribute = place.partition(":")
        return getattr(import_module(module), attribute)

    def register(self, name: str, value: Any) -> None:
        """Adds an object.

        Raises:
            UserError: the name is taken.
        """
        if name in self:
            raise UserError(f"'{name}' is already registered")
        self._places[name] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
