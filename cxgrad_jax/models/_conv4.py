"""Conv-4: the four-block convolutional network of few-shot learning."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.models._checks import BLOCKS, check_fields, check_images
from cxgrad_jax.models._convolution import Precision
from cxgrad_jax.models._dtypes import in_dtype, widen
from cxgrad_jax.models._fused import conv_norm_pool
from cxgrad_jax.models._layers import Conv, Film, Head, leaky_relu, modulate, standardise
from cxgrad_jax.models._normalisation import Norm


class Conv4(nn.Module):
    """Four blocks of convolution 3x3 - normalisation - leaky ReLU - max-pooling 2x2, then a linear head.

    Images ``[N, H, W, C]`` in [0, 1], with H and W at least 16, give logits ``[N, num_classes]``. The defaults are
    those of the official CxGrad code (Lee, Lee and Song, WACV 2022, https://arxiv.org/abs/2110.10353): 48 filters, no
    convolution bias, batch statistics, slope 0.01. The paper's text says ReLU, which is ``negative_slope=0``.

    Attributes:
      num_classes: the number of outputs of the head, which is the way of the episodes.
      features: the number of filters of every block.
      norm: the values that the statistics of the normalisation are taken over. ``"batch"`` takes images and positions;
        ``"layer"`` takes positions and channels of one image; ``"group"`` takes positions and the channels of one of 8
        groups of one image. The statistics are those of the current forward pass, in training and test alike.
      use_bias: whether the convolutions have a bias.
      negative_slope: the slope of the leaky ReLU, at least 0.
      norm_epsilon: the number that is added to the variance. CxGrad's context is learned through it alone (see
        ``cx.learners.cxgrad``).
      precision: the precision of products on accelerators: ``"default"``, ``"high"`` or ``"highest"``. A CPU always
        takes the last.
      image_statistics: ``"none"`` takes the images as they are. ``"imagenet"`` subtracts ImageNet's mean and divides by
        its standard deviation, as several official codes do.
      dtype: the dtype of the computation, such as ``"bfloat16"``. None follows the images. Parameters, the statistics
        of the normalisation, the head and all results are float32 at least.

    A call may be given ``film``, a scale and a shift ``[features]``, which the third block applies before its
    activation (CAVIA). ``init`` and ``apply`` are those of ``flax.linen.Module``.

    Raises:
      UserError: a field has a value that it cannot have; or, in a call, the images have a shape or dtype that the
        network or its parameters cannot take.
    """

    num_classes: int
    features: int = 48
    norm: str = "batch"
    use_bias: bool = False
    negative_slope: float = 0.01
    norm_epsilon: float = 1e-5
    precision: Precision = "highest"
    image_statistics: str = "none"
    dtype: Any = None

    def __post_init__(self):
        check_fields(self)
        super().__post_init__()

    def setup(self):
        self.block = [self.make_block() for _ in range(BLOCKS)]  # its parameters are block_0 ... block_3
        self.head = Head(self.num_classes, self.precision)

    def make_block(self, padded: bool = True, pooled: bool = True) -> "Block":
        """A block with the fields of this network."""
        return Block(
            features=self.features, norm=self.norm, use_bias=self.use_bias, negative_slope=self.negative_slope,
            norm_epsilon=self.norm_epsilon, precision=self.precision, padded=padded, pooled=pooled,
        )  # fmt: skip

    @property
    def smallest_image(self) -> int:
        """The least height and width of the images."""
        return 2**BLOCKS

    @property
    def film_features(self) -> int:
        """The number of channels that ``film`` scales and shifts."""
        return self.features

    def __call__(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """Logits: ``[N, H, W, C] -> [N, num_classes]``."""
        return self.head(self.embed(x, film))

    def embed(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """The head's input, the flattened feature maps: ``[N, H, W, C] -> [N, D]``."""
        return self.feature_maps(x, film).reshape(x.shape[0], -1)

    def feature_maps(self, x: jax.Array, film: Film | None = None) -> jax.Array:
        """The output of the last block: ``[N, H, W, C] -> [N, h, w, features]``."""
        x = jnp.asarray(x)
        check_images(x, self.smallest_image, self.image_statistics)
        x = in_dtype(standardise(x, self.image_statistics), self.dtype)
        for i, block in enumerate(self.block):
            x = block(x, film if i == 2 else None)
        return widen(x)


class Block(nn.Module):
    """One block of Conv-4: ``[N, H, W, C] -> [N, H // 2, W // 2, features]``.

    Without ``padded`` the convolution drops a margin of one position on every side. Without ``pooled`` the maps are not
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
        norm = Norm(self.norm, self.norm_epsilon, name="norm")
        # An activation that never falls commutes with max-pooling. It comes last, on a quarter of the values.
        x = conv_norm_pool(conv, norm, x) if self.pooled else norm(conv(x))
        return leaky_relu(modulate(x, film), self.negative_slope)
