"""Backbones with a linear head. Any other ``flax.linen`` image classifier can be passed to a learner instead.

The metric learners ask a backbone for what lies before its head: ``embed`` and ``feature_maps``.
"""

from cxgrad_jax.models._conv4 import Conv4
from cxgrad_jax.models._relation_net import RelationConv4, RelationHead
from cxgrad_jax.models._resnet12 import ResNet12

__all__ = ["Conv4", "RelationConv4", "RelationHead", "ResNet12"]
