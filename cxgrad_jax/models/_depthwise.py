"""Convolutions of mobile networks for which XLA is slow on a CPU: depthwise ones, and one with a stride on an image.

On a CPU, XLA's grouped convolution takes 25 to 100 times as long as the sums of shifted inputs here. These are plain
arithmetic, so derivatives of every order are the compiler's own.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cxgrad_jax.models._convolution import Precision, convolution
from cxgrad_jax.platforms import current_platform

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, stride: int = 1, precision: Precision = "highest"
) -> jax.Array:
    """The "SAME" convolution of every channel of ``x [N, H, W, C]`` with a kernel of its own.

    Args:
      x: feature maps of any floating dtype.
      kernel: ``[S, S, 1, C]`` of the same dtype.
      stride: the stride of both axes. If the padding has an odd number of rows or columns, the larger part lies below
        or on the right.
      precision: the precision of products on accelerators, as in ``jax.lax``.

    Returns:
      ``[N, ceil(H / stride), ceil(W / stride), C]``.
    """
    if current_platform() != "cpu":
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS, feature_group_count=x.shape[-1],
            precision=precision,
        )  # fmt: skip
    weights = kernel.reshape(-1, 1, 1, 1, x.shape[-1])
    parts = [part * weight for part, weight in zip(_shifted(x, kernel.shape[0], stride), weights, strict=True)]
    return functools.reduce(jnp.add, parts)


def strided_convolution(x: jax.Array, kernel: jax.Array, stride: int, precision: Precision = "highest") -> jax.Array:
    """The "SAME" convolution of images ``x [N, H, W, C_in]`` with ``kernel [S, S, C_in, C_out]`` and a stride.

    It is meant for few channels: on a CPU the S * S * C_in numbers below each position of the kernel become one vector.
    """
    if current_platform() != "cpu":
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS, precision=precision
        )
    patches = jnp.concatenate(_shifted(x, kernel.shape[0], stride), axis=-1)
    return convolution(patches, kernel.reshape(1, 1, -1, kernel.shape[-1]), precision)


def _shifted(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """The part of ``x`` below each position of a ``size`` x ``size`` kernel, row by row. Zeros come in from outside."""

    def along(length):
        outputs = -(-length // stride)
        missing = max((outputs - 1) * stride + size - length, 0)
        return outputs, (missing // 2, missing - missing // 2)

    (rows, vertical), (columns, horizontal) = along(x.shape[1]), along(x.shape[2])
    x = jnp.pad(x, ((0, 0), vertical, horizontal, (0, 0)))
    height, width = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    return [x[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
