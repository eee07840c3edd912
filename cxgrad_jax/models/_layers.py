"""Convolution, pooling and normalisation whose first- and second-order derivatives are all fast.

Meta-learning differentiates through gradients, so a layer is only as fast as its second derivative. On a CPU XLA's own
kernel gradient and pooling gradient are several times slower than their forward passes; the forms used here are not.
All layers take ``[N, H, W, C]`` arrays and follow the dtype of their input.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Precision = str | None
Film = tuple[jax.Array, jax.Array]  # scale and shift, each [C]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of red, green and blue
IMAGES_AT_ONCE = 15  # of a kernel gradient on a CPU
FEW_CHANNELS = 3  # most that images have, and fewer than feature maps
PART_BYTES = 8_000_000  # of a first layer's feature maps on a CPU, so that they stay in its caches


def _lax_convolution(x: jax.Array, kernel: jax.Array, precision: Precision, margin: int) -> jax.Array:
    margins, dimensions = ((margin, margin), (margin, margin)), ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), margins, dimension_numbers=dimensions, precision=precision)


def _neighbours(x: jax.Array, size: int) -> list[jax.Array]:
    """``x [N, H, W, C]`` moved by each offset of a ``size`` x ``size`` kernel, zeros beyond the margins."""
    height, width, margin = x.shape[1], x.shape[2], (size // 2, size // 2)
    x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    return [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]


# The convolution is bilinear in (input, kernel), and so is its kernel gradient in (input, output gradient). The
# derivatives of each are again one of the two, so two custom rules cover every order of differentiation.
#
# What a forward rule keeps has an axis more than its inputs: jax (0.10) takes kept inputs by their number, and a wrong
# one in a scan that is differentiated twice.


def _keep(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jnp.expand_dims(array, 0) for array in arrays)


def _kept(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return tuple(jnp.squeeze(array, 0) for array in arrays)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, kernel: jax.Array, precision: Precision) -> jax.Array:
    size, _, channels, features = kernel.shape
    if size > 1 and channels <= FEW_CHANNELS:
        # The compiler's convolution gathers an image's three channels number by number, in every inner step anew.
        patches = jnp.concatenate(_neighbours(x, size), axis=-1)
        return _lax_convolution(patches, kernel.reshape(1, 1, -1, features), precision, 0)
    return _lax_convolution(x, kernel, precision, size // 2)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x: jax.Array, g: jax.Array, size: int, precision: Precision) -> jax.Array:
    """Gradient of ``sum(convolution(x, kernel) * g)`` by the kernel, ``[size, size, C_in, C_out]``.

    It is the convolution of ``x`` with ``g`` where channels and images change places. Written with its transpositions,
    because the compiler makes them (and so reaches its fast convolution) only outside of loops. A few images at a
    time: what is transposed then stays in the caches.
    """

    def of_images(x, g):
        channels, features = x.shape[-1], g.shape[-1]
        if channels <= FEW_CHANNELS:  # a product of matrices, which is fastest written as a convolution
            moved = jnp.stack([shifted.transpose(3, 0, 1, 2) for shifted in _neighbours(x, size)])
            left, right = moved.reshape(size * size * channels, 1, 1, -1), g.reshape(1, 1, -1, features)
            return _lax_convolution(left, right, precision, 0).reshape(size, size, channels, features)
        rows = _lax_convolution(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), precision, size // 2)
        return rows.transpose(1, 2, 0, 3)

    images = x.shape[0]
    chunks = -(-images // IMAGES_AT_ONCE)
    if chunks == 1:
        return of_images(x, g)
    missing = -images % chunks  # images of zeros add nothing

    def split(array):
        array = jnp.pad(array, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else array
        return array.reshape(chunks, -1, *array.shape[1:])

    return jnp.sum(lax.map(lambda pair: of_images(*pair), (split(x), split(g))), axis=0)


def _transposed(kernel: jax.Array) -> jax.Array:
    """The kernel whose convolution is the input gradient: turned by 180 degrees, channels exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _convolution_forward(x, kernel, precision):
    return _convolution(x, kernel, precision), _keep(x, kernel)


def _convolution_backward(precision, residuals, g):
    x, kernel = _kept(residuals)
    return _convolution(g, _transposed(kernel), precision), _kernel_gradient(x, g, kernel.shape[0], precision)


def _kernel_gradient_forward(x, g, size, precision):
    return _kernel_gradient(x, g, size, precision), _keep(x, g)


def _kernel_gradient_backward(size, precision, residuals, cotangent):
    x, g = _kept(residuals)
    return _convolution(g, _transposed(cotangent), precision), _convolution(x, cotangent, precision)


_convolution.defvjp(_convolution_forward, _convolution_backward)
_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)


def convolution(x: jax.Array, kernel: jax.Array, precision: Precision = "highest") -> jax.Array:
    """Stride-1 "SAME" convolution (cross-correlation) of ``x [N, H, W, C_in]`` with an odd square kernel.

    Args:
      x: images or feature maps.
      kernel: ``[S, S, C_in, C_out]``, S odd.
      precision: of the products on accelerators, as in ``jax.lax``; a CPU always uses the full input precision.

    Returns:
      ``[N, H, W, C_out]``. Equal to ``jax.lax.conv_general_dilated`` up to rounding, in value and in derivatives of
      every order (reverse mode only on a CPU).
    """
    if jax.default_backend() == "cpu":
        return _convolution(x, kernel, precision)
    return _lax_convolution(x, kernel, precision, kernel.shape[0] // 2)


def max_pool(x: jax.Array, padding: int = 0, factor: jax.Array | None = None) -> jax.Array:
    """2x2 max-pooling with stride 2 of ``x [N, H, W, C]``; odd last rows and columns are dropped.

    Args:
      x: feature maps.
      padding: rows and columns of -inf put on every side first.
      factor: ``[C]`` or ``[N, 1, 1, C]``, what the pooled values will be multiplied by. Where it is negative the least
        value of a window is picked, so that ``max_pool(x, factor=f) * f == max_pool(x * f)``.

    Returns:
      ``[N, H // 2, W // 2, C]``. Of equal values the first in reading order is picked, and has the gradient.
    """
    if padding:
        margin = (padding, padding)
        x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)), constant_values=-jnp.inf)
    best, *others = _windows(lax.stop_gradient(x if factor is None else jnp.where(factor < 0, -x, x)))
    position = jnp.zeros(best.shape, jnp.uint8)
    for i, candidate in enumerate(others, start=1):
        position = jnp.where(candidate > best, jnp.uint8(i), position)
        best = jnp.maximum(candidate, best)
    return _pick(x, position, x.shape[1:3])


def _windows(x: jax.Array) -> list[jax.Array]:
    """The four positions of every 2x2 window, each ``[N, H // 2, W // 2, C]``, in reading order."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    return [x[:, :, i, :, j] for i in range(2) for j in range(2)]


# Picking one value of every window is linear, and its transpose puts a value into every window. Without these rules the
# derivatives of both would pad and add four arrays of the size of x.


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pick(x: jax.Array, position: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Of every window of ``x [N, *size, C]`` the value at ``position`` (0 to 3): ``[N, H // 2, W // 2, C]``."""
    first, second, third, fourth = _windows(x)
    upper, lower = jnp.where(position == 0, first, second), jnp.where(position == 2, third, fourth)
    return jnp.where(position < 2, upper, lower)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _place(values: jax.Array, position: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Feature maps ``[N, *size, C]`` of zeros but for ``values`` at ``position`` of every window."""
    n, height, width, channels = values.shape
    chosen = position[:, :, None, :, None] == jnp.arange(4, dtype=jnp.uint8).reshape(2, 1, 2, 1)
    spread = jnp.where(chosen, values[:, :, None, :, None], 0).reshape(n, 2 * height, 2 * width, channels)
    odd = ((0, 0), (0, size[0] - 2 * height), (0, size[1] - 2 * width), (0, 0))
    return jnp.pad(spread, odd) if any(extra for _, extra in odd) else spread


_pick.defvjp(
    lambda x, position, size: (_pick(x, position, size), _keep(position)),
    lambda size, kept, g: (_place(g, *_kept(kept), size), None),
)
_place.defvjp(
    lambda values, position, size: (_place(values, position, size), _keep(position)),
    lambda size, kept, g: (_pick(g, *_kept(kept), size), None),
)


def modulate(x: jax.Array, film: Film | None) -> jax.Array:
    """Feature-wise linear modulation of ``x [..., C]``: ``x * scale + shift``, or ``x`` where ``film`` is None."""
    return x if film is None else x * film[0] + film[1]


def standardise(images: jax.Array, statistics: str) -> jax.Array:
    """Images in [0, 1] ``[N, H, W, C]`` minus the mean over the standard deviation of ``"imagenet"``; or of ``"none"``.

    A grey image takes the figures of red.
    """
    if statistics == "none":
        return images
    mean, deviation = (jnp.asarray(values, images.dtype)[: images.shape[-1]] for values in IMAGENET)
    return (images - mean) / deviation


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Glorot's uniform initialiser, fans counted with the receptive field: the official code's for every weight."""
    return nn.initializers.xavier_uniform()(key, shape, dtype)


class Conv(nn.Module):
    """A ``size`` x ``size`` convolution, stride 1, "SAME" padding: ``[N, H, W, C] -> [N, H, W, features]``.

    Without ``padded`` it drops a margin of ``size // 2`` positions on every side.
    """

    features: int
    size: int = 3
    use_bias: bool = False
    precision: Precision = "highest"
    padded: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function_of(x)(x)

    @nn.compact
    def function_of(self, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
        """The layer for inputs like ``x`` as a function of them, to be called later and on some of the images."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", xavier_uniform, shape, x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype) if self.use_bias else None
        margin = 0 if self.padded else self.size // 2

        def convolve(x):
            x = convolution(x, kernel, self.precision)
            x = x[:, margin : x.shape[1] - margin, margin : x.shape[2] - margin] if margin else x
            return x if bias is None else x + bias

        return convolve


class Norm(nn.Module):
    """Normalisation by the statistics of the current forward pass, then a learned scale and shift per channel.

    ``(x - mean) / sqrt(variance + epsilon) * scale + bias`` with the biased variance. The statistics are taken over
    ``kind="batch"``: images and positions; ``"layer"``: positions and channels of one image; ``"group"``: positions
    and the channels of one of ``num_groups`` groups of one image. No running averages exist: training, validation
    and test behave alike, as in the official code.

    With ``pool`` 2x2 max-pooling follows. It is done first, which gives the same: scale and shift then touch a quarter
    of the values.

    A call takes feature maps, or ``layer``, what makes them of ``x``, such as a convolution.
    """

    kind: str = "batch"
    epsilon: float = 1e-5
    num_groups: int = 8
    pool: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, layer: Callable[[jax.Array], jax.Array] = lambda x: x) -> jax.Array:
        shape = jax.eval_shape(layer, x).shape
        channels = shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), x.dtype)
        parts = _num_parts(x, shape) if self.kind == "batch" and self.pool else 1
        if parts == 1:
            x = layer(x)
        if parts > 1:
            x, mean, mean_of_squares = _pool_in_parts(layer, x, parts, scale)
        elif self.kind == "batch":
            mean = jnp.mean(x, axis=(0, 1, 2))
            mean_of_squares = jnp.mean(x * x, axis=(0, 1, 2))
        else:
            groups = 1 if self.kind == "layer" else self.num_groups
            grouped = x.reshape(x.shape[0], -1, groups, channels // groups)
            per_channel = partial(jnp.repeat, repeats=channels // groups, axis=-1)
            mean = per_channel(jnp.mean(grouped, axis=(1, 3)))[:, None, None]
            mean_of_squares = per_channel(jnp.mean(grouped * grouped, axis=(1, 3)))[:, None, None]
        # One multiply-add an element: a third of the time of the textbook form, at every order of differentiation.
        variance = jnp.maximum(mean_of_squares - mean * mean, 0)
        factor = scale * lax.rsqrt(variance + self.epsilon)
        x = max_pool(x, factor=factor) if self.pool and parts == 1 else x
        return x * factor + (bias - mean * factor)


def _num_parts(x: jax.Array, shape: tuple[int, ...]) -> int:
    """Into how many parts to divide ``x [N, H, W, C]``, of which a layer makes feature maps of ``shape``.

    More than one on a CPU, for the sake of memory, if these are larger than its caches and cheap to compute again: the
    first layer's.
    """
    if jax.default_backend() != "cpu" or x.shape[-1] > FEW_CHANNELS:
        return 1
    least = -(-math.prod(shape) * x.dtype.itemsize // PART_BYTES)
    return next(parts for parts in range(min(least, len(x)), len(x) + 1) if len(x) % parts == 0)


def _pool_in_parts(
    layer: Callable[[jax.Array], jax.Array], x: jax.Array, parts: int, factor: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``layer(x)`` pooled as by ``max_pool(..., factor=factor)``, its mean and the mean of its squares, ``[C]``.

    One part follows the other, and what ``layer`` makes of it is not kept: derivatives compute it again.
    """

    def of_part(images):
        y = layer(images)
        return max_pool(y, factor=factor), jnp.mean(y, axis=(0, 1, 2)), jnp.mean(y * y, axis=(0, 1, 2))

    @jax.checkpoint  # the inner one is for the first derivative, this one for the second
    def of_all(images):
        return lax.map(jax.checkpoint(of_part), images)

    pooled, mean, mean_of_squares = of_all(x.reshape(parts, -1, *x.shape[1:]))
    return pooled.reshape(-1, *pooled.shape[2:]), jnp.mean(mean, axis=0), jnp.mean(mean_of_squares, axis=0)


class Head(nn.Module):
    """The linear classifier: ``[N, D] -> logits [N, num_classes]``, with a bias."""

    num_classes: int
    precision: Precision = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", xavier_uniform, (x.shape[-1], self.num_classes), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), x.dtype)
        return jnp.matmul(x, kernel, precision=self.precision) + bias
