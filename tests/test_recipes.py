"""Recipes: which there are, and that what the benchmark's samples do not name is as it was when they were published."""

import pytest

from hyperlax.algorithms import ALGORITHMS
from hyperlax.errors import UserError
from hyperlax.networks import NETWORKS
from hyperlax.networks.mlp import MLP
from hyperlax.networks.pqc import DRPQC, HEPQC
from hyperlax.recipes import get_recipe, recipe_names
from hyperlax.spaces import Categorical, flatten
from hyperlax.spaces.samplers import draw

BENCHMARK = "benchmarked.01_static_qmc_sampling_S64."
DQN = {
    "target_update_interval": 1, "max_abs_reward": 1e9, "initial_epsilon": 1.0, "exploration_fraction": 0.0,
    "noise_period": 1, "use_dueling": False, "n_step": 1, "use_prioritized_replay": False, "priority_exponent": 0.6,
    "importance_exponent": 0.4,
}  # fmt: skip
KEPT = {"ppo": {"normalize_rewards": False}, "dqn": DQN, "sac": {"noise_period": 1, "decay_learning_rates": False}}
KEPT_OF_NETWORKS = {
    "mlp": {},
    "tmlp": {"num_nodes_to_decompose": 0},
    "drpqc": {"observable_type": "full", "scale_outputs": False},
}


def test_every_algorithm_goes_with_every_network():
    for algorithm in ALGORITHMS:
        for network in NETWORKS:
            assert {f"{algorithm}_{network}", f"{algorithm}_{network}_no_network_search"} <= set(recipe_names())


@pytest.mark.parametrize("network", ["mlp", "tmlp", "drpqc"])
@pytest.mark.parametrize("algorithm", KEPT)
def test_the_benchmark_keeps_what_was_published(algorithm, network):
    recipe = get_recipe(f"{BENCHMARK}{algorithm}_{network}")
    kept = {name: value for name, value in flatten(recipe.defaults).items() if name not in recipe.space}
    roles = {name.split(".")[0] for name in recipe.space if "." in name}
    own = {f"{role}.{name}": value for role in roles for name, value in KEPT_OF_NETWORKS[network].items()}
    assert kept == KEPT[algorithm] | own


@pytest.mark.parametrize("name", ["dqn_mlp", "sac_mlp", "pqn_tmlp"])
def test_a_sweep_keeps_what_has_no_choice(name):
    recipe = get_recipe(name)
    fixed = {"dqn_mlp": "noise_period", "sac_mlp": "autotune", "pqn_tmlp": "critic_network.use_layer_norm"}[name]
    assert fixed not in recipe.space
    assert all(fixed not in sample.values for sample in draw(recipe.space, 3))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_defaults_are_among_what_is_searched(algorithm, network):
    recipe = get_recipe(f"{algorithm}_{network}")
    values = flatten(recipe.defaults)
    assert [name for name, searched in recipe.space.items() if not searched.contains(values[name])] == []


def test_actor_and_critic_may_be_of_different_kinds():
    """Those of the list, any other pair, and the published space of each."""
    for name, actor, critic in (("ppo_drpqc+mlp", DRPQC, MLP), ("sac_mlp+hepqc", MLP, HEPQC)):
        defaults = get_recipe(name).defaults
        assert isinstance(defaults.actor_network, actor) and isinstance(defaults.critic_network, critic)
    assert get_recipe("sac_drpqc+mlp").defaults.critic_network.use_layer_norm is False
    published = get_recipe(f"{BENCHMARK}ppo_tmlp+drpqc").space
    assert published["actor_network.num_mpo_layers"] == Categorical((2, 3))
    assert published["critic_network.n_vstack"] == Categorical((1, 2, 3))
    assert not any("_network." in key for key in get_recipe("ppo_cnn+mlp_no_network_search").space)
    with pytest.raises(UserError, match=r"networks 'drpqc\+mlp': DQN has 1, critic_network"):
        get_recipe("dqn_drpqc+mlp")
    with pytest.raises(UserError, match=r"unknown recipe 'ppo_drpqc\+mpl': did you mean ppo_drpqc\+mlp"):
        get_recipe("ppo_drpqc+mpl")
