"""The algorithms, one file each. A new one is a file and a line here."""

from __future__ import annotations

from typing import Any


def _ppo() -> Any:
    from hyperlax.algorithms.ppo import PPO

    return PPO


ALGORITHMS = {"ppo": _ppo}  # imported when used: the command line's help must not import JAX
