"""Network families, one file each. A new one is a file and a line here."""

from __future__ import annotations

from typing import Any


def _mlp() -> Any:
    from hyperlax.networks.mlp import MLP

    return MLP


NETWORKS = {"mlp": _mlp}  # imported when used: the command line's help must not import JAX
