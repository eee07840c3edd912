"""R2-D2: meta-learning with differentiable closed-form solvers (Bertinetto et al., ICLR 2019).

    X = [f(S), 1] / sqrt(N),   Y = onehot(y) / sqrt(N)                       N support images
    W = X^T (X X^T + lambda I)^-1 Y                                          ridge regression, the bias penalised too
    logits = s [f(x), 1] W + b

The outer loop learns the encoder f, the scale s and the shift b. The cross-entropy does not depend on b, whose gradient
is zero. A class without support images has the weights 0. The paper: https://arxiv.org/abs/1805.08136.

Facts from the authors' code (https://github.com/bertinetto/r2d2): lambda is 50 and fixed, but it can be learned. For
features that are not divided by sqrt(N), that is a lambda N times as large. s starts at 1e-4 on miniImageNet and at 10
on CIFAR-FS. In training the code encodes support and query images in one batch (``joint_normalisation``). Its episodes
have 16 or 20 ways and 1 to 9 shots, drawn again for each. Dropout and such episodes are not offered here.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import metric_based, one_hot
from cxgrad_jax.learners._ridge import ridge
from cxgrad_jax.learners._spec import described


@described
def r2d2(
    model: nn.Module,
    *,
    regularisation: float = 50.0,
    learned_regularisation: bool = False,
    initial_scale: float = 10.0,
    logarithmic: bool = False,
    joint_normalisation: bool = False,
    query_statistics: str = "query",
) -> MetaLearner:
    """R2-D2: ridge regression on learned features (https://arxiv.org/abs/1805.08136).

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      regularisation: lambda, or its initial value.
      learned_regularisation: whether the outer loop learns lambda.
      initial_scale: the initial value of s.
      logarithmic: whether the outer loop learns the logarithms to base 10 of lambda, s and b + 1 instead of these.
      joint_normalisation: whether support and query images are encoded in one batch; with ``"running"``, in training
        only, as the authors' code does.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive; not with ``joint_normalisation``); or
        ``"running"``, the running averages of training, at evaluation (inductive).

    Meta-parameters: ``{"model": ..., "scale": [], "shift": []}``, where the model has no head, and
    ``"regularisation": []`` if it is learned. ``adapt`` describes the episode by the weights ``[D + 1, way]``, whose
    last row is the bias, or with ``joint_normalisation`` by the support images and labels.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """

    def learned(value):
        return 10.0**value if logarithmic else value

    def stored(value, dtype):
        return jnp.asarray(jnp.log10(value) if logarithmic else value, dtype)

    def describe(params, features, labels):
        strength = learned(params["regularisation"]) if learned_regularisation else regularisation
        return ridge_with_bias(features, one_hot(labels, model.num_classes, features.dtype), strength)

    def compare(params, weights, features):
        scores = jnp.matmul(with_one(features), weights, precision="highest")
        return learned(params["scale"]) * scores + learned(params["shift"]) - (1 if logarithmic else 0)

    def init_adjustment(key, features):
        dtype = features.dtype
        params = {"scale": stored(initial_scale, dtype), "shift": jnp.zeros((), dtype)}
        return params | ({"regularisation": stored(regularisation, dtype)} if learned_regularisation else {})

    return metric_based(
        model, "embed", describe, compare, init_extra=init_adjustment,
        query_statistics=query_statistics, joint_normalisation=joint_normalisation,
    )  # fmt: skip


def ridge_with_bias(features: jax.Array, targets: jax.Array, regularisation: float | jax.Array) -> jax.Array:
    """W ``[D + 1, way]`` from support ``features [N, D]`` to one-hot ``targets [N, way]``. The last row is the bias."""
    root = jnp.sqrt(jnp.asarray(len(features), features.dtype))
    return ridge(with_one(features) / root, targets / root, regularisation)


def with_one(features: jax.Array) -> jax.Array:
    """Adds a column of ones to ``features [N, D]``."""
    return jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=-1)
