"""What the metric learners share: an encoder in place of a classifier, and no parameter that adapts.

Features of the support images describe an episode. The class of a query image follows from comparing its features with
that description. Batch normalisations take the statistics of the current forward pass or of the support set, in
training and test alike. The public codes of ProtoNet and MatchingNet switch to running averages at evaluation, which is
not offered.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._base import MetaLearner, Objective, checked, query_loss
from cxgrad_jax.learners._checks import nan_where_wrong
from cxgrad_jax.learners._model import Params, Statistics, apply_model, as_float, batch_statistics, init_model


class Described(NamedTuple):
    """What ``adapt`` returns.

    Attributes:
      episode: the description of the support set by which ``predict`` compares query images.
      encoder: means and variances by which the encoder normalises query images; if empty, it normalises them by their
        own.
      comparison: the same of the network that compares, where there is one.
    """

    episode: Any
    encoder: Statistics = {}  # never changed in place
    comparison: Statistics = {}


class Support(NamedTuple):
    """An episode that is described by its whole support set.

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
    compare: Callable[[Params, Any, jax.Array, Statistics], jax.Array],
    *,
    query_statistics: str,
    comparison_statistics: Callable[[Params, Any, jax.Array], Statistics] | None = None,
    objective: Objective | None = None,
    init_extra: Callable[[jax.Array, jax.Array], dict[str, Params]] | None = None,
    joint_normalisation: bool = False,
) -> MetaLearner:
    """Makes a learner of an encoder and a comparison.

    Args:
      model: a ``flax.linen`` module with ``num_classes`` (the way) and the method ``encode``. Its head is not used
        and gets no parameters.
      encode: the model's method ``images [N, H, W, C] -> features [N, ...]``.
      describe: ``(params, support features, labels [N]) -> description``.
      compare: ``(params, description, query features, statistics) -> logits [N, way]``.
      query_statistics: by what batch normalisations normalise query images: ``"query"``, their own statistics, or
        ``"support"``, those of the support set.
      comparison_statistics: ``(params, description, support features) -> statistics`` of ``compare`` on the support
        set, where it has a network with normalisations.
      objective: of logits and labels; cross-entropy if None.
      init_extra: ``(key, features) -> dict`` of meta-parameters beside ``"model"``.
      joint_normalisation: whether support and query images are encoded in one batch, so that batch statistics are of
        both. ``adapt`` then keeps the support images, and ``predict`` does everything.

    Raises:
      UserError: the model has no such method or no ``num_classes``.
    """
    name = type(model).__name__
    if not callable(getattr(model, encode, None)):
        raise UserError(f"{name} has no method {encode}(images); metric learners need the features before the head")
    if not isinstance(getattr(model, "num_classes", None), int):
        raise UserError(f"{name} has no num_classes; metric learners need it, the way of the episodes")

    if joint_normalisation and query_statistics != "query":
        raise UserError(
            f"query_statistics is {query_statistics!r}, but joint_normalisation normalises support and query images "
            "together; expected 'query' with it"
        )

    def features_of(params, images, statistics=None):
        return apply_model(model, params["model"], images, encode, statistics=statistics)

    def init(key, images):
        model_key, extra_key = jax.random.split(key)
        features, model_params = init_model(model, model_key, images, encode)
        return {"model": model_params, **(init_extra(extra_key, features) if init_extra else {})}

    def adapt(params, support_images, support_labels):
        if joint_normalisation:
            return Described(Support(support_images, support_labels))
        features = features_of(params, support_images)
        episode = describe(params, features, support_labels)
        if query_statistics == "query":
            return Described(episode)
        encoder = batch_statistics(model, params["model"], support_images, encode)
        return Described(
            episode, encoder, comparison_statistics(params, episode, features) if comparison_statistics else {}
        )

    def predict(params, adapted, query_images):
        if not joint_normalisation:
            features = features_of(params, query_images, adapted.encoder)
            return compare(params, adapted.episode, features, adapted.comparison)
        support, dtype = adapted.episode, jax.tree.leaves(params)[0].dtype
        images = [as_float(images, dtype) for images in (support.inputs, query_images)]
        features, num_support = features_of(params, jnp.concatenate(images)), len(support.labels)
        episode = describe(params, features[:num_support], support.labels)
        return compare(params, episode, features[num_support:], {})

    return checked(model, init, adapt, predict, query_loss(adapt, predict, objective))


def members(labels: jax.Array, way: int, dtype: Any) -> jax.Array:
    """Which class each image belongs to, ``[N, way]``: 1 for its class, 0 for the others; NaN for a label that does
    not exist."""
    return nan_where_wrong(jax.nn.one_hot(labels, way, dtype=dtype), labels, way)


def sum_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Sums of ``features [N, ...]`` over the images of each class, ``[way, ...]``."""
    return jnp.tensordot(members(labels, way, features.dtype).T, features, axes=1, precision="highest")


def mean_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Means of ``features [N, ...]`` over the images of each class, ``[way, ...]``."""
    shots = sum_by_class(jnp.ones_like(features, shape=labels.shape), labels, way)
    return sum_by_class(features, labels, way) / shots.reshape(way, *(1 for _ in features.shape[1:]))
