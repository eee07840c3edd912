"""What the metric learners share: an encoder in place of a classifier, and nothing that adapts.

A task is described by features of its support images, and the class of a query image follows from comparing features.
All normalisation is by the statistics of the current forward pass, in training and test alike; running averages, which
the public codes of ProtoNet and MatchingNet switch to at evaluation, are not offered.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._base import MetaLearner, Params, apply_model, as_float, query_loss


class Support(NamedTuple):
    """A task that is described by its whole support set.

    Attributes:
      inputs: images ``[N, H, W, C]`` or features ``[N, D]``.
      labels: ``[N]``, 0 to way - 1.
    """

    inputs: jax.Array
    labels: jax.Array


def metric_based(
    model: nn.Module,
    encode: str,
    describe: Callable[[Params, jax.Array, jax.Array], Any],
    compare: Callable[[Params, Any, jax.Array], jax.Array],
    *,
    objective: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    init_extra: Callable[[jax.Array, jax.Array], dict[str, Params]] | None = None,
    joint_normalisation: bool = False,
) -> MetaLearner:
    """Makes a learner of an encoder and a comparison.

    Args:
      model: a ``flax.linen`` module with ``num_classes`` (the way) and the method ``encode``. Its head is not used,
        and has no parameters.
      encode: the model's method ``images [N, H, W, C] -> features [N, ...]``.
      describe: ``(params, support features, labels [N]) -> task``.
      compare: ``(params, task, query features) -> logits [N, way]``.
      objective: of logits and labels; cross-entropy if None.
      init_extra: ``(key, features) -> dict`` of meta-parameters beside ``"model"``.
      joint_normalisation: encode support and query images in one batch, so that batch statistics are of both. Then
        ``adapt`` keeps the support images and ``predict`` does everything.

    Raises:
      UserError: the model has no such method or no ``num_classes``.
    """
    name = type(model).__name__
    if not callable(getattr(model, encode, None)):
        raise UserError(f"{name} has no method {encode}(images); metric learners need the features before the head")
    if not isinstance(getattr(model, "num_classes", None), int):
        raise UserError(f"{name} has no num_classes; metric learners need it, the way of the episodes")

    def features_of(params, images):
        return apply_model(model, params["model"], images, encode)

    def init(key, images):
        model_key, extra_key = jax.random.split(key)
        features, variables = model.init_with_output(model_key, as_float(images), method=encode)
        return {"model": variables["params"], **(init_extra(extra_key, features) if init_extra else {})}

    def adapt(params, support_images, support_labels):
        if joint_normalisation:
            return Support(support_images, support_labels)
        return describe(params, features_of(params, support_images), support_labels)

    def predict(params, task, query_images):
        if not joint_normalisation:
            return compare(params, task, features_of(params, query_images))
        num_support = len(task.labels)
        dtype = jax.tree.leaves(params)[0].dtype
        images = [as_float(images, dtype) for images in (task.inputs, query_images)]
        features = features_of(params, jnp.concatenate(images))
        return compare(params, describe(params, features[:num_support], task.labels), features[num_support:])

    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, objective))


def sum_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Sums of ``features [N, ...]`` over the images of each class, ``[way, ...]``."""
    members = jax.nn.one_hot(labels, way, axis=0, dtype=features.dtype)
    return jnp.tensordot(members, features, axes=1, precision="highest")


def mean_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Means of ``features [N, ...]`` over the images of each class, ``[way, ...]``."""
    shots = sum_by_class(jnp.ones_like(features, shape=labels.shape), labels, way)
    return sum_by_class(features, labels, way) / shots.reshape(way, *(1 for _ in features.shape[1:]))
