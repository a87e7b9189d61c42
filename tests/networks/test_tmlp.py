"""Tensorised layers: equal to the dense layer they stand for, of its scale, and padded without a trace."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.errors import UserError
from hyperlax.networks.mlp import ACTIVATIONS
from hyperlax.networks.network import Network
from hyperlax.networks.padding import pad
from hyperlax.networks.tmlp import TMLP, contract, core_names

SIZES = [(32, 5, 4), (64, 6, 8), (128, 7, 16), (12, 2, 3), (30, 3, 2), (8, 1, 1)]


def network(family, num_inputs=3, num_outputs=2):
    return Network(family.shape((num_inputs,)), (num_inputs,), num_outputs, 1.0)


def weight(params, family, layer):
    """Entry by entry, from the definition: digits of the row and the column choose a matrix of each core."""
    cores = [family.scale * params["torso"][name] for name in core_names(layer, len(family.factors))]
    digits = list(itertools.product(*map(range, family.factors)))
    out = np.zeros((family.hidden_dim, family.hidden_dim))
    for (i, row), (j, column) in itertools.product(enumerate(digits), enumerate(digits)):
        product = np.ones((1, 1))
        for core, r, c in zip(cores, row, column, strict=True):
            product = product @ core[:, r, c]
        out[i, j] = product[0, 0]
    return out


@pytest.mark.parametrize("hidden, cores, bond", [(8, 3, 4), (12, 2, 3), (30, 3, 2), (8, 1, 1)])
def test_a_network_equals_the_dense_one_it_stands_for(hidden, cores, bond):
    family = TMLP(hidden, cores, bond, 2, "silu")
    params = network(family).init([3], family)
    x = np.random.default_rng(0).normal(size=(3, 5))
    got = network(family)(params, jnp.asarray(x, jnp.float32), family.traced(family.shape((3,))))
    torso, silu = params["torso"], ACTIVATIONS["silu"]
    hidden_units = silu(torso["hidden_0"]["kernel"] @ x + torso["hidden_0"]["bias"][:, None])
    for layer in range(2):
        hidden_units = silu(weight(params, family, layer) @ hidden_units + torso[f"mpo_{layer}_bias"][:, None])
    expected = params["head"]["kernel"] @ hidden_units + params["head"]["bias"][:, None]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden, cores, bond", SIZES)
def test_weights_have_the_norm_of_an_orthogonal_layer_and_activations_keep_their_scale(hidden, cores, bond):
    family = TMLP(hidden, cores, bond, 3, "relu")
    params = network(family).init([1], family)
    chains = [[family.scale * params["torso"][n] for n in core_names(k, cores)] for k in range(3)]
    for chain in chains:
        assert np.linalg.norm(contract(chain)) == pytest.approx(np.sqrt(2 * hidden), rel=1e-5)
    x = np.random.default_rng(0).normal(size=(hidden, 256))
    for chain in chains:
        x = np.maximum(contract(chain) @ x, 0)
    assert (
        0.02 < (x**2).mean() < 10
    )  # with cores of standard deviation 1 it would be bond_dim ** (3 (cores - 1)) times that


@pytest.mark.parametrize("hidden, cores, bond", SIZES)
def test_a_step_of_every_core_changes_the_weight_no_more_than_a_dense_one(hidden, cores, bond):
    """Adam moves every stored entry by the learning rate, a dense layer's by as much: compare relative changes."""
    family, rng, rate = TMLP(hidden, cores, bond, 1), np.random.default_rng(2), 1e-3
    params = network(family).init([1], family)
    chain = [params["torso"][n] for n in core_names(0, cores)]
    before = contract([family.scale * core for core in chain])
    moved = [family.scale * (core + rate * np.sign(core)) for core in chain]  # all of them outward: the worst case
    random = [family.scale * (core + rate * rng.choice([-1, 1], core.shape)) for core in chain]
    dense = rate * np.sqrt(hidden) / np.sqrt(2)  # every entry of a kernel of norm √(2 n) by the rate
    for after, most in ((moved, 3.0), (random, 1.01)):
        assert np.linalg.norm(contract(after) - before) / np.linalg.norm(before) < most * dense


def test_a_padded_network_is_the_network():
    families = [TMLP(8, 3, 2, 1, "tanh"), TMLP(12, 2, 4, 3, "relu", True), TMLP(6, 1, 1, 0, "silu")]
    shape = families[0].shape((3,)).merge(families[1].shape((3,))).merge(families[2].shape((3,)))
    padded = Network(shape, (3,), 2, 1.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    for family in families:
        params, lane = padded.init([5], family), family.traced(shape)
        exact = network(family)
        own = exact.init([5], family)
        alone = exact(own, x, family.traced(exact.shape))
        np.testing.assert_allclose(padded(params, x, lane), alone, rtol=1e-5, atol=1e-6)
        grads = jax.grad(lambda p, lane=lane: (padded(p, x, lane) ** 2).sum())(params)
        inside = pad(jax.tree.map(np.ones_like, own), padded.abstract_params)
        for (path, g), mask in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(inside), strict=True):
            np.testing.assert_array_equal(np.asarray(g)[mask == 0], 0.0, err_msg=jax.tree_util.keystr(path))
        jax.tree.map(np.testing.assert_array_equal, padded.export(params, family), own)


@pytest.mark.parametrize("family", [TMLP(32, 5, 4, 2), TMLP(30, 3, 2, 1, use_layer_norm=True)])
def test_the_number_of_parameters_is_as_estimated(family):
    params = network(family).init([0], family)
    assert family.shape((3,)).num_params(3, 2) == sum(x.size for x in jax.tree.leaves(params))


def test_cores_are_prime_factors_by_default_and_else_as_even_as_they_can_be():
    assert TMLP(64).factors == (2,) * 6 and TMLP(30).factors == (5, 3, 2)
    assert TMLP(64, 3).factors == (4, 4, 4) and TMLP(48, 2).factors == (8, 6) and TMLP(1).factors == (1,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"num_nodes_to_decompose 6 does not fit hidden_dim 32.*accepted: 0 … 5"):
        TMLP(32, 6, 4).shape((3,))
    with pytest.raises(UserError, match=r"bond_dim 17 does not fit a layer of 32 units in 5 cores; accepted: 1 … 16"):
        TMLP(32, 5, 17).shape((3,))


def test_the_contraction_costs_what_the_compiler_counts():
    shape = TMLP(hidden_dim=64, bond_dim=8, num_mpo_layers=3).shape((4,))
    cores = [jnp.zeros(core) for core in shape.cores]
    counted = jax.jit(contract).lower(cores).compile().cost_analysis()["flops"]
    assert shape.flops_per_call() == 3 * counted
