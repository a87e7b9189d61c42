"""Which executor simulates circuits: one interface, the same results."""

from __future__ import annotations

from functools import lru_cache

import jax
import numpy as np

from hyperlax.errors import UserError, unknown
from hyperlax.quantum import fused_cpu, state_vector
from hyperlax.quantum.circuit import Circuit
from hyperlax.quantum.tape import Tape, TapeShape, lower, shape_of

KERNELS = ("auto", "cpu", "jax")

_chosen = "auto"


def choose(kernel: str) -> None:
    """Sets the executor of everything that is traced from now on.

    Args:
        kernel: ``cpu`` is the fused kernel, ``jax`` runs on any device; ``auto`` takes the first where it can.

    Raises:
        UserError: the name is not known, or the kernel is not there.
    """
    global _chosen
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)
    if kernel == "cpu" and fused_cpu.library() is None:
        raise UserError(f"kernel cpu: it was {fused_cpu.problem()}; accepted are auto, jax")
    if kernel == "cpu" and jax.default_backend() != "cpu":
        raise UserError(f"kernel cpu: JAX runs on {jax.default_backend()}; accepted are auto, jax")
    _chosen = kernel


def current() -> str:
    """Returns the executor that circuits run on: ``cpu`` or ``jax``."""
    if _chosen != "auto":
        return _chosen
    return "cpu" if jax.default_backend() == "cpu" and fused_cpu.library() is not None else "jax"


def expectations(tape: Tape, params: jax.Array, inputs: jax.Array, shape: TapeShape) -> jax.Array:
    """Returns the expectation values of a circuit's observables, differentiable by ``params`` and ``inputs``.

    Differentiable once, in reverse mode. :func:`evaluate` is for one circuit by itself; here the operands may be
    padded, as those of lanes are.

    Args:
        tape: of the circuit; host arrays or traced ones, of ``shape``.
        params: ``(parameters,)``, float32 or float64.
        inputs: ``(features, batch)``, of the same type.
        shape: static sizes of the tape.

    Returns:
        ``(observables, batch)`` in [-1, 1]; zero for observables that are padding.

    Raises:
        UserError: operands of another shape or type; double precision without x64.
    """
    operands = (("params", params, shape.num_params, ()), ("inputs", inputs, shape.num_inputs, ("batch",)))
    for name, array, least, rest in operands:
        given = np.shape(array)
        if len(given) != 1 + len(rest) or given[0] < least:
            raise UserError(f"{name} of shape {given}: accepted is ({', '.join([f'{least} or more', *rest])})")
        kind = np.dtype(array.dtype) if hasattr(array, "dtype") else np.result_type(array)
        if kind not in (np.float32, np.float64):
            raise UserError(f"{name} of {kind}: accepted are float32 and float64")
        if kind == np.float64 and not jax.config.read("jax_enable_x64"):  # JAX would round it
            raise UserError(f"{name} in double precision: accepted only with jax.config.update('jax_enable_x64', True)")
    if current() == "cpu":
        return fused_cpu.expectations(tape, params, inputs)
    return state_vector.expectations(tape, params, inputs, permutes=shape.permutes, only_z=shape.only_z)


def evaluate(circuit: Circuit, params: jax.Array, inputs: jax.Array) -> jax.Array:
    """Returns the expectation values of a circuit's observables, differentiable by ``params`` and ``inputs``.

    Args:
        circuit: see :class:`hyperlax.quantum.circuit.Builder`.
        params: ``(parameters,)``, float32, or float64 with ``jax_enable_x64``.
        inputs: ``(features, batch)``, of the same type: a sample is a column.

    Returns:
        ``(observables, batch)`` in [-1, 1].

    Raises:
        UserError: operands of another shape or type.
    """
    for name, array, wanted in (("params", params, circuit.num_params), ("inputs", inputs, circuit.num_inputs)):
        if np.shape(array)[:1] != (wanted,):
            raise UserError(f"{name} of shape {np.shape(array)}: the circuit has {wanted}, which come first")
    return expectations(_lowered(circuit), params, inputs, shape_of(circuit))


@lru_cache(maxsize=32)
def _lowered(circuit: Circuit) -> Tape:
    return lower(circuit)
