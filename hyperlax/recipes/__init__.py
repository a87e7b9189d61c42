"""Recipes by name; importing this registers them all."""

from hyperlax.algorithms import ALGORITHMS
from hyperlax.networks import NETWORKS
from hyperlax.recipes.recipe import (
    Recipe,
    get_recipe,
    recipe_names,
    register_algorithm,
    register_network,
    register_recipe,
)
from hyperlax.recipes.run_length import RUN_LENGTHS, RunLength, run_length

for _algorithm in ALGORITHMS:
    for _family in NETWORKS:
        register_algorithm(_algorithm, _family)
for _algorithm in ("ppo", "sac"):
    for _family in ("drpqc+mlp", "hepqc+mlp"):  # circuits as actors; get_recipe knows any other pair
        register_algorithm(_algorithm, _family)

__all__ = [
    "RUN_LENGTHS", "Recipe", "RunLength", "get_recipe", "recipe_names", "register_network", "register_recipe",
    "run_length",
]  # fmt: skip
