"""Recipes of PQN."""

from __future__ import annotations

from hyperlax.recipes.recipe import register_algorithm

# Found by small sweeps of this very tool (run seed 1000); what is reported was trained on other seeds.
TUNED: dict[str, dict[str, object]] = {
    "gymnax.acrobot": {"critic_lr": 5e-4},
}

register_algorithm("pqn", ("mlp", "tmlp", "cnn"), TUNED)
