"""Network families, one file each. A new one is a file and a line here."""

from __future__ import annotations

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
