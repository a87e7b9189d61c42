"""Recipes of DQN."""

from __future__ import annotations

from hyperlax.recipes.benchmark import LEARNING_RATE, NETWORKS, REPLAY, Benchmark
from hyperlax.recipes.recipe import register_algorithm
from hyperlax.spaces.distributions import Categorical, Fixed, Uniform

TUNED: dict[str, dict[str, object]] = {}

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
