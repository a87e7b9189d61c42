"""Reinforcement-learning hyperparameter sweeps as one compiled program.

    import hyperlax

    run = hyperlax.sweep("ppo_mlp", "gymnax.cartpole", num_samples=16, run_length="quick")
    act = hyperlax.load_policy(run.path, sample_id=3)

The names below are imported when they are first used, so that ``import hyperlax`` and the command
line's ``--help`` do not wait for JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperlax.api import load_policy, make_env, sweep
    from hyperlax.environments import register as register_environment
    from hyperlax.recipes import register_network, register_recipe
    from hyperlax.results.reader import load_run
    from hyperlax.search.pbt import population_based_training
    from hyperlax.search.search import optimize

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "load_policy",
    "load_run",
    "make_env",
    "optimize",
    "population_based_training",
    "register_environment",
    "register_network",
    "register_recipe",
    "sweep",
]

# Where each public name is defined: module, name there.
_HOMES = {
    "load_policy": ("hyperlax.api", "load_policy"),
    "load_run": ("hyperlax.results.reader", "load_run"),
    "make_env": ("hyperlax.api", "make_env"),
    "optimize": ("hyperlax.search.search", "optimize"),
    "population_based_training": ("hyperlax.search.pbt", "population_based_training"),
    "register_environment": ("hyperlax.environments", "register"),
    "register_network": ("hyperlax.recipes", "register_network"),
    "register_recipe": ("hyperlax.recipes", "register_recipe"),
    "sweep": ("hyperlax.api", "sweep"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hyperlax' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
