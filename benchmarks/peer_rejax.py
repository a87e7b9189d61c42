"""The peer's side of the speed comparison, in the peer's own environment: rejax, vectorised as its manual says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import report
import worker

ENVIRONMENTS = {"cartpole": "CartPole-v1", "pendulum": "Pendulum-v1"}

# The work that both sides do: see also speed_hyperlax.py.
CONFIGURATIONS = {
    "ppo": dict(
        num_envs=8,
        num_steps=128,
        num_epochs=4,
        num_minibatches=4,
        agent_kwargs=dict(activation="tanh", hidden_layer_sizes=(64, 64)),
        normalize_observations=True,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        vf_coef=0.5,
        ent_coef=0.01,
        max_grad_norm=0.5,
    ),
    "dqn": dict(
        num_envs=8,
        num_epochs=8,
        batch_size=128,
        buffer_size=10_000,
        fill_buffer=256,
        agent_kwargs=dict(activation="relu"),  # 2×64 in any case
        gamma=0.99,
        polyak=0.99,
        max_grad_norm=10.0,
    ),
    "sac": dict(
        num_envs=8,
        num_epochs=8,
        batch_size=128,
        buffer_size=10_000,
        fill_buffer=256,
        hidden_layer_sizes=(64, 64),
        gamma=0.99,
        polyak=0.995,
        max_grad_norm=10.0,
    ),
}


def prepare() -> dict[str, str]:
    """Imports the library, starts the backend and returns versions."""
    import jax
    import rejax

    assert rejax.PPO
    jax.devices()
    return report.versions(("rejax", *report.PACKAGES))


def build(job: worker.Job) -> Callable[[], None]:
    """Compiles a job; training starts with the initialisation of networks and environments.

    With evaluation it is rejax's own, 128 episodes; without, a callback that does nothing.
    """
    import jax
    import jax.numpy as jnp
    import rejax

    name = ENVIRONMENTS[job.environment]
    create = getattr(rejax, job.algorithm.upper()).create
    steps = dict(total_timesteps=job.steps, eval_freq=job.steps, skip_initial_evaluation=True)
    algorithm = create(env=name, **steps, **CONFIGURATIONS[job.algorithm])
    if not job.evaluation:
        algorithm = algorithm.replace(eval_callback=lambda algorithm, state, rng: jnp.float32(0))

    def train(learning_rate: Any, key: Any) -> Any:
        return algorithm.replace(learning_rate=learning_rate).train(key)

    rates = jnp.geomspace(1e-4, 1e-3, job.configurations)
    keys = jax.random.split(jax.random.key(0), job.configurations)
    compiled = jax.jit(jax.vmap(train)).lower(rates, keys).compile()
    return lambda: jax.block_until_ready(compiled(rates, keys))


if __name__ == "__main__":
    worker.serve(prepare, build)
