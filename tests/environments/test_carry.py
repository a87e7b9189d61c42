"""Fixed dtypes for loop carries."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.environments import carry


def test_dtypes_climb_to_what_every_step_fits_in():
    key = jax.random.key(0)

    def reset():
        return {"count": 0, "mean": 0, "flag": False, "key": key}

    def step(state):
        return {**state, "mean": state["mean"] + state["count"] * 0.5, "count": state["count"] + state["flag"]}

    settled = carry.settle(reset, step)
    assert {name: str(leaf.dtype) for name, leaf in settled.items()} == {
        "count": "int32",
        "mean": "float32",
        "flag": "bool",
        "key": "key<fry>",
    }
    state = carry.cast(reset(), settled)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state) if leaf.dtype != key.dtype)
    after = carry.cast(step(carry.cast(step(state), settled)), settled)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, state)


def test_a_climb_that_takes_two_steps_is_followed():
    """The second entry becomes a float only once the first one is."""
    settled = carry.settle(lambda: (0, 0), lambda state: (state[0] * 0.5, state[0]))
    assert [leaf.dtype for leaf in settled] == [jnp.float32, jnp.float32]


@pytest.mark.parametrize(
    ("stepped", "message"), [(jnp.zeros(3), "changes a leaf's shape"), ((1, 2), "changes its structure")]
)
def test_states_that_no_loop_can_carry_are_refused(stepped, message):
    with pytest.raises(TypeError, match=message):
        carry.settle(lambda: jnp.zeros(2), lambda state: stepped)


def test_single_precision_shields_from_64_bits():
    draw = carry.single_precision(lambda key: jax.random.normal(key, (3,)))
    plain = draw(jax.random.key(0))
    with jax.enable_x64(True):
        shielded = jax.jit(draw)(jax.random.key(0))
    assert shielded.dtype == jnp.float32
    np.testing.assert_array_equal(plain, shielded)
