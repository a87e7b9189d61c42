"""Brax: rigid-body control on four physics backends, behind the :class:`Environment` protocol.

None of brax's wrappers is used. The time limit is a step counter of ours, there is no automatic reset, and
metrics are dropped from the state. The backends are different physics with different rewards, so the backend
is part of the name unless it is the default.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperlax.environments import carry, options
from hyperlax.environments.protocol import ActionSpace, Box, Transition
from hyperlax.errors import UserError

# Brax's own names, without "fast", its stub for unit tests that has no physics.
# Brax itself is imported inside functions: it costs seconds, and listing names must not.
NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)

# The first one is the default: it is brax's own default and the only one that every environment supports.
BACKENDS = ("generalized", "spring", "positional", "mjx")
DEFAULT_BACKEND = BACKENDS[0]

# The time limit brax trains with, for all of its environments.
MAX_EPISODE_STEPS = 1000


def backends(short_name: str) -> tuple[str, ...]:
    """Returns the physics backends that the environment runs on."""
    return (DEFAULT_BACKEND,) if short_name == "swimmer" else BACKENDS


@carry.single_precision
def make(
    short_name: str, backend: str = DEFAULT_BACKEND, max_episode_steps: int = MAX_EPISODE_STEPS, **given: Any
) -> BraxEnvironment:
    """Returns the brax environment with that short name (one of ``NAMES``).

    Args:
        short_name: for example ``"ant"``.
        backend: one of ``backends(short_name)``.
        max_episode_steps: the time limit.
        **given: any argument of the environment's constructor (``reset_noise_scale=0.0``), or ``n_frames``.

    Raises:
        UserError: brax is not installed, or an option is unknown or refused.
    """
    name = f"brax.{short_name}" if backend == DEFAULT_BACKEND else f"brax.{short_name}@{backend}"
    limit = options.episode_steps(name, max_episode_steps)
    try:
        from brax import envs
    except ImportError as error:
        raise UserError(f"{name} needs brax ({error}): pip install 'hyperlax[brax]'") from error
    _restore_clip_arguments()

    env = options.construct(name, lambda: envs.get_environment(short_name, backend=backend))
    if given:
        accepted = {"n_frames", *options.keywords(type(env))} - {"backend"}
        options.refuse_unknown(name, given, ["backend", "max_episode_steps", *accepted])
        env = options.construct(name, lambda: envs.get_environment(short_name, backend=backend, **given))
    return BraxEnvironment(name, env, limit)


def _restore_clip_arguments() -> None:
    """Lets brax's fluid forces (swimmer) run on JAX 0.10, which removed ``clip``'s argument ``a_min``."""
    from brax import fluid

    def clip(x: jax.Array, min: Any = None, max: Any = None, *, a_min: Any = None, a_max: Any = None) -> jax.Array:
        return jnp.clip(x, min if a_min is None else a_min, max if a_max is None else a_max)

    if fluid.jp is jnp:
        fluid.jp = SimpleNamespace(**{**vars(jnp), "clip": clip})


class BraxState(NamedTuple):
    """What has to survive from one step to the next.

    Attributes:
        pipeline_state: the physics, brax's own.
        info: brax's ``info``, the entries that ``reset`` made.
        steps: int32 scalar, steps since ``reset``.
    """

    pipeline_state: Any
    info: dict[str, Any]
    steps: jax.Array


class BraxEnvironment:
    """Any ``brax.envs.Env`` with array observations as an :class:`Environment`.

    Actions are clipped to ``[-1, 1]`` and not scaled: that is the space in which brax defines its actions; the
    environments whose actuators have other ranges (humanoid, pusher, ...) scale by themselves.

    Attributes:
        backend: the physics, one of ``BACKENDS``.
    """

    @carry.single_precision
    def __init__(self, name: str, env: Any, max_episode_steps: int = MAX_EPISODE_STEPS) -> None:
        """Wraps ``env``, which must not be wrapped by brax's episode or auto-reset wrappers."""
        self.name = name
        self.backend: str = env.backend
        self.max_episode_steps = max_episode_steps
        self.action_space: ActionSpace = Box(int(env.action_size))
        self._env = env

        key = jax.random.key(0)
        action = jnp.zeros((int(env.action_size),), jnp.float32)
        self._reset_state = jax.eval_shape(env.reset, key)
        self.observation_shape: tuple[int, ...] = self._reset_state.obs.shape
        self._state = carry.settle(
            lambda: self._raw_reset(key)[0],
            lambda state: self._raw_step(state, action)[0],
        )

    @carry.single_precision
    def reset(self, key: jax.Array) -> tuple[BraxState, jax.Array]:
        """Returns ``(state, observation)`` of a new episode."""
        state, observation = self._raw_reset(key)
        return carry.cast(state, self._state), jnp.asarray(observation, dtype=jnp.float32)

    @carry.single_precision
    def step(self, key: jax.Array, state: BraxState, action: jax.Array) -> tuple[BraxState, Transition]:
        """Returns the next state and the :class:`Transition` to it; brax's transitions draw nothing from ``key``."""
        del key
        state, after = self._raw_step(state, action)
        terminated = jnp.asarray(after.done, dtype=bool).reshape(())
        transition = Transition(
            observation=jnp.asarray(after.obs, dtype=jnp.float32),
            reward=jnp.asarray(after.reward, dtype=jnp.float32).reshape(()),
            terminated=terminated,
            truncated=(state.steps >= self.max_episode_steps) & ~terminated,
        )
        return carry.cast(state, self._state), transition

    def _raw_reset(self, key: jax.Array) -> tuple[BraxState, jax.Array]:
        fresh = self._env.reset(key)
        return BraxState(fresh.pipeline_state, fresh.info, jnp.zeros((), jnp.int32)), fresh.obs

    def _raw_step(self, state: BraxState, action: jax.Array) -> tuple[BraxState, Any]:
        """Returns the next state before casting, and brax's own state after the step."""
        # A step overwrites observation, reward and metrics, and an environment that never sets `done` leaves
        # it as it was, namely 0: all of them are rebuilt here instead of being carried.
        outputs = self._reset_state.replace(pipeline_state=None, info={})
        before = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
        before = before.replace(pipeline_state=state.pipeline_state, info=dict(state.info))
        clipped = jnp.clip(jnp.asarray(action, dtype=jnp.float32), -1.0, 1.0)
        after = self._env.step(before, clipped)
        info = {entry: after.info[entry] for entry in state.info}
        return BraxState(after.pipeline_state, info, state.steps + 1), after
