"""A recipe: an algorithm with a network, what is searched, and defaults that learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperlax.errors import UserError, unknown
from hyperlax.spaces.distributions import Distribution
from hyperlax.spaces.hyperparameters import declarations, replace


@dataclass(frozen=True)
class Recipe:
    """One experiment, but for the environment.

    Attributes:
        name: how it is asked for.
        algorithm: for example ``"ppo"``.
        network: family of its networks, for example ``"mlp"``.
        description: one line.
        defaults: the algorithm's dataclass.
        space: what a sweep draws; every other hyperparameter keeps its default.
        tuned: for some environments, values that replace the defaults.
    """

    name: str
    algorithm: str
    network: str
    description: str
    defaults: Any
    space: Mapping[str, Distribution]
    tuned: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = declarations(self.defaults)
        for name in self.space:
            if name not in known:
                raise unknown(f"hyperparameter in the space of recipe {self.name}", name, known)

    @property
    def group(self) -> str:
        """Directory of its runs, the same for every variant: ``ppo_mlp``."""
        return f"{self.algorithm}_{self.network}"

    def defaults_for(self, env_name: str) -> Any:
        """Returns the hyperparameters of a single run on an environment, whatever its backend."""
        return replace(self.defaults, self.tuned.get(env_name.partition("@")[0], {}))


_RECIPES: dict[str, Callable[[], Recipe]] = {}


def register_recipe(recipe: Recipe | Callable[[], Recipe], name: str | None = None) -> None:
    """Adds a recipe of one's own, or a function that makes it when it is first asked for.

    Raises:
        UserError: the name is taken, or missing.
    """
    if isinstance(recipe, Recipe):
        made, name = recipe, recipe.name
        recipe = lambda: made  # noqa: E731
    if not name:
        raise UserError("a recipe that is made by a function needs a name")
    if name in _RECIPES:
        raise UserError(f"recipe '{name}' is already registered")
    _RECIPES[name] = recipe


def get_recipe(name: str | Recipe) -> Recipe:
    """Returns a recipe by name.

    Raises:
        UserError: there is none of that name; the message has the nearest.
    """
    if isinstance(name, Recipe):
        return name
    if name not in _RECIPES:
        raise unknown("recipe", name, _RECIPES, hint="(hyperlax list recipes)")
    return _RECIPES[name]()


def recipe_names() -> list[str]:
    """Returns the names of all recipes, sorted."""
    return sorted(_RECIPES)
