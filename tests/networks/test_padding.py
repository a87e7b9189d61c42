"""Parameters at exact size, padded, cut and as one vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.networks.mlp import MLP
from hyperlax.networks.network import Network
from hyperlax.networks.padding import Vector, cut, pad

SMALL, LARGE = MLP((2, 5), "tanh", True), MLP((4, 3, 6), "relu", False)


@pytest.fixture(scope="module")
def network():
    return Network(SMALL.shape((3,)).merge(LARGE.shape((3,))), (3,), 2, gain=0.5)


@pytest.mark.parametrize("family", [SMALL, LARGE, MLP(())], ids=["small", "large", "linear"])
def test_cut_undoes_pad_and_the_rest_is_zero(network, family):
    if family.layer_sizes == ():
        network = Network(network.shape.merge(family.shape((3,))), (3,), 2, gain=0.5)
    exact_shapes = network.exact(family).abstract_params
    rng = np.random.default_rng(0)
    exact = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), exact_shapes)
    padded = pad(exact, network.abstract_params)
    jax.tree.map(np.testing.assert_array_equal, cut(padded, exact_shapes), exact)
    total = lambda tree: sum(np.abs(leaf).sum(dtype=np.float64) for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert total(padded) == pytest.approx(total(exact), rel=1e-12)
    assert jax.tree.map(np.shape, padded) == jax.tree.map(lambda leaf: leaf.shape, network.abstract_params)


@pytest.mark.parametrize("family", [SMALL, LARGE], ids=["small", "large"])
def test_initial_values_do_not_depend_on_the_shape(network, family):
    entropy = [0, 7, 3]
    alone = network.exact(family).init(entropy, family)
    inside = network.init(entropy, family)
    jax.tree.map(np.testing.assert_array_equal, network.export(inside, family), alone)
    other = network.init([0, 7, 4], family)
    assert not np.array_equal(other["head"]["kernel"], inside["head"]["kernel"])


def test_initial_kernels_are_orthogonal_and_layers_unlike(network):
    params = network.exact(LARGE).init([1], LARGE)
    head = params["head"]["kernel"] / 0.5
    np.testing.assert_allclose(head @ head.T, np.eye(2), atol=1e-6)
    hidden = params["torso"]["hidden_1"]["kernel"] / np.sqrt(2)
    np.testing.assert_allclose(hidden @ hidden.T, np.eye(3), atol=1e-6)
    same = Network(MLP((4, 4, 4)).shape((4,)), (4,), 4, gain=np.sqrt(2)).init([1], MLP((4, 4, 4)))
    kernels = [same["head"]["kernel"], *(same["torso"][f"hidden_{i}"]["kernel"] for i in range(3))]
    assert all(not np.allclose(a, b) for i, a in enumerate(kernels) for b in kernels[:i])
    biases = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "bias"]
    assert len(biases) == 4 and not np.concatenate(biases).any()
    norm = network.exact(SMALL).init([1], SMALL)["torso"]["norm_0"]
    np.testing.assert_array_equal(norm["scale"], 1.0)
    np.testing.assert_array_equal(norm["bias"], 0.0)


def test_a_vector_unpacks_to_what_was_packed():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    tree = {"b": draw(3, 2), "a": {"x": draw(4), "none": draw(0), "one": np.array(2.5, np.float32)}}
    vector = Vector(tree)
    packed = vector.pack(tree)
    assert packed.shape == (vector.size,) == (11,)
    jax.tree.map(np.testing.assert_array_equal, vector.unpack(packed), tree)
    np.testing.assert_array_equal(vector.pack(jax.tree.map(jnp.asarray, tree)), packed)
