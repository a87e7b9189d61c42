"""Recipes of PQN."""

from __future__ import annotations

from hyperlax.recipes.recipe import register_algorithm

TUNED: dict[str, dict[str, object]] = {}

register_algorithm("pqn", ("mlp", "tmlp", "cnn"), TUNED)
