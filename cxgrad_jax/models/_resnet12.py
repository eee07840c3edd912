"""ResNet-12: four residual blocks of three convolutions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.models._checks import check_fields, check_images
from cxgrad_jax.models._convolution import Precision
from cxgrad_jax.models._dtypes import in_dtype, widen
from cxgrad_jax.models._layers import Conv, Film, Head, leaky_relu, modulate, standardise
from cxgrad_jax.models._normalisation import Norm
from cxgrad_jax.models._pooling import max_pool


class ResNet12(nn.Module):
    """Four residual blocks, global average pooling and a linear head.

    Images ``[N, H, W, C]`` in [0, 1] give logits ``[N, num_classes]``. H and W are at least 4, or at least 16 with
    ``pooling="every_block"``.

    Attributes:
      num_classes: the number of outputs of the head, which is the way of the episodes.
      channels: the numbers of filters of the four blocks.
      pooling: ``"alfa"`` is the network released with ALFA (https://github.com/baiksung/ALFA), the only public code.
        Blocks 1 and 2 pool, block 3 pools with a margin of one row and column, and block 4 does not pool
        (84 -> 42 -> 21 -> 11 -> 11). ``"every_block"`` follows appendix B of the CxGrad paper
        (84 -> 42 -> 21 -> 10 -> 5).
      negative_slope: the slope of the activation, at least 0. 0 is ReLU, which both paper and released code use here.
      relu_output: whether the activation after each block is ReLU whatever ``negative_slope`` is, as in UNICORN-MAML's
        code (https://github.com/Han-Jia/UNICORN-MAML).
      norm, norm_epsilon, precision, image_statistics, dtype: those of ``Conv4``.

    A call may be given ``film``, a scale and a shift ``[channels[2]]``, which the third block applies after its pooling
    and before the activation.

    Raises:
      UserError: a field has a value that it cannot have; or, in a call, the images have a shape or dtype that the
        network or its parameters cannot take.
    """

    num_classes: int
    channels: tuple[int, ...] = (64, 128, 256, 512)
    pooling: str = "alfa"
    norm: str = "batch"
    negative_slope: float = 0.0
    relu_output: bool = False
    norm_epsilon: float = 1e-5
    precision: Precision = "highest"
    image_statistics: str = "none"
    dtype: Any = None

    def __post_init__(self):
        check_fields(self)
        super().__post_init__()

    def setup(self):
        self.block = [  # its parameters are block_0 ... block_3
            ResidualBlock(channels, self.norm, self.negative_slope, self.norm_epsilon, self.precision)
            for channels in self.channels
        ]
        self.head = Head(self.num_classes, self.precision)

    @property
    def smallest_image(self) -> int:
        """The least height and width of the images."""
        return 4 if self.pooling == "alfa" else 16

    @property
    def film_features(self) -> int:
        """The number of channels that ``film`` scales and shifts."""
        return self.channels[2]

    def __call__(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """Logits: ``[N, H, W, C] -> [N, num_classes]``."""
        return self.head(self.embed(x, film))

    def embed(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """The head's input, the mean over positions: ``[N, H, W, C] -> [N, D]``, with D the last of ``channels``."""
        return jnp.mean(self.feature_maps(x, film), axis=(1, 2))

    def feature_maps(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """The output of the last block: ``[N, H, W, C] -> [N, h, w, D]``."""
        x = jnp.asarray(x)
        check_images(x, self.smallest_image, self.image_statistics)
        x = in_dtype(standardise(x, self.image_statistics), self.dtype)
        for i, block in enumerate(self.block):
            x = block(x)
            # An activation that never falls commutes with max-pooling. It comes last, on a quarter of the values.
            if self.pooling == "every_block" or i < 2:
                x = max_pool(x)
            elif i == 2:
                x = max_pool(x, padding=1)
            x = leaky_relu(modulate(x, film if i == 2 else None), 0.0 if self.relu_output else self.negative_slope)
        return widen(x)


class ResidualBlock(nn.Module):
    """The sum of three 3x3 convolutions and a 1x1 shortcut, before pooling and activation: ``[N, H, W, channels]``."""

    channels: int
    norm: str
    negative_slope: float
    norm_epsilon: float
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def conv_norm(x, size, prefix, suffix):
            x = Conv(self.channels, size, precision=self.precision, name=f"{prefix}conv{suffix}")(x)
            return Norm(self.norm, self.norm_epsilon, name=f"{prefix}norm{suffix}")(x)

        shortcut = conv_norm(x, 1, "shortcut_", "")
        for i in range(3):
            x = conv_norm(x, 3, "", f"_{i}")
            if i < 2:
                x = leaky_relu(x, self.negative_slope)
        return x + shortcut
