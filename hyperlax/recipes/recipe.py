"""A recipe: an algorithm with a network, what is searched, and defaults that learn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_field
from functools import partial
from typing import Any

from hyperlax.errors import UserError, unknown
from hyperlax.recipes.benchmark import BENCHMARKS, PREFIX, Benchmark
from hyperlax.recipes.tuned import TUNED
from hyperlax.spaces.distributions import Distribution
from hyperlax.spaces.hyperparameters import declarations, flatten, replace, space

NO_SEARCH = "_no_network_search"


@dataclass(frozen=True)
class Recipe:
    """One experiment, but for the environment.

    Attributes:
        name: how it is asked for.
        algorithm: for example ``"ppo"``.
        network: family of its networks, ``"mlp"``, or of actor and critic, ``"drpqc+mlp"``.
        description: one line.
        defaults: the algorithm's dataclass; every value is checked.
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
        try:
            object.__setattr__(self, "defaults", replace(self.defaults, flatten(self.defaults)))  # checked, parsed
        except UserError as error:
            raise UserError(f"recipe {self.name}: {error}") from None

    @property
    def group(self) -> str:
        """Directory of its runs, the same for every variant: ``ppo_mlp``."""
        return f"{self.algorithm}_{self.network}"

    def searched(self, fixed: Collection[str]) -> dict[str, Distribution]:
        """Returns the space without the hyperparameters that are fixed.

        Raises:
            UserError: one of those is no hyperparameter.
        """
        known = declarations(self.defaults)
        for name in fixed:
            if name not in known:
                raise unknown("hyperparameter", name, known, hint="(hyperlax show RECIPE names all)")
        return {name: distribution for name, distribution in self.space.items() if name not in fixed}

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


def register_algorithm(algorithm: str, family: str) -> None:
    """Adds the recipes of an algorithm with a family of networks, made when they are first asked for.

    Args:
        algorithm: a name in :data:`hyperlax.algorithms.ALGORITHMS`.
        family: a name in :data:`hyperlax.networks.NETWORKS`, or one for the actor and one for the critic, ``a+b``.
    """
    name = f"{algorithm}_{family}"
    make = partial(_with_network, algorithm, family)
    register_recipe(make, name)
    register_recipe(lambda: _without_network_search(make()), f"{name}{NO_SEARCH}")
    benchmark = BENCHMARKS.get(algorithm)
    if benchmark is not None and set(family.split("+")) <= set(benchmark.networks):
        register_recipe(partial(_benchmarked, make, benchmark), f"{PREFIX}{name}")


def register_network(name: str, family: Any) -> None:
    """Adds a family of networks of one's own, and the recipes of all algorithms with it.

    Args:
        name: letters, digits and the like; ``+`` is between an actor's and a critic's.
        family: its dataclass, see :mod:`hyperlax.networks.network`; a circuit is a
            :class:`hyperlax.networks.pqc.CircuitFamily`.

    Raises:
        UserError: the name is taken, or no name.
    """
    from hyperlax.algorithms import ALGORITHMS
    from hyperlax.networks import NETWORKS

    if not name.isidentifier():
        raise UserError(f"network '{name}': accepted are letters, digits and _")
    for algorithm in ALGORITHMS:
        if {f"{algorithm}_{name}", f"{algorithm}_{name}{NO_SEARCH}"} & set(_RECIPES):
            raise UserError(f"network '{name}': there is a recipe '{algorithm}_{name}' already")
    NETWORKS.register(name, family)
    for algorithm in ALGORITHMS:
        register_algorithm(algorithm, name)


def _with_network(algorithm: str, family: str) -> Recipe:
    from hyperlax.algorithms import ALGORITHMS
    from hyperlax.networks import NETWORKS, kinds

    known = ALGORITHMS[algorithm]
    defaults = known()
    for role, kind in kinds(known, family).items():
        network = NETWORKS[kind]
        usual = getattr(defaults, role)
        if not isinstance(usual, network):
            own = network()
            if getattr(usual, "use_layer_norm", False) and hasattr(own, "use_layer_norm"):
                own = network(use_layer_norm=True)
            defaults = replace_field(defaults, **{role: own})
    actor, _, critic = family.upper().partition("+")
    networks = f"{actor} as actor, {critic} as critic" if critic else f"{actor}s"
    return Recipe(
        name=f"{algorithm}_{family}",
        algorithm=algorithm,
        network=family,
        description=f"{algorithm.upper()} with {networks}; algorithm and networks searched",
        defaults=defaults,
        space=space(defaults),
        tuned=TUNED.get(f"{algorithm}_{family}", {}),
    )


def _without_network_search(recipe: Recipe) -> Recipe:
    """Returns the recipe with its networks as they are by default."""
    kept = {name: distribution for name, distribution in recipe.space.items() if "_network." not in name}
    description = recipe.description.replace("algorithm and networks searched", "algorithm searched, networks fixed")
    return replace_field(recipe, name=f"{recipe.name}{NO_SEARCH}", description=description, space=kept)


def _benchmarked(make: Callable[[], Recipe], benchmark: Benchmark) -> Recipe:
    """Returns the recipe with the distributions from which the published samples were drawn."""
    from hyperlax.networks import kinds

    recipe = make()
    networks = {
        f"{role}.{name}": distribution
        for role, kind in kinds(type(recipe.defaults), recipe.network).items()
        for name, distribution in benchmark.networks[kind].items()
    }
    return replace_field(
        recipe,
        name=f"{PREFIX}{recipe.name}",
        description=recipe.description.split(";")[0] + " over the space of the published 64-sample benchmark",
        defaults=replace(recipe.defaults, benchmark.changes),
        space={**networks, **benchmark.space},
        tuned={},
    )


def get_recipe(name: str | Recipe) -> Recipe:
    """Returns a recipe by name.

    Raises:
        UserError: there is none of that name; the message has the nearest.
    """
    if isinstance(name, Recipe):
        return name
    if name not in _RECIPES:
        _register_two_families(name)
    if name not in _RECIPES:
        raise unknown("recipe", name, _RECIPES, hint="(hyperlax list recipes)")
    return _RECIPES[name]()


def _register_two_families(name: str) -> None:
    """Adds the recipes of ``algorithm_actor+critic`` if all three are known; the list has only some of them."""
    from hyperlax.algorithms import ALGORITHMS
    from hyperlax.networks import NETWORKS

    algorithm, _, family = name.removeprefix(PREFIX).removesuffix(NO_SEARCH).partition("_")
    kinds = family.split("+")
    if len(kinds) == 2 and kinds[0] != kinds[1] and algorithm in ALGORITHMS and set(kinds) <= set(NETWORKS):
        register_algorithm(algorithm, family)


def recipe_names() -> list[str]:
    """Returns the names of all recipes, sorted."""
    return sorted(_RECIPES)
