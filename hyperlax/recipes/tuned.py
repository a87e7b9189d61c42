"""Defaults of recipes for some environments.

Found by small sweeps of this very tool (run seed 1000), what is reported of them was trained on other seeds; those for
images are the published ones of purejaxql (Gallici et al., 2024).
"""

from __future__ import annotations

PPO_CARTPOLE: dict[str, object] = {
    "total_num_envs": 8,
    "rollout_length": 32,
    "epochs": 10,
    "num_minibatches": 4,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
    "normalize_rewards": False,
}
MINATAR: dict[str, object] = {
    "critic_lr": 5e-4,
    "total_num_envs": 128,
    "rollout_length": 32,
    "epochs": 2,
    "num_minibatches": 32,
    "exploration_fraction": 0.1,
}


def _circuits(*roles: str, **values: object) -> dict[str, object]:
    """Returns hyperparameters of the networks of several roles."""
    return {f"{role}_network.{name}": value for role in roles for name, value in values.items()}


TUNED: dict[str, dict[str, dict[str, object]]] = {
    "ppo_mlp": {
        "gymnax.cartpole": PPO_CARTPOLE,
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
    },
    "dqn_mlp": {
        "gymnax.cartpole": {"training_epsilon": 0.1, "total_buffer_size": 50_000},
        "gymnax.acrobot": {
            "critic_network.use_layer_norm": False,
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
            "critic_network.use_layer_norm": False,
            "critic_lr": 1e-3,
            "tau": 0.005,
            "target_update_interval": 1,
            "exploration_fraction": 0.4,
            "noise_period": 16,
            "rollout_length": 4,
            "warmup_rollout_length": 1000,
            "total_buffer_size": 50_000,
        },
    },
    "sac_mlp": {
        "gymnax.pendulum": {"target_entropy_scale": 1.0},
        "gymnax.reacher": {
            "actor_network.layer_sizes": (128, 128),
            "actor_network.use_layer_norm": True,
            "critic_network.layer_sizes": (128, 128),
            "critic_network.use_layer_norm": True,
            "actor_lr": 6e-4,
            "q_lr": 6e-4,
            "gamma": 0.93,
            "target_entropy_scale": 1.0,
            "total_num_envs": 16,
            "epochs": 32,
            "total_batch_size": 128,
            "decay_learning_rates": True,
        },
        "brax.inverted_double_pendulum": {
            "actor_network.layer_sizes": (128, 128),
            "actor_network.use_layer_norm": True,
            "critic_network.layer_sizes": (128, 128),
            "critic_network.use_layer_norm": True,
            "gamma": 0.98,
            "tau": 0.02,
            "max_grad_norm": 1000.0,
            "target_entropy_scale": 0.5,
            "noise_period": 4,
            "total_num_envs": 64,
            "rollout_length": 8,
            "warmup_rollout_length": 64,
            "decay_learning_rates": True,
            "normalize_observations": True,
        },
        "brax.hopper": {"normalize_observations": True},
        "brax.halfcheetah": {"normalize_observations": True},
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
    },
    "pqn_mlp": {
        "gymnax.acrobot": {"critic_lr": 5e-4},
    },
    "pqn_cnn": {"gymnax.asterix": MINATAR, "gymnax.breakout": MINATAR},
    # Circuits want larger learning rates than perceptrons, and raw observations: angles that keep their meaning.
    "ppo_drpqc": {
        "gymnax.cartpole": {
            **_circuits("actor", "critic", n_layers=5, n_vstack=3),
            **PPO_CARTPOLE,
            "actor_lr": 3e-3,
            "critic_lr": 3e-3,
            "normalize_observations": False,
        },
        "gymnax.pendulum": {
            **_circuits("actor", "critic", n_layers=2, n_vstack=3),
            "actor_lr": 3e-3,
            "critic_lr": 1e-3,
            "total_num_envs": 64,
            "epochs": 10,
            "num_minibatches": 64,
            "gamma": 0.95,
            "clip_eps": 0.1,
            "ent_coef": 0.0,
            "normalize_observations": False,
        },
    },
    "pqn_drpqc": {"gymnax.cartpole": {**_circuits("critic", n_layers=5, n_vstack=3), "critic_lr": 1e-2}},
    "dqn_drpqc": {"gymnax.cartpole": {**_circuits("critic", n_layers=5, n_vstack=2), "critic_lr": 2e-3}},
    "sac_drpqc": {
        "gymnax.pendulum": {
            **_circuits("actor", "critic", n_layers=5, n_vstack=2),
            "actor_lr": 5e-3,
            "q_lr": 2e-2,
            "tau": 0.0025,
            "target_entropy_scale": 1.0,
            "decay_learning_rates": True,
        },
    },
}
