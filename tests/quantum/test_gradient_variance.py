"""Variances of gradients against closed forms, Haar-random unitaries and PennyLane."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import unitary_group

from hyperlax.errors import UserError
from hyperlax.networks.pqc import DRPQC, HEPQC, studied
from hyperlax.quantum import ensemble, executor, fused_cpu
from hyperlax.quantum.circuit import Builder
from hyperlax.quantum.gradient_variance import decay, gradients, observable, study, two_design


def turned(n_layers, n_qubits):
    """RY of every qubit, and nothing else: <Z…Z> is the product of the cosines."""
    circuit = Builder(n_qubits)
    for _ in range(n_layers):
        for qubit in range(n_qubits):
            circuit.rotate("y", qubit, circuit.trainable())
    return circuit.build(["Z" * n_qubits])


def test_one_qubit_turned_by_a_uniform_angle_has_variance_one_half():
    """<Z> = cos, of which the derivative squared is one half on average; its square has variance 1/8."""
    (row,) = study(turned, [1], [1], ["single"], num_samples=20_000).to_dict("records")
    assert row["variance"] == pytest.approx(1 / 2, abs=4 * row["standard_error"])
    assert row["standard_error"] == pytest.approx(np.sqrt(1 / 8 / 20_000), rel=0.02)
    assert row["mean_angles"] == row["variance"] and np.isnan(row["mean_scales"])
    assert (row["parameter"], row["num_params"], row["word"]) == (0, 1, "Z")


def test_a_global_observable_has_a_plateau_without_any_entangler_and_a_local_one_none():
    """The first example of Cerezo et al.: 1/2 for Z of one qubit whatever the width, 2 ** -n for Z of all."""
    table = study(turned, [1], [1, 2, 3, 4, 5], num_samples=20_000)
    local, everywhere = (table[table["observable"] == name] for name in ("single", "global"))
    np.testing.assert_allclose(local["variance"], 0.5, rtol=0.03)
    np.testing.assert_allclose(everywhere["variance"], 2.0 ** -everywhere["n_qubits"], rtol=0.06)
    np.testing.assert_allclose(local["mean_angles"], 0.5 / local["n_qubits"], rtol=0.03)  # the others change nothing
    np.testing.assert_allclose(everywhere["mean_angles"], everywhere["variance"], rtol=0.06)
    fits = decay(table).set_index("observable")
    assert fits["factor"]["single"] == pytest.approx(1, abs=0.01)
    assert fits["factor"]["global"] == pytest.approx(1 / 2, abs=3 * fits["standard_error"]["global"])


def test_one_layer_of_the_hardware_efficient_circuit_has_a_closed_form():
    """RX(x) RY(t) RZ, then CZ, which words of Z do not see: <Z> = cos x cos t of each qubit."""
    table = study(HEPQC(entangler="cz").sized, [1], [1, 2, 3], num_samples=20_000)
    for row in table.itertuples():
        exact = 4.0 ** -(1 if row.observable == "single" else row.n_qubits)
        assert row.variance == pytest.approx(exact, abs=4 * row.standard_error)
        assert row.parameter == row.n_qubits  # behind the scales of as many inputs
        if row.observable == "global":  # by the scale: the square of x sin x is pi ** 2 / 6 - 1 / 4 on average
            assert row.mean_scales == pytest.approx(2 * exact * (np.pi**2 / 6 - 1 / 4), rel=0.1)


def test_an_angle_that_changes_nothing_is_passed_over():
    """The first gate of the re-uploading circuit is RZ on |0>."""

    def circuit_of(n_layers, n_qubits):
        circuit = Builder(n_qubits)
        circuit.rotate("z", 0, circuit.trainable())
        circuit.rotate("x", 0, circuit.encode(0, scale=circuit.parameter(1.0)))
        if n_layers > 1:
            circuit.rotate("y", 0, circuit.trainable())
        return circuit.build(["Z" * n_qubits])

    table = study(circuit_of, [1, 2], [1, 2], ["single"], num_samples=4000)
    assert list(table["parameter"]) == [-1, -1, 2, 2]
    np.testing.assert_allclose(table["variance"], [0, 0, 0.25, 0.25], rtol=0.06)
    assert list(decay(table)["n_layers"]) == [2]


def test_the_value_of_2_designs_is_that_of_haar_random_unitaries():
    """E = <0| U+ V+ O V U |0> with a Pauli rotation between U and V."""
    for num_qubits in (1, 2, 3):
        size = 2**num_qubits
        rng = np.random.default_rng(num_qubits)
        before, behind = (unitary_group.rvs(size, 20_000, rng) for _ in range(2))
        signs = np.diag(1 - 2 * np.array([bin(k).count("1") % 2 for k in range(size)]))  # Z…Z
        measured = behind.conj().swapaxes(1, 2) @ signs @ behind
        flip = np.eye(size)[np.arange(size) ^ 1]  # X of one qubit
        commutator = 0.5j * (flip @ measured - measured @ flip)
        state = before[:, :, 0]
        slopes = np.einsum("si,sij,sj->s", state.conj(), commutator, state).real
        assert slopes.var() == pytest.approx(two_design(num_qubits), rel=0.04)


def test_deep_circuits_have_the_variance_of_2_designs_and_decay_as_they_do():
    """Of the angles in the middle, that is of nearly all; with CNOT in a ladder and all axes nothing is conserved."""
    family = studied("hepqc", {"rotations": "xyz", "entangler": "cnot", "pattern": "ladder"})
    table = study(family.sized, [1, 30], [2, 3, 4, 5], num_samples=400)
    deep = table[table["n_layers"] == 30]
    np.testing.assert_allclose(deep["mean_angles"], deep["two_design"], rtol=0.12)
    fits = decay(table).set_index(["observable", "n_layers"])
    for name in ("single", "global"):
        fit = fits.loc[(name, 30)]
        assert fit["factor"] == pytest.approx(fit["two_design"], abs=4 * fit["standard_error"])
        assert 0.5 < fit["two_design"] < 0.55


@pytest.mark.parametrize("kernel", executor.KERNELS[1:])
@pytest.mark.parametrize("family", [HEPQC(entangler="cnot"), DRPQC(n_vstack=2)])
def test_gradients_of_a_draw_are_those_of_pennylane(family, kernel, monkeypatch):
    qml = pytest.importorskip("pennylane")
    from pennylane import numpy as pnp

    if kernel == "cpu" and fused_cpu.library() is None:
        pytest.skip("no kernel was built")
    monkeypatch.setattr(executor, "_chosen", kernel)
    monkeypatch.setattr("hyperlax.quantum.gradient_variance._CHUNK", 2**16)  # a few draws at a time
    circuit = family.sized(2, 4)
    circuit = type(circuit)(**{**vars(circuit), "observables": ("ZIII", "ZZZZ")})
    params, inputs = ensemble.draw(circuit, 11, "uniform", [1])
    slopes = gradients(circuit, params, inputs)
    gates = {"x": qml.RX, "y": qml.RY, "z": qml.RZ, "cnot": qml.CNOT, "cz": qml.CZ}

    @qml.qnode(qml.device("default.qubit", wires=4), interface="autograd")
    def node(params, x, wires):
        for gate in circuit.gates:
            if gate.angle is None:
                gates[gate.name](wires=gate.qubits)
                continue
            bias = 0.0 if gate.angle.bias is None else params[gate.angle.bias]
            data = 0.0 if gate.angle.feature is None else params[gate.angle.scale] * x[gate.angle.feature]
            gates[gate.name](bias + data, wires=gate.qubits[0])
        return qml.expval(qml.prod(*map(qml.Z, wires)))

    for draw in (0, 10):
        for i, wires in enumerate(([0], range(4))):
            expected = qml.grad(node, argnums=0)(pnp.array(params[draw], requires_grad=True), inputs[draw], wires)
            np.testing.assert_allclose(slopes[draw, i], expected, rtol=0, atol=1e-10)


def test_draws_do_not_depend_on_what_else_is_studied():
    family = HEPQC()
    both = study(family.sized, [1, 2], [2, 3], num_samples=8)
    one = study(family.sized, [2], [3], ["global"], num_samples=8)
    again = both[(both["n_layers"] == 2) & (both["n_qubits"] == 3) & (both["observable"] == "global")]
    np.testing.assert_allclose(one.iloc[0, 4:].astype(float), again.iloc[0, 4:].astype(float), rtol=1e-12)
    few, more = (ensemble.draw(family.sized(2, 3), num, "family", [3]) for num in (4, 9))
    for a, b in zip(few, more, strict=True):
        np.testing.assert_array_equal(a, b[:4])
    assert not jax.config.read("jax_enable_x64")


def test_draws_are_what_they_are_said_to_be():
    circuit = HEPQC().sized(1, 2)  # scales 0 and 1, then four angles
    params, inputs = ensemble.draw(circuit, 4000, "uniform", [0])
    assert np.all(params[:, :2] == 1) and np.abs(inputs).max() < np.pi < params.max() < 2 * np.pi
    np.testing.assert_allclose(params[:, 2:].mean(0), np.pi, atol=0.12)
    np.testing.assert_allclose(inputs.std(0), np.pi / np.sqrt(3), rtol=0.03)
    params, inputs = ensemble.draw(DRPQC().sized(1, 2), 4000, "family", [0])
    assert params.min() >= 0 and params.max() <= 1
    np.testing.assert_allclose(inputs.std(0), 1, rtol=0.05)


def test_circuits_have_the_width_asked_for():
    assert [DRPQC(n_vstack=2).sized(3, 4).num_qubits, HEPQC(n_qubits=7).sized(3, 4).num_qubits] == [4, 4]
    assert [DRPQC(n_vstack=2).sized(3, 4).num_inputs, HEPQC(n_qubits=7).sized(3, 4).num_inputs] == [6, 4]
    assert [observable(name, 3) for name in ("single", "zz", "global")] == ["ZII", "ZZI", "ZZZ"]
    assert [observable(name, 1) for name in ("single", "zz", "global")] == ["Z", "Z", "Z"]


REFUSED = [
    ({"n_layers": [5, 0]}, "n_layers 0: accepted is 1 or more"),
    ({"n_qubits": [2, 17]}, "n_qubits 17: accepted is 1 … 16"),
    ({"n_qubits": [0]}, "n_qubits 0: accepted is 1 … 16"),
    ({"n_layers": []}, "n_layers: none given"),
    ({"observables": []}, "observables: none given"),
    ({"observables": ["golbal"]}, "unknown observable 'golbal': did you mean global?"),
    ({"num_samples": 1}, "num_samples 1: accepted is 2 … "),
    ({"num_samples": 10**9}, "num_samples 1000000000: accepted is 2 … 14913080"),
    ({"initial": "zero"}, "unknown initial 'zero': accepted: family, uniform"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_studied_is_refused(change, message):
    with pytest.raises(UserError) as refusal:
        study(HEPQC().sized, **{"n_layers": [1], "n_qubits": [2], **change})
    assert str(refusal.value).startswith(message)


def test_a_width_that_is_no_multiple_of_n_vstack_is_refused():
    with pytest.raises(UserError, match="n_qubits 3 with n_vstack 2: accepted are multiples of n_vstack"):
        study(DRPQC(n_vstack=2).sized, [1], [2, 3])
