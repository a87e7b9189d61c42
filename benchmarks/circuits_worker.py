"""One measured process: simulates data re-uploading circuits with one library, as told on its standard input.

Each library runs in a process of its own, and the peers in an environment of their own, so that nothing but the
chosen library is imported. Every line read is a JSON object: one with ``num_qubits`` is a :class:`Job`, which is
compiled and run once; ``{"seconds": s}`` runs it again for so long. Every answer is a JSON object, too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """One circuit, and how often it is to be simulated at once.

    Attributes:
        num_qubits: each with three features.
        num_layers: of the circuit, one encoding more.
        batch: inputs of each lane.
        lanes: copies with parameters and inputs of their own.
        gradient: of the weighted sum of all outputs by parameters and inputs, instead of the outputs.
    """

    num_qubits: int
    num_layers: int
    batch: int
    lanes: int
    gradient: bool

    def operands(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns theta, omega ``(lanes, qubits, layers + 1, 3)``, inputs and weights, the same in every process."""
        rng = np.random.default_rng([self.num_qubits, self.num_layers, self.batch, self.lanes])
        angles = [rng.uniform(size=(self.lanes, self.num_qubits, self.num_layers + 1, 3)) for _ in range(2)]
        inputs = rng.normal(size=(self.lanes, self.batch, 3 * self.num_qubits))
        weights = rng.normal(size=(self.lanes, self.batch, self.num_qubits))
        return tuple(array.astype(np.float32) for array in (*angles, inputs, weights))  # type: ignore[return-value]


Outputs = Callable[[Any, Any], Any]  # parameters and inputs of one lane to its outputs
Operands = Callable[[Job], tuple[Any, np.ndarray, np.ndarray]]  # parameters, inputs, weights as a library likes them


def samples_first(job: Job) -> tuple[Any, np.ndarray, np.ndarray]:
    """Returns (theta, omega), inputs ``(lanes, batch, features)`` and weights ``(lanes, batch, qubits)``."""
    theta, omega, inputs, weights = job.operands()
    return (theta, omega), inputs, weights


def samples_last(job: Job) -> tuple[Any, np.ndarray, np.ndarray]:
    """Returns parameters ``(lanes, parameters)``, inputs ``(lanes, features, batch)`` and weights likewise."""
    theta, omega, inputs, weights = job.operands()
    params = np.concatenate([theta.reshape(job.lanes, -1), omega.swapaxes(1, 2).reshape(job.lanes, -1)], axis=1)
    return params, inputs.swapaxes(1, 2), weights.swapaxes(1, 2)


def hyperlax(kernel: str) -> Callable[[Job], Outputs]:
    """Ours, with the fused kernel (``cpu``) or in pure JAX (``jax``)."""

    def build(job: Job) -> Outputs:
        from hyperlax.quantum import executor
        from hyperlax.quantum.circuit import data_reuploading
        from hyperlax.quantum.tape import lower, shape_of

        executor.choose(kernel)
        circuit = data_reuploading(3 * job.num_qubits, job.num_layers, 1)
        tape, shape = lower(circuit), shape_of(circuit)
        return lambda params, inputs: executor.expectations(tape, params, inputs, shape)

    return build


def pennylane(job: Job) -> Outputs:
    """PennyLane's default.qubit, differentiated by backpropagation, mapped over inputs."""
    import jax
    import jax.numpy as jnp
    import pennylane as qml

    n, layers = job.num_qubits, job.num_layers

    @qml.qnode(qml.device("default.qubit", wires=n), interface="jax", diff_method="backprop")
    def circuit(theta: Any, omega: Any, x: Any) -> Any:
        x = x.reshape(n, 3)
        for layer in range(layers):
            for qubit in range(n):
                qml.Rot(*(omega[qubit, layer] * x[qubit]), wires=qubit)
                qml.Rot(*theta[qubit, layer], wires=qubit)
            for qubit in range(layer % 2, n - 1, 2):
                qml.CZ(wires=(qubit, qubit + 1))
        for qubit in range(n):
            qml.Rot(*(omega[qubit, layers] * x[qubit] + theta[qubit, layers]), wires=qubit)
        return [qml.expval(qml.Z(qubit)) for qubit in range(n)]

    return jax.vmap(lambda params, x: jnp.stack(circuit(*params, x)), in_axes=(None, 0))


def tensorcircuit(job: Job) -> Outputs:
    """TensorCircuit-ng on JAX, mapped over inputs; one contraction to the state, then all values from it."""
    import jax
    import jax.numpy as jnp
    import tensorcircuit as tc

    tc.set_backend("jax")
    n, layers = job.num_qubits, job.num_layers
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1).astype(np.float32)

    def circuit(theta: Any, omega: Any, x: Any) -> Any:
        x = x.reshape(n, 3)
        c = tc.Circuit(n)

        def rot(qubit: int, angles: Any) -> None:  # its U(theta, phi, lambda) is RZ(phi) RY(theta) RZ(lambda)
            c.u(qubit, theta=angles[1], phi=angles[2], lbd=angles[0])

        for layer in range(layers):
            for qubit in range(n):
                rot(qubit, omega[qubit, layer] * x[qubit])
                rot(qubit, theta[qubit, layer])
            for qubit in range(layer % 2, n - 1, 2):
                c.cz(qubit, qubit + 1)
        for qubit in range(n):
            rot(qubit, omega[qubit, layers] * x[qubit] + theta[qubit, layers])
        return (jnp.abs(c.state()) ** 2) @ signs

    return jax.vmap(lambda params, x: circuit(*params, x), in_axes=(None, 0))


LIBRARIES: dict[str, tuple[Callable[[Job], Outputs], Operands]] = {
    "kernel": (hyperlax("cpu"), samples_last),
    "jax": (hyperlax("jax"), samples_last),
    "pennylane": (pennylane, samples_first),
    "tensorcircuit": (tensorcircuit, samples_first),
}


def compiled(library: str, job: Job) -> Callable[[], list[Any]]:
    """Returns the job as a function without arguments that returns arrays, by parameters and by inputs."""
    import jax

    build, operands = LIBRARIES[library]
    outputs, given = build(job), jax.device_put(operands(job))

    def loss(params: Any, inputs: Any, weights: Any) -> Any:
        return (outputs(params, inputs) * weights).sum()

    def one(params: Any, inputs: Any, weights: Any) -> Any:
        return jax.grad(loss, argnums=(0, 1))(params, inputs, weights) if job.gradient else [outputs(params, inputs)]

    function = jax.jit(jax.vmap(one))
    return lambda: list(jax.block_until_ready(function(*given)))


def main() -> None:
    """Answers until its input ends."""
    library = sys.argv[1]
    run = compiled(library, Job(1, 1, 1, 1, gradient=True))  # imports everything, starts the backend
    run()
    import jax

    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        if "num_qubits" in request:
            run = compiled(library, Job(**request))
            result = run()
            seconds = time.perf_counter() - start
            norms = [float(np.linalg.norm(np.concatenate([np.ravel(a) for a in jax.tree.leaves(r)]))) for r in result]
            answer = {"compile_seconds": seconds, "norms": norms}
        else:
            times = []
            while not times or (time.perf_counter() - start < request["seconds"] and len(times) < 2000):
                begun = time.perf_counter()
                run()
                times.append(time.perf_counter() - begun)
            answer = {"seconds": float(np.median(times)), "calls": len(times)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
