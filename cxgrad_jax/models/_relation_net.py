"""The two networks of RelationNet: the encoder of its official code, and the relation module."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cxgrad_jax.errors import UserError
from cxgrad_jax.models._checks import BLOCKS, check_fields
from cxgrad_jax.models._conv4 import Block, Conv4
from cxgrad_jax.models._convolution import Precision
from cxgrad_jax.models._dtypes import in_dtype
from cxgrad_jax.models._layers import Head, leaky_relu

SMALL_MAP = 10  # the relation module pads its convolutions on maps with a smaller side


class RelationConv4(Conv4):
    """Conv-4 that keeps a wide map, RelationNet's own encoder (https://github.com/floodsung/LearningToCompare_FSL).

    Blocks 1 and 2 do not pad their convolutions and pool. Blocks 3 and 4 pad and do not pool. The sides of the maps are
    84 -> 41 -> 19 -> 19 -> 19. Images have at least 10 pixels a side. Attributes and errors are those of ``Conv4``; the
    official values are ``features=64, use_bias=True, negative_slope=0``.
    """

    def setup(self):
        self.block = [self.make_block(padded=i >= 2, pooled=i < 2) for i in range(BLOCKS)]
        self.head = Head(self.num_classes, self.precision)

    @property
    def smallest_image(self) -> int:
        """The least height and width of the images."""
        return 10


class RelationHead(nn.Module):
    """The relation module: from pairs of feature maps ``[M, h, w, 2 C]`` to relations before the sigmoid, ``[M]``.

    Two blocks of convolution 3x3 with C filters - normalisation - activation - max-pooling come first. A linear layer
    of ``hidden`` outputs, an activation, and a linear layer of one output follow. The convolutions do not pad
    (19 -> 8 -> 3), except on maps smaller than 10x10, which is the rule of CloserLookFewShot. A map of a single row or
    column is not pooled.

    Attributes:
      hidden: the number of outputs of the first linear layer.
      norm, use_bias, negative_slope, norm_epsilon, precision, dtype: those of ``Conv4``.

    Raises:
      UserError: a field has a value that it cannot have; or, in a call, the pairs are not ``[M, h, w, 2 C]``.
    """

    hidden: int = 8
    norm: str = "batch"
    use_bias: bool = False
    negative_slope: float = 0.01
    norm_epsilon: float = 1e-5
    precision: Precision = "highest"
    dtype: Any = None

    def __post_init__(self):
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, pairs: jax.Array) -> jax.Array:
        """Relations before the sigmoid: ``[M, h, w, 2 C] -> [M]``."""
        if pairs.ndim != 4 or pairs.shape[-1] % 2 or min(pairs.shape) < 1:
            raise UserError(f"pairs of feature maps have shape {list(pairs.shape)}; expected [M, h, w, 2 C]")
        x, padded = in_dtype(pairs, self.dtype), min(pairs.shape[1:3]) < SMALL_MAP
        for i in range(2):
            x = Block(
                features=pairs.shape[-1] // 2, norm=self.norm, use_bias=self.use_bias,
                negative_slope=self.negative_slope, norm_epsilon=self.norm_epsilon, precision=self.precision,
                padded=padded, pooled=min(x.shape[1:3]) - 2 * (not padded) >= 2, name=f"block_{i}",
            )(x)  # fmt: skip
        x = Head(self.hidden, self.precision, name="hidden")(x.reshape(x.shape[0], -1))
        return jnp.squeeze(Head(1, self.precision, name="score")(leaky_relu(x, self.negative_slope)), axis=-1)
