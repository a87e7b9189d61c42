"""Recipes of PPO."""

from __future__ import annotations

from dataclasses import replace

from hyperlax.algorithms.ppo import PPO
from hyperlax.recipes.recipe import Recipe, register_recipe
from hyperlax.spaces.distributions import Categorical, Distribution, Fixed, LogUniform, Uniform
from hyperlax.spaces.hyperparameters import space

# Found by small sweeps of this very tool (run seed 1000); what is reported was trained on other seeds.
TUNED: dict[str, dict[str, object]] = {
    "gymnax.cartpole": {
        "total_num_envs": 8,
        "rollout_length": 32,
        "epochs": 10,
        "num_minibatches": 4,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "ent_coef": 0.0,
        "normalize_rewards": False,
    },
    "gymnax.acrobot": {"rollout_length": 64, "epochs": 4, "ent_coef": 0.003},
    "gymnax.pendulum": {"epochs": 10, "num_minibatches": 16, "gamma": 0.95, "clip_eps": 0.1, "ent_coef": 0.0},
    "gymnax.mountain_car_continuous": {
        "actor_lr": 3e-4,
        "critic_lr": 3e-4,
        "rollout_length": 256,
        "epochs": 10,
        "num_minibatches": 16,
        "ent_coef": 0.01,
    },
    "brax.inverted_double_pendulum": {
        "actor_lr": 3e-4,
        "critic_lr": 3e-4,
        "total_num_envs": 64,
        "rollout_length": 32,
        "epochs": 4,
        "ent_coef": 0.0,
    },
}


def ppo_mlp() -> Recipe:
    """Returns PPO with multilayer perceptrons, everything searched."""
    return Recipe(
        name="ppo_mlp",
        algorithm="ppo",
        network="mlp",
        description="PPO with MLPs; algorithm and networks searched",
        defaults=PPO(),
        space=space(PPO()),
        tuned=TUNED,
    )


def without_network_search(recipe: Recipe) -> Recipe:
    """Returns the recipe with its networks as they are by default."""
    kept = {name: distribution for name, distribution in recipe.space.items() if "_network." not in name}
    description = recipe.description.replace("algorithm and networks searched", "algorithm searched, networks fixed")
    return replace(recipe, name=f"{recipe.name}_no_network_search", description=description, space=kept)


def benchmarked_ppo_mlp() -> Recipe:
    """Returns the recipe with the distributions from which the published samples were drawn.

    Source: hyperlax-quantum, ``benchmarked/01_static_qmc_sampling_S64``. Minibatches are as small as
    two transitions and rollouts as short as one step.
    """
    network: dict[str, Distribution] = {
        f"{role}_network.{name}": distribution
        for role in ("actor", "critic")
        for name, distribution in (
            ("layer_sizes", Categorical(((32, 32), (64, 64), (128, 128)))),
            ("use_layer_norm", Categorical((True, False))),
            ("activation", Categorical(("tanh", "relu", "silu"))),
        )
    }
    algorithm: dict[str, Distribution] = {
        "actor_lr": LogUniform(1e-5, 1e-3),
        "critic_lr": LogUniform(1e-5, 1e-3),
        "gamma": Uniform(0.9, 0.99),
        "gae_lambda": Uniform(0.9, 0.99),
        "clip_eps": Uniform(0.01, 0.5),
        "ent_coef": LogUniform(1e-5, 1e-1),
        "vf_coef": Uniform(0.5, 1.0),
        "max_grad_norm": Uniform(0.1, 1.0),
        "rollout_length": Categorical((1, 2, 4, 8)),
        "epochs": Categorical((1, 2, 4)),
        "num_minibatches": Categorical((128, 256, 512)),
        "total_num_envs": Categorical((1024, 2048, 4096)),
        "standardize_advantages": Categorical((True, False)),
        "decay_learning_rates": Categorical((True, False)),
        "normalize_observations": Fixed(True),
    }
    return replace(
        ppo_mlp(),
        name="benchmarked.01_static_qmc_sampling_S64.ppo_mlp",
        description="PPO with MLPs over the space of the published 64-sample benchmark",
        defaults=PPO(normalize_rewards=False),  # the original knows nothing of it
        space={**network, **algorithm},
        tuned={},
    )


register_recipe(ppo_mlp, "ppo_mlp")
register_recipe(lambda: without_network_search(ppo_mlp()), "ppo_mlp_no_network_search")
register_recipe(benchmarked_ppo_mlp, "benchmarked.01_static_qmc_sampling_S64.ppo_mlp")
