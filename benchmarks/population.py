"""Population-based training against as many independent members, drawn and trained alike, at equal steps.

    python benchmarks/population.py                      `make bench-search`

Both begin with the same members: the same points of the recipe's space, the same networks and random numbers. What
is compared is the best member by its final return: its policy on 128 fresh episodes, and, on fresh seeds, what its
hyperparameters do (those of a population as they changed in the best member's line).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import report

import hyperlax

EPISODES = 128
ENVIRONMENTS = {"gymnax.cartpole": 50_000, "gymnax.acrobot": 100_000, "gymnax.pendulum": 200_000}


@dataclasses.dataclass
class Found:
    """The best member of a run.

    Attributes:
        selected: its final return, by which it was chosen.
        policy: mean return of its policy over fresh episodes.
        retrained: mean return of fresh seeds; None where all diverged.
        median: of the final returns of all members.
    """

    selected: float
    policy: float
    retrained: float | None
    median: float


def play(run: Any, sample_id: int, seed: int) -> float:
    """Returns the mean return of a member's policy over fresh episodes."""
    env = hyperlax.make_env(run.info["environment"])
    act = hyperlax.load_policy(run.path, sample_id)

    def episode(key: Any) -> Any:
        state, observation = env.reset(key)

        def step(carry: Any, key: Any) -> tuple[Any, None]:
            state, observation, total, over = carry
            state, transition = env.step(key, state, act(observation[None])[0])
            total = total + jnp.where(over, 0.0, transition.reward)
            return (state, transition.observation, total, over | transition.terminated | transition.truncated), None

        keys = jax.random.split(jax.random.fold_in(key, 1), env.max_episode_steps)
        (_, _, total, _), _ = jax.lax.scan(step, (state, observation, 0.0, False), keys)
        return total

    keys = jax.random.split(jax.random.key(10_000 + seed), EPISODES)
    return float(jax.jit(jax.vmap(episode))(keys).mean())


def found(run: Any, seed: int) -> Found:
    """Returns what a run came to."""
    winner = run.info["winner"]
    policy = play(run, winner["sample_id"], seed)
    median = float(run.summary["final_return"].median())
    return Found(winner["selected_final_return"], policy, winner["fresh_seeds_final_return"], median)


def compare(env: str, steps: int, args: argparse.Namespace) -> list[tuple[Found, Found]]:
    """Returns, for each seed, what a population and what independent members came to."""
    results = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            common = dict(
                seed=seed, run_length=steps, num_evaluations=args.evaluations, num_eval_episodes=16,
                winner_seeds=args.winner_seeds, plot=False, progress=False, output_root=folder,
            )  # fmt: skip
            evolve = partial(hyperlax.population_based_training, exploit_every=args.exploit_every)
            evolve = partial(evolve, perturbation=args.perturbation, resample_probability=args.resample)
            population = evolve(args.recipe, env, population_size=args.members, **common)
            alone = hyperlax.sweep(args.recipe, env, num_samples=args.members, num_seeds=1, **common)
            results.append((found(population, seed), found(alone, seed)))
        print(env, seed, *results[-1], flush=True)
    return results


def rows(results: dict[str, list[tuple[Found, Found]]]) -> list[list[Any]]:
    """Returns a row a environment and figure: both means, their difference and its standard error."""
    table = []
    names = {"policy": "best policy, fresh episodes", "retrained": "best hyperparameters, fresh seeds"}
    names |= {"median": "median of all members"}
    for env, pairs in results.items():
        for name, text in names.items():
            both = np.array([[getattr(one, name), getattr(other, name)] for one, other in pairs], float)
            both = both[np.isfinite(both).all(axis=1)]
            gain = both[:, 0] - both[:, 1]
            error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
            means = [f"{mean:.1f}" for mean in both.mean(axis=0)]
            table.append([env, ENVIRONMENTS[env], text, *means, f"{gain.mean():.1f} ± {error:.1f}",
                          f"{(gain > 0).sum()} of {len(gain)}"])  # fmt: skip
    return table


def main() -> None:
    """Compares, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="ppo_mlp_no_network_search")
    parser.add_argument("--environments", nargs="+", default=list(ENVIRONMENTS), choices=list(ENVIRONMENTS))
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--exploit-every", type=int, default=2)
    parser.add_argument("--perturbation", type=float, default=0.1)
    parser.add_argument("--resample", type=float, default=0.25)
    parser.add_argument("--winner-seeds", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2001, 2002, 2003, 2004, 2005])
    parser.add_argument("--output", type=Path, default=report.ROOT / "benchmark_results" / "population")
    args = parser.parse_args()
    results = {env: compare(env, ENVIRONMENTS[env], args) for env in args.environments}
    columns = ["environment", "steps of a member", "return of", "population", "independent", "gain", "better"]
    text = [
        report.heading("Population-based training against independent members", versions=report.our_versions()),
        f"{args.recipe}, {args.members} members, a generation every {args.exploit_every} of {args.evaluations} "
        f"evaluations, {len(args.seeds)} repetitions with seeds {', '.join(map(str, args.seeds))}; gain: mean of the "
        "differences ± standard error.\n",
        report.table(columns, rows(results)),
    ]
    report.write(args.output / "population.md", "\n".join(text))


if __name__ == "__main__":
    main()
