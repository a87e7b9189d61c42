"""What an environment is: two pure functions, and `terminated` apart from `truncated`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax


@dataclass(frozen=True)
class Discrete:
    """Actions are integers ``0 … n-1`` (int32 scalars)."""

    n: int


@dataclass(frozen=True)
class Box:
    """Actions are float vectors ``(size,)`` in ``[-1, 1]``; the environment scales them to its own bounds."""

    size: int


ActionSpace = Discrete | Box


class Transition(NamedTuple):
    """What one step returns besides the next state; no auto-reset has happened yet.

    Attributes:
        observation: ``observation_shape`` float32, of the state *after* the step, also when the episode ended.
        reward: float32 scalar.
        terminated: bool scalar, the episode ended by the environment's own rules; do not bootstrap.
        truncated: bool scalar, the episode was cut (time limit); bootstrap from ``observation``.
            Never true together with ``terminated``.
    """

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


@runtime_checkable
class Environment(Protocol):
    """A single environment, unbatched and without auto-reset; the engine vectorises and resets it.

    Attributes:
        name: for example ``"gymnax.pendulum"``.
        observation_shape: ``(features,)`` or, for images, ``(height, width, channels)``.
        action_space: :class:`Discrete` or :class:`Box`.
        max_episode_steps: no episode is longer than this; ``step`` truncates.
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    max_episode_steps: int

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Returns ``(state, observation)`` of a new episode."""
        ...

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Transition]:
        """Returns the next state and the :class:`Transition` to it."""
        ...


def num_actions(env: Environment) -> int:
    """Number of discrete actions."""
    assert isinstance(env.action_space, Discrete)
    return env.action_space.n


def observation_size(env: Environment) -> int:
    """Number of features when the observation is flattened."""
    return math.prod(env.observation_shape)
