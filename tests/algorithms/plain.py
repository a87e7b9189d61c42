"""Plain NumPy versions of what the reference tests need: the environment of conftest, and a multilayer perceptron."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np


def spring_step(observation, action, discrete, limit):
    """The environment again: next observation, reward, terminated, truncated."""
    position, velocity, time = observation
    force = action[0] - 1.0 if discrete else np.clip(action, -1, 1).sum()
    velocity = 0.9 * velocity - 0.2 * position + 0.3 * force
    position = position + 0.5 * velocity
    terminated = abs(position) > 1
    reward = 1 - position**2 - 0.1 * force**2
    return np.array([position, velocity, time + 1]), reward, terminated, time + 1 >= limit and not terminated


def network(params, x, activation, use_layer_norm):
    """Rows ``(batch, features)`` through an MLP."""
    for layer in range(len(params["torso"]) // (2 if use_layer_norm else 1)):
        dense = params["torso"][f"hidden_{layer}"]
        x = x @ dense["kernel"].T + dense["bias"]
        if use_layer_norm:
            norm = params["torso"][f"norm_{layer}"]
            x = (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]
        x = activation(x)
    return x @ params["head"]["kernel"].T + params["head"]["bias"]
