"""How much of the space of states a circuit reaches, and how entangled they are (Sim, Johnson, Aspuru-Guzik, 2019).

Expressibility is the Kullback-Leibler divergence of the fidelities of pairs of random states of a circuit from those
of pairs of Haar-random states, ``P(F) = (N - 1) (1 - F) ** (N - 2)``: nothing for a circuit that reaches all states
evenly. Its estimate from a histogram is too large, by about ``(occupied bins - 1) / (2 samples)``; so it is to be read
against what Haar-random states themselves get with as many samples and bins, the floor. Beyond some 6 qubits nearly
all fidelities fall into the first of 75 bins, and more bins are needed to tell circuits apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hyperlax.errors import UserError
from hyperlax.quantum import ensemble, state_vector
from hyperlax.quantum.circuit import Circuit
from hyperlax.quantum.tape import Tape, lower, shape_of

_REPETITIONS = 100  # of the floor
_CHUNK = 2**15  # amplitudes of the states that are computed at a time: they fit a cache

_log = logging.getLogger(__name__)


def study(
    circuit_of: ensemble.CircuitOf,
    n_layers: Iterable[int],
    n_qubits: Iterable[int],
    num_samples: int = 2000,
    num_bins: int = 75,
    initial: str = "uniform",
    seed: int = 42,
) -> pd.DataFrame:
    """Returns expressibility and entangling capability over depths and widths, one row each.

    Columns: ``n_layers``, ``n_qubits``; ``divergence``, with the ``floor`` that Haar-random states have on average and
    its ``floor_std``, by which single estimates of it scatter; ``entanglement``, the mean of Meyer and Wallach's
    measure over all states, with its ``standard_error``, and ``haar_entanglement``; ``num_params``, ``num_samples``,
    ``num_bins``.

    Args:
        circuit_of: returns a circuit of so many layers and qubits.
        n_layers: depths.
        n_qubits: widths.
        num_samples: pairs of states of each circuit; both states have parameters and inputs of their own.
        num_bins: of the histogram over [0, 1].
        initial: how parameters and inputs are drawn, see :func:`hyperlax.quantum.ensemble.draw`.
        seed: of all draws.

    Raises:
        UserError: no such circuit, too few samples or bins, or too many.
    """
    ensemble.check_initial(initial)
    if not 2 <= num_bins <= 10**6:
        raise UserError(f"num_bins {num_bins}: accepted is 2 … 1000000")
    circuits = ensemble.grid(circuit_of, n_layers, n_qubits)
    ensemble.check_samples(num_samples, circuits.values(), 4)
    floors = {width: floor(width, num_samples, num_bins, seed) for _, width in circuits}
    rows = []
    for (depth, width), circuit in circuits.items():
        params, inputs = ensemble.draw(circuit, 2 * num_samples, initial, (seed, depth, width))
        fidelities, entanglement = pairs(circuit, params, inputs)
        _log.info("states of %d layers of %d qubits: done", depth, width)
        of_pairs = entanglement.mean(axis=1)
        rows.append(
            {
                "n_layers": depth,
                "n_qubits": width,
                "divergence": divergence(fidelities, 2**width, num_bins),
                "floor": floors[width].mean(),
                "floor_std": floors[width].std(ddof=1),
                "entanglement": of_pairs.mean(),
                "standard_error": of_pairs.std(ddof=1) / np.sqrt(num_samples),
                "haar_entanglement": haar_entanglement(width),
                "num_params": circuit.num_params,
                "num_samples": num_samples,
                "num_bins": num_bins,
            }
        )
    return pd.DataFrame(rows)


def pairs(circuit: Circuit, params: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fidelities of pairs of a circuit's states, ``(pairs,)``, and each one's entanglement, ``(pairs, 2)``.

    Args:
        circuit: what it measures is not used.
        params: ``(2 pairs, parameters)``.
        inputs: ``(2 pairs, features)``.
    """
    shape, tape = shape_of(circuit), lower(circuit)
    size = max(1, _CHUNK // 2 ** (shape.num_qubits + 1))
    with jax.enable_x64(True):
        run = partial(_pairs, shape.permutes, tape)
        by_pair = (array.astype(float).reshape(len(array) // 2, 2, array.shape[1]) for array in (params, inputs))
        fidelities, entanglement = ensemble.in_chunks(run, size, *by_pair)
    return fidelities, entanglement


@partial(jax.jit, static_argnums=0)
def _pairs(permutes: bool, tape: Tape, params: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    flat = (array.reshape(2 * len(array), array.shape[2]) for array in (params, inputs))
    states = state_vector.states(tape, *flat, permutes=permutes)
    both = states.reshape(len(states), -1, 2)
    return fidelity(both[..., 0], both[..., 1]), meyer_wallach(states).reshape(-1, 2)


def fidelity(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns ``|<first|second>|^2`` of states ``(2 ** qubits, batch)``."""
    return jnp.abs((first.conj() * second).sum(0)) ** 2


def meyer_wallach(states: jax.Array) -> jax.Array:
    """Returns the entanglement of states ``(2 ** qubits, batch)``, in [0, 1].

    ``2 (1 - mean over qubits of the purity of each)``: Meyer and Wallach (2002) in the form of Brennen (2003).
    """
    qubits = states.shape[0].bit_length() - 1
    purities = jnp.zeros(states.shape[1])
    for qubit in range(qubits):
        halves = states.reshape(-1, 2, 2**qubit, states.shape[1])
        density = jnp.einsum("aibs,ajbs->ijs", halves, halves.conj())  # of this qubit
        purities = purities + (jnp.abs(density) ** 2).sum((0, 1))
    return 2 * (1 - purities / qubits)


def haar_entanglement(num_qubits: int) -> float:
    """Returns the mean of Meyer and Wallach's measure over all states: ``(N - 2) / (N + 1)``."""
    return (2.0**num_qubits - 2) / (2.0**num_qubits + 1)


def divergence(fidelities: np.ndarray, num_states: int, num_bins: int) -> float:
    """Returns the divergence of the histogram of fidelities from the distribution of Haar-random states, in nats.

    Args:
        fidelities: any number of them in [0, 1].
        num_states: dimension of the space of states.
        num_bins: of equal size; for equal states the divergence is ``(num_states - 1) log(num_bins)``, its largest.
    """
    counts, _ = np.histogram(np.clip(fidelities, 0, 1), bins=num_bins, range=(0, 1))
    occupied = counts > 0
    share = counts[occupied] / counts.sum()
    return float((share * (np.log(share) - _haar_log_probabilities(num_states, num_bins)[occupied])).sum())


def _haar_log_probabilities(num_states: int, num_bins: int) -> np.ndarray:
    """Returns the logarithms of the probabilities of all bins; the probabilities themselves may be too small.

    The distribution function is ``1 - (1 - F) ** (N - 1)``.
    """
    above = np.arange(num_bins, 0, -1) / num_bins  # 1 - F at the lower edge of each bin
    ratio = (above - 1 / num_bins).clip(0) / above
    return (num_states - 1) * np.log(above) + np.log1p(-(ratio ** (num_states - 1)))


def floor(num_qubits: int, num_samples: int, num_bins: int, seed: int = 42) -> np.ndarray:
    """Returns a hundred estimates of the divergence of Haar-random states: nothing, but for their finite number."""
    rng, num_states = np.random.default_rng([seed, num_qubits]), 2**num_qubits
    drawn = (rng.beta(1, num_states - 1, num_samples) for _ in range(_REPETITIONS))
    return np.array([divergence(fidelities, num_states, num_bins) for fidelities in drawn])
