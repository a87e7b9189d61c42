"""The brax adapter against brax's own episode wrapper."""

from __future__ import annotations

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.environments import Box, make, names
from hyperlax.environments.brax import BACKENDS
from hyperlax.errors import UserError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("brax") is None, reason="brax is not installed")

SHORT_NAMES = [name.removeprefix("brax.") for name in names() if name.startswith("brax.")]


def run_beside_brax(short_name, steps_before, num_steps):
    """Runs the adapter and brax's EpisodeWrapper from ``steps_before`` on, once without a push and once pushed hard.

    Returns two dicts of arrays ``(2, num_steps, …)``: ours and brax's.
    """
    from brax import envs
    from brax.envs.wrappers.training import EpisodeWrapper

    env = make(f"brax.{short_name}@spring")
    suite = EpisodeWrapper(envs.get_environment(short_name, backend="spring"), episode_length=1000, action_repeat=1)

    def episode(key, push):
        # Beyond 1, which the adapter has to clip.
        action = push * jnp.ones(env.action_space.size)

        def body(carry, key):
            state, suite_state = carry
            state, transition = env.step(key, state, action)
            suite_state = suite.step(suite_state, jnp.clip(action, -1.0, 1.0))
            truncated = suite_state.info["truncation"] > 0
            theirs = dict(observation=suite_state.obs, reward=suite_state.reward, truncated=truncated)
            theirs |= dict(terminated=(suite_state.done > 0) & ~truncated, physics=suite_state.pipeline_state)
            ours = {**transition._asdict(), "physics": state.pipeline_state}
            return (state, suite_state), (ours, theirs)

        state, _ = env.reset(key)
        suite_state = suite.reset(key)
        suite_state.info["steps"] = jnp.float32(steps_before)
        start = state._replace(steps=jnp.int32(steps_before)), suite_state
        return jax.lax.scan(body, start, jax.random.split(key, num_steps))[1]

    # Brax takes the shape of its counters from a raw key.
    return jax.jit(jax.vmap(episode, in_axes=(None, 0)))(jax.random.PRNGKey(0), jnp.array([0.0, 1.5]))


@pytest.mark.parametrize(("short_name", "terminates"), [("inverted_double_pendulum", True), ("reacher", False)])
def test_steps_equal_brax(short_name, terminates):
    ours, theirs = run_beside_brax(short_name, steps_before=960, num_steps=40)
    assert bool(ours["terminated"][1].any()) == terminates
    assert np.flatnonzero(ours["truncated"][0]).tolist() == [39]  # the thousandth step
    for part in ("terminated", "truncated"):
        np.testing.assert_array_equal(ours[part], theirs[part])
    for part in ("observation", "reward", "physics"):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), ours[part], theirs[part])


def test_spaces():
    env = make("brax.inverted_double_pendulum@spring")
    assert (env.max_episode_steps, env.action_space, env.observation_shape) == (1000, Box(1), (8,))
    assert make("brax.reacher@spring", max_episode_steps=50).max_episode_steps == 50


def test_name_shows_the_backend_unless_it_is_the_default():
    default, other = make("brax.inverted_pendulum"), make("brax.inverted_pendulum", backend="positional")
    assert (default.name, default.backend) == ("brax.inverted_pendulum", "generalized")
    assert (other.name, other.backend) == ("brax.inverted_pendulum@positional", "positional")


@pytest.mark.slow
def test_every_environment_takes_actions_in_the_unit_box(tmp_path, monkeypatch):
    """Those with other actuator ranges must be the ones that scale by themselves, as the adapter does not."""
    from brax import envs

    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log of its warnings where it is run
    scale_themselves = {"humanoid", "humanoidstandup", "inverted_pendulum", "pusher"}
    for short_name in SHORT_NAMES:
        ranges = np.asarray(envs.get_environment(short_name).sys.actuator.ctrl_range)
        unit = bool(np.all(ranges == [-1.0, 1.0]))
        assert unit == (short_name not in scale_themselves), short_name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_episode_steps": -1}, "option 'max_episode_steps' of brax.ant: received -1, accepted: a whole number"),
        ({"reset_noise": 0.0}, "unknown option of brax.ant 'reset_noise': did you mean reset_noise_scale"),
        ({"use_contact_forces": True}, "options of brax.ant were refused: use_contact_forces not implemented"),
    ],
)
def test_bad_options_are_refused(given, message):
    with pytest.raises(UserError) as error:
        make("brax.ant", **given)
    assert str(error.value).startswith(message)


def check_protocol(name):
    """Three steps in a scan: stable carry, promised shapes, finite values."""
    env = make(name)

    @jax.jit
    def run(key):
        state, observation = env.reset(key)
        action = jnp.full((env.action_space.size,), 0.5)
        after, transitions = jax.lax.scan(
            lambda state, key: env.step(key, state, action), state, jax.random.split(key, 3)
        )
        return state, after, observation, transitions

    def kinds(tree):
        return [(leaf.shape, leaf.dtype.name, leaf.weak_type) for leaf in jax.tree.leaves(tree)]

    state, after, observation, transitions = run(jax.random.key(0))
    assert kinds(state) == kinds(after)
    assert kinds(observation) == [(env.observation_shape, "float32", False)]
    assert kinds(transitions)[1:] == [((3,), "float32", False), ((3,), "bool", False), ((3,), "bool", False)]
    assert bool(jnp.isfinite(transitions.observation).all() & jnp.isfinite(transitions.reward).all())


@pytest.mark.slow
@pytest.mark.parametrize("short_name", SHORT_NAMES)
def test_every_environment_keeps_the_protocol(short_name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log of its warnings where it is run
    check_protocol(f"brax.{short_name}")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_keeps_the_protocol(backend):
    check_protocol(f"brax.hopper@{backend}")
