"""The convolution, whose derivatives of first and second order are as fast as its value.

Meta-learning differentiates through gradients, so a layer is only as fast as its second derivative. On a CPU the
compiler's own kernel gradient takes several times as long as the convolution. On an accelerator the derivative of a
kernel gradient, left to JAX, becomes a convolution whose window is the whole feature map and nearly all padding: at
84x84 that alone is seven times the products of the whole iteration. The forms here do neither.

On a GPU a convolution and its kernel gradient are products of matrices. With cuDNN's convolutions a program gave other
bits each time on an H100, and the host starts each of them by itself, whereas products run as parts of one CUDA graph.
"""

import math
from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cxgrad_jax.models._residuals import keep, kept
from cxgrad_jax.platforms import current_platform

Precision = str | None

FEW_CHANNELS = 3  # images have at most three channels, feature maps have more
POSITIONS_AT_ONCE = 9_000  # of feature maps: a kernel gradient on a CPU takes at most this many together
IMAGE_POSITIONS_AT_ONCE = 36_000  # the same of images
POSITIONS_A_FILTER = 20  # of a part of a kernel gradient on a GPU: the parts' sums are a twentieth of the patches


def convolution(x: jax.Array, kernel: jax.Array, precision: Precision = "highest") -> jax.Array:
    """Stride-1 "SAME" convolution (cross-correlation) of ``x [N, H, W, C_in]`` with an odd square kernel.

    Args:
      x: images or feature maps of any floating dtype.
      kernel: ``[S, S, C_in, C_out]`` of the same dtype, S odd.
      precision: the precision of products on accelerators, as in ``jax.lax``. A CPU always uses the full input
        precision.

    Returns:
      ``[N, H, W, C_out]``. Value and derivatives of every order equal those of ``jax.lax.conv_general_dilated`` up to
      rounding. There are only reverse-mode derivatives.
    """
    return _convolution(x, kernel, precision)


def is_few(channels: int) -> bool:
    """Whether an input with so few channels counts as images, as in the first layer, and not as feature maps."""
    return channels <= FEW_CHANNELS


def _lax_convolution(x: jax.Array, kernel: jax.Array, precision: Precision, margin: int) -> jax.Array:
    margins, dimensions = ((margin, margin), (margin, margin)), ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), margins, dimension_numbers=dimensions, precision=precision)


def _with_margin(x: jax.Array, size: int) -> jax.Array:
    """``x [N, H, W, C]`` with the zeros around it that a kernel of ``size`` needs: ``size // 2`` on every side."""
    margin = (size // 2, size // 2)
    return jnp.pad(x, ((0, 0), margin, margin, (0, 0)))


def _patches(x: jax.Array, size: int) -> jax.Array:
    """The neighbourhoods of all pixels of ``x [N, H, W, C]`` as rows: ``[N*H*W, size*size*C]``.

    They are gathered by number. On an H100 that takes half as long as putting shifted maps beside each other.
    """
    images, height, width, channels = x.shape
    if size == 1:
        return x.reshape(-1, channels)
    pixels = _with_margin(x, size).reshape(images, -1, channels)
    neighbours = jnp.take(pixels, _neighbours(height, width, size), axis=1, mode="clip")
    return neighbours.reshape(-1, size * size * channels)


@cache
def _neighbours(height: int, width: int, size: int) -> np.ndarray:
    """The numbers of the neighbours of every pixel among all pixels with the margin: ``[H*W*size*size]``."""
    row, column, i, j = np.ogrid[:height, :width, :size, :size]
    return ((row + i) * (width + size - 1) + column + j).astype(np.int32).reshape(-1)


def _image_patches(x: jax.Array, size: int) -> jax.Array:
    """The same as ``[N, H, W, size*size*C]``, for images on a CPU.

    The columns come together first, then the rows, because a CPU copies long runs faster than single pixels.
    """
    height, width, x = x.shape[1], x.shape[2], _with_margin(x, size)
    x = jnp.concatenate([x[:, :, j : j + width] for j in range(size)], axis=-1)
    return jnp.concatenate([x[:, i : i + height] for i in range(size)], axis=-1)


# The convolution is bilinear in (input, kernel), and so is its kernel gradient in (input, output gradient). The
# derivatives of each are again one of the two, so two custom rules cover every order of differentiation.


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, kernel: jax.Array, precision: Precision) -> jax.Array:
    size, _, channels, features = kernel.shape
    if current_platform() == "gpu":
        products = jnp.matmul(_patches(x, size), kernel.reshape(-1, features), precision=precision)
        return products.reshape(*x.shape[:3], features)
    if current_platform() == "cpu" and size > 1 and is_few(channels):
        # The compiler's convolution would gather an image's three channels number by number in every inner step.
        return _lax_convolution(_image_patches(x, size), kernel.reshape(1, 1, -1, features), precision, 0)
    return _lax_convolution(x, kernel, precision, size // 2)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x: jax.Array, g: jax.Array, size: int, precision: Precision) -> jax.Array:
    """Gradient of ``sum(convolution(x, kernel) * g)`` with respect to the kernel: ``[size, size, C_in, C_out]``.

    It is the convolution of ``x`` with ``g`` in which channels and images change places. On a CPU padding and
    transpositions are written out. The compiler's convolution is slower if it has to pad. Inside a loop it does not
    transpose, and so misses its fast form. It takes a few images at a time, so that the transposed arrays stay in the
    caches.
    """
    if current_platform() == "gpu":
        return _kernel_gradient_by_products(x, g, size, precision)
    if current_platform() == "tpu":
        return _kernel_gradient_of_tasks(size, precision)(x, g)

    def gradient(x, g):
        x = _with_margin(x, size)
        rows = _lax_convolution(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), precision, 0)
        return rows.transpose(1, 2, 0, 3)

    images, height, width, channels = x.shape
    positions = IMAGE_POSITIONS_AT_ONCE if is_few(channels) else POSITIONS_AT_ONCE
    chunks = -(-images // max(1, positions // (height * width)))
    if chunks == 1:
        return gradient(x, g)
    missing = -images % chunks  # images of zeros add nothing

    def split(array):
        array = jnp.pad(array, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else array
        return array.reshape(chunks, -1, *array.shape[1:])

    return jnp.sum(lax.map(lambda pair: gradient(*pair), (split(x), split(g))), axis=0)


def _kernel_gradient_by_products(x: jax.Array, g: jax.Array, size: int, precision: Precision) -> jax.Array:
    """``_kernel_gradient`` on a GPU: the sum of a product of patches with ``g`` for each part of the positions.

    A single product has few results and long sums. The compiler for GPUs divides them, and to do so copies the patches
    into padded ones. At 84x84 on an H100 these copies took an eighth of an iteration.
    """
    images, height, width, features = g.shape
    lines = _lines_of_a_part(images * height, width, POSITIONS_A_FILTER * features)
    parts = images * height // lines
    patches, rows = _patches(x, size), g.reshape(-1, features)
    if parts == 1:  # as a batch of one, XLA (jax 0.10) failed to compile another product of these patches
        return jnp.matmul(patches.T, rows, precision=precision).reshape(size, size, -1, features)
    patches, rows = (values.reshape(parts, lines * width, -1) for values in (patches, rows))
    products = jnp.matmul(patches.swapaxes(1, 2), rows, precision=precision)
    return jnp.sum(products, axis=0).reshape(size, size, -1, features)


@cache
def _lines_of_a_part(lines: int, width: int, positions: int) -> int:
    """The divisor of ``lines``, of ``width`` positions each, that comes nearest to this number of positions."""
    divisors = (lines // parts for parts in range(1, lines + 1) if lines % parts == 0)
    return min(divisors, key=lambda divisor: abs(math.log(divisor * width / positions)))


@cache
def _kernel_gradient_of_tasks(size: int, precision: Precision) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """``_kernel_gradient`` on a TPU, whose tasks are groups of one convolution where it is vectorised.

    They are groups of the batch. JAX's own rule makes them groups of the features.
    """
    margins, dimensions = ((size // 2, size // 2),) * 2, ("CHWN", "IHWO", "HWNC")

    def convolve(x, g, groups):
        return lax.conv_general_dilated(
            x, g, (1, 1), margins, dimension_numbers=dimensions, batch_group_count=groups, precision=precision
        )

    def merged(maps):  # [T, N, H, W, C] -> [N, H, W, T*C]
        return jnp.moveaxis(maps, 0, 3).reshape(*maps.shape[1:4], -1)

    @jax.custom_batching.custom_vmap
    def gradient(x, g):
        return convolve(x, g, 1)

    @gradient.def_vmap
    def _(tasks, batched, x, g):
        x, g = (a if has else jnp.broadcast_to(a, (tasks, *a.shape)) for a, has in zip((x, g), batched, strict=True))
        gradients = convolve(merged(x), merged(g), tasks)
        return jnp.moveaxis(gradients.reshape(*gradients.shape[:3], tasks, -1), 3, 0), True

    return gradient


def _transposed(kernel: jax.Array) -> jax.Array:
    """The kernel whose convolution is the input gradient: turned by 180 degrees, channels exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _convolution_forward(x, kernel, precision):
    return _convolution(x, kernel, precision), keep(x, kernel)


def _convolution_backward(precision, residuals, g):
    x, kernel = kept(residuals)
    return _convolution(g, _transposed(kernel), precision), _kernel_gradient(x, g, kernel.shape[0], precision)


def _kernel_gradient_forward(x, g, size, precision):
    return _kernel_gradient(x, g, size, precision), keep(x, g)


def _kernel_gradient_backward(size, precision, residuals, cotangent):
    x, g = kept(residuals)
    return _convolution(g, _transposed(cotangent), precision), _convolution(x, cotangent, precision)


_convolution.defvjp(_convolution_forward, _convolution_backward)
_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)
