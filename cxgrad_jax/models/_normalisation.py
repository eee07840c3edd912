"""Normalisation by the statistics of the current forward pass.

It costs one multiplication and one addition for each element, at every order of differentiation. The textbook form
takes three times as long. If pooling follows, the pooling is done first, so that scale and shift touch a quarter of the
values.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cxgrad_jax.errors import UserError
from cxgrad_jax.models._dtypes import wide_dtype, widen
from cxgrad_jax.models._pooling import max_pool

GROUPS = 8  # the number of groups of channels in group normalisation
COLLECTION = "batch_stats"  # flax's collection of means and variances
MOMENTUM = 0.9  # the share of the old value in a running average; PyTorch calls it 0.1


class Norm(nn.Module):
    """Normalises ``x [N, H, W, C]``, then scales and shifts every channel by learned numbers.

    It computes ``(x - mean) / sqrt(variance + epsilon) * scale + bias`` with the biased variance, in float32 or better,
    and returns it in the dtype of ``x``. With ``pool`` a 2x2 max-pooling follows.

    If ``apply`` is given flax's collection ``"batch_stats"``, ``kind="batch"`` takes its statistics from there.
    Otherwise they are those of the batch, in training, validation and test alike, as in the official code. An ``apply``
    in which the collection is mutable normalises by the batch and returns its statistics. If the collection is given
    too, it returns running averages: the given ones, moved by a tenth towards the batch's mean and unbiased variance,
    which is PyTorch's default.

    Attributes:
      kind: the values that the statistics are taken over. ``"batch"`` takes images and positions; ``"layer"`` takes
        positions and channels of one image; ``"group"`` takes positions and the channels of one of 8 groups of one
        image.
      epsilon: the number that is added to the variance.

    Raises:
      UserError: the groups do not divide the channels.
    """

    kind: str = "batch"
    epsilon: float = 1e-5

    def __call__(self, x: jax.Array, pool: bool = False) -> jax.Array:
        groups = {"batch": 0, "layer": 1, "group": GROUPS}[self.kind]
        mean, variance = self.statistics() or self.record(moments(x, groups), x.size // x.shape[-1])
        scale, bias = self.weights(x)
        inverse = lax.rsqrt(variance + self.epsilon)
        factor = inverse * scale.reshape((1,) * (inverse.ndim - 1) + (-1,))
        return scale_and_shift(max_pool(x, factor=factor) if pool else x, mean, factor, bias)

    def statistics(self) -> tuple[jax.Array, jax.Array] | None:
        """The given mean and variance to normalise by, each ``[C]``. None means those of the batch."""
        if self.kind != "batch" or self.is_mutable_collection(COLLECTION) or not self.has_variable(COLLECTION, "mean"):
            return None
        return self.get_variable(COLLECTION, "mean"), self.get_variable(COLLECTION, "var")

    def record(self, moments: tuple[jax.Array, jax.Array], count: int) -> tuple[jax.Array, jax.Array]:
        """Returns ``moments`` of the batch, and records them if the collection is mutable.

        If the collection holds running averages, it is these, moved by ``moments``, that are recorded. The moments come
        from ``count`` values of each channel.
        """
        if self.kind == "batch" and self.is_mutable_collection(COLLECTION) and not self.is_initializing():
            recorded = moments
            if self.has_variable(COLLECTION, "mean"):
                new = moments[0], moments[1] * (count / max(count - 1, 1))
                old = (self.get_variable(COLLECTION, name) for name in ("mean", "var"))
                recorded = [MOMENTUM * o + (1 - MOMENTUM) * n for o, n in zip(old, new, strict=True)]
            for name, value in zip(("mean", "var"), recorded, strict=True):
                self.put_variable(COLLECTION, name, value)
        return moments

    @nn.compact
    def weights(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The learned scale and bias of feature maps like ``x [..., C]``, each ``[C]``, in float32 or better."""
        channels, dtype = x.shape[-1:], wide_dtype(x.dtype)
        scale = self.param("scale", nn.initializers.ones, channels, dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, dtype)
        return scale.astype(dtype), bias.astype(dtype)


def moments(x: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of ``x [N, H, W, C]`` in float32 or better.

    Args:
      x: feature maps.
      groups: 0 gives statistics over images and positions, ``[C]``. Another number is that of the groups of channels.
        It gives statistics of each image and group, repeated for each channel of the group: ``[N, 1, 1, C]``.
    """
    channels = x.shape[-1]
    if groups and channels % groups:
        raise UserError(f"norm is 'group' with {groups} groups, which do not divide {channels} channels")

    def divide(values):
        return values.reshape(len(values), -1, groups, channels // groups) if groups else values

    def mean_of(divided):
        if not groups:
            return jnp.mean(divided, axis=(0, 1, 2))
        return jnp.repeat(jnp.mean(divided, axis=(1, 3)), channels // groups, axis=-1)[:, None, None]

    wide = widen(x)
    divided = divide(wide)
    mean = mean_of(divided)
    if wide.dtype != x.dtype:  # half precision is for accelerators, where a second pass costs little
        return mean, mean_of(divide((wide - _as_maps(mean)) ** 2))
    return mean, variance_of(mean, mean_of(divided * divided))


def variance_of(mean: jax.Array, mean_of_squares: jax.Array) -> jax.Array:
    """The biased variance.

    In float32 on a CPU its error is below 1 % if the mean is below 150 standard deviations (40 before jax 0.10).
    """
    return jnp.maximum(mean_of_squares - mean * mean, 0)


def scale_and_shift(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    """``(x - mean) * factor + bias``, computed in the dtype of ``factor`` and returned in that of ``x``.

    ``mean`` and ``factor`` are ``[C]`` or ``[N, 1, 1, C]``, and ``bias`` is ``[C]``.
    """
    mean, factor, bias = (_as_maps(values) for values in (mean, factor, bias))
    return (x.astype(factor.dtype) * factor + (bias - mean * factor)).astype(x.dtype)


def _as_maps(values: jax.Array) -> jax.Array:
    """Returns ``values [C]`` as ``[1, 1, 1, C]``, and ``[N, 1, 1, C]`` as they are."""
    return values.reshape(-1, 1, 1, values.shape[-1])
