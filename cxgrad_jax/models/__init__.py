"""Backbones with a linear head. Any other ``flax.linen`` image classifier can be passed to a learner instead."""

from cxgrad_jax.models.conv4 import Conv4
from cxgrad_jax.models.resnet12 import ResNet12

__all__ = ["Conv4", "ResNet12"]
