"""Circuits lowered to what a simulator runs: layers of one rotation a qubit, each followed by a signed permutation.

Neighbouring rotations of a qubit are one element of SU(2), and gates like CNOT and CZ only permute basis states and
change signs; so every circuit is a sequence of layers

1. a product of up to ``num_rotations`` rotations on every qubit,
2. ``state[k] <- sign[k] * state[source[k]]`` for every basis state ``k``: all two-qubit gates of the layer at once.

A tape is arrays only: circuits of different depth and width are padded to one shape (:func:`pad`) and run in
one program. Bit ``q`` of a basis state's number is qubit ``q``, by which a smaller circuit is the corner of a larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hyperlax.quantum.circuit import ROTATIONS, Angle, Circuit

MOST_ROTATIONS = 5  # of a qubit in a layer: Rot(omega x) and Rot(theta), their neighbouring RZ added


class Tape(NamedTuple):
    """A circuit as arrays, host or traced; those of padding do nothing.

    Attributes:
        sizes: ``(3,)`` int32, the circuit's own numbers of layers, qubits and observables.
        axis: ``(layers, qubits, rotations)`` int32, 0, 1, 2 for X, Y, Z.
        constant: ``(layers, qubits, rotations)`` radians; with the next three the angle of each rotation.
        bias: likewise, int32: which parameter is added, -1 for none.
        scale: likewise, int32: which parameter multiplies the input, -1 for none.
        feature: likewise, int32: which input, -1 for none.
        source: ``(layers, states)`` int32.
        sign: ``(layers, states)`` float32.
        flips: ``(observables,)`` int32, bits of the qubits on which a word has X or Y.
        masks: likewise, bits of the qubits on which it has Y or Z.
        num_y: likewise, how many Y it has. A word ``P`` has
            ``(P psi)[k] = (-i) ** num_y * (-1) ** popcount(k & masks) * psi[k ^ flips]``.
    """

    sizes: Any
    axis: Any
    constant: Any
    bias: Any
    scale: Any
    feature: Any
    source: Any
    sign: Any
    flips: Any
    masks: Any
    num_y: Any

    def lines(self, params: Any) -> tuple[Any, Any]:
        """Returns every angle as a function of its input: offset and slope, ``(layers, qubits, rotations)`` each."""
        params = jnp.pad(params, (0, 1))  # so that there is one to choose from
        offset = jnp.where(self.bias < 0, 0, params[self.bias]) + jnp.asarray(self.constant, params.dtype)
        return offset, jnp.where(self.scale < 0, jnp.ones((), params.dtype), params[self.scale])


@dataclass(frozen=True)
class TapeShape:
    """The static sizes of a tape.

    Attributes:
        num_qubits: of the widest circuit.
        num_layers: of the deepest.
        num_rotations: most of a qubit in a layer.
        num_observables: most.
        permutes: whether any layer does more than change signs.
        only_z: whether all Pauli words are of I and Z.
        num_inputs: of the circuit with most.
        num_params: likewise.
    """

    num_qubits: int
    num_layers: int
    num_rotations: int
    num_observables: int
    permutes: bool
    only_z: bool
    num_inputs: int
    num_params: int

    def merge(self, other: TapeShape) -> TapeShape:
        """Returns the least shape that holds both."""
        return TapeShape(
            max(self.num_qubits, other.num_qubits),
            max(self.num_layers, other.num_layers),
            max(self.num_rotations, other.num_rotations),
            max(self.num_observables, other.num_observables),
            self.permutes or other.permutes,
            self.only_z and other.only_z,
            max(self.num_inputs, other.num_inputs),
            max(self.num_params, other.num_params),
        )


@dataclass
class _Layer:
    rotations: list[list[tuple[int, Angle]]]
    couplings: list[tuple[str, int, int]]


def shape_of(circuit: Circuit) -> TapeShape:
    """Returns the sizes of a circuit's tape, without making it: of a wide one it may not fit the memory."""
    layers = _placed(circuit)
    permutes = any(gate.name == "cnot" for gate in circuit.gates)
    only_z = not any(set(word) & set("XY") for word in circuit.observables)
    sizes = circuit.num_qubits, len(layers), _depth(layers), len(circuit.observables)
    return TapeShape(*sizes, permutes, only_z, circuit.num_inputs, circuit.num_params)


def lower(circuit: Circuit) -> Tape:
    """Returns the tape of a circuit, on the host.

    Each rotation goes to the earliest layer behind the last two-qubit gate of its qubit, each two-qubit gate to the
    earliest layer that has the rotations of both qubits before it.
    """
    return _as_arrays(circuit, _placed(circuit))


def _placed(circuit: Circuit) -> list[_Layer]:
    n = circuit.num_qubits
    layers: list[_Layer] = []
    rotated, coupled = [0] * n, [-1] * n  # by qubit: the layer of its last rotations, of its last two-qubit gate

    def layer(index: int) -> _Layer:
        while len(layers) <= index:
            layers.append(_Layer([[] for _ in range(n)], []))
        return layers[index]

    for gate in circuit.gates:
        if gate.angle is not None:
            (qubit,) = gate.qubits
            rotated[qubit] = max(rotated[qubit], coupled[qubit] + 1)
            place = layer(rotated[qubit]).rotations[qubit]
            if not _absorbed(place, ROTATIONS.index(gate.name), gate.angle):
                if len(place) == MOST_ROTATIONS:
                    rotated[qubit] += 1
                    place = layer(rotated[qubit]).rotations[qubit]
                place.append((ROTATIONS.index(gate.name), gate.angle))
        else:
            control, target = gate.qubits
            at = max(rotated[control], rotated[target], coupled[control], coupled[target])
            layer(at).couplings.append((gate.name, control, target))
            coupled[control] = coupled[target] = at
    layer(0)  # a circuit without gates has one that does nothing
    return layers


def _depth(layers: list[_Layer]) -> int:
    return max(1, *(len(rotations) for layer in layers for rotations in layer.rotations))


def _absorbed(place: list[tuple[int, Angle]], axis: int, angle: Angle) -> bool:
    """Adds a rotation to the last one if both are about one axis and have one angle together."""
    if place and place[-1][0] == axis:
        total = place[-1][1] + angle
        if total is not None:
            place[-1] = (axis, total)
            return True
    return False


def _permutation(layer: _Layer, num_qubits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the source and the sign of every basis state."""
    states = np.arange(2**num_qubits, dtype=np.int32)
    source, sign = states, np.ones(2**num_qubits, np.float32)
    for name, control, target in layer.couplings:
        if name == "cz":
            sign[(states >> control) & (states >> target) & 1 == 1] *= -1
        else:
            before = states ^ (((states >> control) & 1) << target)
            source, sign = source[before], sign[before]
    return source, sign


def _as_arrays(circuit: Circuit, layers: list[_Layer]) -> Tape:
    n = circuit.num_qubits
    sizes = len(layers), n, _depth(layers)
    axis, constant = np.full(sizes, 2, np.int32), np.zeros(sizes)
    bias, scale, feature = (np.full(sizes, -1, np.int32) for _ in range(3))
    for i, layer in enumerate(layers):
        for qubit, rotations in enumerate(layer.rotations):
            for k, (about, angle) in enumerate(rotations):
                place = i, qubit, k
                axis[place], constant[place] = about, angle.constant
                for array, value in ((bias, angle.bias), (scale, angle.scale), (feature, angle.feature)):
                    array[place] = -1 if value is None else value
    words = np.array([_word(letters) for letters in circuit.observables], np.int32)
    source, sign = map(np.stack, zip(*(_permutation(layer, n) for layer in layers), strict=True))
    own = np.array([len(layers), n, len(words)], np.int32)
    return Tape(own, axis, constant, bias, scale, feature, source, sign, *words.T)


def _word(letters: str) -> tuple[int, int, int]:
    """Returns the bits that a Pauli word flips, those whose signs it sees, and its number of Y."""
    flips = sum(1 << qubit for qubit, letter in enumerate(letters) if letter in "XY")
    masks = sum(1 << qubit for qubit, letter in enumerate(letters) if letter in "YZ")
    return flips, masks, letters.count("Y")


def pad(tape: Tape, shape: TapeShape) -> Tape:
    """Returns the tape of the same circuit in larger arrays.

    Rotations turn by nothing, layers change nothing, words are the identity; :attr:`Tape.sizes` stay.
    """
    states = 2**shape.num_qubits
    sizes = shape.num_layers, shape.num_qubits, shape.num_rotations

    def filled(array: Any, size: tuple[int, ...], value: Any) -> Any:
        out = np.full(size, value, array.dtype)
        out[tuple(slice(0, length) for length in array.shape)] = array
        return out

    source = np.tile(np.arange(states, dtype=np.int32), (shape.num_layers, 1))
    source[: tape.source.shape[0], : tape.source.shape[1]] = tape.source
    return Tape(
        tape.sizes,
        filled(tape.axis, sizes, 2),
        filled(tape.constant, sizes, 0),
        filled(tape.bias, sizes, -1),
        filled(tape.scale, sizes, -1),
        filled(tape.feature, sizes, -1),
        source,
        filled(tape.sign, (shape.num_layers, states), 1),
        *(filled(words, (shape.num_observables,), 0) for words in (tape.flips, tape.masks, tape.num_y)),
    )
