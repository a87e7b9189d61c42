"""The executor for CPUs: a kernel in C++ behind XLA's foreign function interface (hyperlax/quantum/kernel)."""

from __future__ import annotations

import ctypes
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hyperlax.quantum.tape import Tape

KERNEL = Path(__file__).with_name("_kernel.so")
_log = logging.getLogger(__name__)
_TARGETS = ("hyperlax_forward_f32", "hyperlax_forward_f64", "hyperlax_backward_f32", "hyperlax_backward_f64")


def library() -> Path | None:
    """Returns the compiled kernel, known to XLA from now on, or None where none can be used."""
    return None if problem() else KERNEL


@lru_cache(maxsize=1)
def problem() -> str:
    """Makes the kernel known to XLA; returns why there is none, in a few words; nothing where there is one."""
    if not KERNEL.exists():
        return "not built"
    try:
        loaded = ctypes.cdll.LoadLibrary(str(KERNEL))
        for target in _TARGETS:
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(loaded, target)), platform="cpu")
    except Exception as error:  # whatever a library for another machine or another JAX gives
        reason = " ".join(str(error).split())
        _log.warning("the CPU kernel for circuits cannot be used, they run in pure JAX: %s", reason)
        return f"built, but cannot be used ({reason})"
    return ""


def expectations(tape: Tape, params: jax.Array, inputs: jax.Array) -> jax.Array:
    """As :func:`hyperlax.quantum.state_vector.expectations`; a lane's own circuit runs, whatever it is padded to."""
    assert library() is not None
    reals = {name: jnp.asarray(getattr(tape, name), params.dtype) for name in ("constant", "sign")}
    return _measured(tape._replace(**reals), params, inputs.astype(params.dtype))


def _call(name: str, outputs: Any, *operands: Any) -> Any:
    bits = "f64" if operands[-1].dtype == jnp.float64 else "f32"
    return jax.ffi.ffi_call(f"hyperlax_{name}_{bits}", outputs, vmap_method="broadcast_all")(*operands)


@jax.custom_vjp
def _measured(tape: Tape, params: jax.Array, inputs: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct((tape.flips.shape[0], inputs.shape[1]), inputs.dtype)
    values: jax.Array = _call("forward", shape, *tape, params, inputs)
    return values


def _forward(tape: Tape, params: jax.Array, inputs: jax.Array) -> tuple[jax.Array, Any]:
    return _measured(tape, params, inputs), (tape, params, inputs)


def _backward(kept: Any, cotangent: jax.Array) -> tuple[Any, ...]:
    tape, params, inputs = kept
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (params, inputs)]
    return None, *_call("backward", shapes, *tape, params, inputs, cotangent)


_measured.defvjp(_forward, _backward)
