"""EfficientNet-Lite: mobile inverted bottlenecks without squeeze-and-excitation, for photographs."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.models._checks import check_fields, check_images
from cxgrad_jax.models._convolution import Precision
from cxgrad_jax.models._depthwise import depthwise_convolution, strided_convolution
from cxgrad_jax.models._dtypes import in_dtype, wide_dtype, widen
from cxgrad_jax.models._layers import Conv, Head, kernel_param, standardise
from cxgrad_jax.models._normalisation import Norm

# For each stage: blocks, size of the depthwise kernel, stride of the first block, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
VARIANTS = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}  # factors of filters and blocks; image size
STEM, FEATURES = 32, 1280  # filters before and after the stages, the same in all variants
DIVISOR = 8  # divides every number of filters


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite 0, 1 or 2, with a linear head.

    EfficientNet (M. Tan and Q. V. Le, ICML 2019, https://arxiv.org/abs/1905.11946) without squeeze-and-excitation and
    with ReLU6: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.

    Images ``[N, H, W, 3]`` in [0, 1], with H and W at least 32, give logits ``[N, num_classes]``.
    ``cx.photos.pretrained`` has weights from ImageNet. Every convolution has TensorFlow's "SAME" padding.

    If ``apply`` is given flax's collection ``"batch_stats"``, as with pretrained weights, batch normalisations take the
    means and variances there. Otherwise they take the statistics of the batch.

    Attributes:
      num_classes: the number of outputs of the head.
      variant: 0, 1 or 2, which were made for images of 224, 240 and 260 pixels a side (``image_size``).
      norm_epsilon: the number that is added to the variance.
      image_statistics: ``"efficientnet_lite"`` subtracts 127 / 255 from the images and divides by 128 / 255, as the
        pretrained weights expect. ``"imagenet"`` and ``"none"`` are those of ``Conv4``.
      precision, dtype: those of ``Conv4``.

    Raises:
      UserError: a field has a value that it cannot have; or, in a call, the images have a shape or dtype that the
        network or its parameters cannot take.
    """

    num_classes: int = 1000
    variant: int = 0
    norm_epsilon: float = 1e-3
    precision: Precision = "highest"
    image_statistics: str = "efficientnet_lite"
    dtype: Any = None

    def __post_init__(self):
        check_fields(self)
        super().__post_init__()

    def setup(self):
        self.stem = Unit(STEM, 3, 2, self.norm_epsilon, self.precision)
        self.block = [  # its parameters are block_0 ...
            InvertedBottleneck(*each, self.norm_epsilon, self.precision) for each in blocks_of(self.variant)
        ]
        self.top = Unit(FEATURES, 1, 1, self.norm_epsilon, self.precision)
        self.head = Head(self.num_classes, self.precision)

    @property
    def image_size(self) -> int:
        """The height and width of the images that the variant was made for."""
        return VARIANTS[self.variant][2]

    @property
    def smallest_image(self) -> int:
        """The least height and width of the images."""
        return 32

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits: ``[N, H, W, 3] -> [N, num_classes]``."""
        return self.head(self.embed(x))

    def embed(self, x: jax.Array) -> jax.Array:
        """The head's input, the mean over positions: ``[N, H, W, 3] -> [N, 1280]``."""
        return jnp.mean(self.feature_maps(x), axis=(1, 2))

    def feature_maps(self, x: jax.Array) -> jax.Array:
        """The output of the last convolution: ``[N, H, W, 3] -> [N, H / 32, W / 32, 1280]``, rounded up."""
        x = jnp.asarray(x)
        check_images(x, self.smallest_image, self.image_statistics)
        x = self.stem(in_dtype(standardise(x, self.image_statistics), self.dtype))
        for block in self.block:
            x = block(x)
        return widen(self.top(x))


class InvertedBottleneck(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, a 1x1 one to fewer, and a shortcut if the shapes agree."""

    size: int
    stride: int
    expansion: int
    features: int
    norm_epsilon: float
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide, y = x.shape[-1] * self.expansion, x
        if self.expansion > 1:
            y = Unit(wide, 1, 1, self.norm_epsilon, self.precision, name="expand")(y)
        y = Unit(
            wide, self.size, self.stride, self.norm_epsilon, self.precision, depthwise=True, name="depthwise"
        )(y)  # fmt: skip
        y = Unit(self.features, 1, 1, self.norm_epsilon, self.precision, active=False, name="project")(y)
        return x + y if y.shape == x.shape else y


class Unit(nn.Module):
    """A convolution, its normalisation and, if ``active``, ReLU6."""

    features: int
    size: int
    stride: int
    norm_epsilon: float
    precision: Precision
    active: bool = True
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.size == 1:
            x = Conv(self.features, 1, precision=self.precision, name="conv")(x)
        else:
            x = Spatial(self.features, self.size, self.stride, self.precision, self.depthwise, name="conv")(x)
        x = Norm("batch", self.norm_epsilon, name="norm")(x)
        return jnp.clip(x, 0, 6) if self.active else x


class Spatial(nn.Module):
    """A convolution with a stride, or a depthwise one: ``[N, H, W, C] -> [N, H / stride, W / stride, features]``."""

    features: int
    size: int
    stride: int
    precision: Precision
    depthwise: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = 1 if self.depthwise else x.shape[-1]
        shape = (self.size, self.size, channels, self.features)
        kernel = kernel_param(self, shape, wide_dtype(x.dtype)).astype(x.dtype)
        convolve = depthwise_convolution if self.depthwise else strided_convolution
        return convolve(x, kernel, self.stride, self.precision)


def blocks_of(variant: int) -> list[tuple[int, int, int, int]]:
    """The size of the depthwise kernel, the stride, the expansion and the number of filters of every block.

    The first and the last stage keep their number of blocks. The filters are rounded to a multiple of 8.
    """
    wider, deeper, _ = VARIANTS[variant]
    blocks = []
    for number, (repeats, size, stride, expansion, features) in enumerate(STAGES):
        scaled = features * wider
        rounded = int(scaled + DIVISOR / 2) // DIVISOR * DIVISOR
        rounded += DIVISOR if rounded < 0.9 * scaled else 0
        repeats = repeats if number in (0, len(STAGES) - 1) else math.ceil(repeats * deeper)
        blocks += [(size, stride if i == 0 else 1, expansion, rounded) for i in range(repeats)]
    return blocks
