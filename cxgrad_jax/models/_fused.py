"""Convolution, normalisation and pooling as one operation.

On a CPU the feature maps of the first layer are larger than the caches, and cheap to compute again. So a CPU takes the
images in parts. It pools the feature maps of a part while they are in the caches, and then forgets them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from cxgrad_jax.models._convolution import is_few
from cxgrad_jax.models._dtypes import wide_dtype
from cxgrad_jax.models._layers import Conv
from cxgrad_jax.models._normalisation import Norm, scale_and_shift, variance_of
from cxgrad_jax.models._pooling import max_pool
from cxgrad_jax.platforms import current_platform

PART_BYTES = 8_000_000  # the most that the first layer's feature maps of a part take, to stay in the caches of a CPU


def conv_norm_pool(conv: Conv, norm: Norm, x: jax.Array) -> jax.Array:
    """``norm(conv(x), pool=True)``, in the way that is fastest: ``[N, H, W, C] -> [N, H // 2, W // 2, features]``."""
    convolve = conv.as_function(x.shape[-1], x.dtype)
    maps = jax.eval_shape(convolve, x)
    parts = num_parts(x, maps) if norm.kind == "batch" and norm.statistics() is None else 1
    if parts == 1:
        return norm(convolve(x), pool=True)
    scale, bias = norm.weights(maps)
    pooled, mean, mean_of_squares = _pool_in_parts(convolve, x, parts, scale)
    mean, variance = norm.record((mean, variance_of(mean, mean_of_squares)), maps.size // maps.shape[-1])
    factor = scale * lax.rsqrt(variance + norm.epsilon)
    return scale_and_shift(pooled, mean, factor, bias)


def num_parts(x: jax.Array, maps: jax.ShapeDtypeStruct) -> int:
    """The number of equal parts into which to divide ``x [N, H, W, C]``, from which a layer makes ``maps``.

    It is 1 on an accelerator, after the first layer, and in half precision, whose variance takes two passes.
    """
    half = wide_dtype(x.dtype) != x.dtype
    if current_platform() != "cpu" or half or not is_few(x.shape[-1]):
        return 1
    least = -(-maps.size * maps.dtype.itemsize // PART_BYTES)
    return next(parts for parts in range(min(least, len(x)), len(x) + 1) if len(x) % parts == 0)


def _pool_in_parts(
    layer: Callable[[jax.Array], jax.Array], x: jax.Array, parts: int, factor: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``max_pool(layer(x), factor=factor)``, the mean of ``layer(x)`` and the mean of its squares, both ``[C]``.

    One part follows the other. The outputs of ``layer`` are not kept, and derivatives compute them again.
    """

    def pool_part(images):
        y = layer(images)
        return max_pool(y, factor=factor), jnp.mean(y, axis=(0, 1, 2)), jnp.mean(y * y, axis=(0, 1, 2))

    @jax.checkpoint  # the inner checkpoint is for the first derivative, this one for the second
    def pool_all(images):
        return lax.map(jax.checkpoint(pool_part), images)

    pooled, mean, mean_of_squares = pool_all(x.reshape(parts, -1, *x.shape[1:]))
    return pooled.reshape(-1, *pooled.shape[2:]), jnp.mean(mean, axis=0), jnp.mean(mean_of_squares, axis=0)
