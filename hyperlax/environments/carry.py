"""What it takes to carry a suite's state through a loop: fixed dtypes, whatever the caller's precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def single_precision(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Runs ``function`` as if 64-bit types were off.

    Several suites mix up 32 and 64 bits when they are on and then do not even trace; and an environment should
    draw the same random numbers in either mode.
    """

    @wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return wrapped


def settle(reset: Callable[[], Any], step: Callable[[Any], Any]) -> Any:
    """Returns the state's structure as ``jax.ShapeDtypeStruct`` leaves that both functions can be cast to without loss.

    Suites start counters as Python numbers and turn, say, an integer 0 into a float at the first step;
    a ``while_loop`` or ``scan`` refuses such a carry. Nothing is computed, both functions are only traced.

    Args:
        reset: returns a state.
        step: maps a state to the next one.

    Raises:
        TypeError: the two states differ in structure or in a leaf's shape.
    """
    state = jax.tree.map(_strong, jax.eval_shape(reset))
    while True:
        stepped = jax.eval_shape(step, state)
        before, after = jax.tree.structure(state), jax.tree.structure(stepped)
        if before != after:  # type: ignore[operator]  # the stubs take a structure for one that may be None
            raise TypeError(f"the environment's state changes its structure in a step: {before} became {after}")
        joined = jax.tree.map(_join, state, stepped)
        if joined == state:
            return state
        state = joined  # promotion only ever climbs, so this ends


def cast(state: Any, like: Any) -> Any:
    """Returns ``state`` with the dtypes of ``like`` (from :func:`settle`), none of them weak."""
    return jax.tree.map(_cast_leaf, state, like)


def _strong(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _join(a: jax.ShapeDtypeStruct, b: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    if a.shape != b.shape:
        raise TypeError(f"the environment's state changes a leaf's shape in a step: {a.shape} became {b.shape}")
    # Typed PRNG keys have a dtype that cannot be promoted, nor needs to be.
    dtype = a.dtype if a.dtype == b.dtype else jnp.promote_types(a.dtype, b.dtype)
    return jax.ShapeDtypeStruct(a.shape, dtype)


def _cast_leaf(leaf: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return leaf
    return jnp.asarray(leaf, dtype=like.dtype)
