"""Circuits as torsos: what the families build, trainable output scaling, features that are not there."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from hyperlax.errors import UserError
from hyperlax.networks.network import Network
from hyperlax.networks.pqc import DRPQC, HEPQC, CircuitFamily
from hyperlax.quantum.circuit import Builder


def output(family, params, x, inputs):
    """What a network of exactly this shape makes of ``(features, batch)``."""
    network = Network(family.shape(inputs), inputs, 2, 1.0)
    return network, np.asarray(network(params, x, family.traced(family.shape(inputs))))


def initial(family, inputs):
    return Network(family.shape(inputs), inputs, 2, 1.0).init([3], family)


def test_the_outputs_of_a_circuit_are_scaled_by_trainable_numbers_that_begin_at_one():
    plain, scaled = DRPQC(2, 2), DRPQC(2, 2, scale_outputs=True)
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    params = initial(scaled, (3,))
    np.testing.assert_array_equal(params["torso"]["output_scale"], [1, 1])
    bare = {"torso": {"circuit": params["torso"]["circuit"]}, "head": params["head"]}
    np.testing.assert_allclose(output(scaled, params, x, (3,))[1], output(plain, bare, x, (3,))[1], rtol=1e-6)
    factors = np.array([2.0, -0.5], np.float32)
    params["torso"]["output_scale"] = factors
    bare["head"] = {"kernel": bare["head"]["kernel"] * factors, "bias": bare["head"]["bias"]}
    np.testing.assert_allclose(
        output(scaled, params, x, (3,))[1], output(plain, bare, x, (3,))[1], rtol=1e-5, atol=1e-6
    )


def test_every_trainable_number_of_a_circuit_learns():
    """Gradients by angles, scales of inputs and of outputs are there, and zero for no parameter that is used."""
    family = HEPQC(2, 3, "yz", "cnot", "ring", scale_outputs=True)
    params, x = initial(family, (4,)), np.random.default_rng(1).normal(size=(4, 7)).astype(np.float32)
    network = Network(family.shape((4,)), (4,), 2, 1.0)
    lane = family.traced(family.shape((4,)))
    slopes = jax.grad(lambda p: (network(p, x, lane) ** 2).sum())(params)
    assert np.all(np.asarray(slopes["torso"]["output_scale"]) != 0)
    of_circuit = np.abs(slopes["torso"]["circuit"])
    assert np.all(of_circuit[:-3] > 1e-3)
    assert np.all(of_circuit[-3:] < 1e-6)  # RZ just before Z is measured


def test_the_hardware_efficient_circuit_has_what_its_hyperparameters_say():
    circuit = HEPQC(2, 3, "xzy", "cz", "all", observable_type="zz").circuit(4)
    layer = [*"xxxx", *"xxx", *"zzz", *"yyy", *["cz"] * 3]  # features 0 to 3, feature 3 on qubit 0 again
    assert [gate.name for gate in circuit.gates] == 2 * layer
    assert [gate.qubits for gate in circuit.gates[:4]] == [(0,), (1,), (2,), (0,)]
    assert circuit.observables == ("ZZI", "IZZ")


@dataclass(frozen=True)
class Five(CircuitFamily):
    """Encodes the feature of number 4, whatever there is."""

    def circuit(self, num_features):
        circuit = Builder(1)
        circuit.rotate("x", 0, circuit.encode(4))
        return circuit.build(["Z"])


def test_features_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="the circuit encodes feature 4: accepted is 0 … 3"):
        Five().shape((4,))
    assert Five().shape((5,)).tape.num_inputs == 5
