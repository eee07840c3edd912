"""A learner with the checks of ``learners._checks`` in front of its four functions."""

import functools
from typing import Any

import flax.linen as nn
import jax

from cxgrad_jax.arguments import check_episode, check_key
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checks import check_images, check_labels, check_model, fitting
from cxgrad_jax.learners._labels import ParamLabels
from cxgrad_jax.learners._meta_learner import Adapt, Init, Loss, MetaLearner, Predict
from cxgrad_jax.learners._modules import num_classes
from cxgrad_jax.parallel import varying_like

SETS = ("support", "query")


def checked(
    model: nn.Module, init: Init, adapt: Adapt, predict: Predict, loss: Loss, param_labels: ParamLabels | None = None
) -> MetaLearner:
    """Makes a learner from its four functions, with the checks of ``learners._checks`` in front of each.

    ``param_labels`` tells ``describe`` which parameters adapt. None means that none does.
    """
    check_model(model)

    compiled_init = jax.jit(init)  # one program instead of hundreds, one for each operation and shape

    def checked_init(key, images):
        check_key(key)
        images = check_images("images", images)
        try:
            return compiled_init(key, images)
        except UserError as error:
            raise UserError(*error.args) from None  # the line alone, without JAX's note on the frames that it left out

    @functools.wraps(adapt)
    def checked_adapt(params, support_images, support_labels):
        images = check_images("support images", support_images)
        labels = check_labels("support labels", support_labels, len(images), num_classes(model, images))
        with fitting(params, images):
            return adapt(varying_like(params, images), images, labels)

    def checked_predict(params, adapted, query_images):
        images = check_images("query images", query_images)
        try:
            with fitting(params, images):
                return predict(varying_like(params, images), adapted, images)
        except AttributeError as error:
            if error.obj is not adapted:
                raise
            raise UserError(f"adapted is of type {type(adapted).__name__}; expected what adapt returns") from None

    def checked_loss(params, episode, iteration=None):
        check_episode(episode)
        support, query = (check_images(f"{kind} images", getattr(episode, f"{kind}_images")) for kind in SETS)
        if support.shape[1:] != query.shape[1:]:
            raise UserError(
                f"query images have shape {list(query.shape)}, support images {list(support.shape)}; "
                "expected one height, width and number of channels"
            )
        support_labels, query_labels = (
            check_labels(f"{kind} labels", getattr(episode, f"{kind}_labels"), len(images), num_classes(model, images))
            for kind, images in zip(SETS, (support, query), strict=True)
        )
        with fitting(params, support):
            episode = Episode(support, support_labels, query, query_labels)
            return loss(varying_like(params, support), episode, iteration)

    # Not fields of MetaLearner, whose callers may unpack it into four functions and spec.
    checked_adapt.model_and_labels = model, param_labels  # pyright: ignore[reportAttributeAccessIssue]
    return MetaLearner(checked_init, checked_adapt, checked_predict, checked_loss)


def model_and_labels(learner: MetaLearner) -> tuple[nn.Module | None, ParamLabels | None]:
    """The model of a learner and its label function, each None if it is not known. A metric learner has no labels."""
    return getattr(learner.adapt, "model_and_labels", (None, None))  # jax.jit keeps this attribute


def check_way(learner: MetaLearner, way: int, images: Any) -> None:
    """Refuses episodes of ``way`` classes for a learner whose model tells fewer apart.

    A compiled program could not refuse their labels, and would give NaN.
    """
    model, _ = model_and_labels(learner)
    if model is not None and way > (classes := num_classes(model, images)):
        raise UserError(
            f"way is {way}, but the learner's model has {classes} classes; make the model with num_classes={way}, or "
            f"the sampler with way={classes}"
        )
