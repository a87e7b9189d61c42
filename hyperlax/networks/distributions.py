"""Action distributions as functions of a network's outputs; log-probabilities in nats."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.environments.protocol import ActionSpace, Discrete


class Distribution(Protocol):
    """A family of distributions over actions, parametrised by ``num_parameters`` outputs of a network.

    Outputs are ``(num_parameters, batch)``, actions float ``(action_size, batch)``, so that they can be
    stored beside observations; :meth:`to_environment` gives what the environment takes. ``free`` are
    parameters beside the network, ``(num_free,)``. ``meaning`` says what the outputs are.
    """

    meaning: str
    num_parameters: int
    num_free: int
    action_size: int

    def noise(self, key: jax.Array, batch: int) -> jax.Array:
        """Returns what :meth:`sample` needs, ``(action_size, batch)``; column ``i`` depends on key and ``i`` only."""
        ...

    def sample(self, noise: jax.Array, outputs: jax.Array, free: jax.Array) -> jax.Array:
        """Returns actions, a function of noise that was drawn ahead for a whole rollout."""
        ...

    def mode(self, outputs: jax.Array, free: jax.Array) -> jax.Array:
        """Returns the likeliest actions."""
        ...

    def log_prob(self, outputs: jax.Array, free: jax.Array, action: jax.Array) -> jax.Array:
        """Returns ``(batch,)``."""
        ...

    def entropy(self, outputs: jax.Array, free: jax.Array) -> jax.Array:
        """Returns ``(batch,)``."""
        ...

    def to_environment(self, action: jax.Array) -> jax.Array:
        """Returns a batch of actions as the environment takes them."""
        ...


class Categorical:
    """One of ``n`` actions, the outputs being logits."""

    meaning = "logits of the actions"

    def __init__(self, n: int) -> None:
        self.num_parameters, self.num_free, self.action_size = n, 0, 1

    def noise(self, key: jax.Array, batch: int) -> jax.Array:
        return jax.random.uniform(key, (1, batch))

    def sample(self, noise: jax.Array, outputs: jax.Array, free: jax.Array) -> jax.Array:
        del free  # inverts the cumulative distribution: one random number an action, not n
        cumulative = jnp.cumsum(jax.nn.softmax(outputs, axis=0), axis=0)
        return (cumulative[:-1] <= noise).sum(0, keepdims=True).astype(outputs.dtype)

    def mode(self, outputs: jax.Array, free: jax.Array) -> jax.Array:
        del free
        return jnp.argmax(outputs, axis=0, keepdims=True).astype(outputs.dtype)

    def log_prob(self, outputs: jax.Array, free: jax.Array, action: jax.Array) -> jax.Array:
        del free  # a one-hot product, because gathers along a short axis are slow
        chosen = jnp.arange(self.num_parameters)[:, None] == action.astype(jnp.int32)
        return jnp.where(chosen, jax.nn.log_softmax(outputs, axis=0), 0.0).sum(0)

    def entropy(self, outputs: jax.Array, free: jax.Array) -> jax.Array:
        del free
        log_p = jax.nn.log_softmax(outputs, axis=0)
        return -(jnp.exp(log_p) * log_p).sum(0)

    def to_environment(self, action: jax.Array) -> jax.Array:
        return action[0].astype(jnp.int32)


class DiagonalGaussian:
    """Independent normals: the outputs are the means, ``free`` the log standard deviations.

    The environment gets the action clipped to [-1, 1]; the log-probability is that of the unclipped one.
    """

    meaning = "means of the actions, before they are clipped to [-1, 1]"

    def __init__(self, size: int) -> None:
        self.num_parameters = self.num_free = self.action_size = size

    def noise(self, key: jax.Array, batch: int) -> jax.Array:
        return jax.random.normal(key, (batch, self.action_size)).T

    def sample(self, noise: jax.Array, outputs: jax.Array, free: jax.Array) -> jax.Array:
        return outputs + jnp.exp(free)[:, None] * noise

    def mode(self, outputs: jax.Array, free: jax.Array) -> jax.Array:
        del free
        return outputs

    def log_prob(self, outputs: jax.Array, free: jax.Array, action: jax.Array) -> jax.Array:
        standard = (action - outputs) * jnp.exp(-free)[:, None]
        return -(0.5 * standard**2).sum(0) - (free + 0.5 * np.log(2 * np.pi)).sum()

    def entropy(self, outputs: jax.Array, free: jax.Array) -> jax.Array:
        entropy = (free + 0.5 * np.log(2 * np.pi * np.e)).sum()
        return jnp.broadcast_to(entropy, outputs.shape[1:])

    def to_environment(self, action: jax.Array) -> jax.Array:
        return jnp.clip(action.T, -1.0, 1.0)


class SquashedGaussian:
    """Independent normals squashed into (-1, 1) by tanh (Haarnoja et al., 2018, appendix C).

    The outputs are means and then what becomes, between :data:`LOW` and :data:`HIGH`, the log standard deviations.
    """

    LOW, HIGH = -5.0, 2.0
    meaning = "means of the actions before tanh, and then what becomes their log standard deviations"

    def __init__(self, size: int) -> None:
        self.action_size, self.num_parameters = size, 2 * size

    def sample(self, noise: jax.Array, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns actions ``(action_size, batch)`` made of standard normal noise, and their log-probabilities."""
        mean, raw = outputs[: self.action_size], outputs[self.action_size :]
        log_std = self.LOW + 0.5 * (self.HIGH - self.LOW) * (jnp.tanh(raw) + 1.0)
        before = mean + jnp.exp(log_std) * noise
        density = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
        # log(1 - tanh²) in a form that does not underflow
        slope = 2.0 * (np.log(2.0) - before - jax.nn.softplus(-2.0 * before))
        return jnp.tanh(before), (density - slope).sum(0)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """Returns the squashed means, ``(action_size, batch)``."""
        return jnp.tanh(outputs[: self.action_size])


def distribution_for(space: ActionSpace) -> Distribution:
    """Returns the distribution over an environment's actions."""
    return Categorical(space.n) if isinstance(space, Discrete) else DiagonalGaussian(space.size)
