"""Parametrised circuits as data: which gates act where, where their angles come from, and what is measured.

A :class:`Builder` writes a circuit down gate by gate; nothing here simulates anything.

    circuit = Builder(num_qubits=2)
    for layer in range(3):
        for qubit in range(2):
            circuit.rotate("y", qubit, circuit.encode(feature=qubit, scale=circuit.parameter(1.0)))
            circuit.rotate("z", qubit, circuit.trainable())
        circuit.entangle("cz", "ring")
    circuit.build(["ZI", "IZ", "XX"])

Qubit 0 is the first factor of a tensor product, and the first letter of a Pauli word. ``RX(a)`` is
``exp(-i a X / 2)`` and likewise for Y and Z, as Nielsen and Chuang (2010) and PennyLane have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hyperlax.errors import UserError, unknown

ROTATIONS = ("x", "y", "z")
ENTANGLERS = ("cnot", "cz")
PATTERNS = ("pairs", "odd_pairs", "ladder", "ring", "all")
MEASUREMENTS = ("full", "half", "single", "zz")
MAX_QUBITS = 24


@dataclass(frozen=True)
class Angle:
    """The angle ``constant + parameters[bias] + parameters[scale] * inputs[feature]``.

    Attributes:
        constant: radians.
        bias: which parameter is added; None for none.
        scale: which parameter multiplies the input; None for the input as it is.
        feature: which input; None for an angle that does not depend on any.
    """

    constant: float = 0.0
    bias: int | None = None
    scale: int | None = None
    feature: int | None = None

    def __add__(self, other: Angle) -> Angle | None:
        """Returns the sum, or None if it needs two parameters or two inputs and so is no such angle."""
        biases = [a.bias for a in (self, other) if a.bias is not None]
        inputs = [(a.scale, a.feature) for a in (self, other) if a.feature is not None]
        if len(biases) > 1 or len(inputs) > 1:
            return None
        scale, feature = inputs[0] if inputs else (None, None)
        return Angle(self.constant + other.constant, biases[0] if biases else None, scale, feature)


@dataclass(frozen=True)
class Gate:
    """One gate.

    Attributes:
        name: ``"x"``, ``"y"``, ``"z"`` (a rotation about that axis), ``"cnot"`` or ``"cz"``.
        qubits: one, or the control and the target.
        angle: of a rotation.
    """

    name: str
    qubits: tuple[int, ...]
    angle: Angle | None = None


@dataclass(frozen=True)
class Circuit:
    """A circuit on ``|0…0>`` and the Pauli words whose expectation values are its outputs.

    Attributes:
        num_qubits: number of qubits.
        num_inputs: number of inputs that angles may refer to.
        initial: for each parameter the interval that its initial value is drawn from, uniformly.
        gates: in the order in which they act.
        observables: Pauli words, one letter of ``IXYZ`` a qubit.
    """

    num_qubits: int
    num_inputs: int
    initial: tuple[tuple[float, float], ...]
    gates: tuple[Gate, ...]
    observables: tuple[str, ...]

    def __post_init__(self) -> None:
        _check("num_qubits", self.num_qubits, 1, MAX_QUBITS)
        for low, high in self.initial:
            if not -math.inf < low <= high < math.inf:
                raise UserError(f"initial parameters from {low} to {high}: accepted are finite bounds, the lower first")
        if not self.observables:
            raise UserError("a circuit without observables: at least one Pauli word is needed")
        for word in self.observables:
            if len(word) != self.num_qubits or set(word) - set("IXYZ"):
                raise UserError(f"Pauli word '{word}': accepted are {self.num_qubits} letters of IXYZ, one a qubit")
        for gate in self.gates:
            self._check_numbers(gate)

    def _check_numbers(self, gate: Gate) -> None:
        _check_gate(gate, self.num_qubits)
        if gate.angle is None:
            return
        for name, number in (("parameter", gate.angle.bias), ("parameter", gate.angle.scale)):
            if number is not None:
                _check(name, number, 0, self.num_params - 1)
        if gate.angle.feature is not None:
            _check("feature", gate.angle.feature, 0, self.num_inputs - 1)

    @property
    def intervals(self) -> np.ndarray:
        """Bounds ``(2, parameters)`` of the initial parameters."""
        return np.array(self.initial, float).reshape(-1, 2).T

    @property
    def num_params(self) -> int:
        """Number of trainable parameters."""
        return len(self.initial)


@dataclass
class Builder:
    """Writes a circuit down.

    Args:
        num_qubits: 1 to 24.

    Raises:
        UserError: too many qubits or none; later, whatever does not fit the circuit.
    """

    num_qubits: int
    _initial: list[tuple[float, float]] = field(default_factory=list, init=False)
    _gates: list[Gate] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        _check("num_qubits", self.num_qubits, 1, MAX_QUBITS)

    def parameter(self, low: float = 0.0, high: float | None = None) -> int:
        """Returns the number of a new parameter, drawn between ``low`` and ``high``; ``low`` itself without it."""
        self._initial.append((low, low if high is None else high))
        return len(self._initial) - 1

    def trainable(self, low: float = 0.0, high: float = 2 * math.pi) -> Angle:
        """Returns an angle that is a new parameter."""
        return Angle(bias=self.parameter(low, high))

    def encode(self, feature: int, scale: int | None = None, bias: int | None = None) -> Angle:
        """Returns the angle of an input, scaled and shifted by parameters if they are given."""
        return Angle(bias=bias, scale=scale, feature=feature)

    def rotate(self, axis: str, qubit: int, angle: Angle | float) -> None:
        """Adds ``RX``, ``RY`` or ``RZ``."""
        self._add(Gate(axis, (qubit,), angle if isinstance(angle, Angle) else Angle(float(angle))))

    def rot(self, qubit: int, first: Angle, second: Angle, third: Angle) -> None:
        """Adds ``Rot(a, b, c) = RZ(c) RY(b) RZ(a)``, of which ``RZ(a)`` acts first."""
        for axis, angle in zip("zyz", (first, second, third), strict=True):
            self.rotate(axis, qubit, angle)

    def couple(self, gate: str, control: int, target: int) -> None:
        """Adds a two-qubit gate, ``cnot`` or ``cz``."""
        self._add(Gate(gate, (control, target)))

    def entangle(self, gate: str, pattern: str) -> None:
        """Adds two-qubit gates between the qubits of a pattern, see :func:`pairs_of`."""
        for control, target in pairs_of(pattern, self.num_qubits):
            self.couple(gate, control, target)

    def build(self, observables: Iterable[str]) -> Circuit:
        """Returns the circuit, measured in these Pauli words."""
        angles = [gate.angle for gate in self._gates if gate.angle is not None]
        features = [angle.feature for angle in angles if angle.feature is not None]
        if isinstance(observables, str):
            raise UserError(f"observables '{observables}': accepted is a list of Pauli words")
        initial = tuple(self._initial)
        return Circuit(self.num_qubits, max(features, default=-1) + 1, initial, tuple(self._gates), tuple(observables))

    def _add(self, gate: Gate) -> None:
        _check_gate(gate, self.num_qubits)
        self._gates.append(gate)


def _check(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UserError(f"{name} {value}: accepted are whole numbers")
    if not least <= value <= most:
        accepted = f"accepted is {least} … {most}" if most >= least else "there is none"
        raise UserError(f"{name} {value}: {accepted}")


def _check_gate(gate: Gate, num_qubits: int) -> None:
    if gate.angle is None and gate.name not in ENTANGLERS:
        raise unknown("two-qubit gate", gate.name, ENTANGLERS)
    if gate.angle is not None and gate.name not in ROTATIONS:
        raise unknown("rotation", gate.name, ROTATIONS)
    if gate.angle is not None and not math.isfinite(gate.angle.constant):
        raise UserError(f"angle {gate.angle.constant} of {gate.name}: accepted are finite numbers")
    for qubit in gate.qubits:
        _check("qubit", qubit, 0, num_qubits - 1)
    if len(set(gate.qubits)) != (1 if gate.angle is not None else 2):
        words = "one" if gate.angle is not None else "two different ones"
        raise UserError(f"{gate.name} on qubits {' and '.join(map(str, gate.qubits))}: accepted are {words}")


def pairs_of(pattern: str, num_qubits: int) -> list[tuple[int, int]]:
    """Returns which qubits a pattern couples, in order.

    ``pairs`` is (0, 1), (2, 3), …; ``odd_pairs`` (1, 2), (3, 4), …; ``ladder`` each qubit with the next; ``ring`` the
    ladder and the last with the first; ``all`` every pair. One qubit has no pair, and two have one.

    Raises:
        UserError: the pattern is not known.
    """
    n = num_qubits
    if pattern == "all":
        return [(a, b) for a in range(n) for b in range(a + 1, n)]
    ladder = [(a, a + 1) for a in range(n - 1)]
    if pattern == "ladder":
        return ladder
    if pattern == "ring":
        return ladder + ([(n - 1, 0)] if n > 2 else [])
    if pattern not in PATTERNS:
        raise unknown("pattern of qubits", pattern, PATTERNS)
    return ladder[pattern == "odd_pairs" :: 2]


def words_of(measurement: str, num_qubits: int) -> list[str]:
    """Returns Pauli words: ``full`` is Z of every qubit, ``half`` of the first half, ``single`` of the first alone,
    ``zz`` ZZ of neighbours (Z where there is one qubit only).

    Raises:
        UserError: the measurement is not known.
    """
    if measurement not in MEASUREMENTS:
        raise unknown("measurement", measurement, MEASUREMENTS)
    if measurement == "zz" and num_qubits > 1:
        return [word({a: "Z", b: "Z"}, num_qubits) for a, b in pairs_of("ladder", num_qubits)]
    count = {"full": num_qubits, "half": -(-num_qubits // 2)}.get(measurement, 1)
    return [word({qubit: "Z"}, num_qubits) for qubit in range(count)]


def word(letters: dict[int, str], num_qubits: int) -> str:
    """Returns the Pauli word with these letters and the identity elsewhere."""
    return "".join(letters.get(qubit, "I") for qubit in range(num_qubits))


def data_reuploading(num_features: int, n_layers: int, n_vstack: int, observable_type: str = "full") -> Circuit:
    """Returns the data re-uploading circuit of hyperlax-quantum (after Pérez-Salinas et al., 2020).

    Every qubit sees three features (zeros where there are fewer), ``n_vstack`` qubits the same three. A layer is
    ``Rot(omega * x)``, ``Rot(theta)`` and CZ between the pairs, even and odd ones in turn; ``Rot(omega * x + theta)``
    ends it. All parameters begin uniform in [0, 1). First come all theta ``(n_qubits, n_layers + 1, 3)``, then all
    omega ``(n_layers + 1, n_qubits, 3)``.
    """
    for name, value in (("num_features", num_features), ("n_layers", n_layers), ("n_vstack", n_vstack)):
        if value < 1:
            raise UserError(f"{name} {value}: accepted is 1 or more")
    triples = -(-num_features // 3)
    circuit = Builder(triples * n_vstack)
    qubits = range(circuit.num_qubits)
    theta = [[[circuit.parameter(0, 1) for _ in range(3)] for _ in range(n_layers + 1)] for _ in qubits]
    omega = [[[circuit.parameter(0, 1) for _ in range(3)] for _ in qubits] for _ in range(n_layers + 1)]

    def encoded(layer: int, qubit: int, axis: int, bias: int | None = None) -> Angle:
        feature = 3 * (qubit % triples) + axis
        if feature >= num_features:
            return Angle(bias=bias)
        return circuit.encode(feature, omega[layer][qubit][axis], bias)

    for layer in range(n_layers):
        for qubit in qubits:
            circuit.rot(qubit, *(encoded(layer, qubit, axis) for axis in range(3)))
            circuit.rot(qubit, *(Angle(bias=theta[qubit][layer][axis]) for axis in range(3)))
        circuit.entangle("cz", "odd_pairs" if layer % 2 else "pairs")
    for qubit in qubits:
        circuit.rot(qubit, *(encoded(n_layers, qubit, axis, theta[qubit][n_layers][axis]) for axis in range(3)))
    return circuit.build(words_of(observable_type, circuit.num_qubits))


def hardware_efficient(
    num_features: int,
    n_layers: int,
    n_qubits: int,
    rotations: Sequence[str] = ("y", "z"),
    entangler: str = "cnot",
    pattern: str = "ring",
    observable_type: str = "full",
) -> Circuit:
    """Returns layers of trainable rotations and entanglers (Kandala et al., 2017), the inputs encoded anew in each.

    In every layer each feature is encoded once, ``RX(scale * x)`` with a trainable scale that begins at one, feature
    ``f`` on qubit ``f % n_qubits``; the trainable rotations begin uniform in [0, 2 pi).
    """
    for name, value in (("num_features", num_features), ("n_layers", n_layers)):
        if value < 1:
            raise UserError(f"{name} {value}: accepted is 1 or more")
    circuit = Builder(n_qubits)
    for _ in range(n_layers):
        for feature in range(num_features):
            circuit.rotate("x", feature % n_qubits, circuit.encode(feature, circuit.parameter(1.0)))
        for axis in rotations:
            for qubit in range(n_qubits):
                circuit.rotate(axis, qubit, circuit.trainable())
        circuit.entangle(entangler, pattern)
    return circuit.build(words_of(observable_type, n_qubits))
