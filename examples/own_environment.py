"""An environment of one's own, registered with one call and swept over.

Run it: python examples/own_environment.py
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp

import hyperlax
from hyperlax.environments import Box, Transition

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=20_000, help="environment steps of each training")
parser.add_argument("--output-root", default="results/examples", help="where the run directory is made")
arguments = parser.parse_args()


class Puck(NamedTuple):
    """The state may be any pytree; this one counts its steps, since nobody else cuts an episode."""

    position: jax.Array
    velocity: jax.Array
    steps: jax.Array


class IcyTable:
    """Push a puck to the centre of an icy table; when it falls off the edge the episode has terminated."""

    name = "own.icy_table"
    observation_shape = (4,)
    action_space = Box(2)  # two numbers in [-1, 1]
    max_episode_steps = 60

    def reset(self, key):
        """Returns the state and the observation of a new episode."""
        puck = Puck(jax.random.uniform(key, (2,), minval=-0.8, maxval=0.8), jnp.zeros(2), jnp.int32(0))
        return puck, self._observe(puck)

    def step(self, key, puck, action):
        """Returns the next state and the transition to it; nobody is reset here."""
        action = jnp.clip(action, -1.0, 1.0)  # a Gaussian policy asks for more now and then
        velocity = puck.velocity + 0.05 * action
        puck = Puck(puck.position + 0.2 * velocity, velocity, puck.steps + 1)
        fell = jnp.abs(puck.position).max() > 1.0
        # Being cut is not the end of the world: `truncated` is kept apart from `terminated`.
        cut = (puck.steps >= self.max_episode_steps) & ~fell
        reward = jnp.where(fell, -30.0, -jnp.linalg.norm(puck.position))
        return puck, Transition(self._observe(puck), reward, terminated=fell, truncated=cut)

    def _observe(self, puck):
        return jnp.concatenate([puck.position, puck.velocity])


hyperlax.register_environment("own.icy_table", IcyTable)

run = hyperlax.sweep(
    "ppo_mlp_no_network_search",
    "own.icy_table",
    num_samples=8,
    overrides={"actor_lr": 1e-3, "critic_lr": 1e-3, "rollout_length": 60, "num_minibatches": 4},
    run_length=arguments.steps,
    num_seeds=2,
    num_evaluations=4,
    output_root=arguments.output_root,
    progress=False,
)
print(run.summary[["sample_id", "final_return", "gamma", "epochs", "total_num_envs"]].to_string(index=False))

best = int(run.summary["sample_id"].iloc[0])
act = hyperlax.load_policy(run.path, best)  # the environment is found by its name
push = jnp.clip(act(jnp.array([0.5, 0.0, 0.0, 0.0])), -1.0, 1.0)
print(f"\nsample {best}, puck at rest right of the centre: pushes {push[0]:+.2f} along x, {push[1]:+.2f} along y")
