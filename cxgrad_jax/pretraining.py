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
from cxgrad_jax.learners._modules import head_name

AUGMENTATIONS = ("none", "crop", "crop_colour")
PADDING = 8  # an image is padded by one eighth of its side before it is cropped
COLOUR = 0.4  # brightness, contrast and saturation are changed by up to this share


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
        params = classifier.init(key, images / 255 if images.dtype == jnp.uint8 else images)["params"]
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


def augmented(key: jax.Array, images: jax.Array, augmentation: str) -> jax.Array:
    """Changes images at random, each by its own draws.

    Args:
      key: the key of the draws.
      images: uint8 ``[N, H, W, C]``.
      augmentation: ``"none"`` changes nothing. ``"crop"`` pads an image with black by one eighth of its side, crops it
        to the old size, and mirrors it in one case of two. ``"crop_colour"`` first multiplies brightness, contrast and
        saturation by factors that are uniform in 0.6 to 1.4.

    Returns:
      float32 ``[N, H, W, C]`` in [0, 1].
    """
    floats = images.astype(jnp.float32) / 255
    if augmentation == "none":
        return floats

    def one(key, image):
        crop_key, flip_key, colour_key = jax.random.split(key, 3)
        if augmentation == "crop_colour":
            image = _recoloured(colour_key, image)
        margin = image.shape[0] // PADDING
        padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
        corner = jax.random.randint(crop_key, (2,), 0, 2 * margin + 1)
        image = jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)
        return jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)

    return jax.vmap(one)(jax.random.split(key, len(images)), floats)


def _recoloured(key: jax.Array, image: jax.Array) -> jax.Array:
    brightness, contrast, saturation = jax.random.uniform(key, (3,), image.dtype, 1 - COLOUR, 1 + COLOUR)
    image = jnp.clip(image * brightness, 0, 1)
    image = jnp.clip(_blend(image, jnp.mean(_grey(image)), contrast), 0, 1)
    return jnp.clip(_blend(image, _grey(image), saturation), 0, 1)


def _blend(image: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
    return share * image + (1 - share) * other


def _grey(image: jax.Array) -> jax.Array:
    """The luma of a colour image by ITU-R 601-2, as Pillow has it, ``[H, W, 1]``. A grey image stays as it is."""
    if image.shape[-1] != 3:
        return image
    return jnp.sum(image * jnp.asarray([0.299, 0.587, 0.114], image.dtype)[None, None], axis=-1, keepdims=True)


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
    if "statistics" in params:
        if "statistics" not in trained:
            raise UserError(
                f"{origin}: no running averages, which query_statistics='running' needs; start from a run that has "
                "them (such as one of --mode=pretrain), or choose another query_statistics"
            )
        started["statistics"] = {**params["statistics"], "model": trained["statistics"]["model"]}
    return started
