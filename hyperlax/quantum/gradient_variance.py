"""Barren plateaus: how the gradient of an expectation value varies over random parameters and inputs.

McClean et al. (2018) show that the variance falls exponentially with the number of qubits once a circuit is random
enough, Cerezo et al. (2021) that with an observable on all qubits it does so at any depth, with one on few qubits only
where the circuit is deep. All is computed in double precision.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pandas as pd

from hyperlax.errors import UserError, unknown
from hyperlax.quantum import ensemble, executor
from hyperlax.quantum.circuit import Circuit, words_of
from hyperlax.quantum.tape import Tape, TapeShape, lower, shape_of

OBSERVABLES = ("single", "zz", "global")

_ZERO = 1e-10  # a derivative no larger in any draw is rounding
_CHUNK = 2**28  # bytes of the tables and states of the draws that run at a time

_log = logging.getLogger(__name__)


def observable(name: str, num_qubits: int) -> str:
    """Returns a Pauli word: Z of the first qubit (``single``), of the first two (``zz``), of all (``global``).

    Raises:
        UserError: the name is not known.
    """
    if name not in OBSERVABLES:
        raise unknown("observable", name, OBSERVABLES)
    return "Z" * num_qubits if name == "global" else words_of(name, num_qubits)[0]


def study(
    circuit_of: ensemble.CircuitOf,
    n_layers: Iterable[int],
    n_qubits: Iterable[int],
    observables: Iterable[str] = ("single", "global"),
    num_samples: int = 200,
    initial: str = "uniform",
    seed: int = 42,
) -> pd.DataFrame:
    """Returns the variances of gradients over depths, widths and observables, one row each.

    Columns: ``n_layers``, ``n_qubits``, ``observable``, ``word``; ``parameter``, the first in the circuit that is an
    angle and changes the value (none: -1), ``variance`` of the derivative by it with its ``standard_error``; the mean
    of the variances over all angles, ``mean_angles``, and over all scales of inputs, ``mean_scales``; ``two_design``,
    see :func:`two_design`; ``num_params``, ``num_samples``.

    Where the derivative is a product of many factors, as by global observables of shallow circuits, rare draws make
    most of the variance: few draws find too little of it, and too small an error.

    Args:
        circuit_of: returns a circuit of so many layers and qubits; what it measures is not used.
        n_layers: depths.
        n_qubits: widths.
        observables: names of :func:`observable`.
        num_samples: draws of parameters and inputs for each circuit.
        initial: how they are drawn, see :func:`hyperlax.quantum.ensemble.draw`.
        seed: of all draws.

    Raises:
        UserError: no such circuit or observable, too few samples or too many.
    """
    ensemble.check_initial(initial)
    names = list(dict.fromkeys(observables))
    if not names:
        raise UserError("observables: none given, at least one is needed")
    for name in names:
        observable(name, 1)
    circuits = ensemble.grid(circuit_of, n_layers, n_qubits)
    ensemble.check_samples(num_samples, circuits.values(), len(names) + 1)
    rows = []
    for (depth, width), circuit in circuits.items():
        words = [observable(name, width) for name in names]
        measured = replace(circuit, observables=tuple(words))
        params, inputs = ensemble.draw(circuit, num_samples, initial, (seed, depth, width))
        slopes = gradients(measured, params, inputs)
        _log.info("gradients of %d layers of %d qubits: done", depth, width)
        for i, (name, word) in enumerate(zip(names, words, strict=True)):
            place = {"n_layers": depth, "n_qubits": width, "observable": name, "word": word}
            rows.append(place | _summary(circuit, slopes[:, i]))
    return pd.DataFrame(rows)


def gradients(circuit: Circuit, params: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Returns the derivatives of a circuit's expectation values by its parameters.

    Args:
        circuit: with the observables.
        params: ``(draws, parameters)``.
        inputs: ``(draws, features)``, one input to each draw of parameters.

    Returns:
        ``(draws, observables, parameters)``.
    """
    shape = shape_of(circuit)
    states = 2**shape.num_qubits
    each = 8 * states * len(circuit.observables) * (2 * shape.num_layers + 16)
    tape = lower(circuit)
    with jax.enable_x64(True):
        run = partial(_gradients, shape, executor.current(), tape)
        return ensemble.in_chunks(run, max(1, _CHUNK // each), params.astype(float), inputs.astype(float))[0]


@partial(jax.jit, static_argnums=(0, 1))
def _gradients(shape: TapeShape, kernel: str, tape: Tape, params: jax.Array, inputs: jax.Array) -> tuple[jax.Array]:
    """Every draw is a lane of one call; ``kernel`` is only what a compiled program is known by."""
    del kernel

    def values(params: jax.Array, x: jax.Array) -> jax.Array:
        return executor.expectations(tape, params, x[:, None], shape)[:, 0]

    return (jax.vmap(jax.jacrev(values))(params, inputs),)


def _summary(circuit: Circuit, slopes: np.ndarray) -> dict[str, float]:
    """Returns the variances of one observable's derivatives, ``(draws, parameters)``."""
    variances = slopes.var(axis=0, ddof=1)
    scales = ensemble.scales_of(circuit)
    angles = np.setdiff1d(np.arange(circuit.num_params), scales)
    first = _first(circuit, slopes)
    chosen = slopes[:, first] if first >= 0 else np.zeros(len(slopes))
    deviations = (chosen - chosen.mean()) ** 2
    return {
        "parameter": first,
        "variance": chosen.var(ddof=1),
        "standard_error": deviations.std(ddof=1) / np.sqrt(len(slopes)),
        "mean_angles": variances[angles].mean() if len(angles) else np.nan,
        "mean_scales": variances[scales].mean() if scales else np.nan,
        "two_design": two_design(circuit.num_qubits),
        "num_params": circuit.num_params,
        "num_samples": len(slopes),
    }


def _first(circuit: Circuit, slopes: np.ndarray) -> int:
    """Returns the first parameter, in the order of gates, that is an angle and on which the value depends."""
    matters, scales = np.abs(slopes).max(axis=0) > _ZERO, set(ensemble.scales_of(circuit))
    biases = [gate.angle.bias for gate in circuit.gates if gate.angle is not None]
    return next((k for k in biases if k is not None and k not in scales and matters[k]), -1)


def two_design(num_qubits: int) -> float:
    """Returns the variance where the gates before the parameter's and those behind it are 2-designs each.

    ``N^2 / (2 (N^2 - 1) (N + 1))`` with ``N = 2 ** num_qubits``, for any Pauli word measured and any Pauli rotation:
    the integrals of McClean et al. (2018) without their approximations. With many qubits it falls by half with each.
    Only behind an angle of the first layer there is a 2-design: its variance is up to ``N / (2 (N^2 - 1))`` and falls
    alike.
    """
    n = 2.0**num_qubits
    return n**2 / (2 * (n**2 - 1) * (n + 1))


def decay(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the exponential fits ``variance ~ factor ** n_qubits``, by depth and observable.

    Least squares of the logarithms. Columns: ``observable``, ``n_layers``, ``factor`` of each further qubit, its
    ``standard_error`` by the sampling alone (a curve that is no exponential is fitted no better), and the factor of the
    ``two_design`` over the same widths. Depths with fewer than two widths, or where nothing varies, are left out.

    Args:
        table: of :func:`study`.
    """
    rows = []
    for (name, depth), group in table.groupby(["observable", "n_layers"], sort=False):
        group = group[group["variance"] > 0]
        if len(group) < 2:
            continue
        away = group["n_qubits"] - group["n_qubits"].mean()
        weights = away / (away**2).sum()
        factor = np.exp((weights * np.log(group["variance"])).sum())
        error = np.sqrt(((weights * group["standard_error"] / group["variance"]) ** 2).sum())
        ideal = np.exp((weights * np.log(group["two_design"])).sum())
        place = {"observable": name, "n_layers": depth}
        rows.append(place | {"factor": factor, "standard_error": factor * error, "two_design": ideal})
    columns = ["observable", "n_layers", "factor", "standard_error", "two_design"]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:2], kind="stable", ignore_index=True)
