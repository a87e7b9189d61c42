"""Gymnax: classic control, bsuite, MinAtar and the rest, behind the :class:`Environment` protocol.

Only the raw transition functions are used (``reset_env``, ``step_env``, ``is_truncated``): no automatic
reset, and the key that ``step`` receives is the key of the transition, unsplit.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.environments import carry, options
from hyperlax.environments.protocol import ActionSpace, Box, Discrete, Transition
from hyperlax.errors import UserError

# Gymnax itself is imported inside functions: it costs seconds, and listing names must not.
IDS = {
    "cartpole": "CartPole-v1",
    "pendulum": "Pendulum-v1",
    "acrobot": "Acrobot-v1",
    "mountain_car": "MountainCar-v0",
    "mountain_car_continuous": "MountainCarContinuous-v0",
    "asterix": "Asterix-MinAtar",
    "breakout": "Breakout-MinAtar",
    "freeway": "Freeway-MinAtar",
    "seaquest": "Seaquest-MinAtar",
    "space_invaders": "SpaceInvaders-MinAtar",
    "catch": "Catch-bsuite",
    "deep_sea": "DeepSea-bsuite",
    "memory_chain": "MemoryChain-bsuite",
    "umbrella_chain": "UmbrellaChain-bsuite",
    "discounting_chain": "DiscountingChain-bsuite",
    "mnist_bandit": "MNISTBandit-bsuite",
    "simple_bandit": "SimpleBandit-bsuite",
    "four_rooms": "FourRooms-misc",
    "meta_maze": "MetaMaze-misc",
    "point_robot": "PointRobot-misc",
    "bernoulli_bandit": "BernoulliBandit-misc",
    "gaussian_bandit": "GaussianBandit-misc",
    "reacher": "Reacher-misc",
    "swimmer": "Swimmer-misc",
    "pong": "Pong-misc",
    "frozen_lake": "FrozenLake-misc",
}


@carry.single_precision
def make(short_name: str, **given: Any) -> GymnaxEnvironment:
    """Returns the gymnax environment with that short name (a key of ``IDS``).

    Args:
        short_name: for example ``"pendulum"``.
        **given: ``max_episode_steps``, any other field of the environment's parameters (``gravity=9.8``),
            or any argument of its constructor (``size=16`` of deep_sea).

    Raises:
        UserError: an option is unknown or of the wrong kind, or a data set is missing.
    """
    import gymnax

    name, gymnax_id = f"gymnax.{short_name}", IDS[short_name]
    if short_name == "mnist_bandit":
        _require_mnist(name)
    try:
        env, params = gymnax.make(gymnax_id)
    except (OSError, EOFError) as error:
        raise UserError(f"{name}: its data cannot be read ({error})") from error

    limit = given.pop("max_episode_steps", None)
    fields = [f.name for f in dataclasses.fields(params) if f.name != "max_steps_in_episode"]
    arguments = options.keywords(type(env))
    options.refuse_unknown(name, given, ["max_episode_steps", *fields, *arguments])

    constructor = {option: value for option, value in given.items() if option in arguments}
    if constructor:
        env, params = options.construct(name, lambda: gymnax.make(gymnax_id, **constructor))
    changes = {
        option: options.like_default(name, option, value, getattr(params, option))
        for option, value in given.items()
        if option not in constructor
    }
    if limit is not None:
        changes["max_steps_in_episode"] = options.episode_steps(name, limit)
    params = params.replace(**changes)
    if constructor:  # some values pass the constructor and fail in the first step
        return options.construct(name, lambda: GymnaxEnvironment(name, env, params))
    return GymnaxEnvironment(name, env, params)


class GymnaxEnvironment:
    """Any environment of the gymnax interface as an :class:`Environment`.

    Observations become float32: three-dimensional ones keep their ``(height, width, channels)``, states of a
    discrete space become one-hot, everything else is flattened. Box actions are clipped to ``[-1, 1]`` and
    scaled to the environment's bounds; where a bound is infinite they are only clipped.
    """

    @carry.single_precision
    def __init__(self, name: str, env: Any, params: Any) -> None:
        """Wraps ``env`` with fixed ``params`` (gymnax's ``Environment`` and its ``EnvParams``)."""
        from gymnax.environments import spaces

        self.name = name
        self.max_episode_steps = int(params.max_steps_in_episode)
        self._env, self._params = env, params

        observation_space = env.observation_space(params)
        self._num_states = observation_space.n if isinstance(observation_space, spaces.Discrete) else None

        space = env.action_space(params)
        self.action_space: ActionSpace
        if isinstance(space, spaces.Discrete):
            self.action_space = Discrete(int(space.n))
        else:
            self._action_shape = tuple(space.shape)
            self._centre, self._half_width = _affine(space)
            self.action_space = Box(int(np.prod(self._action_shape)))

        # The raw state and observation are the truth about shapes; some declared spaces are not.
        key = jax.random.key(0)
        raw_action = self._suite_action(jnp.zeros(self._policy_action_shape(), jnp.float32))
        self._state = carry.settle(
            lambda: env.reset_env(key, params)[1],
            lambda state: env.step_env(key, state, raw_action, params)[1],
        )
        self.observation_shape: tuple[int, ...] = jax.eval_shape(lambda: self.reset(key)[1]).shape

    @carry.single_precision
    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Returns ``(state, observation)`` of a new episode; the state is gymnax's own."""
        observation, state = self._env.reset_env(key, self._params)
        return carry.cast(state, self._state), self._observation(observation)

    @carry.single_precision
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Transition]:
        """Returns the next state and the :class:`Transition` to it."""
        observation, state, reward, terminated, _ = self._env.step_env(
            key, state, self._suite_action(action), self._params
        )
        terminated = jnp.asarray(terminated, dtype=bool).reshape(())
        timed_out = jnp.asarray(self._env.is_truncated(state, self._params), dtype=bool).reshape(())
        transition = Transition(
            observation=self._observation(observation),
            reward=jnp.asarray(reward, dtype=jnp.float32).reshape(()),
            terminated=terminated,
            truncated=timed_out & ~terminated,
        )
        return carry.cast(state, self._state), transition

    def _policy_action_shape(self) -> tuple[int, ...]:
        return () if isinstance(self.action_space, Discrete) else (self.action_space.size,)

    def _suite_action(self, action: jax.Array) -> jax.Array:
        """Returns the action in the environment's own space and shape."""
        if isinstance(self.action_space, Discrete):
            return jnp.asarray(action, dtype=jnp.int32)
        clipped = jnp.clip(jnp.asarray(action, dtype=jnp.float32), -1.0, 1.0)
        return (self._centre + self._half_width * clipped).reshape(self._action_shape)

    def _observation(self, raw: Any) -> jax.Array:
        """Returns the observation as float32 ``observation_shape``."""
        if self._num_states is not None:
            return jax.nn.one_hot(raw, self._num_states, dtype=jnp.float32)
        observation = jnp.asarray(raw, dtype=jnp.float32)
        return observation if observation.ndim == 3 else observation.reshape(-1)


def _affine(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 ``(size,)`` centre and half-width of a box; 0 and 1 where it is unbounded."""
    size = int(np.prod(space.shape))
    low = np.broadcast_to(np.asarray(space.low, dtype=np.float64), space.shape).reshape(size)
    high = np.broadcast_to(np.asarray(space.high, dtype=np.float64), space.shape).reshape(size)
    # Gymnax writes "unbounded" as the largest float32 as often as infinity.
    largest = float(np.finfo(np.float32).max)
    bounded = (np.abs(low) < largest) & (np.abs(high) < largest)
    with np.errstate(invalid="ignore"):
        # Centre and half-width rather than low and width: bounds of [-1, 1] then leave an action exact.
        centre, half_width = (low + high) / 2, (high - low) / 2
    return (
        np.where(bounded, centre, 0.0).astype(np.float32),
        np.where(bounded, half_width, 1.0).astype(np.float32),
    )


def _require_mnist(name: str) -> None:
    """Raises :class:`UserError` if MNIST is not where gymnax would look for it (it would download silently)."""
    from gymnax.utils import load_mnist

    folder = Path(inspect.signature(load_mnist.load_mnist).parameters["directory"].default)
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    missing = [f"{part}-ubyte.gz" for part in parts if not (folder / f"{part}-ubyte.gz").is_file()]
    if missing:
        raise UserError(
            f"{name} needs the MNIST data set: {', '.join(missing)} not found in {folder}; "
            "gymnax.utils.load_mnist.load_mnist() downloads it"
        )
