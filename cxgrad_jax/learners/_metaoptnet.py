"""MetaOptNet: a convex classifier on learned features (Lee et al., CVPR 2019), by ridge regression or an SVM.

    W = f(S)^T a,   logits = s f(x) W
    ridge:   a = 2 (f(S) f(S)^T + 50 I)^-1 onehot(y)
    SVM:     a = the duals of Crammer and Singer's support vector machine, C = 0.1 (see ``_svm``)

The outer loop learns the encoder f and the scale s. The paper: https://arxiv.org/abs/1904.03758.

Facts from the authors' code (https://github.com/kjunelee/MetaOptNet): its quadratic programme for the ridge head has
this closed form, without a bias and with the factor 2. s starts at 1. Labels are smoothed by 0.1 on miniImageNet only.
One model, trained at 15 shots (CIFAR-FS 5), serves all shots. The code solves its SVM to the end in training, and by
three steps of the solver at evaluation, which leaves an error of several per cent. Here it is always solved to the end,
or its weights are NaN. In training all support images of the iteration's episodes are one batch for the normalisations,
and all query images are another. Here a batch is that of one episode. At evaluation running averages normalise.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import metric_based, one_hot
from cxgrad_jax.learners._ridge import ridge, times
from cxgrad_jax.learners._spec import described
from cxgrad_jax.learners._svm import svm_duals

SVM_C = 0.1


@described
def metaoptnet(
    model: nn.Module,
    *,
    head: str = "ridge",
    regularisation: float = 50.0,
    initial_scale: float = 1.0,
    label_smoothing: float = 0.0,
    query_statistics: str = "query",
) -> MetaLearner:
    """MetaOptNet: a convex classifier on learned features (https://arxiv.org/abs/1904.03758).

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      head: ``"ridge"`` or ``"svm"``.
      regularisation: the weight of the ridge penalty.
      initial_scale: the initial value of s.
      label_smoothing: the share of a query image's label that the other classes get, less than 1.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive); or ``"running"``, the running averages of
        training, at evaluation (inductive).

    Meta-parameters: ``{"model": ..., "scale": []}``, where the model has no head. ``adapt`` describes the episode by
    the weights ``[D, way]``. They are NaN where very large features keep the SVM unsolved.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """

    def describe(params, features, labels):
        targets = one_hot(labels, model.num_classes, features.dtype)
        if head == "ridge":
            return 2 * ridge(features, targets, regularisation)
        return times(features.T, svm_duals(features, targets, SVM_C))

    def compare(params, weights, features):
        return params["scale"] * jnp.matmul(features, weights, precision="highest")

    def objective(logits, labels):
        return smoothed_cross_entropy(logits, labels, label_smoothing)

    return metric_based(
        model, "embed", describe, compare, query_statistics=query_statistics, objective=objective,
        init_extra=lambda key, features: {"scale": jnp.asarray(initial_scale, features.dtype)},
    )  # fmt: skip


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Mean cross-entropy of ``logits [N, way]`` with targets of 1 - smoothing for ``labels [N]``.

    The other classes share the remainder. A label outside of 0 to way - 1 gives NaN.
    """
    way = logits.shape[-1]
    right = one_hot(labels, way, logits.dtype)
    targets = right * (1 - smoothing) + (1 - right) * smoothing / max(way - 1, 1)
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1))
