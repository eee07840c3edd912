"""A learner from an inner loop: everything around ``adapt`` that gradient-based learners share."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from cxgrad_jax.arguments import check_function
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checked import checked
from cxgrad_jax.learners._checks import check_hyper_parameters, refuse_running
from cxgrad_jax.learners._labels import ParamLabels, default_labels
from cxgrad_jax.learners._losses import query_loss
from cxgrad_jax.learners._meta_learner import Adapt, Adapted, InitExtra, Loss, MetaLearner, Predict
from cxgrad_jax.learners._model import apply_model, as_float, batch_statistics, init_model
from cxgrad_jax.learners._modules import check_logits


def gradient_based(
    model: nn.Module,
    adapt: Adapt,
    init_extra: InitExtra | None = None,
    loss: Loss | None = None,
    param_labels: ParamLabels | None = default_labels,
    query_statistics: str = "query",
    temperature: float = 1.0,
) -> MetaLearner:
    """Makes a learner from an inner loop. The query logits are those of the adapted model.

    Args:
      model: a ``flax.linen`` classifier.
      adapt: ``(params, support_images, support_labels) -> Adapted``.
      init_extra: ``(key, model_params, images) -> meta-parameters`` beside ``"model"``, or in its place.
      loss: a ``MetaLearner.loss``. If None, it is the mean cross-entropy of the query set.
      param_labels: which parameters ``adapt`` adapts, for ``describe``.
      query_statistics: the statistics that normalise the query images (``with_query_statistics``).
      temperature: the number by which the query logits are divided.

    Raises:
      UserError: ``query_statistics`` is not ``"query"`` or ``"support"``, ``temperature`` is not positive, or ``adapt``
        is not a function.
    """
    check_hyper_parameters({"query_statistics": query_statistics, "temperature": temperature})
    refuse_running(query_statistics)
    check_function("adapt", adapt, "a function (params, support_images, support_labels) -> Adapted")
    adapt = with_query_statistics(model, adapt, query_statistics)

    def init(key, images):
        images = as_float(images)
        model_key, extra_key = jax.random.split(key)
        output, model_params = init_model(model, model_key, images)
        check_logits(model, output)
        extra = init_extra(extra_key, model_params, images) if init_extra else {}
        if not isinstance(extra, Mapping):
            raise UserError(f"init_extra returned {type(extra).__name__}; expected a dict of meta-parameters by name")
        return {"model": model_params, **extra}

    predict = predict_adapted(model, temperature)
    return checked(model, init, adapt, predict, loss or query_loss(adapt, predict), param_labels)


def predict_adapted(model: nn.Module, temperature: float = 1.0) -> Predict:
    """Makes a ``MetaLearner.predict``: the logits of the model in ``Adapted``, divided by ``temperature``."""

    def predict(params, adapted, query_images):
        del params
        check_adapted(adapted)
        logits = apply_model(model, adapted.model, query_images, statistics=adapted.statistics)
        return logits if temperature == 1 else logits / temperature

    return predict


def check_adapted(adapted: Any) -> None:
    """Refuses anything but ``Adapted``."""
    if not isinstance(adapted, Adapted):
        raise UserError(
            f"adapted is of type {type(adapted).__name__}; expected what adapt returns, an Adapted(model, trace)"
        )


def with_query_statistics(model: nn.Module, adapt: Adapt, query_statistics: str) -> Adapt:
    """Makes an ``adapt`` whose result keeps the statistics that are to normalise the query images.

    Args:
      model: the model that ``adapt`` adapts.
      adapt: ``(params, support_images, support_labels) -> Adapted``.
      query_statistics: ``"query"`` takes the query images' own statistics, as in the official codes. The prediction for
        an image then depends on the others in its batch (transductive). ``"support"`` takes the statistics of the
        support set at the adapted parameters. The prediction for an image then depends on that image alone (inductive).
    """
    if query_statistics == "query":
        return adapt

    @functools.wraps(adapt)
    def adapt_and_record(params, support_images, support_labels):
        adapted = adapt(params, support_images, support_labels)
        check_adapted(adapted)
        return adapted._replace(statistics=batch_statistics(model, adapted.model, support_images))

    return adapt_and_record
