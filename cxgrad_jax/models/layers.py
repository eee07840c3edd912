"""Convolution, pooling and normalisation whose first- and second-order derivatives are all fast.

Meta-learning differentiates through gradients, so a layer is only as fast as its second derivative. On a CPU XLA's own
kernel gradient and pooling gradient are several times slower than their forward passes; the forms used here are not.
All layers take ``[N, H, W, C]`` arrays and follow the dtype of their input.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Precision = str | None


def _lax_convolution(x: jax.Array, kernel: jax.Array, precision: Precision) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, precision=precision)


def _shifted(x: jax.Array, size: int) -> list[jax.Array]:
    """The ``size * size`` views of ``x`` that a "SAME" kernel of that size multiplies, in HW order, each like ``x``."""
    _, height, width, _ = x.shape
    margin = size // 2
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]


# The convolution is bilinear in (input, kernel), and so is its kernel gradient in (input, output gradient). The
# derivatives of each are again one of the two, so two custom rules cover every order of differentiation.


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, kernel: jax.Array, precision: Precision) -> jax.Array:
    return _lax_convolution(x, kernel, precision)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x: jax.Array, g: jax.Array, size: int, precision: Precision) -> jax.Array:
    """Gradient of ``sum(convolution(x, kernel) * g)`` by the kernel, ``[size, size, C_in, C_out]``, as products."""
    channels_in, channels_out = x.shape[-1], g.shape[-1]
    rows = g.reshape(-1, channels_out)
    views = _shifted(x, size)
    if channels_in < 16:  # too thin for products of their own: one product of all views side by side
        views = [jnp.concatenate(views, axis=-1)]
    products = [jnp.matmul(view.reshape(-1, view.shape[-1]).T, rows, precision=precision) for view in views]
    return jnp.concatenate(products).reshape(size, size, channels_in, channels_out)


def _transposed(kernel: jax.Array) -> jax.Array:
    """The kernel whose convolution is the input gradient: turned by 180 degrees, channels exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _convolution_forward(x, kernel, precision):
    return _convolution(x, kernel, precision), (x, kernel)


def _convolution_backward(precision, residuals, g):
    x, kernel = residuals
    return _convolution(g, _transposed(kernel), precision), _kernel_gradient(x, g, kernel.shape[0], precision)


def _kernel_gradient_forward(x, g, size, precision):
    return _kernel_gradient(x, g, size, precision), (x, g)


def _kernel_gradient_backward(size, precision, residuals, cotangent):
    x, g = residuals
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
    return _lax_convolution(x, kernel, precision)


def max_pool(x: jax.Array, padding: int = 0) -> jax.Array:
    """2x2 max-pooling with stride 2 of ``x [N, H, W, C]``; odd last rows and columns are dropped.

    ``padding`` rows and columns of -inf are put on every side first. Where values tie, they share the gradient.
    """
    if padding:
        margin = (padding, padding)
        x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)), constant_values=-jnp.inf)
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    # Not x.max(axis=(2, 4)): its gradient compares recomputed values for equality and is wrong under jit.
    rows = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Glorot's uniform initialiser, fans counted with the receptive field: the official code's for every weight."""
    return nn.initializers.xavier_uniform()(key, shape, dtype)


class Conv(nn.Module):
    """A ``size`` x ``size`` convolution, stride 1, "SAME" padding: ``[N, H, W, C] -> [N, H, W, features]``."""

    features: int
    size: int = 3
    use_bias: bool = False
    precision: Precision = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        x = convolution(x, self.param("kernel", xavier_uniform, shape, x.dtype), self.precision)
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        return x


class Norm(nn.Module):
    """Normalisation by the statistics of the current forward pass, then a learned scale and shift per channel.

    ``(x - mean) / sqrt(variance + epsilon) * scale + bias`` with the biased variance. The statistics are taken over
    ``kind="batch"``: images and positions; ``"layer"``: positions and channels of one image; ``"group"``: positions
    and the channels of one of ``num_groups`` groups of one image. No running averages exist: training, validation
    and test behave alike, as in the official code.
    """

    kind: str = "batch"
    epsilon: float = 1e-5
    num_groups: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), x.dtype)
        if self.kind == "batch":
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
        return x * factor + (bias - mean * factor)


class Head(nn.Module):
    """The linear classifier: ``[N, D] -> logits [N, num_classes]``, with a bias."""

    num_classes: int
    precision: Precision = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", xavier_uniform, (x.shape[-1], self.num_classes), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), x.dtype)
        return jnp.matmul(x, kernel, precision=self.precision) + bias
