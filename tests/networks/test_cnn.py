"""A lane's convolutional network inside a larger shape against the library's convolution; images are no squares.

Parameters are padded at the end of each axis, so a hidden unit's number counts channels before positions.
"""

from __future__ import annotations

import math
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.errors import CannotShare, UserError
from hyperlax.networks.cnn import CNN, CNNShape
from hyperlax.networks.mlp import ACTIVATIONS
from hyperlax.networks.network import Network
from hyperlax.networks.padding import pad

INPUTS, OUTPUTS, BATCH = (5, 7, 2), 3, 4

# Each list of networks shares one shape.
GROUPS = {
    "everything differs": [
        CNN((3, 2), 2, (4,), "tanh", False),
        CNN((2, 4), 2, (), "relu", True),
        CNN((4, 3), 2, (5, 3), "silu", True),
    ],
    "only channels differ": [CNN((2, 3), 2, (4,), "tanh"), CNN((4, 3), 2, (4,), "tanh"), CNN((3, 2), 2, (4,), "tanh")],
    "layer norm always, one convolution full": [
        CNN((2, 3), 3, (4,), "relu", True),
        CNN((2, 2), 3, (5,), "silu", True),
    ],
    "all alike": [CNN((3,), 3, (4, 4), "elu", True), CNN((3,), 3, (4, 4), "elu", True)],
    "kernels of one pixel": [CNN((2, 3, 2), 1, (), "sigmoid"), CNN((3, 1, 4), 1, (), "sigmoid")],
}


def merged(families):
    return reduce(CNNShape.merge, [family.shape(INPUTS) for family in families])


def random_params(network, family, seed):
    """Exact parameters that are nowhere zero or one."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.7, leaf.shape), network.exact(family).abstract_params)


def layer_norm(x, norm):
    """Of columns ``(units, batch)``."""
    x = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-6)
    return x * norm["scale"][:, None] + norm["bias"][:, None]


def plain(params, x, family):
    """The network of flat images ``(height · width · channels, batch)``."""
    torso, batch = params["torso"], x.shape[1]

    def after(x, norm):
        return ACTIVATIONS[family.activation](layer_norm(x, norm) if family.use_layer_norm else x)

    images = x.T.reshape(batch, *INPUTS)
    for layer in range(len(family.channels)):
        conv = torso[f"conv_{layer}"]
        images = jax.lax.conv_general_dilated(
            images, conv["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
        )
        images = images + conv["bias"]
        units = images.transpose(3, 1, 2, 0).reshape(-1, batch)
        units = after(units, torso.get(f"conv_norm_{layer}"))
        images = units.reshape(-1, *images.shape[1:3], batch).transpose(3, 1, 2, 0)
    for layer in range(len(family.layer_sizes)):
        dense = torso["dense"][f"hidden_{layer}"]
        units = after(dense["kernel"] @ units + dense["bias"][:, None], torso["dense"].get(f"norm_{layer}"))
    return params["head"]["kernel"] @ units + params["head"]["bias"][:, None]


@pytest.fixture(scope="module", params=GROUPS)
def group(request):
    """Networks of one shape; and of each, padded and plain: outputs, and gradients of a random sum of outputs."""
    families = GROUPS[request.param]
    network = Network(merged(families), INPUTS, OUTPUTS, gain=1.0)
    exact = [random_params(network, family, seed) for seed, family in enumerate(families)]
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(math.prod(INPUTS), BATCH)), rng.normal(size=(OUTPUTS, BATCH))

    def weighted(outputs):
        return (outputs * weight).sum(), outputs

    stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # noqa: E731
    padded = stack([pad(params, network.abstract_params) for params in exact])
    lanes = stack([family.traced(network.shape) for family in families])
    differentiate = jax.grad(lambda p, x, lane: weighted(network(p, x, lane)), argnums=(0, 1), has_aux=True)
    got = jax.device_get(jax.jit(jax.vmap(differentiate, in_axes=(0, None, 0)))(padded, x.astype(np.float32), lanes))
    with jax.enable_x64(True):
        expected = []
        for family, params in zip(families, exact, strict=True):
            loss = lambda p, x, family=family: weighted(plain(p, x, family))  # noqa: E731
            expected.append(jax.device_get(jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)))
    return network, families, exact, got, expected


def test_padded_equals_the_library_convolution(group):
    _, families, _, (_, outputs), expected = group
    for i, family in enumerate(families):
        np.testing.assert_allclose(outputs[i], expected[i][1], rtol=5e-5, atol=5e-5, err_msg=str(family))


def test_gradients_of_parameters_and_images_equal_the_library_convolution(group):
    network, families, _, ((grads, input_grads), _), expected = group
    for i, family in enumerate(families):
        mine = network.export(jax.tree.map(lambda leaf, i=i: leaf[i], grads), family)
        (wanted, wanted_of_input), _ = expected[i]
        assert jax.tree.structure(mine) == jax.tree.structure(wanted)
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(mine), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=f"{family} {jax.tree_util.keystr(path)}")
        np.testing.assert_allclose(input_grads[i], wanted_of_input, rtol=1e-4, atol=1e-4, err_msg=str(family))


def test_padding_gets_no_gradient(group):
    network, _, exact, ((grads, _), _), _ = group
    for i, own in enumerate(exact):
        inside = pad(jax.tree.map(np.ones_like, own), network.abstract_params)
        for g, mask in zip(jax.tree.leaves(grads), jax.tree.leaves(inside), strict=True):
            np.testing.assert_array_equal(g[i][mask == 0], 0.0)


def test_a_smaller_network_begins_inside_a_larger_shape_as_it_does_alone():
    """The same initial parameters, and so the same outputs."""
    families = GROUPS["everything differs"][:2]
    network = Network(merged(families), INPUTS, OUTPUTS, gain=1.0)
    x = np.random.default_rng(1).normal(size=(math.prod(INPUTS), BATCH)).astype(np.float32)
    outputs = jax.jit(network)
    for family in families:
        params, exact = network.init([5], family), network.exact(family)
        own = exact.init([5], family)
        jax.tree.map(np.testing.assert_array_equal, network.export(params, family), own)
        alone = jax.jit(exact)(own, x, family.traced(exact.shape))
        np.testing.assert_allclose(outputs(params, x, family.traced(network.shape)), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GROUPS)
def test_parameters_and_operations_are_counted_from_the_arrays(name):
    shape = merged(GROUPS[name])
    params = Network(shape, INPUTS, OUTPUTS, gain=1.0).abstract_params
    sizes = {jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert shape.num_params(math.prod(INPUTS), OUTPUTS) == sum(sizes.values())
    size, (height, width, _) = shape.kernel_size, INPUTS
    areas = {
        f"['torso']['conv_{i}']['kernel']": (height - (i + 1) * (size - 1)) * (width - (i + 1) * (size - 1))
        for i in range(len(shape.channels))
    }
    operations = sum(2 * n * areas.get(path, 1) for path, n in sizes.items() if path.endswith("['kernel']"))
    assert shape.flops(math.prod(INPUTS), OUTPUTS) == operations


@pytest.mark.parametrize("other", [CNN((3,), 3), CNN((3, 2), 2)])
def test_convolutions_of_another_number_or_size_share_no_shape(other):
    with pytest.raises(CannotShare):
        CNN((3,), 2).shape(INPUTS).merge(other.shape(INPUTS))


def test_images_must_be_images_and_larger_than_what_the_kernels_take_away():
    with pytest.raises(UserError, match=r"needs images \(height, width, channels\), not inputs \(4,\)"):
        CNN().shape((4,))
    assert CNN((2, 2), 3).shape(INPUTS).areas() == [3 * 5, 1 * 3]
    for inputs in ((4, 7, 2), (7, 4, 2)):
        with pytest.raises(UserError, match="2 convolutions with kernel_size 3 do not fit images of"):
            CNN((2, 2), 3).shape(inputs)
