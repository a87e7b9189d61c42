"""A trained policy, loaded and played for one episode.

Run it: python examples/play_policy.py, which trains CartPole for a moment and then plays; or with
--run DIRECTORY, which plays the best sample of a run that is there.
"""

import argparse

import jax
import jax.numpy as jnp

import hyperlax

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--run", help="a run directory; without it a policy is trained first")
parser.add_argument("--steps", type=int, default=40_000, help="environment steps of the training")
parser.add_argument("--output-root", default="results/examples", help="where the run directory is made")
arguments = parser.parse_args()

if arguments.run:
    run = hyperlax.load_run(arguments.run)
else:
    run = hyperlax.sweep(
        "ppo_mlp",
        "gymnax.cartpole",
        samples=[{}],  # one sample that says nothing: the defaults, as tuned for the environment
        run_length=arguments.steps,
        num_seeds=2,
        output_root=arguments.output_root,
        progress=False,
    )

best = int(run.summary["sample_id"].iloc[0])
act = hyperlax.load_policy(run.path, best)  # greedy and jitted; takes one observation or a batch of them
env = hyperlax.make_env(run.info["environment"])


@jax.jit
def play(key):
    """Returns the rewards of one episode; those after its end are 0."""

    def step(carry, key):
        state, observation, over = carry
        state, transition = env.step(key, state, act(observation))
        reward = jnp.where(over, 0.0, transition.reward)
        over = over | transition.terminated | transition.truncated
        return (state, transition.observation, over), (reward, ~carry[-1])

    start, steps = jax.random.split(key)
    _, (rewards, alive) = jax.lax.scan(
        step, (*env.reset(start), jnp.bool_(False)), jax.random.split(steps, env.max_episode_steps)
    )
    return rewards.sum(), alive.sum()


episode_return, length = play(jax.random.key(0))
trained = run.summary["final_return"].iloc[0]
print(f"{env.name}, sample {best}: return {episode_return:.1f} in {length} steps")
print(f"mean return of its last evaluation: {trained:.1f}")
