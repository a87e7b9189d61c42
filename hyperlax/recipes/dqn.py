"""Recipes of DQN."""

from __future__ import annotations

from hyperlax.recipes.benchmark import LEARNING_RATE, NETWORKS, REPLAY, Benchmark
from hyperlax.recipes.recipe import register_algorithm
from hyperlax.spaces.distributions import Categorical, Fixed, Uniform

# Found by small sweeps of this very tool (run seed 1000); what is reported was trained on other seeds.
TUNED: dict[str, dict[str, object]] = {
    "gymnax.acrobot": {
        "critic_lr": 6.3e-4,
        "tau": 0.01,
        "target_update_interval": 1,
        "max_grad_norm": 10.0,
        "huber_loss_parameter": 1.0,
        "exploration_fraction": 0.2,
        "epochs": 16,
        "total_buffer_size": 50_000,
    },
    "gymnax.mountain_car": {
        "critic_lr": 1e-3,
        "tau": 0.005,
        "target_update_interval": 1,
        "exploration_fraction": 0.4,
        "noise_period": 16,
        "rollout_length": 4,
        "warmup_rollout_length": 1000,
        "total_buffer_size": 50_000,
    },
}

BENCHMARK = Benchmark(
    changes={"exploration_fraction": 0.0},  # the original explores with the same probability throughout
    space={
        "critic_lr": LEARNING_RATE,
        "gamma": Uniform(0.9, 0.99),
        "tau": Uniform(0.001, 0.1),
        "max_grad_norm": Uniform(0.1, 1.0),
        "training_epsilon": Uniform(0.01, 0.2),
        "huber_loss_parameter": Uniform(0.0, 1.0),
        **REPLAY,
        "decay_learning_rates": Categorical((True, False)),
        "use_double_q": Fixed(True),
    },
    networks=NETWORKS | {"tmlp": NETWORKS["tmlp"] | {"num_mpo_layers": Fixed(2)}},
)

register_algorithm("dqn", ("mlp", "tmlp", "cnn"), TUNED, BENCHMARK)
