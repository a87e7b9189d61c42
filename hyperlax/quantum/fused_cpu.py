"""The executor for CPUs: a kernel in C++ behind XLA's foreign function interface (hyperlax/quantum/kernel)."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hyperlax.quantum.tape import Tape

_TARGETS = ("hyperlax_forward_f32", "hyperlax_forward_f64", "hyperlax_backward_f32", "hyperlax_backward_f64")


@lru_cache(maxsize=1)
def library() -> Path | None:
    """Returns the compiled kernel, known to XLA from now on, or None where none was built."""
    found = sorted(Path(__file__).parent.glob("_kernel*.so"))
    if not found:
        return None
    loaded = ctypes.cdll.LoadLibrary(str(found[0]))
    for target in _TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(loaded, target)), platform="cpu")
    return found[0]


def expectations(tape: Tape, params: jax.Array, inputs: jax.Array) -> jax.Array:
    """As :func:`hyperlax.quantum.state_vector.expectations`; a lane's own circuit runs, whatever it is padded to."""
    assert library() is not None
    offset, scale = tape.lines(params)
    whole = tape.sizes, tape.axis, tape.feature
    tables = tape.source, jnp.asarray(tape.sign, params.dtype), tape.flips, tape.masks, tape.num_y
    return _measured(offset, scale, inputs.astype(params.dtype), whole, tables)


def _call(name: str, outputs: Any, *operands: Any) -> Any:
    bits = "f64" if operands[3].dtype == jnp.float64 else "f32"
    return jax.ffi.ffi_call(f"hyperlax_{name}_{bits}", outputs, vmap_method="broadcast_all")(*operands)


@jax.custom_vjp
def _measured(offset: jax.Array, scale: jax.Array, inputs: jax.Array, whole: Any, tables: Any) -> jax.Array:
    shape = jax.ShapeDtypeStruct((tables[2].shape[0], inputs.shape[1]), inputs.dtype)
    values: jax.Array = _call("forward", shape, *whole, offset, scale, *tables, inputs)
    return values


def _forward(offset: jax.Array, scale: jax.Array, inputs: jax.Array, whole: Any, tables: Any) -> tuple[jax.Array, Any]:
    return _measured(offset, scale, inputs, whole, tables), (offset, scale, inputs, whole, tables)


def _backward(kept: Any, cotangent: jax.Array) -> tuple[Any, ...]:
    offset, scale, inputs, whole, tables = kept
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (offset, scale, inputs)]
    gradients = _call("backward", shapes, *whole, offset, scale, *tables, inputs, cotangent)
    return *gradients, None, None


_measured.defvjp(_forward, _backward)
