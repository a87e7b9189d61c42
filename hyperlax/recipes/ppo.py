"""Recipes of PPO."""

from __future__ import annotations

from hyperlax.recipes.benchmark import LEARNING_RATE, NETWORKS, Benchmark
from hyperlax.recipes.recipe import register_algorithm
from hyperlax.spaces.distributions import Categorical, Fixed, LogUniform, Uniform

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


BENCHMARK = Benchmark(
    changes={"normalize_rewards": False},  # the original knows nothing of it
    space={
        "actor_lr": LEARNING_RATE,
        "critic_lr": LEARNING_RATE,
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
    },
    networks=NETWORKS | {"tmlp": NETWORKS["tmlp"] | {"num_mpo_layers": Categorical((2, 3))}},
)

register_algorithm("ppo", ("mlp", "tmlp", "cnn"), TUNED, BENCHMARK)
