"""Circuits with trained parameters for other tools: OpenQASM 3, a PennyLane QNode, a script that needs no hyperlax.

Qubit 0 is ``q[0]`` and wire 0, and the first letter of a Pauli word. RX, RY and RZ are the same gates in all three.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperlax.errors import UserError
from hyperlax.quantum.circuit import Angle, Circuit

_QASM = {"x": "rx", "y": "ry", "z": "rz", "cnot": "cx", "cz": "cz"}
_PENNYLANE = {"x": "RX", "y": "RY", "z": "RZ", "cnot": "CNOT", "cz": "CZ"}


@dataclass(frozen=True)
class TrainedCircuit:
    """A trained network that is a circuit, with all that it does to an observation before and after.

    Attributes:
        name: of the network, for example ``"actor"``.
        origin: where it comes from, one line.
        meaning: what its outputs are, for example ``"logits of the actions"``.
        circuit: without parameters.
        params: of the circuit, ``(parameters,)``.
        observation_shape: of one observation; the circuit sees it flat.
        kernel: of the dense head, ``(outputs, observables)``.
        bias: likewise, ``(outputs,)``.
        output_scale: what expectation values are multiplied by, ``(observables,)``; None for nothing.
        mean: subtracted from observations, ``(features,)``; None where they are not normalised.
        deviation: by which they are then divided, ``(features,)``.
        limit: at plus and minus which they are then clipped.
    """

    name: str
    origin: str
    meaning: str
    circuit: Circuit
    params: np.ndarray
    observation_shape: tuple[int, ...]
    kernel: np.ndarray
    bias: np.ndarray
    output_scale: np.ndarray | None = None
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None
    limit: float = math.inf


def to_openqasm(circuit: Circuit, params: Any, comments: Sequence[str] = ()) -> str:
    """Returns a circuit in OpenQASM 3: its inputs are ``input float[64] x0;`` and so on, its parameters numbers.

    The observables stand in comments: OpenQASM has measurements, but no expectation values.

    Args:
        circuit: the circuit.
        params: ``(parameters,)``.
        comments: lines for the top.

    Raises:
        UserError: the parameters are not those of the circuit, or not finite.
    """
    values = _parameters(circuit, params)
    lines = ["OPENQASM 3.0;", 'include "stdgates.inc";', "", *(f"// {line}" for line in comments)]
    lines.append("// expectation values:")
    lines += [f"// e{i}: {_observable(word)}" for i, word in enumerate(circuit.observables)]
    lines += ["", *(f"input float[64] x{feature};" for feature in range(circuit.num_inputs))]
    lines.append(f"qubit[{circuit.num_qubits}] q;")
    for gate in circuit.gates:
        angle = "" if gate.angle is None else f"({_qasm_angle(gate.angle, values)})"
        lines.append(f"{_QASM[gate.name]}{angle} {', '.join(f'q[{qubit}]' for qubit in gate.qubits)};")
    return "\n".join(lines) + "\n"


def around(trained: TrainedCircuit) -> list[str]:
    """Returns in words and numbers what happens before and after a circuit: comments for :func:`to_openqasm`.

    Raises:
        UserError: a trained number is not finite.
    """
    lines = [f"the trained {trained.name}, a quantum circuit: {trained.origin}"]
    if trained.mean is None or trained.deviation is None:
        lines.append("inputs: the observation")
    else:
        pairs = zip(_numbers("mean", trained.mean), _numbers("deviation", trained.deviation), strict=True)
        lines += [f"x{i} = (observation[{i}] - {m!r}) / {d!r}" for i, (m, d) in enumerate(pairs)]
        lines.append(f"each clipped at -{trained.limit!r} and {trained.limit!r}")
    scale = np.ones(trained.kernel.shape[1]) if trained.output_scale is None else trained.output_scale
    kernel, bias = _numbers("kernel", trained.kernel * scale), _numbers("bias", trained.bias)
    lines.append(f"outputs: {trained.meaning}; in terms of the expectation values e0 and so on")
    for i, (row, offset) in enumerate(zip(kernel, bias, strict=True)):
        lines.append(f"output {i} = {' + '.join([repr(offset), *(f'{k!r} * e{j}' for j, k in enumerate(row))])}")
    return lines


def to_pennylane(circuit: Circuit, params: Any) -> Any:
    """Returns a circuit as a PennyLane QNode on ``default.qubit``.

    Args:
        circuit: the circuit.
        params: ``(parameters,)``.

    Returns:
        A function of the inputs, ``(features,)`` or a batch ``(batch, features)``, that returns a list of the
        expectation values, each a scalar or ``(batch,)``; differentiable by the inputs.

    Raises:
        UserError: PennyLane is not installed, or the parameters are not those of the circuit, or not finite.
    """
    values = _parameters(circuit, params)
    try:
        import pennylane as qml
    except ImportError:
        raise UserError("PennyLane is not installed: pip install 'hyperlax[quantum]'") from None
    letters = {"X": qml.X, "Y": qml.Y, "Z": qml.Z}

    def observable(word: str) -> Any:
        factors = [letters[letter](qubit) for qubit, letter in enumerate(word) if letter != "I"]
        return qml.prod(*factors) if len(factors) > 1 else factors[0] if factors else qml.Identity(0)

    @qml.qnode(qml.device("default.qubit", wires=circuit.num_qubits))
    def node(inputs: Any) -> Any:
        for gate in circuit.gates:
            operation = getattr(qml, _PENNYLANE[gate.name])
            if gate.angle is None:
                operation(wires=gate.qubits)
            else:
                operation(_value(gate.angle, values, inputs), wires=gate.qubits[0])
        return [qml.expval(observable(word)) for word in circuit.observables]

    return node


def to_script(trained: TrainedCircuit) -> str:
    """Returns a Python program that needs NumPy and PennyLane only, with a function ``outputs(observation)``.

    Raises:
        UserError: a trained number is not finite.
    """
    circuit, normalised, scaled = trained.circuit, trained.mean is not None, trained.output_scale is not None
    shape, features = trained.observation_shape, math.prod(trained.observation_shape)
    leading = f"np.shape(observation)[:-{len(shape)}]" if shape else "np.shape(observation)"
    arrays = {
        "PARAMETERS": _parameters(circuit, trained.params),
        **({"MEAN": trained.mean, "DEVIATION": trained.deviation} if normalised else {}),
        **({"OUTPUT_SCALE": trained.output_scale} if scaled else {}),
        "KERNEL": trained.kernel,
        "BIAS": trained.bias,
    }
    gates = []
    for gate in circuit.gates:
        wires = list(gate.qubits) if gate.angle is None else gate.qubits[0]
        angle = "" if gate.angle is None else f"{_script_angle(gate.angle)}, "
        gates.append(f"    qml.{_PENNYLANE[gate.name]}({angle}wires={wires})")
    words = [f"qml.expval({_script_observable(word)})" for word in circuit.observables]
    one, many = str(shape), str(("batch", *shape)).replace("'", "")
    body = [
        f"    x = np.asarray(observation, dtype=float).reshape(*{leading}, {features})",
        *([f"    x = np.clip((x - MEAN) / DEVIATION, {-trained.limit!r}, {trained.limit!r})"] if normalised else []),
        "    values = np.stack([np.broadcast_to(value, x.shape[:-1]) for value in circuit(x)], axis=-1)",
        f"    return {'(values * OUTPUT_SCALE)' if scaled else 'values'} @ KERNEL.T + BIAS",
    ]
    title = f"The trained {trained.name}, a quantum circuit: {trained.origin}.".replace("\\", "\\\\").replace('"', "'")
    lines = [
        f'"""{title}"""',
        "",
        "import numpy as np",
        "import pennylane as qml",
        "",
        *(f"{name} = {_array(name, array)}" for name, array in arrays.items()),
        "",
        "",
        f'@qml.qnode(qml.device("default.qubit", wires={circuit.num_qubits}))',
        "def circuit(x, p=PARAMETERS):",
        f'    """Expectation values of {", ".join(circuit.observables)} for inputs (..., {features})."""',
        *gates,
        "    return [",
        *(f"        {word}," for word in words),
        "    ]",
        "",
        "",
        "def outputs(observation):",
        f'    """{trained.meaning[0].upper()}{trained.meaning[1:]}.',
        "",
        f"    observation: one, of shape {one}, or a batch, {many}.",
        '    """',
        *body,
    ]
    return "\n".join(lines) + "\n"


def _parameters(circuit: Circuit, params: Any) -> np.ndarray:
    """Returns parameters in double precision, which has all numbers of single precision."""
    values = np.asarray(params, np.float64)
    if values.shape != (circuit.num_params,):
        raise UserError(f"params of shape {values.shape}: accepted are {circuit.num_params} numbers, in one vector")
    return _finite("parameters of the circuit", values)


def _finite(what: str, values: np.ndarray) -> np.ndarray:
    wrong = values[~np.isfinite(values)]
    if wrong.size:
        raise UserError(f"{what}: {wrong.size} of {values.size} are not finite, such as {wrong[0]}; nothing to export")
    return values


def _numbers(what: str, array: Any) -> list[Any]:
    """Returns an array as nested lists of finite numbers."""
    values: list[Any] = _finite(what, np.asarray(array, np.float64)).tolist()
    return values


def _value(angle: Angle, params: np.ndarray, inputs: Any) -> Any:
    """Returns an angle in radians, or one for each sample."""
    offset, slope = _line(angle, params)
    return offset if angle.feature is None else offset + slope * inputs[..., angle.feature]


def _line(angle: Angle, params: np.ndarray) -> tuple[float, float]:
    """Returns the angle's offset and its slope by the input."""
    offset = float(angle.constant) + (0.0 if angle.bias is None else float(params[angle.bias]))
    return offset, 1.0 if angle.scale is None else float(params[angle.scale])


def _qasm_angle(angle: Angle, params: np.ndarray) -> str:
    """Returns an angle as an expression: ``0.31 + 1.2 * x0``."""
    offset, slope = _line(angle, params)
    if angle.feature is None:
        return repr(offset)
    product = f"x{angle.feature}" if angle.scale is None else f"{abs(slope)!r} * x{angle.feature}"
    if angle.bias is None and angle.constant == 0:
        return product if slope >= 0 else f"-{product}"
    return f"{offset!r} {'+' if slope >= 0 else '-'} {product}"


def _script_angle(angle: Angle) -> str:
    """Returns an angle as a Python expression of parameters and inputs: ``p[5] + p[3] * x[..., 0]``."""
    terms = [repr(float(angle.constant))] if angle.constant or (angle.bias is None and angle.feature is None) else []
    terms += [] if angle.bias is None else [f"p[{angle.bias}]"]
    if angle.feature is not None:
        terms.append(f"{'' if angle.scale is None else f'p[{angle.scale}] * '}x[..., {angle.feature}]")
    return " + ".join(terms)


def _observable(word: str) -> str:
    """Returns a Pauli word with the qubits of its letters: ``ZIX, Z of q[0], X of q[2]``."""
    factors = [f"{letter} of q[{qubit}]" for qubit, letter in enumerate(word) if letter != "I"]
    return ", ".join([word, *factors])


def _script_observable(word: str) -> str:
    factors = [f"qml.{letter}({qubit})" for qubit, letter in enumerate(word) if letter != "I"]
    return " @ ".join(factors) or "qml.Identity(0)"


def _array(name: str, array: Any) -> str:
    """Returns an array as Python that gives the same numbers."""
    values = _numbers(name.lower(), array)
    rows = values if values and isinstance(values[0], list) else [values]
    wrapped = [textwrap.fill(", ".join(map(repr, row)), 110) for row in rows]
    if len(rows) == 1 and rows[0] is values:
        return f"np.array([\n{textwrap.indent(wrapped[0], '    ')}\n])"
    inner = "\n".join(f"    [\n{textwrap.indent(row, ' ' * 8)}\n    ]," for row in wrapped)
    return f"np.array([\n{inner}\n])"
