"""Circuits as data: what a builder writes down, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

import hyperlax
from hyperlax.errors import UserError
from hyperlax.quantum.circuit import (
    Angle,
    Builder,
    Circuit,
    Gate,
    data_reuploading,
    hardware_efficient,
    pairs_of,
    words_of,
)
from hyperlax.quantum.tape import lower, shape_of


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("pairs", [(0, 1), (2, 3)]),
        ("odd_pairs", [(1, 2), (3, 4)]),
        ("ladder", [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("ring", [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]),
    ],
)
def test_patterns(pattern, expected):
    assert pairs_of(pattern, 5) == expected
    assert pairs_of(pattern, 1) == []


def test_every_pair_is_coupled_and_two_qubits_only_once():
    assert len(pairs_of("all", 5)) == 10
    assert pairs_of("all", 2) == pairs_of("ring", 2) == pairs_of("ladder", 2) == [(0, 1)]


def test_measurements():
    assert words_of("full", 3) == ["ZII", "IZI", "IIZ"]
    assert words_of("half", 3) == ["ZII", "IZI"]
    assert words_of("single", 3) == ["ZII"]
    assert words_of("zz", 3) == ["ZZI", "IZZ"]
    assert words_of("zz", 1) == ["Z"]


@pytest.mark.parametrize("features, qubits, params", [(4, 2 * 2, 72), (3, 2, 36), (8, 6, 108)])
def test_the_re_uploading_circuit_has_the_original_s_qubits_and_parameters(features, qubits, params):
    """theta (n_qubits, n_layers + 1, 3) and omega (n_layers + 1, 3 n_qubits)."""
    circuit = data_reuploading(features, 2, 2)
    assert (circuit.num_qubits, circuit.num_params) == (qubits, qubits * 3 * 3 * 2) == (qubits, params)
    assert set(circuit.initial) == {(0, 1)} and circuit.num_inputs == features
    used = {k for gate in circuit.gates if gate.angle for k in (gate.angle.bias, gate.angle.scale) if k is not None}
    assert len(used) == params - (-features % 3) * 2 * 3  # what would scale an input that is not there


def test_a_tape_has_one_layer_for_each_layer_of_the_circuit():
    """Rot(omega x), Rot(theta): five rotations, as the RZ between them are one; then one signed permutation."""
    shape = shape_of(data_reuploading(12, 7, 1))
    assert (shape.num_qubits, shape.num_layers, shape.num_rotations) == (4, 8, 5)
    assert not shape.permutes and shape.only_z
    assert shape_of(hardware_efficient(3, 2, 3, pattern="ladder")).permutes


def test_entanglers_of_a_layer_are_one_permutation_with_signs():
    """CNOT(0, 1) takes |x, y> to |x, x + y>, CZ then changes the sign of |1, 1>."""
    circuit = Builder(2)
    circuit.couple("cnot", 0, 1)
    circuit.couple("cz", 0, 1)
    tape = lower(circuit.build(["ZZ"]))
    np.testing.assert_array_equal(tape.source, [[0, 3, 2, 1]])  # bit 0 is qubit 0
    np.testing.assert_array_equal(tape.sign, [[1, 1, 1, -1]])


def angled(**angle):
    """A circuit of one parameter and no input, with such an angle."""
    circuit = Builder(1)
    circuit.parameter()
    circuit.rotate("y", 0, Angle(**angle))
    return circuit.build(["Z"])


REFUSED = [
    (lambda: angled(bias=1), "parameter 1: accepted is 0 … 0"),
    (lambda: angled(scale=-1, feature=0), "parameter -1: accepted is 0 … 0"),
    (lambda: Circuit(26, 0, (), (), ("I" * 26,)), "num_qubits 26: accepted is 1 … 24"),
    (lambda: Circuit(1, 0, (), (Gate("x", (0,), Angle(feature=0)),), ("Z",)), "feature 0: there is none"),
    (lambda: Circuit(1, 0, (), (Gate("swap", (0, 1)),), ("Z",)), "unknown two-qubit gate 'swap'"),
    (lambda: Builder(0), "num_qubits 0: accepted is 1 … 24"),
    (lambda: Builder(25), "num_qubits 25: accepted is 1 … 24"),
    (lambda: Builder(2.0), "num_qubits 2.0: accepted are whole numbers"),
    (lambda: Builder(True), "num_qubits True: accepted are whole numbers"),
    (lambda: Builder(2).rotate("x", 0.0, 0.1), "qubit 0.0: accepted are whole numbers"),
    (lambda: Builder(2).rotate("x", 0, math.nan), "angle nan of x: accepted are finite numbers"),
    (lambda: Circuit(1, 0, ((1.0, 0.0),), (), ("Z",)), "initial parameters from 1.0 to 0.0: accepted are finite"),
    (lambda: Builder(1).build("ZZ"), "observables 'ZZ': accepted is a list of Pauli words"),
    (lambda: Builder(2).rotate("w", 0, 0.1), "unknown rotation 'w': accepted: x, y, z"),
    (lambda: Builder(2).rotate("x", 2, 0.1), "qubit 2: accepted is 0 … 1"),
    (lambda: Builder(2).couple("swap", 0, 1), "unknown two-qubit gate 'swap': accepted: cnot, cz"),
    (lambda: Builder(2).couple("cz", 1, 1), "cz on qubits 1 and 1: accepted are two different ones"),
    (lambda: Builder(2).entangle("cz", "star"), "unknown pattern of qubits 'star'"),
    (lambda: Builder(2).build(["ZZZ"]), "Pauli word 'ZZZ': accepted are 2 letters of IXYZ, one a qubit"),
    (lambda: Builder(2).build(["ZA"]), "Pauli word 'ZA': accepted are 2 letters of IXYZ, one a qubit"),
    (lambda: Builder(2).build([]), "a circuit without observables"),
    (lambda: data_reuploading(4, 0, 1), "n_layers 0: accepted is 1 or more"),
    (lambda: data_reuploading(4, 2, 13), "num_qubits 26: accepted is 1 … 24"),
    (lambda: data_reuploading(4, 2, 1, "none"), "unknown measurement 'none'"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(UserError) as refusal:
        call()
    assert str(refusal.value).startswith(message)


def test_memory_is_estimated_before_a_wide_circuit_is_made():
    """24 qubits and 6 layers have tables of 800 MB: shapes and plans must come without them."""
    plan = hyperlax.sweep(
        "ppo_drpqc", "gymnax.cartpole", samples=[{"critic_network.n_vstack": 9}], run_length="quick", dry_run=True
    )
    assert plan.memory > 4 * 2 * 6 * 2**18  # source and sign of every layer and state
    with pytest.raises(UserError, match=r"memory does not suffice: .* the size of the networks decides most of it"):
        hyperlax.sweep(
            "ppo_drpqc", "gymnax.cartpole", samples=[{"critic_network.n_vstack": 12}], run_length="quick", dry_run=True,
            memory_limit_gib=1,
        )  # fmt: skip
