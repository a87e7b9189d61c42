"""Expressibility and entanglement against closed forms, distributions known exactly, and Haar-random states."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.errors import UserError
from hyperlax.networks.pqc import DRPQC, HEPQC
from hyperlax.quantum import ensemble, state_vector
from hyperlax.quantum.circuit import Builder, Circuit
from hyperlax.quantum.expressibility import (
    divergence,
    fidelity,
    floor,
    haar_entanglement,
    meyer_wallach,
    pairs,
    study,
)
from hyperlax.quantum.tape import lower, shape_of


def bloch(axes):
    """One qubit from |+>, turned about these axes in turn; without any the idle circuit of Sim et al."""

    def circuit_of(n_layers, n_qubits):
        circuit = Builder(n_qubits)
        circuit.rotate("y", 0, math.pi / 2)
        for axis in axes:
            circuit.rotate(axis, 0, circuit.trainable())
        circuit.parameter()
        return circuit.build(["Z" * n_qubits])

    return circuit_of


def haar(num_qubits, count, seed=0):
    """States in the columns."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(2**num_qubits, count)) + 1j * rng.normal(size=(2**num_qubits, count))
    return states / np.linalg.norm(states, axis=0)


def test_an_idle_circuit_has_the_largest_divergence():
    """All pairs in the last of 75 bins: log 75 = 4.32 for one qubit (Sim et al.: 4.30), else (N - 1) log 75."""
    table = study(bloch(""), [1], [1, 2, 5], num_samples=50)
    np.testing.assert_allclose(table["divergence"], (2.0 ** np.array([1, 2, 5]) - 1) * np.log(75), rtol=1e-9)
    assert divergence(np.ones(10), 2**12, 75) == pytest.approx(4095 * np.log(75))  # the probability is 1e-7678
    np.testing.assert_allclose(table["entanglement"], 0, atol=1e-12)


def test_a_circuit_of_one_angle_has_the_divergence_of_the_arcsine_distribution():
    """Circuit A of Sim et al., H and RZ: F = cos(difference / 2) ** 2. They estimate 0.22, from 5000 pairs."""
    share = np.diff(2 / np.pi * np.arcsin(np.sqrt(np.linspace(0, 1, 76))))
    exact = (share * np.log(75 * share)).sum()
    assert exact + 74 / 2 / 5000 == pytest.approx(0.22, abs=0.02)  # single estimates scatter by 0.01
    (estimate,) = study(bloch("z"), [1], [1], num_samples=40_000)["divergence"]
    assert estimate == pytest.approx(exact + 74 / 2 / 40_000, abs=0.006)


def test_a_circuit_of_two_angles_has_the_divergence_of_its_bloch_vectors():
    """Circuit B, H, RZ and RX; Sim et al. estimate 0.02. The Bloch vectors are written down here."""
    a, b = np.random.default_rng(0).uniform(0, 2 * np.pi, (2, 2, 2_000_000))
    vectors = np.stack([np.cos(a), np.sin(a) * np.cos(b), np.sin(a) * np.sin(b)])
    exact = divergence((1 + (vectors[:, 0] * vectors[:, 1]).sum(0)) / 2, 2, 75)
    (row,) = study(bloch("zx"), [1], [1], num_samples=20_000).to_dict("records")
    assert exact + 74 / 2 / 5000 == pytest.approx(0.02, abs=0.003)
    assert row["divergence"] - row["floor"] == pytest.approx(exact, abs=0.004)


@pytest.mark.parametrize("num_qubits", [1, 2, 4])
def test_haar_random_states_have_the_floor(num_qubits):
    """And the floor is the bias of a histogram, (bins - 1) / (2 samples), where all bins are occupied."""
    first, second = haar(num_qubits, 5000), haar(num_qubits, 5000, 1)
    fidelities = np.abs((first.conj() * second).sum(0)) ** 2
    with jax.enable_x64(True):
        np.testing.assert_allclose(fidelity(jnp.array(first), jnp.array(second)), fidelities, atol=1e-12)
        entanglement = np.asarray(meyer_wallach(jnp.array(first)))
    estimates = floor(num_qubits, 5000, 75)
    assert abs(divergence(fidelities, 2**num_qubits, 75) - estimates.mean()) < 4 * estimates.std()
    if num_qubits == 1:
        assert estimates.mean() == pytest.approx(74 / 2 / 5000, rel=0.05)
    assert entanglement.mean() == pytest.approx(haar_entanglement(num_qubits), abs=0.012)


def state_of(build, num_qubits):
    """The entanglement of one circuit without random angles."""
    circuit = Builder(num_qubits)
    circuit.parameter()
    build(circuit)
    made = circuit.build(["Z" * num_qubits])
    return pairs(made, np.zeros((2, 1)), np.zeros((2, 0)))


def test_entanglement_of_known_states():
    """GHZ has 1, a W state 8/9 of three qubits, one Bell pair among four qubits 1/2, a product none."""

    def ghz(circuit):
        circuit.rotate("y", 0, math.pi / 2)
        circuit.entangle("cnot", "ladder")

    def bell(circuit):
        circuit.rotate("y", 1, math.pi / 2)
        circuit.couple("cnot", 1, 3)

    def product(circuit):
        for qubit in range(circuit.num_qubits):
            circuit.rotate("y", qubit, 0.3 + qubit)
            circuit.rotate("z", qubit, 1.1)

    for build, expected in ((ghz, 1), (bell, 1 / 2), (product, 0)):
        fidelities, entanglement = state_of(build, 4)
        np.testing.assert_allclose(entanglement, [[expected] * 2], atol=1e-12)
        np.testing.assert_allclose(fidelities, 1, atol=1e-12)
    w = np.zeros((8, 1), complex)
    w[[1, 2, 4]] = 1 / np.sqrt(3)
    assert float(meyer_wallach(jnp.array(w))[0]) == pytest.approx(8 / 9, abs=1e-6)


def test_what_a_ring_of_cz_conserves_is_seen():
    """Haar's states of 4 qubits have 14/17, these 4/5.

    A ring of CZ and rotations keep the parity of the weight of Pauli words, so they generate SO(16) and not SU(16):
    of psi, <psi| Y…Y |psi*> stays 0 as it is for |0…0>. States uniform over those have single-qubit purities of
    ((128 + 32) / 2 + 1) / (136 - 1) on average.
    """
    (ring,) = study(HEPQC(entangler="cz", pattern="ring").sized, [15], [4], num_samples=3000).to_dict("records")
    assert ring["entanglement"] == pytest.approx(2 * (1 - 81 / 135), abs=4 * ring["standard_error"])
    assert ring["haar_entanglement"] == pytest.approx(14 / 17)
    family = HEPQC(rotations="xyz", entangler="cnot", pattern="ladder")
    (ladder,) = study(family.sized, [15], [4], num_samples=3000).to_dict("records")
    assert ladder["entanglement"] == pytest.approx(14 / 17, abs=4 * ladder["standard_error"])
    assert abs(ladder["divergence"] - ladder["floor"]) < 4 * ladder["floor_std"]


def by_matrices(circuit: Circuit, params: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The final state by Kronecker products, gate by gate; qubit 0 is the last factor, as bit 0 is the least."""
    one = np.eye(2)
    paulis = {"x": np.array([[0, 1], [1, 0]]), "y": np.array([[0, -1j], [1j, 0]]), "z": np.diag([1, -1])}

    def spread(factors):
        out = np.eye(1)
        for qubit in range(circuit.num_qubits):
            out = np.kron(factors.get(qubit, one), out)
        return out

    state = np.zeros(2**circuit.num_qubits, complex)
    state[0] = 1
    for gate in circuit.gates:
        if gate.angle is not None:
            a = gate.angle
            angle = a.constant + (0 if a.bias is None else params[a.bias])
            if a.feature is not None:
                angle += params[a.scale] * x[a.feature]
            matrix = np.cos(angle / 2) * one - 1j * np.sin(angle / 2) * paulis[gate.name]
            state = spread({gate.qubits[0]: matrix}) @ state
        else:
            control, target = gate.qubits
            act = paulis["z" if gate.name == "cz" else "x"]
            up, down = np.diag([1, 0]), np.diag([0, 1])
            state = (spread({control: up}) + spread({control: down, target: act})) @ state
    return state


@pytest.mark.parametrize("family", [HEPQC(entangler="cnot", pattern="all"), DRPQC()])
def test_states_are_those_of_products_of_matrices(family):
    circuit = family.sized(2, 3)
    params, inputs = ensemble.draw(circuit, 3, "uniform", [4])
    with jax.enable_x64(True):
        states = state_vector.states(lower(circuit), params, inputs, permutes=shape_of(circuit).permutes)
    for i in range(3):
        expected = by_matrices(circuit, params[i], inputs[i])
        assert abs(np.vdot(expected, states[:, i])) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_bins": 1}, "num_bins 1: accepted is 2 … 1000000"),
        ({"num_samples": 1}, "num_samples 1: accepted is 2 … "),
        ({"n_qubits": [24]}, "n_qubits 24: accepted is 1 … 16"),
    ],
)
def test_what_cannot_be_studied_is_refused(change, message):
    with pytest.raises(UserError) as refusal:
        study(HEPQC().sized, **{"n_layers": [1], "n_qubits": [2], **change})
    assert str(refusal.value).startswith(message)
