"""ProtoNet: prototypical networks (Snell, Swersky and Zemel, NeurIPS 2017; https://arxiv.org/abs/1703.05175).

    p_c = mean of f(x_i) over the support images of class c                          prototypes
    p(y = c | x) = softmax_c( -||f(x) - p_c||^2 )                                    no scale, sum over features

Facts from the authors' code (https://github.com/jakesnell/prototypical-networks), which covers Omniglot only: in
training it encodes support and query images in one batch (``joint_normalisation``). At evaluation it normalises by
running averages (``query_statistics="running"``). The published miniImageNet numbers are said to come from episodes of
30 ways (1-shot) and 20 ways (5-shot) with 15 queries. That is not verified.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import mask_missing_classes, mean_by_class, metric_based
from cxgrad_jax.learners._spec import described


@described
def proto_net(model: nn.Module, *, joint_normalisation: bool = False, query_statistics: str = "query") -> MetaLearner:
    """ProtoNet: the squared distance to class means (https://arxiv.org/abs/1703.05175).

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      joint_normalisation: whether support and query images are encoded in one batch; with ``"running"``, in training
        only, as the authors' code does.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive; not with ``joint_normalisation``); or
        ``"running"``, the running averages of training, at evaluation (inductive).

    Meta-parameters: ``{"model": ...}`` without a head. ``adapt`` describes the episode by the prototypes
    ``[way, D]``, or with ``joint_normalisation`` by the support images and labels.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """

    def describe(params, features, labels):
        return mean_by_class(features, labels, model.num_classes)

    def compare(params, prototypes, features):
        return mask_missing_classes(minus_squared_distance, features, prototypes)

    return metric_based(
        model, "embed", describe, compare,
        query_statistics=query_statistics, joint_normalisation=joint_normalisation,
    )  # fmt: skip


def minus_squared_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """``-|a_i - b_j|^2`` of ``a [N, D]`` and ``b [M, D]``: ``[N, M]``."""
    return -jnp.sum((a[:, None] - b[None]) ** 2, axis=-1)
