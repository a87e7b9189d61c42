"""Exported circuits, run: PennyLane's QNode, the script in a bare interpreter, OpenQASM parsed by others."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import openqasm3
import pennylane as qml
import pytest

from hyperlax.errors import UserError
from hyperlax.quantum import executor
from hyperlax.quantum.circuit import Builder
from hyperlax.quantum.export import TrainedCircuit, around, to_openqasm, to_pennylane, to_script
from hyperlax.quantum.tape import lower, shape_of

simulators = runpy.run_path(str(Path(__file__).with_name("test_simulators.py")))
CIRCUITS, inputs_of = simulators["CIRCUITS"], simulators["inputs_of"]
INCLUDE = 'include "stdgates.inc";\n'


def expectations(circuit, params, x):
    """What our executor has, in double precision: ``(observables, batch)``."""
    with jax.enable_x64(True):
        return np.asarray(executor.expectations(lower(circuit), params, x, shape_of(circuit)))


def observable(word):
    """A Pauli word on OpenQASM's qubits."""
    letters = {"I": qml.Identity, "X": qml.X, "Y": qml.Y, "Z": qml.Z}
    return qml.prod(*(letters[letter](f"q[{qubit}]") for qubit, letter in enumerate(word)))


def simulated(text, circuit, x):
    """Expectation values of a program for one input, by PennyLane's interpreter of OpenQASM 3."""
    assert text.startswith("OPENQASM 3.0;\n" + INCLUDE)
    program = text.replace(INCLUDE, "")  # PennyLane knows these gates, and no include
    words = [f"// e{i}: {word}" for i, word in enumerate(circuit.observables)]
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("// e") and ":" in line[:7]] == words

    @qml.qnode(qml.device("default.qubit", wires=[f"q[{qubit}]" for qubit in range(circuit.num_qubits)]))
    def node(**inputs):
        qml.from_qasm3(program, {})(**inputs)
        return [qml.expval(observable(word)) for word in circuit.observables]

    return np.array(node(**{f"x{feature}": float(value) for feature, value in enumerate(x)}))


@pytest.mark.parametrize("name", CIRCUITS)
def test_openqasm_simulated_by_another_tool(name):
    circuit = CIRCUITS[name]
    params, x, _ = inputs_of(circuit)
    text = to_openqasm(circuit, params)
    program = openqasm3.parse(text)  # the reference parser, the include with it
    assert sum(isinstance(s, openqasm3.ast.QuantumGate) for s in program.statements) == len(circuit.gates)
    expected = expectations(circuit, params, x)
    for sample in range(2):
        np.testing.assert_allclose(simulated(text, circuit, x[:, sample]), expected[:, sample], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_qnode_gives_what_the_executor_gives(name):
    circuit = CIRCUITS[name]
    params, x, _ = inputs_of(circuit)
    node, expected = to_pennylane(circuit, params), expectations(circuit, params, x)
    np.testing.assert_allclose(np.stack(node(x.T)), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.stack(node(x[:, 1])), expected[:, 1], rtol=0, atol=1e-12)


def test_the_qnode_is_differentiable_by_its_inputs():
    circuit = CIRCUITS["re-uploading"]
    params, x, _ = inputs_of(circuit)
    node = to_pennylane(circuit, params)
    with jax.enable_x64(True):
        slope = jax.grad(lambda v: node(v)[0])(x[:, 0])
        tape, shape = lower(circuit), shape_of(circuit)
        expected = jax.grad(lambda v: executor.expectations(tape, params, v[:, None], shape)[0, 0])(x[:, 0])
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-10)


def trained(circuit, params, **around):
    """A network of two outputs around a circuit."""
    rng = np.random.default_rng(8)
    kernel, bias = rng.normal(size=(2, len(circuit.observables))), rng.normal(size=2)
    shape = (circuit.num_inputs,)
    return TrainedCircuit("actor", "a test", "logits of the actions", circuit, params, shape, kernel, bias, **around)


@pytest.mark.parametrize("name", ["random 1", "random 3", "random 10", "re-uploading", "hardware-efficient"])
def test_the_script_does_all_that_the_network_does(name, tmp_path):
    circuit = CIRCUITS[name]
    params, x, _ = inputs_of(circuit, 7)
    rng, size = np.random.default_rng(9), circuit.num_inputs
    mean, deviation, scale = rng.normal(size=size), rng.uniform(0.1, 2, size), rng.normal(size=len(circuit.observables))
    network = trained(circuit, params, output_scale=scale, mean=mean, deviation=deviation, limit=1.5)
    file = tmp_path / "actor_pennylane.py"
    file.write_text(to_script(network), encoding="utf-8")
    outputs = runpy.run_path(str(file))["outputs"]
    seen = np.clip((x - mean[:, None]) / deviation[:, None], -1.5, 1.5)
    assert (np.abs(seen) == 1.5).any()
    values = expectations(circuit, params, seen) * scale[:, None]
    expected = (network.kernel @ values + network.bias[:, None]).T
    np.testing.assert_allclose(outputs(x.T), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(outputs(x[:, 3].tolist()), expected[3], rtol=0, atol=1e-12)


def test_the_script_needs_numpy_and_pennylane_only():
    script = to_script(trained(CIRCUITS["random 2"], inputs_of(CIRCUITS["random 2"])[0]))
    imports = [line for line in script.splitlines() if "import" in line]
    assert imports == ["import numpy as np", "import pennylane as qml"]
    assert "MEAN" not in script and "OUTPUT_SCALE" not in script


def test_comments_say_what_is_around_the_circuit():
    """Evaluated as they stand, for an observation, they are what the network does."""
    circuit = CIRCUITS["hardware-efficient"]
    params, x, _ = inputs_of(circuit, 1)
    mean, deviation, scale = np.arange(4) / 7, np.arange(1, 5) / 9, np.array([0.5, -2.0])
    network = trained(circuit, params, output_scale=scale, mean=mean, deviation=deviation, limit=10.0)
    lines = around(network)
    assert lines[0] == "the trained actor, a quantum circuit: a test" and "logits of the actions" in "".join(lines)
    names = {"observation": x[:, 0]}
    for line in lines:
        if line.startswith("x"):
            exec(line, {}, names)
    assert "each clipped at -10.0 and 10.0" in lines
    seen = np.clip([names[f"x{i}"] for i in range(4)], -10, 10)
    np.testing.assert_allclose(seen, np.clip((x[:, 0] - mean) / deviation, -10, 10), rtol=1e-15)
    values = expectations(circuit, params, seen[:, None])[:, 0]
    names |= {f"e{i}": value for i, value in enumerate(values)}
    outputs = [eval(line.split(" = ")[1], {}, names) for line in lines if line.startswith("output ")]
    np.testing.assert_allclose(outputs, network.kernel @ (values * scale) + network.bias, rtol=0, atol=1e-14)


def test_images_are_flattened(tmp_path):
    circuit = CIRCUITS["hardware-efficient"]
    params, x, _ = inputs_of(circuit, 3)
    network = trained(circuit, params)
    network = TrainedCircuit(**{**vars(network), "observation_shape": (2, 1, 2)})
    file = tmp_path / "actor.py"
    file.write_text(to_script(network), encoding="utf-8")
    outputs = runpy.run_path(str(file))["outputs"]
    expected = (network.kernel @ expectations(circuit, params, x) + network.bias[:, None]).T
    images = x.T.reshape(3, 2, 1, 2)
    np.testing.assert_allclose(outputs(images), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(outputs(images[2]), expected[2], rtol=0, atol=1e-12)


def test_an_observation_that_is_a_number_and_one_that_no_gate_sees(tmp_path):
    """Shape () has no axis to flatten; what does not depend on observations still has one row for each."""
    circuit = Builder(1)
    circuit.rotate("y", 0, circuit.encode(0))
    blind = Builder(1)
    blind.rotate("y", 0, 0.3)
    x = np.array([0.1, 0.7, -0.4])
    for part, expected in ((circuit.build(["Z"]), np.cos(x)), (blind.build(["Z"]), np.full(3, np.cos(0.3)))):
        network = trained(part, [])
        network = TrainedCircuit(**{**vars(network), "observation_shape": (), "origin": 'of """runs"""\\'})
        file = tmp_path / "actor.py"
        file.write_text(to_script(network), encoding="utf-8")
        outputs = runpy.run_path(str(file))["outputs"]
        expected = expected[:, None] * network.kernel[:, 0] + network.bias
        np.testing.assert_allclose(outputs(x), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(outputs(x[1]), expected[1], rtol=0, atol=1e-12)


def test_angles_are_expressions_of_the_inputs_with_all_digits():
    circuit = Builder(2)
    circuit.rotate("z", 0, circuit.encode(0, circuit.parameter(), circuit.parameter()))
    circuit.rotate("y", 1, circuit.encode(1, circuit.parameter()))
    circuit.rotate("x", 1, circuit.encode(0))
    circuit.rotate("x", 0, -0.5)
    circuit.couple("cnot", 1, 0)
    text = to_openqasm(circuit.build(["XY", "II"]), np.float32([0.1, 0.31, -1e-7]), ["two lines", "above"])
    assert (
        text
        == """\
OPENQASM 3.0;
include "stdgates.inc";

// two lines
// above
// expectation values:
// e0: XY, X of q[0], Y of q[1]
// e1: II

input float[64] x0;
input float[64] x1;
qubit[2] q;
rz(0.3100000023841858 + 0.10000000149011612 * x0) q[0];
ry(-1.0000000116860974e-07 * x1) q[1];
rx(x0) q[1];
rx(-0.5) q[0];
cx q[1], q[0];
"""
    )


def test_numbers_that_are_none_are_refused():
    circuit = CIRCUITS["re-uploading"]
    params = inputs_of(circuit)[0]
    with pytest.raises(UserError, match=r"params of shape \(2,\): accepted are \d+ numbers"):
        to_openqasm(circuit, params[:2])
    params[3] = np.nan
    for export in (to_openqasm, to_pennylane):
        with pytest.raises(UserError, match=r"parameters of the circuit: 1 of \d+ are not finite, such as nan"):
            export(circuit, params)
    network = trained(circuit, inputs_of(circuit)[0], output_scale=np.full(len(circuit.observables), np.inf))
    with pytest.raises(UserError, match=r"output_scale: .* are not finite, such as inf"):
        to_script(network)


def test_without_pennylane_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pennylane", None)
    circuit = CIRCUITS["re-uploading"]
    params = inputs_of(circuit)[0]
    with pytest.raises(UserError, match=r"PennyLane is not installed: pip install 'hyperlax\[quantum\]'"):
        to_pennylane(circuit, params)
    assert to_openqasm(circuit, params)
