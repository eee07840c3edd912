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


# ``(name of a network, inputs) -> outputs``: a network in one pass, normalised in one way.
Apply = Callable[[str, jax.Array], jax.Array]


class _Parts(NamedTuple):
    """What a metric learner is made of.

    Attributes:
      networks: each network and its method, by its name in the meta-parameters; ``"model"`` is the encoder.
      describe: ``(params, support features, labels [N]) -> description``.
      compare: ``(params, description, query features) -> logits [N, way]``, or inputs ``[N, way, ...]`` of ``network``.
      network: the name of the network that turns the inputs into logits; None if ``compare`` gives logits.
    """

    networks: dict[str, tuple[nn.Module, str]]
    describe: Callable[[Params, jax.Array, jax.Array], Any]
    compare: Callable[[Params, Any, jax.Array], jax.Array]
    network: str | None


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
    networks = {"model": (model, encode)}
    if network:
        networks[network[0]] = (network[1], "__call__")
    parts = _Parts(networks, describe, compare, network[0] if network else None)
    running = query_statistics == "running"

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
        if joint_normalisation and not running:
            return Described(Support(support_images, support_labels))
        averages = running_statistics(params, model, support_images, encode) if running else {}
        features = _normalised_by(parts, params, averages)("model", support_images)
        episode = describe(params, features, support_labels)
        if query_statistics != "support":
            return Described(episode, averages)
        statistics = {"model": batch_statistics(model, params["model"], support_images, encode)}
        if network:
            name, module = network
            statistics[name] = batch_statistics(module, params[name], _flat(compare(params, episode, features)))
        return Described(episode, statistics)

    def predict(params, adapted, query_images):
        apply = _normalised_by(parts, params, adapted.statistics)
        if joint_normalisation and not running:
            return _encoded_together(parts, params, apply, adapted.episode, query_images)
        return _logits(parts, params, apply, adapted.episode, apply("model", query_images))

    def training_loss(params, episode, iteration=None):
        del iteration
        averages = running_statistics(params, model, episode.support_images, encode)
        moved, support = dict(averages), Support(episode.support_images, episode.support_labels)
        encoded = _encoded_together if joint_normalisation else _encoded_apart
        logits = encoded(parts, params, _moving(parts, params, moved), support, episode.query_images)
        value = (objective or cross_entropy)(logits, episode.query_labels)
        moved = {name: moved[name] for name in averages}
        return value + averaging_term(averages, moved), query_metrics(logits, episode.query_labels, {})

    loss = training_loss if running else query_loss(adapt, predict, objective)
    return checked(model, init, adapt, predict, loss)


def _normalised_by(parts: _Parts, params: Params, statistics: dict[str, Statistics]) -> Apply:
    """Networks that are normalised by given statistics, or else by those of their inputs."""

    def apply(name, inputs):
        module, method = parts.networks[name]
        return apply_model(module, params[name], inputs, method, statistics=statistics.get(name))

    return apply


def _moving(parts: _Parts, params: Params, averages: dict[str, Statistics]) -> Apply:
    """Networks in a training pass, which are normalised by their inputs and move ``averages`` in place."""

    def apply(name, inputs):
        module, method = parts.networks[name]
        outputs, averages[name] = apply_in_training(module, params[name], averages.get(name, {}), inputs, method)
        return outputs

    return apply


def _logits(parts: _Parts, params: Params, apply: Apply, description: Any, features: jax.Array) -> jax.Array:
    """Compares query features ``[N, ...]`` with a description: ``[N, way]``."""
    compared = parts.compare(params, description, features)
    return compared if parts.network is None else apply(parts.network, _flat(compared)).reshape(compared.shape[:2])


def _encoded_apart(parts: _Parts, params: Params, apply: Apply, support: Support, query_images: jax.Array) -> jax.Array:
    """Query logits, with support and query images encoded each in a batch of its own."""
    description = parts.describe(params, apply("model", support.inputs), support.labels)
    return _logits(parts, params, apply, description, apply("model", query_images))


def _encoded_together(
    parts: _Parts, params: Params, apply: Apply, support: Support, query_images: jax.Array
) -> jax.Array:
    """Query logits, with support and query images encoded in one batch."""
    features = apply("model", joined(params, support.inputs, query_images))
    of_support, of_query = jnp.split(features, [len(support.labels)])
    return _logits(parts, params, apply, parts.describe(params, of_support, support.labels), of_query)


def _check_encoder(model: nn.Module, encode: str, query_statistics: str, joint_normalisation: bool) -> None:
    """Refuses a model that is no encoder, and statistics that do not fit joint normalisation."""
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
    return compared.reshape(-1, *compared.shape[2:])


def members(labels: jax.Array, way: int, dtype: Any) -> jax.Array:
    """Which class each image belongs to, ``[N, way]``: 1 for its class and 0 for the others.

    A label outside of 0 to way - 1 gives NaN.
    """
    return nan_where_wrong(jax.nn.one_hot(labels, way, dtype=dtype), labels, way)


def sum_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Sums of ``features [N, ...]`` over the images of each class, ``[way, ...]``."""
    return jnp.tensordot(members(labels, way, features.dtype).T, features, axes=1, precision="highest")


def mean_by_class(features: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Means of ``features [N, ...]`` over the images of each class, ``[way, ...]``. A class without images has NaN."""
    shots = sum_by_class(jnp.ones_like(features, shape=labels.shape), labels, way)
    shots = shots.reshape(way, *(1 for _ in features.shape[1:]))
    return jnp.where(shots == 0, jnp.nan, sum_by_class(features, labels, way) / jnp.where(shots == 0, 1, shots))


def with_classes_at_hand(
    similarity: Callable[[jax.Array, jax.Array], jax.Array], features: jax.Array, means: jax.Array
) -> jax.Array:
    """``similarity(features [N, D], means [way, D])``: logits ``[N, way]``, -inf for a class without support images.

    So a model of five classes serves an episode of three. If no mean is a number, the logits are NaN.
    """
    missing = jnp.all(jnp.isnan(means), axis=-1)
    missing &= ~jnp.all(missing)
    logits = similarity(features, jnp.where(missing[:, None], 1, means))  # 1: any number, so that gradients are finite
    return jnp.where(missing, -jnp.inf, logits)
