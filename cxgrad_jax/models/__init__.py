"""Backbones with a linear head, and the relation module of RelationNet.

A backbone is a ``flax.linen`` module that maps float images ``[N, H, W, C]`` to logits ``[N, num_classes]``. Learners
take any other such module as well. The metric learners ask a backbone for what lies before its head, through its
methods ``embed`` and ``feature_maps``.
"""

from cxgrad_jax.models._conv4 import Conv4
from cxgrad_jax.models._efficientnet_lite import EfficientNetLite
from cxgrad_jax.models._r2d2 import R2D2Conv4
from cxgrad_jax.models._relation_net import RelationConv4, RelationHead
from cxgrad_jax.models._resnet12 import ResNet12

__all__ = ["Conv4", "EfficientNetLite", "R2D2Conv4", "RelationConv4", "RelationHead", "ResNet12"]
