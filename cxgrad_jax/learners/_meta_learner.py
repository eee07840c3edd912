"""What a learner is: four pure functions of one episode. Here are their types, and what ``adapt`` returns."""

import inspect
from typing import Any, NamedTuple, Protocol

import jax

from cxgrad_jax.episodes import Episode
from cxgrad_jax.learners._model import Params, Statistics

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
        ``cxgrad_jax.analysis`` needs it. All but ModGrad's and CAVIA's have ``"gradient_norm/LAYER" [num_steps]``. The
        learner's docstring lists the others. Compiled code does not compute what its caller does not use.
      statistics: means and variances by which ``predict`` normalises the query images. If they are empty, the query
        images are normalised by their own.
    """

    model: Params
    trace: dict[str, Any]
    statistics: Statistics = {}  # never changed in place
