"""Conv-4: the four-block convolutional network of few-shot learning."""

import flax.linen as nn
import jax
from flax.linen import leaky_relu

from cxgrad_jax.models._layers import Conv, Film, Head, Norm, Precision, modulate, standardise


class Conv4(nn.Module):
    """Four blocks of convolution 3x3 - normalisation - leaky ReLU - max-pooling 2x2, then a linear head.

    ``[N, H, W, C] -> logits [N, num_classes]``; H and W at least 16. The defaults are the official CxGrad network:
    48 filters, no convolution bias, batch statistics, slope 0.01. The paper's text says ReLU: ``negative_slope=0``.

    Attributes:
      num_classes: outputs of the head, the way of the episodes.
      features: filters of every block.
      norm: ``"batch"``, ``"layer"`` or ``"group"`` (see ``layers.Norm``).
      use_bias: whether the convolutions have a bias.
      negative_slope: of the leaky ReLU.
      norm_epsilon: added to the variance. All task-conditioning of CxGrad flows through it (see ``learners.cxgrad``).
      precision: of products on accelerators.
      image_statistics: ``"none"``: images in [0, 1] as they are; ``"imagenet"``: minus ImageNet's mean, over its
        standard deviation, as several official codes have it.

    A call may be given ``film``, a scale and a shift ``[features]`` of the third block before its activation (CAVIA).
    """

    num_classes: int
    features: int = 48
    norm: str = "batch"
    use_bias: bool = False
    negative_slope: float = 0.01
    norm_epsilon: float = 1e-5
    precision: Precision = "highest"
    image_statistics: str = "none"

    def setup(self):
        self.block = [self.make_block() for _ in range(4)]  # its parameters are block_0 ... block_3
        self.head = Head(self.num_classes, self.precision)

    def make_block(self, padded: bool = True, pooled: bool = True) -> "Block":
        """A block with the fields of this network."""
        return Block(
            self.features, self.norm, self.use_bias, self.negative_slope, self.norm_epsilon, self.precision,
            padded, pooled,
        )  # fmt: skip

    @property
    def film_features(self) -> int:
        """Channels that ``film`` scales and shifts."""
        return self.features

    def __call__(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        return self.head(self.embed(x, film))

    def embed(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """What the head sees, the flattened feature maps: ``[N, H, W, C] -> [N, D]``."""
        return self.feature_maps(x, film).reshape(x.shape[0], -1)

    def feature_maps(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """The output of the last block: ``[N, H, W, C] -> [N, h, w, features]``."""
        x = standardise(x, self.image_statistics)
        for i, block in enumerate(self.block):
            x = block(x, film if i == 2 else None)
        return x


class Block(nn.Module):
    """One block of Conv-4: ``[N, H, W, C] -> [N, H // 2, W // 2, features]``.

    Without ``padded`` the convolution drops a margin of one position on every side, without ``pooled`` the map is not
    halved.
    """

    features: int
    norm: str
    use_bias: bool
    negative_slope: float
    norm_epsilon: float
    precision: Precision
    padded: bool = True
    pooled: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        conv = Conv(self.features, 3, self.use_bias, self.precision, self.padded, name="conv")
        # A monotone activation commutes with max-pooling, so it comes last, on a quarter of the values.
        x = Norm(self.norm, self.norm_epsilon, pool=self.pooled, name="norm")(x, conv.function_of(x))
        return leaky_relu(modulate(x, film), self.negative_slope)
