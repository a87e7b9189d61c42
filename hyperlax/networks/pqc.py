"""Parametrised quantum circuits as torsos: inputs are encoded as angles, expectation values come out.

A family is a dataclass of declared hyperparameters with one method, :meth:`CircuitFamily.circuit`. What a circuit
looks like is data (:mod:`hyperlax.quantum.circuit`), so that lanes of different depth and width share a program.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hyperlax.errors import UserError, unknown
from hyperlax.networks import NETWORKS
from hyperlax.quantum import circuit as circuits
from hyperlax.quantum import executor
from hyperlax.quantum.circuit import Circuit
from hyperlax.quantum.tape import Tape, TapeShape, lower, pad, shape_of
from hyperlax.spaces import Categorical, Check, Fixed, at_least, hyperparameter, one_of, replace


@dataclass(frozen=True, kw_only=True)
class CircuitFamily:
    """What families of circuits have in common; a family adds hyperparameters and :meth:`circuit`."""

    observable_type: str = hyperparameter(
        "full", Fixed("full"), kind="structural", check=one_of(*circuits.MEASUREMENTS),
        description="what is measured: Z of every qubit (full), of half of them, of one (single), or zz of neighbours",
    )  # fmt: skip
    scale_outputs: bool = hyperparameter(
        False, Fixed(False), kind="structural", description="multiply each expectation value by a trainable number"
    )

    def circuit(self, num_features: int) -> Circuit:
        """Returns the circuit for so many inputs.

        Raises:
            UserError: there is none.
        """
        raise NotImplementedError

    def sized(self, n_layers: int, n_qubits: int) -> Circuit:
        """Returns the circuit of so many layers and qubits, with one input a qubit: for studies of the ansatz.

        Raises:
            UserError: there is none.
        """
        return replace(self, {"n_layers": n_layers, "n_qubits": n_qubits}).circuit(n_qubits)

    def shape(self, inputs: tuple[int, ...]) -> CircuitShape:
        """Returns the static shape of exactly this network; inputs are flattened."""
        circuit = _circuit(self, inputs)
        return CircuitShape(shape_of(circuit), inputs, self.scale_outputs)

    def traced(self, shape: CircuitShape) -> CircuitLane:
        """Returns this network's place inside ``shape`` as values that may differ between lanes."""
        return CircuitLane(pad(lower(_circuit(self, shape.inputs)), shape.tape), np.bool_(self.scale_outputs))

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator, inputs: tuple[int, ...]) -> Any:
        """Returns the initial angles and scales, each uniform in the circuit's interval for it; outputs as they are."""
        if name == "output_scale":
            return np.ones(shape)
        low, high = _circuit(self, inputs).intervals
        return rng.uniform(low, high)

    def finish(self, params: Any) -> Any:
        """Returns initial parameters as they are."""
        return params


@cache
def _circuit(family: Any, inputs: tuple[int, ...]) -> Circuit:
    circuit: Circuit = family.circuit(math.prod(inputs))
    if circuit.num_inputs > math.prod(inputs):
        last = circuit.num_inputs - 1
        raise UserError(f"the circuit encodes feature {last}: accepted is 0 … {math.prod(inputs) - 1}")
    return circuit


@dataclass(frozen=True)
class DRPQC(CircuitFamily):
    """Hyperparameters of the data re-uploading circuit of hyperlax-quantum."""

    n_layers: int = hyperparameter(
        5, Categorical((1, 2, 5, 10)), kind="structural", check=at_least(1),
        description="layers; inputs are encoded in each of them and once more at the end",
    )  # fmt: skip
    n_vstack: int = hyperparameter(
        1, Categorical((1, 2, 3, 4, 5)), kind="structural", description="qubits that see the same three features",
        check=at_least(1),
    )  # fmt: skip

    def circuit(self, num_features: int) -> Circuit:
        """Returns the circuit for so many inputs."""
        return circuits.data_reuploading(num_features, self.n_layers, self.n_vstack, self.observable_type)

    def sized(self, n_layers: int, n_qubits: int) -> Circuit:
        """Returns the circuit of so many layers and qubits; three inputs go to each of ``n_vstack`` qubits.

        Raises:
            UserError: there is none.
        """
        if n_qubits % self.n_vstack:
            raise UserError(f"n_qubits {n_qubits} with n_vstack {self.n_vstack}: accepted are multiples of n_vstack")
        return replace(self, {"n_layers": n_layers}).circuit(3 * n_qubits // self.n_vstack)


@dataclass(frozen=True)
class HEPQC(CircuitFamily):
    """Hyperparameters of a hardware-efficient circuit (Kandala et al., 2017) into which inputs are encoded again."""

    n_layers: int = hyperparameter(
        5, Categorical((1, 2, 5, 10)), kind="structural", description="layers, each of which encodes all inputs",
        check=at_least(1),
    )  # fmt: skip
    n_qubits: int = hyperparameter(
        4, Categorical((2, 4, 6, 8)), kind="structural", description="qubits; feature f is on qubit f % n_qubits",
        check=at_least(1),
    )  # fmt: skip
    rotations: str = hyperparameter(
        "yz", Fixed("yz"), kind="structural", description="axes of the trainable rotations of a layer, in order",
        check=Check(lambda axes: axes != "" and set(axes) <= set(circuits.ROTATIONS), "letters of xyz"),
    )  # fmt: skip
    entangler: str = hyperparameter(
        "cz", Categorical(circuits.ENTANGLERS), kind="structural", description="two-qubit gate",
        check=one_of(*circuits.ENTANGLERS),
    )  # fmt: skip
    pattern: str = hyperparameter(
        "ring", Categorical(circuits.PATTERNS[2:]), kind="structural", description="which qubits it couples",
        check=one_of(*circuits.PATTERNS),
    )  # fmt: skip

    def circuit(self, num_features: int) -> Circuit:
        """Returns the circuit for so many inputs."""
        layers, qubits, measured = self.n_layers, self.n_qubits, self.observable_type
        return circuits.hardware_efficient(
            num_features, layers, qubits, self.rotations, self.entangler, self.pattern, measured
        )


# What a study of an ansatz decides by itself, or what is not in the circuit.
NOT_STUDIED = ("n_layers", "n_qubits", "observable_type", "scale_outputs")


def studied(name: str, values: Mapping[str, object]) -> CircuitFamily:
    """Returns a family of circuits with these hyperparameters, whose :meth:`CircuitFamily.sized` a study asks.

    Raises:
        UserError: no network has this name, it is no circuit, or a hyperparameter is unknown or not for studies.
    """
    accepted = sorted(known for known, family in NETWORKS.items() if issubclass(family, CircuitFamily))
    if name in NETWORKS and name not in accepted:
        raise UserError(f"network '{name}' is no circuit: accepted: {', '.join(accepted)}")
    if name not in accepted:
        raise unknown("network of circuits", name, accepted)
    for decided in NOT_STUDIED:
        if decided in values:
            raise UserError(f"hyperparameter {decided}: not accepted here, a study of circuits varies or ignores it")
    return typing.cast(CircuitFamily, replace(NETWORKS[name](), values))


@dataclass(frozen=True)
class CircuitShape:
    """What circuits of a program are compiled for.

    Attributes:
        tape: sizes of the tape.
        inputs: shape of one input.
        scales: whether outputs of any lane are multiplied by parameters.
    """

    tape: TapeShape
    inputs: tuple[int, ...]
    scales: bool = False

    def describe(self) -> str:
        """Returns the sizes in a few words."""
        return f"{self.tape.num_layers} layers of {self.tape.num_qubits} qubits"

    def merge(self, other: CircuitShape) -> CircuitShape:
        """Returns the least shape that holds both."""
        return CircuitShape(
            self.tape.merge(other.tape),
            self.inputs,
            self.scales or other.scales,
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
            ),
            np.bool_(False),
        )  # fmt: skip

    def flops(self, num_inputs: int, num_outputs: int) -> int:
        """Returns operations of one forward pass of one input."""
        del num_inputs
        t = self.tape
        turns = t.num_layers * t.num_qubits
        return turns * (14 * 2**t.num_qubits + 60 * t.num_rotations) + 2 * t.num_observables * num_outputs

    def flops_per_call(self) -> int:
        """Returns what a call costs whatever the number of its inputs: half a vector of samples."""
        return 8 * self.flops(0, 0)

    def num_params(self, num_inputs: int, num_outputs: int) -> int:
        """Returns the number of parameters, padding included."""
        del num_inputs
        scales = self.tape.num_observables if self.scales else 0
        return self.tape.num_params + scales + (self.tape.num_observables + 1) * num_outputs

    def num_units(self) -> int:
        """Returns numbers that are kept of one input: the expectation values, and two states.

        The kernel has only some 512 bytes an amplitude, whatever the number of inputs: an eighth of a number each of
        a thousand.
        """
        amplitudes = 2**self.tape.num_qubits
        return self.tape.num_observables + (amplitudes // 8 if executor.current() == "cpu" else 4 * amplitudes)

    def torso(self) -> CircuitTorso:
        """Returns the flax module compiled for this shape."""
        return CircuitTorso(self)


class CircuitLane(NamedTuple):
    """One lane's circuit and whether its outputs are scaled (all traced)."""

    tape: Tape
    scaled: Any


class CircuitTorso(nn.Module):
    """A circuit; its parameters are one vector, of which a lane uses the first."""

    shape: CircuitShape

    @nn.compact
    def __call__(self, x: jax.Array, lane: CircuitLane) -> jax.Array:
        """Maps ``(features, batch)`` to ``(observables, batch)``; padded observables are zero."""
        params = self.param("circuit", nn.initializers.zeros, (self.shape.tape.num_params,))
        values = executor.expectations(lane.tape, params, x, self.shape.tape)
        if not self.shape.scales:
            return values
        scale = self.param("output_scale", nn.initializers.ones, (self.shape.tape.num_observables,))
        return values * jnp.where(lane.scaled, scale, 1)[:, None]
