"""What the metric learners share: an encoder in place of a classifier, and no parameter that adapts.

Features of the support images describe an episode. The features of a query image are compared with that description,
which gives its class. ``query_statistics`` names the statistics by which batch normalisations normalise query images:

    "query"     their own statistics, in training and test alike (transductive)
    "support"   those of the support set, in training and test alike (inductive)
    "running"   in training their own, which running averages follow; at evaluation support and query images are
                normalised by the running averages (inductive), as the public codes of ProtoNet and MatchingNet do

With "running", ``loss`` is a training pass and ``adapt`` with ``predict`` an evaluation (see ``_statistics``).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.arguments import is_whole
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checked import checked
from cxgrad_jax.learners._checks import nan_where_wrong
from cxgrad_jax.learners._losses import cross_entropy, query_loss, query_metrics
from cxgrad_jax.learners._meta_learner import MetaLearner, Objective
from cxgrad_jax.learners._model import (
    Params,
    Statistics,
    apply_in_training,
    apply_model,
    as_float,
    batch_statistics,
    dtype_of,
    init_model,
)
from cxgrad_jax.learners._statistics import averaging_term, initial_statistics, running_statistics, with_initial


class Described(NamedTuple):
    """What ``adapt`` returns.

    Attributes:
      episode: the description of the support set by which ``predict`` compares query images.
      statistics: means and variances by which the networks normalise query images. The keys are the networks' names in
        the meta-parameters. A network that has none here normalises query images by their own.
    """

    episode: Any
    statistics: dict[str, Statistics] = {}  # never changed in place


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
    compare: Callable[[Params, Any, jax.Array], jax.Array],
    *,
    query_statistics: str,
    network: tuple[str, nn.Module] | None = None,
    objective: Objective | None = None,
    init_extra: Callable[[jax.Array, jax.Array], dict[str, Params]] | None = None,
    joint_normalisation: bool = False,
) -> MetaLearner:
    """Makes a learner from an encoder and a comparison.

    Args:
      model: a ``flax.linen`` module with ``num_classes`` (the way) and the method ``encode``. Its head is not used
        and gets no parameters.
      encode: the model's method ``images [N, H, W, C] -> features [N, ...]``.
      describe: ``(params, support features, labels [N]) -> description``.
      compare: ``(params, description, query features) -> logits [N, way]``. With a ``network`` it returns the inputs
        ``[N, way, ...]`` of that instead.
      query_statistics: the statistics that normalise query images, ``"query"``, ``"support"`` or
        ``"running"``, as the module's text says.
      network: the name of its meta-parameters, and a module from ``[M, ...]`` to logits ``[M]``.
      objective: ``(logits, labels) -> scalar``. None means cross-entropy.
      init_extra: ``(key, features) -> dict`` of meta-parameters beside ``"model"``.
      joint_normalisation: whether support and query images are encoded in one batch, so that batch statistics are of
        both; with ``"running"``, in training only. Without ``"running"``, ``adapt`` then keeps the support images, and
        ``predict`` does everything.

    Raises:
      UserError: the model has no such method or no ``num_classes``, or ``joint_normalisation`` is given with
        ``"support"``.
    """
    _check_encoder(model, encode, query_statistics, joint_normalisation)
    running = query_statistics == "running"
    deferred = joint_normalisation and not running  # until predict, because the support set needs the query images

    def init(key, images):
        model_key, extra_key = jax.random.split(key)
        features, model_params = init_model(model, model_key, images, encode)
        params = {"model": model_params, **(init_extra(extra_key, features) if init_extra else {})}
        if not running:
            return params
        averages = {"model": initial_statistics(model, model_params, images, encode)}
        if network:
            name, module = network
            labels = jnp.arange(len(features)) % model.num_classes
            inputs = compare(params, describe(params, features, labels), features)
            averages[name] = initial_statistics(module, params[name], _flat(inputs))
        return with_initial(params, averages)

    def adapt(params, support_images, support_labels):
        if deferred:
            return Described(Support(support_images, support_labels))
        averages = running_statistics(model, params, support_images, encode) if running else {}
        features = apply_model(model, params["model"], support_images, encode, statistics=averages.get("model"))
        description = describe(params, features, support_labels)
        if query_statistics != "support":
            return Described(description, averages)
        statistics = {"model": batch_statistics(model, params["model"], support_images, encode)}
        if network:
            name, module = network
            statistics[name] = batch_statistics(module, params[name], _flat(compare(params, description, features)))
        return Described(description, statistics)

    def predict(params, adapted, query_images):
        description, statistics, images = adapted.episode, adapted.statistics, query_images
        if deferred:
            images = joined(params, description.inputs, query_images)
        features = apply_model(model, params["model"], images, encode, statistics=statistics.get("model"))
        if deferred:
            support, features = jnp.split(features, [len(description.labels)])
            description = describe(params, support, description.labels)
        compared = compare(params, description, features)
        if not network:
            return compared
        name, module = network
        scores = apply_model(module, params[name], _flat(compared), statistics=statistics.get(name))
        return scores.reshape(compared.shape[:2])

    def training_loss(params, episode, iteration=None):
        del iteration
        averages = running_statistics(model, params, episode.support_images, encode)
        encode_in_training = partial(apply_in_training, model, params["model"], method=encode)
        moved = averages.get("model", {})
        if joint_normalisation:
            images = joined(params, episode.support_images, episode.query_images)
            features, moved = encode_in_training(images, statistics=moved)
            support, query = jnp.split(features, [len(episode.support_labels)])
            description = describe(params, support, episode.support_labels)
        else:
            support, moved = encode_in_training(episode.support_images, statistics=moved)
            description = describe(params, support, episode.support_labels)
            query, moved = encode_in_training(episode.query_images, statistics=moved)
        new = {**averages, "model": moved}
        logits = compare(params, description, query)
        if network:
            name, module = network
            pairs, old = _flat(logits), averages.get(name, {})
            scores, new[name] = apply_in_training(module, params[name], pairs, statistics=old)
            logits = scores.reshape(logits.shape[:2])
        value = (objective or cross_entropy)(logits, episode.query_labels)
        term = averaging_term(averages, {name: new[name] for name in averages})
        return value + term, query_metrics(logits, episode.query_labels, {})

    loss = training_loss if running else query_loss(adapt, predict, objective)
    return checked(model, init, adapt, predict, loss)


def _check_encoder(model: nn.Module, encode: str, query_statistics: str, joint_normalisation: bool) -> None:
    """Refuses a model that is not an encoder, and statistics that do not fit joint normalisation."""
    name = type(model).__name__
    if not callable(getattr(model, encode, None)):
        raise UserError(f"{name} has no method {encode}(images); metric learners need the features before the head")
    if not is_whole(getattr(model, "num_classes", None)):
        raise UserError(f"{name} has no num_classes; metric learners need it, the way of the episodes")
    if joint_normalisation and query_statistics == "support":
        raise UserError(
            f"query_statistics is {query_statistics!r}, but joint_normalisation normalises support and query images "
            "together; expected 'query' or 'running' with it"
        )


def joined(params: Params, support_images: jax.Array, query_images: jax.Array) -> jax.Array:
    """Support and query images in one batch of floats, the support images first."""
    dtype = dtype_of(params)
    return jnp.concatenate([as_float(images, dtype) for images in (support_images, query_images)])


def _flat(compared: jax.Array) -> jax.Array:
    """Joins the axes of images and classes: ``[N, way, ...]`` to ``[N * way, ...]``."""
    return compared.reshape(-1, *compared.shape[2:])


def one_hot(labels: jax.Array, way: int, dtype: Any) -> jax.Array:
    """One-hot ``labels [N]``: ``[N, way]``. A label outside of 0 to way - 1 gives NaN."""
    return nan_where_wrong(jax.nn.one_hot(labels, way, dtype=dtype), labels, way)


def sum_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Sums of ``features [N, ...]`` over the images of each class, ``[way, ...]``."""
    return jnp.tensordot(one_hot(labels, way, features.dtype).T, features, axes=1, precision="highest")


def mean_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Means of ``features [N, ...]`` over the images of each class, ``[way, ...]``. A class without images has NaN."""
    shots = sum_by_class(jnp.ones_like(features, shape=labels.shape), labels, way)
    shots = shots.reshape(way, *(1 for _ in features.shape[1:]))
    return jnp.where(shots == 0, jnp.nan, sum_by_class(features, labels, way) / jnp.where(shots == 0, 1, shots))


def mask_missing_classes(
    similarity: Callable[[jax.Array, jax.Array], jax.Array], features: jax.Array, means: jax.Array
) -> jax.Array:
    """``similarity(features [N, D], means [way, D])``: logits ``[N, way]``, -inf for a class without support images.

    So a model of five classes serves an episode of three. If no mean is a number, the logits are NaN.
    """
    missing = jnp.all(jnp.isnan(means), axis=-1)
    missing &= ~jnp.all(missing)
    logits = similarity(features, jnp.where(missing[:, None], 1, means))  # 1: any number, so that gradients are finite
    return jnp.where(missing, -jnp.inf, logits)
