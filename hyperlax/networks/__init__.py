"""Network families, one file each. A new one is a file and a line here."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hyperlax.errors import UserError
from hyperlax.lazy import Lazy

# Imported when used: the command line's help must not import JAX.
NETWORKS = Lazy(
    {
        "mlp": "hyperlax.networks.mlp:MLP",
        "tmlp": "hyperlax.networks.tmlp:TMLP",
        "cnn": "hyperlax.networks.cnn:CNN",
        "hepqc": "hyperlax.networks.pqc:HEPQC",
        "drpqc": "hyperlax.networks.pqc:DRPQC",
    }
)


def kinds(algorithm: Any, network: str) -> dict[str, str]:
    """Returns the family of each network of an algorithm, ``{"actor_network": "drpqc", "critic_network": "mlp"}``.

    Args:
        algorithm: its dataclass.
        network: one family for all networks, ``"mlp"``, or one for each, ``"drpqc+mlp"``.

    Raises:
        UserError: there are not as many as networks.
    """
    roles = [field.name for field in fields(algorithm) if field.name.endswith("_network")]
    names = network.split("+")
    if len(names) == 1:
        names *= len(roles)
    if len(names) != len(roles):
        raise UserError(f"networks '{network}': {algorithm.__name__} has {len(roles)}, {', '.join(roles)}")
    return dict(zip(roles, names, strict=True))
