"""Merging the shapes of one network family gives the same whatever the order."""

from __future__ import annotations

import pytest

from hyperlax.networks.cnn import CNN
from hyperlax.networks.mlp import MLP
from hyperlax.networks.pqc import DRPQC, HEPQC
from hyperlax.networks.tmlp import TMLP

FAMILIES = {
    "mlp": (
        (3,),
        [MLP(), MLP((4,), "relu", True), MLP((6, 2), "silu"), MLP((2, 3, 5), "gelu", True), MLP((), "elu")],
    ),
    "tmlp": (
        (3,),
        [
            TMLP(12, 2, 3, 1, "tanh"),
            TMLP(8, 3, 4, 2, "relu"),
            TMLP(8, 1, 1, 3, "silu", True),
            TMLP(30, 3, 2, 2, "tanh", True),
        ],
    ),
    "cnn": (
        (5, 7, 2),
        [
            CNN((3, 2), 2, (4,), "tanh", False),
            CNN((2, 4), 2, (), "relu", True),
            CNN((4, 3), 2, (5, 3), "silu", True),
        ],
    ),
    "drpqc": (
        (4,),
        [
            DRPQC(1, 2),
            DRPQC(3, 1, observable_type="zz"),
            DRPQC(2, 3, observable_type="single", scale_outputs=True),
            DRPQC(2, 1, observable_type="half"),
        ],
    ),
    "hepqc": ((3,), [HEPQC(1, 3), HEPQC(2, 2, "x", "cnot", "all"), HEPQC(2, 4, "zxy", "cnot", "ladder")]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_merging_is_associative_commutative_and_idempotent(family):
    inputs, networks = FAMILIES[family]
    shapes = [network.shape(inputs) for network in networks]
    for a in shapes:
        assert a.merge(a) == a
        for b in shapes:
            assert a.merge(b) == b.merge(a)
            assert a.merge(b).merge(b) == a.merge(b)
            for c in shapes:
                assert a.merge(b).merge(c) == a.merge(b.merge(c))
