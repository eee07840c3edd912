"""The fast layers equal the plain ones in value and in derivatives of first and second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cxgrad_jax.models import layers
from cxgrad_jax.models._conv4 import Block


@pytest.fixture(autouse=True)
def double_precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def random(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def plain_convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def derivatives(function, *arguments):
    """Value, gradient, and gradient of a nonlinear function of the gradient, by all arguments."""

    def value(arguments):
        return jnp.sum(jnp.tanh(function(*arguments)))

    def of_gradient(arguments):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(jax.grad(value)(arguments)))

    return jax.jit(lambda a: (function(*a), jax.grad(value)(a), jax.grad(of_gradient)(a)))(arguments)


def assert_close(ours, theirs, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(np.max(np.abs(b)), 1e-3))


@pytest.mark.parametrize(("size", "channels_in", "channels_out"), [(3, 3, 5), (5, 3, 2), (3, 17, 4), (1, 3, 6)])
def test_convolution(size, channels_in, channels_out):
    x, kernel = random(0, 3, 7, 6, channels_in), 0.2 * random(1, size, size, channels_in, channels_out)
    assert_close(derivatives(layers.convolution, x, kernel), derivatives(plain_convolution, x, kernel))


def test_convolutions_in_a_scan_that_is_differentiated_twice():
    x, kernels = random(0, 2, 3, 6, 6, 4), [0.2 * random(i, 3, 3, 4, 4) for i in (1, 2)]

    def one_after_the_other(convolution):
        def network(x, kernels):
            return convolution(jnp.sin(convolution(x, kernels[0])), kernels[1])

        return lambda *kernels: jax.lax.map(lambda x: layers.max_pool(network(x, kernels)), x)

    ours = derivatives(one_after_the_other(layers.convolution), *kernels)
    assert_close(ours, derivatives(one_after_the_other(plain_convolution), *kernels))


def test_convolution_under_vmap_over_kernels():
    x, kernels = random(0, 2, 3, 6, 6, 3), random(1, 2, 3, 3, 3, 4)
    ours = derivatives(jax.vmap(layers.convolution), x, kernels)
    assert_close(ours, derivatives(jax.vmap(plain_convolution), x, kernels))


@pytest.mark.parametrize(("side", "padding"), [(84, 0), (7, 0), (10, 1), (21, 1)])
def test_max_pool(side, padding):
    # At 84x84 under jit a pooling by .max(axis) has wrong gradients: see layers.max_pool.
    x = random(0, 2, side, side, 3)

    def plain(x):
        margin = (padding, padding)
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0), margin, margin, (0, 0)))

    assert_close(derivatives(lambda x: layers.max_pool(x, padding), x), derivatives(plain, x))


def test_max_pool_of_what_is_scaled_later():
    x, factor = random(0, 2, 7, 6, 5), random(1, 5)
    assert (np.asarray(factor) < 0).any() and (np.asarray(factor) > 0).any()
    ours = derivatives(lambda x, f: layers.max_pool(x, factor=f) * f, x, factor)
    assert_close(ours, derivatives(lambda x, f: layers.max_pool(x * f), x, factor))


def test_max_pool_gives_the_gradient_of_a_tie_to_the_first():
    gradient = jax.grad(lambda x: jnp.sum(layers.max_pool(x)))(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(gradient[0, :, :, 0], np.tile([[1, 0], [0, 0]], (2, 2)))


@pytest.mark.parametrize("images", [1, 15, 16, 31])
def test_kernel_gradient_of_any_number_of_images(images):
    x, kernel = random(0, images, 6, 6, 3), random(1, 3, 3, 3, 4)
    ours = jax.grad(lambda k: jnp.sum(jnp.sin(layers.convolution(x, k))))(kernel)
    assert_close(ours, jax.grad(lambda k: jnp.sum(jnp.sin(plain_convolution(x, k))))(kernel))


@pytest.mark.parametrize(
    ("kind", "axes", "groups"), [("batch", (0, 1, 2), 1), ("layer", (1, 2, 3), 1), ("group", (1, 2, 4), 2)]
)
def test_norm_is_the_textbook_form(kind, axes, groups):
    x, scale, bias = 1 + random(0, 4, 5, 5, 6), random(1, 6), random(2, 6)
    module = layers.Norm(kind, num_groups=groups)

    def textbook(x, scale, bias):
        grouped = x.reshape(4, 5, 5, groups, 3) if kind == "group" else x
        mean, variance = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
        return ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias

    def ours(x, scale, bias):
        return module.apply({"params": {"scale": scale, "bias": bias}}, x)

    assert_close(derivatives(ours, x, scale, bias), derivatives(textbook, x, scale, bias), rtol=1e-10)
    pooled = layers.Norm(kind, num_groups=groups, pool=True)

    def ours_pooled(x, scale, bias):
        return pooled.apply({"params": {"scale": scale, "bias": bias}}, x)

    def textbook_pooled(x, scale, bias):
        return layers.max_pool(textbook(x, scale, bias))

    assert_close(derivatives(ours_pooled, x, scale, bias), derivatives(textbook_pooled, x, scale, bias), rtol=1e-10)


@pytest.mark.parametrize(("images", "channels", "parts"), [(6, 3, 3), (7, 1, 7), (6, 5, 1)])
def test_a_first_block_in_parts_is_the_same(images, channels, parts, monkeypatch):
    """A block of Conv-4 that divides its images, as if the caches held little; of many channels it does not."""
    x, block = random(0, images, 8, 6, channels), Block(4, "batch", False, 0.01, 1e-5, "highest")
    params = jax.tree.map(lambda leaf: leaf + 0.1 * random(1, *leaf.shape), block.init(jax.random.key(0), x))

    def ours(params, x):
        return block.apply(params, x)

    whole = derivatives(ours, params, x)
    monkeypatch.setattr(layers, "PART_BYTES", 2 * 8 * 6 * 4 * 8)
    jax.clear_caches()
    assert layers._num_parts(x, (images, 8, 6, 4)) == parts
    assert_close(derivatives(ours, params, x), whole, rtol=1e-10)
