"""A lane's network inside a larger shape against the same network written plainly in NumPy."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit

from hyperlax.networks.mlp import ACTIVATIONS, MLP, MLPShape, orthogonal
from hyperlax.networks.network import Network

INPUTS, OUTPUTS, BATCH = 3, 2, 5

PLAIN = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * expit(x),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "sigmoid": expit,
}

# Each list of networks shares one shape.
GROUPS = {
    "everything differs": [
        MLP(sizes, name, norm)
        for sizes in ((), (4,), (6, 2), (2, 3, 5))
        for name in ACTIVATIONS
        for norm in (False, True)
    ],
    "only the width differs": [MLP((4, 3), "tanh", False), MLP((2, 7), "tanh", False)],
    "layer norm always, one layer full": [MLP((4, 3), "relu", True), MLP((4, 5), "silu", True)],
    "layer norm always, depth differs": [MLP((4,), "tanh", True), MLP((2, 6, 3), "tanh", True)],
    "linear and deep": [MLP((), "tanh", False), MLP((2, 2, 2), "tanh", False)],
    "all alike": [MLP((4, 4), "gelu", True), MLP((4, 4), "gelu", True)],
    "only linear": [MLP(()), MLP(())],
}


def merged(families):
    return reduce(MLPShape.merge, [family.shape((INPUTS,)) for family in families])


def random_params(network, family, seed):
    """Exact parameters that are nowhere zero or one."""
    rng = np.random.default_rng(seed)
    exact = network.exact(family).abstract_params
    return jax.tree.map(lambda leaf: rng.normal(0, 0.7, leaf.shape), exact)


def plain(params, x, family):
    """The network of columns ``(features, batch)`` in NumPy, float64."""
    for layer in range(len(family.layer_sizes)):
        dense = params["torso"][f"hidden_{layer}"]
        x = dense["kernel"] @ x + dense["bias"][:, None]
        if family.use_layer_norm:
            norm = params["torso"][f"norm_{layer}"]
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6) * norm["scale"][:, None] + norm["bias"][:, None]
        x = PLAIN[family.activation](x)
    return params["head"]["kernel"] @ x + params["head"]["bias"][:, None]


def padded_like(network, family, exact):
    """Zeros of the padded shapes with ``exact`` written into the corner, leaf by leaf."""
    flat = dict(jax.tree_util.tree_leaves_with_path(exact))

    def fill(path, leaf):
        full = np.zeros(leaf.shape, np.float32)
        source = flat.get(path, np.zeros([0] * full.ndim))
        full[tuple(slice(n) for n in source.shape)] = source
        return full

    return jax.tree_util.tree_map_with_path(fill, network.abstract_params)


@pytest.fixture(scope="module", params=GROUPS)
def group(request):
    """Networks of one shape, their exact parameters, inputs, outputs and gradients of a random sum of outputs."""
    families = GROUPS[request.param]
    network = Network(merged(families), (INPUTS,), OUTPUTS, gain=1.0)
    exact = [random_params(network, family, seed) for seed, family in enumerate(families)]
    stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # noqa: E731
    padded = stack([padded_like(network, f, e) for f, e in zip(families, exact, strict=True)])
    lanes = stack([family.traced(network.shape) for family in families])
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(INPUTS, BATCH)), rng.normal(size=(OUTPUTS, BATCH))

    def loss(params, lane, x):
        outputs = network(params, x, lane)
        return (outputs * weight).sum(), outputs

    run = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 2), has_aux=True), in_axes=(0, 0, None)))
    (grads, input_grads), outputs = run(padded, lanes, x.astype(np.float32))
    return network, families, exact, x, weight, np.asarray(outputs), jax.device_get(grads), np.asarray(input_grads)


def test_padded_equals_exact(group):
    _, families, exact, x, _, outputs, *_ = group
    for i, family in enumerate(families):
        np.testing.assert_allclose(outputs[i], plain(exact[i], x, family), rtol=2e-5, atol=2e-5, err_msg=str(family))


def test_gradient_equals_that_of_the_exact_network(group):
    """Along random directions, against a central difference in float64."""
    network, families, exact, x, weight, _, grads, input_grads = group
    for i, family in enumerate(families):
        mine = network.export(jax.tree.map(lambda leaf, i=i: leaf[i], grads), family)
        rng = np.random.default_rng(i)
        for _ in range(3):
            direction = jax.tree.map(lambda leaf, rng=rng: rng.normal(size=leaf.shape), exact[i])
            along_x = rng.normal(size=x.shape)

            def loss(h, i=i, family=family, direction=direction, along_x=along_x):
                params = jax.tree.map(lambda p, d: p + h * d, exact[i], direction)
                return (plain(params, x + h * along_x, family) * weight).sum()

            slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
            products = jax.tree.map(lambda g, d: (g * d).sum(), mine, direction)
            got = sum(jax.tree.leaves(products)) + (input_grads[i] * along_x).sum()
            np.testing.assert_allclose(got, slope, rtol=1e-4, atol=1e-3, err_msg=str(family))


def test_padding_gets_no_gradient(group):
    network, families, exact, *_, grads, _ = group
    for i, family in enumerate(families):
        inside = padded_like(network, family, jax.tree.map(np.ones_like, exact[i]))
        outside = jax.tree.map(lambda g, mask, i=i: g[i][mask == 0], grads, inside)
        for leaf in jax.tree.leaves(outside):
            np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_what_their_names_say(name):
    x = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x, jnp.float32)), PLAIN[name](x), atol=2e-6, rtol=1e-5)


def test_gelu_is_near_that_of_the_paper():
    x = np.linspace(-3, 3, 50)
    np.testing.assert_allclose(PLAIN["gelu"](x), 0.5 * x * (1 + erf(x / np.sqrt(2))), atol=1e-3)


@pytest.mark.parametrize("name", GROUPS)
def test_parameters_and_operations_are_counted_from_the_arrays(name):
    shape = merged(GROUPS[name])
    network = Network(shape, (INPUTS,), OUTPUTS, gain=1.0)
    params = network.abstract_params
    assert shape.num_params(INPUTS, OUTPUTS) == sum(leaf.size for leaf in jax.tree.leaves(params))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert shape.flops(INPUTS, OUTPUTS) == 2 * sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel")


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (1, 4), (4, 1)])
@pytest.mark.parametrize("gain", [0.01, 1.0, np.sqrt(2)])
def test_orthogonal_is_orthogonal(shape, gain):
    matrix = orthogonal(shape, gain, np.random.default_rng(0)).astype(np.float64) / gain
    product = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-6)


def test_orthogonal_prefers_no_direction():
    """Each entry of a uniform orthogonal matrix has mean 0 and mean square 1/n."""
    rng = np.random.default_rng(1)
    matrices = np.stack([orthogonal((4, 4), 1.0, rng) for _ in range(4000)])
    np.testing.assert_allclose(matrices.mean(0), 0.0, atol=5 * 0.5 / np.sqrt(4000))
    np.testing.assert_allclose((matrices**2).mean(0), 0.25, atol=0.02)
