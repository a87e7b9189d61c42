"""The spaces of the published benchmark of hyperlax-quantum, ``benchmarked/01_static_qmc_sampling_S64``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyperlax.spaces.distributions import Categorical, Distribution, Fixed, LogUniform

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
        "activation": ACTIVATION,
    },
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
