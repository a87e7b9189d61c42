"""Recipes by name; importing this registers them all."""

from hyperlax.recipes import dqn as _dqn  # noqa: F401  (registers its recipes)
from hyperlax.recipes import ppo as _ppo  # noqa: F401
from hyperlax.recipes import pqn as _pqn  # noqa: F401
from hyperlax.recipes import sac as _sac  # noqa: F401
from hyperlax.recipes.recipe import Recipe, get_recipe, recipe_names, register_recipe
from hyperlax.recipes.run_length import RUN_LENGTHS, RunLength, run_length

__all__ = ["RUN_LENGTHS", "Recipe", "RunLength", "get_recipe", "recipe_names", "register_recipe", "run_length"]
