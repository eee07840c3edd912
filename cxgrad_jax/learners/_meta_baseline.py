"""Meta-Baseline: the cosine to class means with a learned scale (Chen et al., ICCV 2021).

    m_c = mean of f(x_i) over the support images of class c
    logits = s * cos(f(x), m_c)

The outer loop learns the encoder f, which comes pre-trained as a classifier of the training classes, and s. The paper:
https://arxiv.org/abs/2003.04390. Facts from the authors' code (yinboc/few-shot-meta-baseline): features are averaged
before they are normalised; s starts at 10; in training one batch holds support and query images of all episodes of an
iteration, at evaluation running averages normalise. Here a batch is one episode's (``joint_normalisation``). Long
meta-training lowers the accuracy on new classes again, as users of the code found.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._base import MetaLearner
from cxgrad_jax.learners._metric import mean_by_class, metric_based
from cxgrad_jax.learners._spec import described


@described
def meta_baseline(
    model: nn.Module,
    *,
    initial_scale: float = 10.0,
    joint_normalisation: bool = False,
    query_statistics: str = "query",
) -> MetaLearner:
    """Meta-Baseline with the mean query cross-entropy.

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      initial_scale: where s starts.
      joint_normalisation: whether support and query images are encoded in one batch; with ``"running"`` in training
        only.
      query_statistics: by what batch normalisations normalise query images: ``"query"``, their own statistics
        (transductive); ``"support"``, those of the support set (inductive; not with ``joint_normalisation``); or
        ``"running"``, the running averages of training, at evaluation (inductive).

    Meta-parameters: ``{"model": ..., "scale": []}``, the first without a head. ``adapt`` describes the episode by the
    class means ``[way, D]``, or with ``joint_normalisation`` by the support images and labels.
    """

    def describe(params, features, labels):
        return mean_by_class(features, labels, model.num_classes)

    def compare(params, means, features):
        return params["scale"] * cosine(features, means)

    return metric_based(
        model, "embed", describe, compare,
        init_extra=lambda key, features: {"scale": jnp.asarray(initial_scale, features.dtype)},
        query_statistics=query_statistics, joint_normalisation=joint_normalisation,
    )  # fmt: skip


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """The cosine of the angles between ``a [N, D]`` and ``b [M, D]``: ``[N, M]``; 0 with a vector of zeros."""
    return jnp.matmul(unit(a), unit(b).T, precision="highest")


def unit(features: jax.Array) -> jax.Array:
    """``features [N, D]`` divided by their lengths; zeros stay zeros, also in the gradient."""
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    is_zero = squares == 0
    return jnp.where(is_zero, 0, features * jax.lax.rsqrt(jnp.where(is_zero, 1, squares)))
