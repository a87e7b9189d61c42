"""The executor in pure JAX: any device, real types of 32 or 64 bits, traced tapes.

Everything is scanned, first over layers and then over qubits, so that compilation takes as long for a deep circuit
as for a shallow one. The gradient is the adjoint method (Jones and Gacon, 2020): from the final state each gate is
undone again, on the state and on what the observables make of it; no state on the way is kept.

The states of a batch are ``(2 ** num_qubits, batch)``. To turn a qubit, its bit is the last one, ``(rest, 2,
batch)``; moved to the front afterwards, the next qubit's bit is last, and after all qubits the order is the old one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hyperlax.quantum.tape import Tape


def expectations(tape: Tape, params: jax.Array, inputs: jax.Array, *, permutes: bool, only_z: bool) -> jax.Array:
    """Returns the expectation values of a circuit's observables.

    Args:
        tape: of the circuit.
        params: ``(parameters,)``, radians or scales.
        inputs: ``(features, batch)``.
        permutes: whether any layer of the tape does more than change signs.
        only_z: whether all observables are of I and Z.

    Returns:
        ``(observables, batch)``, each in [-1, 1].
    """
    rotations = _rotations(tape, _angles(tape, params, inputs))
    words = tape.flips, tape.masks, tape.num_y
    own = jnp.arange(tape.flips.shape[0]) < tape.sizes[2]
    values = _measured(permutes, only_z, rotations, (tape.source, tape.sign, words))
    return jnp.where(own[:, None], values, 0)


def states(tape: Tape, params: jax.Array, inputs: jax.Array, *, permutes: bool) -> jax.Array:
    """Returns final states, each of parameters of its own.

    Args:
        tape: of the circuit.
        params: ``(batch, parameters)``.
        inputs: ``(batch, features)``.
        permutes: whether any layer of the tape does more than change signs.

    Returns:
        ``(2 ** qubits, batch)``, complex; bit ``q`` of a basis state's number is qubit ``q``.
    """
    angles = jax.vmap(lambda params, x: _angles(tape, params, x[:, None])[..., 0], out_axes=-1)(params, inputs)
    return _final_state(permutes, _rotations(tape, angles), tape.source, tape.sign)


def _angles(tape: Tape, params: jax.Array, inputs: jax.Array) -> jax.Array:
    """Returns all angles ``(layers, qubits, rotations, batch)``.

    The features of all angles are chosen by one product with a matrix, whose gradient is one too; to gather them
    would scatter every sample's gradient.
    """
    offset, scale = tape.lines(params)
    chosen = scale[..., None] * (tape.feature[..., None] == jnp.arange(inputs.shape[0]))
    return offset[..., None] + jnp.matmul(chosen, inputs, precision=jax.lax.Precision.HIGHEST)


def _rotations(tape: Tape, angles: jax.Array) -> jax.Array:
    """Returns the rotations of every layer and qubit as unit quaternions ``(layers, qubits, 4, batch)``.

    The quaternion (a, b, c, d) is the matrix ``a - i (b X + c Y + d Z)``.
    """
    cosine, sine = jnp.cos(angles / 2), jnp.sin(angles / 2)
    about = tape.axis[..., None, None] == jnp.arange(3)[:, None]  # (layers, qubits, rotations, 3, 1)
    single = jnp.concatenate([cosine[..., None, :], about * sine[..., None, :]], axis=-2)
    total = single[:, :, 0]
    for k in range(1, single.shape[2]):
        total = _after(single[:, :, k], total)
    # Rounding changes the norm, which would add up over a circuit.
    return total * (1.5 - 0.5 * (total**2).sum(-2, keepdims=True))


def _after(second: jax.Array, first: jax.Array) -> jax.Array:
    """Returns the quaternion of one rotation after another, ``(…, 4, batch)``."""
    a, b, c, d = (second[..., i, :] for i in range(4))
    p, q, r, s = (first[..., i, :] for i in range(4))
    return jnp.stack(
        [
            a * p - b * q - c * r - d * s,
            a * q + b * p + c * s - d * r,
            a * r + c * p + d * q - b * s,
            a * s + d * p + b * r - c * q,
        ],
        axis=-2,
    )


def _apply(rotation: jax.Array, state: jax.Array, sign: float) -> tuple[jax.Array, jax.Array]:
    """Returns a rotation of the last bit, or its inverse for ``sign`` -1: both halves ``(rest, batch)``."""
    a, b, c, d = rotation[0], sign * rotation[1], sign * rotation[2], sign * rotation[3]
    zero, one = state[:, 0], state[:, 1]
    return (
        jax.lax.complex(a, -d) * zero + jax.lax.complex(-c, -b) * one,
        jax.lax.complex(c, -b) * zero + jax.lax.complex(a, d) * one,
    )


def _turn(state: jax.Array, rotation: jax.Array) -> tuple[jax.Array, None]:
    """Rotates the qubit whose bit is last, and moves the bit to the front."""
    new = _apply(rotation, state.reshape(-1, 2, state.shape[-1]), 1.0)
    return jnp.stack(new).reshape(state.shape), None


def _turn_back(state: jax.Array, rotation: jax.Array) -> jax.Array:
    """The inverse of :func:`_turn`."""
    last = state.reshape(2, -1, state.shape[-1]).swapaxes(0, 1)
    return jnp.stack(_apply(rotation, last, -1.0), axis=1).reshape(state.shape)


def _final_state(permutes: bool, rotations: jax.Array, source: jax.Array, sign: jax.Array) -> jax.Array:
    """Returns the state behind all layers, ``(2 ** qubits, batch)``."""
    batch = rotations.shape[-1]
    dtype = jnp.complex64 if rotations.dtype == jnp.float32 else jnp.complex128
    start = jnp.zeros((source.shape[1], batch), dtype).at[0].set(1)

    def layer(state: jax.Array, xs: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        rotation, source, sign = xs
        state, _ = jax.lax.scan(_turn, state, rotation)
        state = state[source] if permutes else state
        return state * sign[:, None].astype(rotations.dtype), None

    return jax.lax.scan(layer, start, (rotations, source, sign))[0]


def _signs(masks: jax.Array, states: int, dtype: Any) -> jax.Array:
    """Returns the sign that each word gives each basis state, ``(…, states)``."""
    odd = jax.lax.population_count(jnp.arange(states, dtype=jnp.int32) & masks[..., None]) & 1
    return (1 - 2 * odd).astype(dtype)


def _word_applied(state: jax.Array, word: tuple[jax.Array, ...]) -> jax.Array:
    flip, mask, num_y = word
    phase = jnp.array([1, -1j, -1, 1j], state.dtype)[num_y % 4] * _signs(mask, state.shape[0], state.real.dtype)
    return phase[:, None] * state[jnp.arange(state.shape[0]) ^ flip]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _measured(permutes: bool, only_z: bool, rotations: jax.Array, tables: tuple[Any, ...]) -> jax.Array:
    return _forward(permutes, only_z, rotations, tables)[0]


def _forward(permutes: bool, only_z: bool, rotations: jax.Array, tables: tuple[Any, ...]) -> tuple[Any, Any]:
    source, sign, words = tables
    state = _final_state(permutes, rotations, source, sign)
    if only_z:
        probabilities = state.real**2 + state.imag**2
        weights = _signs(words[1], state.shape[0], rotations.dtype)
        values = jnp.matmul(weights, probabilities, precision=jax.lax.Precision.HIGHEST)
    else:
        values = jax.lax.map(lambda word: (state.conj() * _word_applied(state, word)).sum(0).real, words)
    return values, (state, rotations, tables)


def _backward(permutes: bool, only_z: bool, kept: Any, cotangent: jax.Array) -> tuple[jax.Array, Any]:
    state, rotations, tables = kept
    source, sign, words = tables
    if only_z:
        weights = _signs(words[1], state.shape[0], rotations.dtype)
        dual = state * jnp.matmul(weights.T, cotangent, precision=jax.lax.Precision.HIGHEST)
    else:

        def add(total: jax.Array, xs: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
            word, weight = xs
            return total + weight * _word_applied(state, word), None

        dual, _ = jax.lax.scan(add, jnp.zeros_like(state), (words, cotangent))

    def unturn(pair: tuple[jax.Array, jax.Array], rotation: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        state, dual = pair
        state = _turn_back(state, rotation)
        front = dual.reshape(2, -1, dual.shape[-1])
        zero, one = state.reshape(-1, 2, state.shape[-1]).swapaxes(0, 1)
        slopes = _slopes(front[0], front[1], zero, one)
        return (state, _turn_back(dual, rotation)), slopes

    def layer(pair: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
        rotation, source, sign = xs
        pair = jax.tree.map(lambda x: x * sign[:, None].astype(rotation.dtype), pair)
        if permutes:
            pair = jax.tree.map(lambda x: jnp.zeros_like(x).at[source].set(x, unique_indices=True), pair)
        return jax.lax.scan(unturn, pair, rotation, reverse=True)

    _, slopes = jax.lax.scan(layer, (state, dual), (rotations, source, sign), reverse=True)
    return slopes, (None, None, None)


def _slopes(d0: jax.Array, d1: jax.Array, s0: jax.Array, s1: jax.Array) -> jax.Array:
    """Returns twice the real inner products of the dual with the state under I, -iX, -iY, -iZ, ``(4, batch)``."""
    real = lambda x, y: (x.real * y.real + x.imag * y.imag).sum(0)  # noqa: E731
    imag = lambda x, y: (x.real * y.imag - x.imag * y.real).sum(0)  # noqa: E731
    return 2 * jnp.stack(
        [
            real(d0, s0) + real(d1, s1),
            imag(d0, s1) + imag(d1, s0),
            real(d1, s0) - real(d0, s1),
            imag(d0, s0) - imag(d1, s1),
        ]
    )


_measured.defvjp(_forward, _backward)
