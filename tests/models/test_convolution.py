"""The convolution equals the plain one in value and in derivatives of first and second order."""

import jax
import jax.numpy as jnp
import pytest
from derivatives import assert_close, derivatives, random
from jax import lax

from cxgrad_jax.models import _convolution
from cxgrad_jax.models._convolution import convolution
from cxgrad_jax.models._pooling import max_pool

pytestmark = pytest.mark.usefixtures("double_precision", "form")


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def form(request, monkeypatch):
    """The convolution has the form for this platform, and runs here."""
    monkeypatch.setattr(_convolution, "current_platform", lambda: request.param)
    return request.param


def plain_convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(("size", "channels_in", "channels_out"), [(3, 3, 5), (5, 3, 2), (3, 17, 4), (1, 3, 6)])
def test_convolution(size, channels_in, channels_out):
    x, kernel = random(0, 3, 7, 6, channels_in), 0.2 * random(1, size, size, channels_in, channels_out)
    assert_close(derivatives(convolution, x, kernel), derivatives(plain_convolution, x, kernel))


def test_convolutions_in_a_scan_that_is_differentiated_twice():
    x, kernels = random(0, 2, 3, 6, 6, 4), [0.2 * random(i, 3, 3, 4, 4) for i in (1, 2)]

    def one_after_the_other(convolution):
        def network(x, kernels):
            return convolution(jnp.sin(convolution(x, kernels[0])), kernels[1])

        return lambda *kernels: jax.lax.map(lambda x: max_pool(network(x, kernels)), x)

    ours = derivatives(one_after_the_other(convolution), *kernels)
    assert_close(ours, derivatives(one_after_the_other(plain_convolution), *kernels))


def test_convolution_under_vmap_over_kernels():
    x, kernels = random(0, 2, 3, 6, 6, 3), random(1, 2, 3, 3, 3, 4)
    assert_close(derivatives(jax.vmap(convolution), x, kernels), derivatives(jax.vmap(plain_convolution), x, kernels))


def test_a_kernel_gradient_of_many_tasks_has_groups_of_the_batch_on_a_tpu_and_is_a_product_on_a_gpu(form):
    x, kernels = random(0, 2, 3, 6, 6, 3), random(1, 2, 3, 3, 3, 4)

    def gradients(x, kernels):
        return jax.vmap(jax.grad(lambda kernel, x: jnp.sum(jnp.sin(convolution(x, kernel)))))(kernels, x)

    text = str(jax.make_jaxpr(gradients)(x, kernels))
    assert ("batch_group_count=2" in text) == (form == "tpu")
    assert ("conv_general_dilated" in text) == (form != "gpu")
    one = jax.jit(jax.vmap(gradients, (None, 0)))(x, kernels[None])  # vectorised twice, the images once
    assert_close(one[0], jax.jit(gradients)(x, kernels))


@pytest.mark.slow_except("cpu-3-3", "cpu-4-4", "gpu-4-4", "tpu-4-4")
@pytest.mark.parametrize(("images", "channels"), [(1, 4), (3, 3), (4, 4), (7, 4), (8, 3)])
def test_kernel_gradient_of_any_number_of_images(images, channels, monkeypatch):
    """A CPU takes three feature maps or five images at a time here, a GPU six or nine lines of six positions."""
    monkeypatch.setattr(_convolution, "POSITIONS_A_FILTER", 10)
    monkeypatch.setattr(_convolution, "POSITIONS_AT_ONCE", 3 * 6 * 6 + 1)
    monkeypatch.setattr(_convolution, "IMAGE_POSITIONS_AT_ONCE", 5 * 6 * 6)
    x, kernel = random(0, images, 6, 6, channels), random(1, 3, 3, channels, 4)
    ours = jax.grad(lambda k: jnp.sum(jnp.sin(convolution(x, k))))(kernel)
    assert_close(ours, jax.grad(lambda k: jnp.sum(jnp.sin(plain_convolution(x, k))))(kernel))


@pytest.mark.parametrize("form", ["gpu"], indirect=True)
def test_a_part_has_a_divisor_of_the_lines_that_is_near(form):
    sizes = {(75 * 84, 84): 12, (75 * 42, 42): 21, (5 * 21, 21): 35, (5 * 10, 10): 50, (71 * 10, 10): 71, (1, 1): 1}
    assert {size: _convolution._lines_of_a_part(*size, positions=960) for size in sizes} == sizes
