"""Circuits with random parameters and inputs: what studies of an ansatz average over.

A study asks a function of depth and width for circuits, ``HEPQC().sized`` for example, and draws for each the same
numbers whatever else is studied beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from hyperlax.errors import UserError, unknown
from hyperlax.quantum.circuit import Circuit

INITIALS = ("uniform", "family")
MAX_QUBITS = 16  # a wider circuit is possible, hundreds of draws of it are not
MAX_NUMBERS = 2**28  # drawn or computed for one circuit: 2 GiB

CircuitOf = Callable[[int, int], Circuit]


def grid(circuit_of: CircuitOf, n_layers: Iterable[int], n_qubits: Iterable[int]) -> dict[tuple[int, int], Circuit]:
    """Returns the circuit of every depth and width, in order; each once.

    Raises:
        UserError: there is none so deep or wide.
    """
    depths, widths = sorted(set(n_layers)), sorted(set(n_qubits))
    for name, values, most in (("n_layers", depths, math.inf), ("n_qubits", widths, MAX_QUBITS)):
        if not values:
            raise UserError(f"{name}: none given, at least one is needed")
        for value in (values[0], values[-1]):
            if not 1 <= value <= most:
                raise UserError(f"{name} {value}: accepted is {'1 or more' if most == math.inf else f'1 … {most}'}")
    return {(depth, width): circuit_of(depth, width) for depth in depths for width in widths}


def check_samples(num_samples: int, circuits: Iterable[Circuit], numbers: int) -> None:
    """Refuses a number of samples that says nothing, or more than fit the memory.

    Args:
        num_samples: of each circuit.
        circuits: all that are studied.
        numbers: kept for each parameter and sample.

    Raises:
        UserError: fewer than two samples, or too many.
    """
    most = MAX_NUMBERS // (numbers * max(max(1, circuit.num_params) for circuit in circuits))
    if not 2 <= num_samples <= most:
        raise UserError(f"num_samples {num_samples}: accepted is 2 … {most}")


def check_initial(initial: str) -> None:
    """Refuses a name that is none of ``INITIALS``."""
    if initial not in INITIALS:
        raise unknown("initial", initial, INITIALS)


def scales_of(circuit: Circuit) -> list[int]:
    """Returns the parameters that multiply inputs; all others are angles."""
    return sorted({g.angle.scale for g in circuit.gates if g.angle is not None and g.angle.scale is not None})


def draw(circuit: Circuit, num: int, initial: str, entropy: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns random parameters ``(num, parameters)`` and inputs ``(num, features)``; more draws begin with the same.

    Args:
        circuit: what they are for.
        num: number of draws.
        initial: ``uniform`` makes every angle of a gate uniform over a full turn: parameters in [0, 2 pi), those that
            scale inputs one, inputs in [-pi, pi). ``family`` draws parameters as training begins with them and inputs
            from the standard normal distribution.
        entropy: non-negative integers from which all values derive.
    """
    check_initial(initial)
    of_params, of_inputs = (np.random.default_rng([*entropy, purpose]) for purpose in range(2))
    inputs = (num, circuit.num_inputs)
    low, high = circuit.intervals
    if initial == "family":
        return of_params.uniform(low, high, (num, len(low))), of_inputs.normal(size=inputs)
    params = of_params.uniform(0, 2 * math.pi, (num, len(low)))
    params[:, scales_of(circuit)] = 1
    return params, of_inputs.uniform(-math.pi, math.pi, inputs)


def in_chunks(function: Callable[..., Any], size: int, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns what a function makes of the rows of arrays, ``size`` of them at a time: always as many, compiled once.

    Args:
        function: maps arrays with so many rows to a tuple of arrays with as many.
        size: 1 or more.
        arrays: with the same number of rows.
    """
    num = len(arrays[0])
    size = min(size, num)
    parts = []
    for first in range(0, num, size):
        rows = np.minimum(np.arange(first, first + size), num - 1)  # the last row again where there is none
        parts.append([np.asarray(part) for part in function(*(array[rows] for array in arrays))])
    return tuple(np.concatenate(column)[:num] for column in zip(*parts, strict=True))
