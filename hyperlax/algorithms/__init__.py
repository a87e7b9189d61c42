"""The algorithms, one file each. A new one is a file and a line here."""

from __future__ import annotations

from hyperlax.lazy import Lazy

# Imported when used: the command line's help must not import JAX.
ALGORITHMS = Lazy(
    {
        "ppo": "hyperlax.algorithms.ppo:PPO",
        "dqn": "hyperlax.algorithms.dqn:DQN",
        "sac": "hyperlax.algorithms.sac:SAC",
        "pqn": "hyperlax.algorithms.pqn:PQN",
    }
)
