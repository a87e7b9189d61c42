"""Recipes of SAC."""

from __future__ import annotations

from hyperlax.recipes.benchmark import LEARNING_RATE, NETWORKS, REPLAY, Benchmark
from hyperlax.recipes.recipe import register_algorithm
from hyperlax.spaces.distributions import Fixed, LogUniform, Uniform

# Found by small sweeps of this very tool (run seed 1000); what is reported was trained on other seeds.
TUNED: dict[str, dict[str, object]] = {
    "gymnax.mountain_car_continuous": {
        "actor_lr": 3e-4,
        "q_lr": 3e-4,
        "autotune": False,
        "init_alpha": 0.1,
        "tau": 0.01,
        "noise_period": 32,
        "rollout_length": 8,
        "epochs": 32,
        "warmup_rollout_length": 1000,
    },
}

BENCHMARK = Benchmark(
    changes={},
    space={
        "actor_lr": LEARNING_RATE,
        "q_lr": LEARNING_RATE,
        "alpha_lr": LEARNING_RATE,
        "gamma": Uniform(0.9, 0.999),
        "tau": Uniform(0.001, 0.1),
        "max_grad_norm": Uniform(0.1, 1.0),
        "target_entropy_scale": Uniform(0.5, 1.0),
        "init_alpha": LogUniform(0.1, 10.0),
        "autotune": Fixed(True),
        **REPLAY,
    },
    networks=NETWORKS,
)

register_algorithm("sac", ("mlp", "tmlp"), TUNED, BENCHMARK)
