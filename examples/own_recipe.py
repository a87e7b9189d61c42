"""A recipe of one's own: other defaults and another space than those that come with hyperlax.

Run it: python examples/own_recipe.py
"""

import argparse
from dataclasses import replace

import hyperlax
from hyperlax.recipes import get_recipe
from hyperlax.spaces import Categorical, Integer, LogUniform

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=20_000, help="environment steps of each training")
parser.add_argument("--output-root", default="results/examples", help="where the run directory is made")
arguments = parser.parse_args()

# A recipe is a frozen dataclass, so a variant is a copy with some fields replaced.
parent = get_recipe("ppo_mlp")
recipe = replace(
    parent,
    name="ppo_mlp_depth",
    description="PPO with MLPs; is a deeper network better?",
    # What is not in the space keeps its default; the defaults are the algorithm's own dataclass.
    defaults=replace(parent.defaults, total_num_envs=16, rollout_length=64, normalize_observations=False),
    tuned={},  # the parent's values for single environments would come before these defaults
    # Hyperparameters of the networks have dotted names. Sizes are lists: any depth, any width.
    space={
        "actor_network.layer_sizes": Categorical(([64], [64, 64], [32, 32, 32, 32])),
        "actor_lr": LogUniform(1e-4, 3e-3),
        "epochs": Integer(2, 6),
    },
)
hyperlax.register_recipe(recipe)  # now its name is known; passing the recipe itself to sweep works as well

run = hyperlax.sweep(
    "ppo_mlp_depth",
    "gymnax.cartpole",
    num_samples=9,
    sampling_method="lhs",
    run_length=arguments.steps,
    num_seeds=2,
    output_root=arguments.output_root,
    progress=False,
)

print("mean final return by depth of the actor")
by_depth = run.summary.groupby("actor_network.layer_sizes")["final_return"].agg(["mean", "max", "count"])
print(by_depth.round(1).to_string())
print(f"\n{run.path}")
