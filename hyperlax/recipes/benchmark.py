"""The spaces of the published benchmark of hyperlax-quantum, ``benchmarked/01_static_qmc_sampling_S64``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyperlax.spaces.distributions import Categorical, Distribution, Fixed, LogUniform, Uniform

PREFIX = "benchmarked.01_static_qmc_sampling_S64."
LEARNING_RATE = LogUniform(1e-5, 1e-3)
ACTIVATION = Categorical(("tanh", "relu", "silu"))

# What all algorithms with a replay have in common.
REPLAY: dict[str, Distribution] = {
    "rollout_length": Categorical((1, 2, 4, 8)),
    "epochs": Categorical((1, 2, 4)),
    "total_num_envs": Categorical((1024, 2048, 4096)),
    "warmup_rollout_length": Categorical((8, 16, 32)),
    "total_buffer_size": Categorical((30_000, 100_000)),
    "total_batch_size": Categorical((128, 256, 512)),
    "normalize_observations": Fixed(True),
}

# Of every network of an algorithm, drawn apart; as many cores as ``hidden_dim`` has prime factors.
NETWORKS: dict[str, dict[str, Distribution]] = {
    "mlp": {
        "layer_sizes": Categorical(((32, 32), (64, 64), (128, 128))),
        "use_layer_norm": Categorical((True, False)),
        "activation": ACTIVATION,
    },
    "tmlp": {
        "hidden_dim": Categorical((32, 64, 128)),
        "bond_dim": Categorical((4, 8, 16)),
        "num_mpo_layers": Categorical((1, 2, 3)),
        "use_layer_norm": Fixed(False),
        "activation": ACTIVATION,
    },
    "drpqc": {"n_layers": Categorical((5, 10, 15)), "n_vstack": Categorical((1, 2, 3))},
}


@dataclass(frozen=True)
class Benchmark:
    """What the published samples of one algorithm were drawn from.

    Attributes:
        space: of the algorithm's own hyperparameters.
        networks: of its networks, by family.
        changes: defaults that are different there.
    """

    space: Mapping[str, Distribution]
    networks: Mapping[str, Mapping[str, Distribution]]
    changes: Mapping[str, object]


BENCHMARKS = {
    "ppo": Benchmark(
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
    ),
    "dqn": Benchmark(
        # The original explores with the same probability throughout, and its target follows at every step.
        changes={"exploration_fraction": 0.0, "target_update_interval": 1, "noise_period": 1},
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
    ),
    "sac": Benchmark(
        changes={"noise_period": 1, "decay_learning_rates": False},
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
    ),
}
