"""The network of R2-D2's official code: four blocks of rising width, and features of the last two."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.models._checks import BLOCKS, check_fields, check_images
from cxgrad_jax.models._conv4 import Block
from cxgrad_jax.models._convolution import Precision
from cxgrad_jax.models._dtypes import in_dtype, widen
from cxgrad_jax.models._layers import Head, standardise
from cxgrad_jax.models._pooling import max_pool_stride_1


class R2D2Conv4(nn.Module):
    """R2-D2's own backbone (https://github.com/bertinetto/r2d2), and a linear head for learners that need one.

    Blocks 1 to 3 are those of Conv-4: convolution 3x3 - normalisation - max-pooling 2x2 - leaky ReLU. Block 4 pools
    with stride 1. The features are the outputs of blocks 3 and 4 side by side. The outputs of block 3 are pooled once
    more, 2x2 with stride 1, so that both have one size: 9x9 for images of 84 pixels, 3x3 for 32. The code's dropout
    after blocks 3 and 4 is not offered.

    Images ``[N, H, W, C]`` in [0, 1], with H and W at least 16, give logits ``[N, num_classes]``.

    Attributes:
      num_classes: the number of outputs of the head, which is the way of the episodes.
      channels: the numbers of filters of the four blocks. R2-D2's smaller network has 64 in each.
      norm, use_bias, negative_slope, norm_epsilon, precision, image_statistics, dtype: those of ``Conv4``.

    Raises:
      UserError: a field has a value that it cannot have; or, in a call, the images have a shape or dtype that the
        network or its parameters cannot take.
    """

    num_classes: int
    channels: tuple[int, ...] = (96, 192, 384, 512)
    norm: str = "batch"
    use_bias: bool = True
    negative_slope: float = 0.1
    norm_epsilon: float = 1e-5
    precision: Precision = "highest"
    image_statistics: str = "none"
    dtype: Any = None

    def __post_init__(self):
        check_fields(self)
        super().__post_init__()

    def setup(self):
        self.block = [  # its parameters are block_0 ... block_3
            Block(
                features=channels, norm=self.norm, use_bias=self.use_bias, negative_slope=self.negative_slope,
                norm_epsilon=self.norm_epsilon, precision=self.precision, pooled=i < BLOCKS - 1,
            )
            for i, channels in enumerate(self.channels)
        ]  # fmt: skip
        self.head = Head(self.num_classes, self.precision)

    @property
    def smallest_image(self) -> int:
        """The least height and width of the images."""
        return 2**BLOCKS

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits: ``[N, H, W, C] -> [N, num_classes]``."""
        return self.head(self.embed(x))

    def embed(self, x: jax.Array) -> jax.Array:
        """The head's input, the flattened feature maps: ``[N, H, W, C] -> [N, D]``."""
        return self.feature_maps(x).reshape(x.shape[0], -1)

    def feature_maps(self, x: jax.Array) -> jax.Array:
        """The outputs of blocks 3 and 4: ``[N, H, W, C] -> [N, h, w, channels[2] + channels[3]]``."""
        x = jnp.asarray(x)
        check_images(x, self.smallest_image, self.image_statistics)
        x = in_dtype(standardise(x, self.image_statistics), self.dtype)
        for block in self.block[:-1]:
            x = block(x)
        levels = x, self.block[-1](x)
        return widen(jnp.concatenate([max_pool_stride_1(level) for level in levels], axis=-1))
