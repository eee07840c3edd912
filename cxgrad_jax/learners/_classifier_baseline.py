"""Classifier-Baseline: nearest class mean by the cosine, on a pre-trained encoder (Chen et al., ICCV 2021).

    m_c = mean of f(x_i) over the support images of class c
    logits = 10 cos(f(x), m_c)

The encoder f comes from a classifier of the training classes, whose head is dropped. Nothing else is learned. This is
the first stage of Meta-Baseline (see ``_meta_baseline``). The factor 10 changes no prediction. The paper:
https://arxiv.org/abs/2003.04390.

Facts from the authors' code (https://github.com/yinboc/few-shot-meta-baseline): features are averaged before they are
normalised, and at evaluation running averages normalise.
"""

import flax.linen as nn

from cxgrad_jax.learners._cosine import cosine
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import mask_missing_classes, mean_by_class, metric_based
from cxgrad_jax.learners._spec import described


@described
def classifier_baseline(model: nn.Module, *, scale: float = 10.0, query_statistics: str = "query") -> MetaLearner:
    """Classifier-Baseline: the cosine to class means of fixed features (https://arxiv.org/abs/2003.04390).

    Its ``loss``, the mean query cross-entropy, serves to train the encoder in episodes.

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      scale: the factor of the cosine.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive); or ``"running"``, the running averages of
        training, at evaluation (inductive).

    Meta-parameters: ``{"model": ...}`` without a head. ``adapt`` describes the episode by the class means ``[way, D]``.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """

    def describe(params, features, labels):
        return mean_by_class(features, labels, model.num_classes)

    def compare(params, means, features):
        return scale * mask_missing_classes(cosine, features, means)

    return metric_based(model, "embed", describe, compare, query_statistics=query_statistics)
