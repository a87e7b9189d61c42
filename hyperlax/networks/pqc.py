"""Parametrised quantum circuits as torsos: inputs are encoded as angles, expectation values come out.

A family is a dataclass of declared hyperparameters with one method, :meth:`CircuitFamily.circuit`. What a circuit
looks like is data (:mod:`hyperlax.quantum.circuit`), so that lanes of different depth and width share a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from hyperlax.quantum import circuit as circuits
from hyperlax.quantum.circuit import Circuit
from hyperlax.quantum.executor import expectations
from hyperlax.quantum.tape import Tape, TapeShape, lower, pad, shape_of
from hyperlax.spaces import Categorical, Check, Fixed, at_least, hyperparameter

known_measurement = Check(lambda name: name in circuits.MEASUREMENTS, f"one of {', '.join(circuits.MEASUREMENTS)}")


class CircuitFamily:
    """What families of circuits have in common; a family adds hyperparameters and :meth:`circuit`."""

    def circuit(self, num_features: int) -> Circuit:
        """Returns the circuit for so many inputs.

        Raises:
            UserError: there is none.
        """
        raise NotImplementedError

    def shape(self, inputs: tuple[int, ...]) -> CircuitShape:
        """Returns the static shape of exactly this network; inputs are flattened."""
        circuit, tape = _lowered(self, inputs)
        return CircuitShape(shape_of(tape), circuit.num_params, inputs, len(circuit.gates))

    def traced(self, shape: CircuitShape) -> CircuitLane:
        """Returns this network's place inside ``shape`` as values that may differ between lanes."""
        return CircuitLane(pad(_lowered(self, shape.inputs)[1], shape.tape))

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator, inputs: tuple[int, ...]) -> Any:
        """Returns the initial angles and scales, each uniform in the circuit's interval for it."""
        del name, shape
        low, high = np.array(_lowered(self, inputs)[0].initial).T
        return rng.uniform(low, high)

    def finish(self, params: Any) -> Any:
        """Returns initial parameters as they are."""
        return params


@cache
def _lowered(family: Any, inputs: tuple[int, ...]) -> tuple[Circuit, Tape]:
    circuit = family.circuit(int(np.prod(inputs)))
    return circuit, lower(circuit)


@dataclass(frozen=True)
class DRPQC(CircuitFamily):
    """Hyperparameters of the data re-uploading circuit of hyperlax-quantum."""

    n_layers: int = hyperparameter(
        5, Categorical((1, 2, 5, 10)), kind="structural", description="times that the inputs are encoded, but for one",
        check=at_least(1),
    )  # fmt: skip
    n_vstack: int = hyperparameter(
        1, Categorical((1, 2, 3, 4, 5)), kind="structural", description="qubits that see the same three features",
        check=at_least(1),
    )  # fmt: skip
    observable_type: str = hyperparameter(
        "full", Fixed("full"), kind="structural", check=known_measurement,
        description="what is measured: Z of every qubit (full), of half of them, of one (single), or zz of neighbours",
    )  # fmt: skip

    def circuit(self, num_features: int) -> Circuit:
        """Returns the circuit for so many inputs."""
        return circuits.data_reuploading(num_features, self.n_layers, self.n_vstack, self.observable_type)


@dataclass(frozen=True)
class CircuitShape:
    """What circuits of a program are compiled for.

    Attributes:
        tape: sizes of the tape.
        parameters: most of any lane.
        inputs: shape of one input.
        num_gates: most gates of any lane.
    """

    tape: TapeShape
    parameters: int
    inputs: tuple[int, ...]
    num_gates: int

    def describe(self) -> str:
        """Returns the sizes in a few words."""
        return f"{self.tape.num_layers} layers of {self.tape.num_qubits} qubits"

    def merge(self, other: CircuitShape) -> CircuitShape:
        """Returns the least shape that holds both."""
        return CircuitShape(
            self.tape.merge(other.tape),
            max(self.parameters, other.parameters),
            self.inputs,
            max(self.num_gates, other.num_gates),
        )

    def is_alike(self, other: Any) -> bool:
        """Returns whether both have arrays of the same sizes, so that merging them pads nothing."""
        return bool(self == other)

    def blank(self) -> CircuitLane:
        """Returns traced values of no network in particular."""
        t = self.tape
        angles, states = (t.num_layers, t.num_qubits, t.num_rotations), (t.num_layers, 2**t.num_qubits)
        integers = lambda size: np.zeros(size, np.int32)  # noqa: E731
        words = (integers(t.num_observables) for _ in range(3))
        return CircuitLane(
            Tape(
                integers(3), integers(angles), np.zeros(angles), integers(angles), integers(angles), integers(angles),
                integers(states), np.zeros(states, np.float32), *words,
            )
        )  # fmt: skip

    def flops(self, num_inputs: int, num_outputs: int) -> int:
        """Returns operations of one forward pass of one input."""
        del num_inputs
        t = self.tape
        turns = t.num_layers * t.num_qubits
        return turns * (14 * 2**t.num_qubits + 60 * t.num_rotations) + 2 * t.num_observables * num_outputs

    def flops_per_call(self) -> int:
        """Returns what a call costs whatever the number of its inputs: nothing."""
        return 0

    def num_params(self, num_inputs: int, num_outputs: int) -> int:
        """Returns the number of parameters, padding included."""
        del num_inputs
        return self.parameters + (self.tape.num_observables + 1) * num_outputs

    def num_units(self) -> int:
        """Returns numbers that are kept of one input: the expectation values, and two states."""
        return self.tape.num_observables + 4 * 2**self.tape.num_qubits

    def torso(self) -> CircuitTorso:
        """Returns the flax module compiled for this shape."""
        return CircuitTorso(self)


class CircuitLane(NamedTuple):
    """One lane's circuit (all traced)."""

    tape: Tape


class CircuitTorso(nn.Module):
    """A circuit; its parameters are one vector, of which a lane uses the first."""

    shape: CircuitShape

    @nn.compact
    def __call__(self, x: jax.Array, lane: CircuitLane) -> jax.Array:
        """Maps ``(features, batch)`` to ``(observables, batch)``; padded observables are zero."""
        params = self.param("circuit", nn.initializers.zeros, (self.shape.parameters,))
        return expectations(lane.tape, params, x, self.shape.tape)
