"""What all learners share: the four functions, the checks in front of them, and the query loss."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cxgrad_jax.arguments import check_episode, check_function, check_key, is_whole
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checks import (
    check_hyper_parameters,
    check_images,
    check_labels,
    check_model,
    fitting,
    nan_where_wrong,
    refuse_running,
    wide_labels,
)
from cxgrad_jax.learners._labels import ParamLabels, default_labels
from cxgrad_jax.learners._model import (
    Params,
    Statistics,
    apply_model,
    as_float,
    batch_statistics,
    check_logits,
    init_model,
    num_outputs,
)
from cxgrad_jax.models._dtypes import widen
from cxgrad_jax.parallel import varying_like

Metrics = dict[str, jax.Array]


class Init(Protocol):
    """``(key, images [N, H, W, C]) -> params``."""

    def __call__(self, key: jax.Array, images: Any, /) -> Params: ...


class Adapt(Protocol):
    """``(params, support_images [N, H, W, C], support_labels [N]) -> adapted``."""

    def __call__(self, params: Params, support_images: Any, support_labels: Any, /) -> Any: ...


class Predict(Protocol):
    """``(params, adapted, query_images [M, H, W, C]) -> logits [M, way]``."""

    def __call__(self, params: Params, adapted: Any, query_images: Any, /) -> jax.Array: ...


class Loss(Protocol):
    """``(params, episode, iteration=None) -> (loss, metrics)``."""

    def __call__(self, params: Params, episode: Episode, iteration: Any = None) -> tuple[jax.Array, Metrics]: ...


class InitExtra(Protocol):
    """``(key, model_params, images [N, H, W, C] of floats) -> the meta-parameters beside "model"``."""

    def __call__(self, key: jax.Array, model_params: Params, images: jax.Array, /) -> dict[str, Params]: ...


class Objective(Protocol):
    """``(logits [N, way], labels [N]) -> scalar``."""

    def __call__(self, logits: jax.Array, labels: jax.Array, /) -> jax.Array: ...


class MetaLearner(NamedTuple):
    """A learner is four pure functions of one episode. The caller batches them.

    The functions can be compiled, vectorised and differentiated in reverse mode. Forward mode (``jax.jvp``,
    ``jax.hessian``) fails in this package's networks, whose gradients have rules of their own.

    Images are uint8 in 0..255 or floats in [0, 1], and labels are integers from 0 to way - 1. Each function raises
    ``UserError`` for other shapes and dtypes, and for other values if they are known. If a label is only known inside a
    compiled program and is not in 0 to way - 1, logits and loss are NaN.

    Attributes:
      init: ``(key, images [N, H, W, C]) -> params``. Images give shapes and dtype; uint8 gives float32 parameters.
      adapt: ``(params, support_images, support_labels) -> adapted``, the inner loop.
      predict: ``(params, adapted, query_images) -> logits [N, way]``.
      loss: ``(params, episode, iteration=None) -> (loss, metrics)``. The loss is the query loss after adaptation, a
        scalar; the metrics are a dict of scalars with ``"accuracy"``. ``iteration`` is the outer iteration, for
        objectives that change over training. The gradient of the loss with respect to the running averages
        ``params["statistics"]`` is the step that they take (see ``with_running_averages``).
      spec: the learner as plain values that JSON can hold: the name and the hyper-parameters of its factory, and the
        class and the fields of the model (see ``learners._spec``). ``cx.learners.from_spec`` makes the learner from it.
        It is empty if they are not known.
    """

    init: Init
    adapt: Adapt
    predict: Predict
    loss: Loss
    spec: dict[str, Any] = {}  # never changed in place

    def __hash__(self) -> int:  # a dict has none
        return hash(self[:4])

    def __repr__(self) -> str:
        from cxgrad_jax.learners._spec import text_of  # which imports this module

        if self.spec:
            return text_of(self.spec)
        adapt = inspect.unwrap(self.adapt)
        return f"MetaLearner(adapt={adapt.__module__}.{adapt.__qualname__})"


class Adapted(NamedTuple):
    """What ``adapt`` returns: the model's parameters after the inner loop, and what happened in it.

    Attributes:
      model: the parameters of the whole model, adapted or not, as ``model.apply`` takes them.
      trace: arrays, most with a leading axis of inner steps, such as ``"support_loss" [num_steps]``. Among them is
        ``"fast"``, a dict by path of the adapted parameters at which each step takes its gradient.
        ``cxgrad_jax.analysis`` needs it. All but ModGrad's and CAVIA's have ``"gradient_norm/LAYER" [num_steps]``. What
        else is there, the learner's docstring says. Compiled code does not compute what its caller does not use.
      statistics: means and variances by which ``predict`` normalises the query images. If they are empty, the query
        images are normalised by their own.
    """

    model: Params
    trace: dict[str, Any]
    statistics: Statistics = {}  # never changed in place


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
      query_statistics: the statistics that normalise the query images (``with_statistics``).
      temperature: the number by which the query logits are divided.

    Raises:
      UserError: ``query_statistics`` is not ``"query"`` or ``"support"``, ``temperature`` is not positive, or ``adapt``
        is no function.
    """
    check_hyper_parameters({"query_statistics": query_statistics, "temperature": temperature})
    refuse_running(query_statistics)
    check_function("adapt", adapt, "a function (params, support_images, support_labels) -> Adapted")
    adapt = with_statistics(model, adapt, query_statistics)

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


def with_statistics(model: nn.Module, adapt: Adapt, query_statistics: str) -> Adapt:
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

    checked_adapt.model_and_labels = model, param_labels  # pyright: ignore[reportAttributeAccessIssue]
    return MetaLearner(checked_init, checked_adapt, checked_predict, checked_loss)


SETS = ("support", "query")


def model_and_labels(learner: MetaLearner) -> tuple[nn.Module | None, ParamLabels | None]:
    """The model of a learner and its label function, each None if it is not known. A metric learner has no labels."""
    return getattr(learner.adapt, "model_and_labels", (None, None))  # jax.jit keeps this attribute


def num_classes(model: nn.Module, images: Any) -> int:
    """The number of classes that a model tells apart in ``images [N, H, W, C]``."""
    classes = getattr(model, "num_classes", None)
    return int(classes) if is_whole(classes) else num_outputs(model, images)


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
    norms = {f"inner_{name}": jnp.mean(of_steps) for name, of_steps in trace.items() if "gradient_norm" in name}
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
