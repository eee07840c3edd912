"""Supervised pre-training: a classifier of the training classes, whose body few-shot learners start from.

    loss = mean over a batch of -log softmax(h(f(x)))[y],    x, y from all training classes

The body f keeps running averages of its batch normalisations. Few-shot episodes judge it as Classifier-Baseline does:
the head h is dropped, and a query image belongs to the class whose mean feature is nearest by the cosine.

Chen et al., Meta-Baseline (ICCV 2021): https://arxiv.org/abs/2003.04390
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cxgrad_jax.augmentation import AUGMENTATIONS, augmented
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import (
    MetaLearner,
    accuracy,
    apply_in_training,
    averaging_term,
    by_path,
    cross_entropy,
    initial_statistics,
    merge,
    running_statistics,
    with_initial,
)
from cxgrad_jax.learners._model import init_model
from cxgrad_jax.learners._modules import head_name
from cxgrad_jax.learners._statistics import STATISTICS

__all__ = ["AUGMENTATIONS", "Batch", "augmented", "pretraining", "pretraining_sgd", "with_body_of"]


class Batch(NamedTuple):
    """Labelled images.

    Attributes:
      images: ``[N, H, W, C]``, uint8 or floats in [0, 1].
      labels: integers ``[N]``, 0 to the number of training classes - 1.
    """

    images: Any
    labels: Any


def pretraining(learner: MetaLearner, model: nn.Module, num_classes: int) -> MetaLearner:
    """Replaces the ``loss`` of a learner by that of a classifier of all training classes on a ``Batch``.

    Args:
      learner: the learner that judges the body in few-shot episodes, on ``model`` with the way of these episodes. It
        takes running averages (``query_statistics="running"``), as ``classifier_baseline`` does.
      model: a ``flax.linen`` classifier with a field ``num_classes``.
      num_classes: the number of training classes, which are the outputs of the head.

    Returns:
      A learner whose ``init`` gives ``{"model": ...}`` with that head, and ``"statistics"`` if the model has batch
      normalisations. Its ``loss(params, batch)`` is the mean cross-entropy of a training pass.
    """
    classifier = model.clone(num_classes=num_classes)

    def init(key, images):
        images = jnp.asarray(images)
        _, params = init_model(classifier, key, images)
        return with_initial({"model": params}, {"model": initial_statistics(classifier, params, images)})

    def loss(params, batch, iteration=None):
        del iteration
        averages = running_statistics(classifier, params, batch.images)
        logits, moved = apply_in_training(
            classifier, params["model"], batch.images, statistics=averages.get("model", {})
        )
        term = averaging_term(averages, {"model": moved} if averages else {})
        return cross_entropy(logits, batch.labels) + term, {"accuracy": accuracy(logits, batch.labels)}

    return learner._replace(init=init, loss=loss, spec={})


def pretraining_sgd(
    learning_rate: float, momentum: float, weight_decay: float, drop_at: Sequence[int], drop_factor: float
) -> optax.GradientTransformation:
    """SGD with momentum and weight decay as PyTorch has it: v <- momentum v + g + weight_decay p, p <- p - rate v.

    Args:
      learning_rate: the rate at the start.
      momentum: the momentum of the velocity v (not Nesterov's).
      weight_decay: the weight decay of every parameter.
      drop_at: the iterations after which the rate is multiplied by ``drop_factor``.
      drop_factor: the factor of the rate.

    Reference: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """
    rate = optax.piecewise_constant_schedule(learning_rate, {iteration: drop_factor for iteration in drop_at})
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.trace(momentum), optax.scale_by_learning_rate(rate)
    )


def with_body_of(
    params: dict[str, Any], trained: Mapping[str, Any], model: nn.Module, images: Any, origin: str
) -> dict[str, Any]:
    """Replaces the body, and the running averages, of meta-parameters by trained ones. Everything else stays.

    The layer that the model calls last is the head; the others are the body.

    Args:
      params: the meta-parameters of a learner, with ``"model"``.
      trained: other parameters of the same network, with ``"model"``. Their head may have another number of outputs.
      model: the network.
      images: ``[N, H, W, C]``. Only shape and dtype matter.
      origin: where ``trained`` comes from, for the messages.

    Returns:
      The changed meta-parameters, a pytree like ``params``.

    Raises:
      UserError: a parameter of the body is missing in ``trained`` or has another shape, or running averages are
        needed and missing.
    """
    layers = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *images.shape[1:])))["params"]
    head = head_name(model, layers, images)
    flat, theirs = by_path(params["model"]), by_path(trained["model"])
    for path, values in flat.items():
        if path.split("/")[0] == head:
            continue
        if path not in theirs or theirs[path].shape != values.shape:
            found = f"has shape {list(theirs[path].shape)}" if path in theirs else "does not exist"
            raise UserError(
                f"{origin}: {path} {found}, and shape {list(values.shape)} is needed; start from a run of the same "
                "model and image size"
            )
        flat[path] = jnp.asarray(theirs[path], values.dtype)
    started = {**params, "model": merge(flat)}
    if STATISTICS in params:
        if STATISTICS not in trained:
            raise UserError(
                f"{origin}: no running averages, which query_statistics='running' needs; start from a run that has "
                "them (such as one of --mode=pretrain), or choose another query_statistics"
            )
        started[STATISTICS] = {**params[STATISTICS], "model": trained[STATISTICS]["model"]}
    return started
