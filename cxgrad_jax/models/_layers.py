"""The layers of networks beside normalisation: convolution, linear head, activation, modulation, standardisation.

The computation follows the dtype of the input. Parameters have that dtype, but at least float32.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.models._convolution import Precision, convolution
from cxgrad_jax.models._dtypes import wide_dtype, widen

Film = tuple[jax.Array, jax.Array]  # scale and shift, each [C]

IMAGE_STATISTICS = {  # mean and standard deviation of red, green and blue
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "efficientnet_lite": ((127 / 255,) * 3, (128 / 255,) * 3),
}


class Conv(nn.Module):
    """A ``size`` x ``size`` convolution with stride 1: ``[N, H, W, C] -> [N, H, W, features]``.

    With ``padded`` the padding is "SAME". Without it a margin of ``size // 2`` positions is lost on every side.
    """

    features: int
    size: int = 3
    use_bias: bool = False
    precision: Precision = "highest"
    padded: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.as_function(x.shape[-1], x.dtype)(x)

    @nn.compact
    def as_function(self, channels: int, dtype: jnp.dtype) -> Callable[[jax.Array], jax.Array]:
        """The layer as a pure function of an input with ``channels``. A caller may apply it to a part of the images."""
        param_dtype, shape = wide_dtype(dtype), (self.size, self.size, channels, self.features)
        kernel = kernel_param(self, shape, param_dtype).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype) if self.use_bias else None
        margin = 0 if self.padded else self.size // 2

        def convolve(x):
            x = convolution(x, kernel, self.precision)
            x = x[:, margin : x.shape[1] - margin, margin : x.shape[2] - margin] if margin else x
            return x if bias is None else x + bias.astype(dtype).reshape(1, 1, 1, -1)

        return convolve


class Head(nn.Module):
    """The linear classifier ``[N, D] -> logits [N, num_classes]``, with a bias, in float32 at least."""

    num_classes: int
    precision: Precision = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = widen(x)
        kernel = kernel_param(self, (x.shape[-1], self.num_classes), x.dtype).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), x.dtype)
        return jnp.matmul(x, kernel, precision=self.precision) + bias.astype(x.dtype)[None]


def kernel_param(module: nn.Module, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """The parameter ``kernel`` of ``module``.

    Raises:
      UserError: parameters are given whose kernel has another shape.
    """
    known: Any = module.get_variable("params", "kernel")
    if known is not None and jnp.shape(known) != shape:
        raise UserError(
            f"the parameter {'/'.join((*module.path, 'kernel'))} has shape {list(jnp.shape(known))}, but these images "
            f"and this model need {list(shape)}; give images of the size and with the channels that init was given"
        )
    initialise = nn.initializers.xavier_uniform()  # as in the official code; fans count the receptive field
    return module.param("kernel", initialise, shape, dtype)


def leaky_relu(x: jax.Array, negative_slope: float) -> jax.Array:
    """``x`` where it is positive, ``negative_slope * x`` elsewhere. At 0 the derivative is the slope, as in PyTorch."""
    return jnp.where(x > 0, x, negative_slope * x)  # flax's leaky_relu has the derivative 1 at 0, ReLU's too


def modulate(x: jax.Array, film: Film | None) -> jax.Array:
    """Feature-wise linear modulation of ``x [N, H, W, C]``: ``x * scale + shift``, or ``x`` if ``film`` is None."""
    if film is None:
        return x
    scale, shift = (values.astype(x.dtype).reshape(1, 1, 1, -1) for values in film)
    return x * scale + shift


def standardise(images: jax.Array, statistics: str) -> jax.Array:
    """Subtracts a mean from images in [0, 1] ``[N, H, W, C]`` and divides by a standard deviation.

    Both come from ``IMAGE_STATISTICS``. With ``statistics="none"`` the images stay as they are. A grey image takes the
    numbers of red.
    """
    if statistics == "none":
        return images
    channels = images.shape[-1]
    pair = (jnp.asarray(values, images.dtype)[:channels] for values in IMAGE_STATISTICS[statistics])
    mean, deviation = (values.reshape(1, 1, 1, channels) for values in pair)
    return (images - mean) / deviation
