"""Meta-Baseline: the cosine to class means with a learned scale (Chen et al., ICCV 2021).

    m_c = mean of f(x_i) over the support images of class c
    logits = s * cos(f(x), m_c)

The outer loop learns s and the encoder f, which was pre-trained as a classifier of the training classes. The paper:
https://arxiv.org/abs/2003.04390.

Facts from the authors' code (https://github.com/yinboc/few-shot-meta-baseline): features are averaged before they are
normalised, and s starts at 10. In training one batch holds the support and query images of all episodes of an
iteration; here it holds those of one episode (``joint_normalisation``). At evaluation running averages normalise. Users
of the code found that long meta-training lowers the accuracy on new classes again.
"""

import flax.linen as nn
import jax.numpy as jnp

from cxgrad_jax.learners._cosine import cosine
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import mask_missing_classes, mean_by_class, metric_based
from cxgrad_jax.learners._spec import described


@described
def meta_baseline(
    model: nn.Module,
    *,
    initial_scale: float = 10.0,
    joint_normalisation: bool = False,
    query_statistics: str = "query",
) -> MetaLearner:
    """Meta-Baseline: the cosine to class means with a learned scale (https://arxiv.org/abs/2003.04390).

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      initial_scale: the initial value of s.
      joint_normalisation: whether support and query images are encoded in one batch; with ``"running"``, in training
        only.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive; not with ``joint_normalisation``); or
        ``"running"``, the running averages of training, at evaluation (inductive).

    Meta-parameters: ``{"model": ..., "scale": []}``, where the model has no head. ``adapt`` describes the episode by
    the class means ``[way, D]``, or with ``joint_normalisation`` by the support images and labels.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """

    def describe(params, features, labels):
        return mean_by_class(features, labels, model.num_classes)

    def compare(params, means, features):
        return mask_missing_classes(lambda *pair: params["scale"] * cosine(*pair), features, means)

    return metric_based(
        model, "embed", describe, compare,
        init_extra=lambda key, features: {"scale": jnp.asarray(initial_scale, features.dtype)},
        query_statistics=query_statistics, joint_normalisation=joint_normalisation,
    )  # fmt: skip
