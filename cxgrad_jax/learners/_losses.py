"""Losses and metrics of logits, and the outer loss of most learners: the mean cross-entropy of the query set."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checks import nan_where_wrong, wide_labels
from cxgrad_jax.learners._meta_learner import Adapt, Adapted, Loss, Metrics, Objective, Predict
from cxgrad_jax.models._dtypes import widen


def query_loss(adapt: Adapt, predict: Predict, objective: Objective | None = None) -> Loss:
    """Makes a ``MetaLearner.loss`` from ``adapt`` and ``predict``. It does not change over training.

    Args:
      adapt: a ``MetaLearner.adapt``.
      predict: a ``MetaLearner.predict``.
      objective: ``(logits, labels) -> scalar``. None means ``cross_entropy``.

    The metrics are those of ``query_metrics``.
    """

    def loss(params, episode, iteration=None):
        del iteration
        adapted = adapt(params, episode.support_images, episode.support_labels)
        logits = predict(params, adapted, episode.query_images)
        value = (objective or cross_entropy)(logits, episode.query_labels)
        trace = adapted.trace if isinstance(adapted, Adapted) else {}
        return value, query_metrics(logits, episode.query_labels, trace)

    return loss


def query_metrics(logits: jax.Array, labels: jax.Array, trace: Mapping[str, Any]) -> Metrics:
    """The metrics of an episode: ``"accuracy"`` of the query set, and norms of the inner loop's gradients.

    If the trace has norms of gradients, ``"inner_gradient_norm/head"`` and the like are their means over the inner
    steps.
    """
    norms = {f"inner_{name}": jnp.mean(norm) for name, norm in trace.items() if "gradient_norm" in name}
    return {"accuracy": accuracy(logits, labels), **norms}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of ``logits [N, way]`` and ``labels [N]``, a scalar in nats.

    Logits in half precision are taken as float32. A label outside of 0 to way - 1 gives NaN.

    Raises:
      UserError: the shapes do not fit.
    """
    logits, labels = _checked_logits(logits, labels)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(nan_where_wrong(each, labels, logits.shape[-1]))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of ``logits [N, way]`` whose largest entry is at ``labels [N]``, a scalar in [0, 1].

    Logits of NaN count as wrong. A label outside of 0 to way - 1 gives NaN.

    Raises:
      UserError: the shapes do not fit.
    """
    logits, labels = _checked_logits(logits, labels)
    right = (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels) & ~jnp.any(jnp.isnan(logits), axis=-1)
    return jnp.mean(nan_where_wrong(right.astype(logits.dtype), labels, logits.shape[-1]))


def _checked_logits(logits: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    logits, labels = widen(jnp.asarray(logits)), wide_labels(jnp.asarray(labels))
    if labels.shape != logits.shape[:-1]:
        raise UserError(f"labels have shape {labels.shape} and logits {logits.shape}; expected [N] and [N, way]")
    return logits, labels
