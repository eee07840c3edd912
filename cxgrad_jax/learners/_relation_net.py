"""RelationNet: learning to compare (Sung et al., CVPR 2018; https://arxiv.org/abs/1711.06025).

    s_c = sum of f(x_i) over the support images of class c                   feature maps, not vectors
    r_c(x) = sigmoid( g([s_c, f(x)]) )                                       g: the relation module, on joined channels
    loss = mean over query images and classes of (r_c(x) - [y = c])^2

Facts from the authors' code (https://github.com/floodsung/LearningToCompare_FSL): statistics are those of the current
batch in training and test, which is the default here too. Its training halves the rate every 100,000 episodes, clips
the gradient of each network to norm 0.5, and normalises miniImageNet by Omniglot's mean and deviation. That belongs to
the outer loop and the data, and is not offered here. Its initialisation (normal, linear bias 1) is not offered either.
Its 5-shot script selects models on the test classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import mean_by_class, metric_based, one_hot, sum_by_class
from cxgrad_jax.learners._spec import described
from cxgrad_jax.models import RelationHead


def mean_or_zeros(maps: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """``mean_by_class``, with zeros for a class without images, as its sum has. A wrong label still gives NaN."""
    none = jnp.sum(one_hot(labels, way, maps.dtype), axis=0) == 0
    return jnp.where(none.reshape(way, *(1 for _ in maps.shape[1:])), 0, mean_by_class(maps, labels, way))


CLASS_FEATURES = {"sum": sum_by_class, "mean": mean_or_zeros}


@described
def relation_net(
    model: nn.Module, *, shot_reduction: str = "sum", hidden: int = 8, query_statistics: str = "query"
) -> MetaLearner:
    """RelationNet: a network compares feature maps with those of a class (https://arxiv.org/abs/1711.06025).

    The loss is the mean squared error of the relation scores.

    Args:
      model: an encoder, ``feature_maps(images [N, H, W, C]) -> [N, h, w, D]``, with ``num_classes``. The relation
        module takes normalisation, activation, convolution bias, precision and dtype from the model's fields, if it
        has them.
      shot_reduction: ``"sum"`` of a class's support maps, as in the authors' code, or ``"mean"``.
      hidden: the size of the relation module's hidden linear layer.
      query_statistics: the statistics that normalise query images, also in the relation module: ``"query"``, those of
        the query images themselves (transductive); ``"support"``, those of the support set, which the relation module
        takes from the pairs of classes and support images (inductive); or ``"running"``, the running averages of
        training (inductive), as in CloserLookFewShot's RelationNet.

    Meta-parameters: ``{"model": ..., "relation": ...}``, where the model has no head. ``adapt`` describes the episode
    by the classes' maps ``[way, h, w, D]``. Logits are the relations before the sigmoid. A class without support
    images has maps of zeros, and is still an answer.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``feature_maps`` or no
        ``num_classes``.
    """
    shared = ("norm", "use_bias", "negative_slope", "norm_epsilon", "precision", "dtype")
    relation = RelationHead(hidden, **{field: getattr(model, field) for field in shared if hasattr(model, field)})

    def describe(params, maps, labels):
        return CLASS_FEATURES[shot_reduction](maps, labels, model.num_classes)

    def compare(params, classes, maps):
        return pair_maps(classes, maps)

    def objective(logits, labels):
        return jnp.mean((jax.nn.sigmoid(logits) - one_hot(labels, model.num_classes, logits.dtype)) ** 2)

    def init_relation(key, maps):
        return {"relation": relation.init(key, pair_maps(maps[:1], maps)[:, 0])["params"]}

    return metric_based(
        model, "feature_maps", describe, compare,
        query_statistics=query_statistics, network=("relation", relation),
        objective=objective, init_extra=init_relation,
    )  # fmt: skip


def pair_maps(classes: jax.Array, maps: jax.Array) -> jax.Array:
    """Joins every class's map ``[way, h, w, D]`` and every map ``[N, h, w, D]``: ``[N, way, h, w, 2 D]``."""
    shape = (len(maps), len(classes), *maps.shape[1:])
    return jnp.concatenate([jnp.broadcast_to(classes, shape), jnp.broadcast_to(maps[:, None], shape)], axis=-1)
