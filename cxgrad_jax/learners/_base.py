"""What every learner shares: its four functions, the model's application, the loss, which parameters adapt."""

import re
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError

Params = Any  # a pytree of meta-parameters
Fast = dict[str, jax.Array]  # parameters that adapt to a task, by path: "block_0/conv/kernel"
Labels = Callable[[str, jax.Array], str]

SCALED, ADAPTED, META = "scaled", "adapted", "meta"


class MetaLearner(NamedTuple):
    """A learner is four pure functions, each of one episode; batching is the caller's.

    Attributes:
      init: ``(key, images [N, H, W, C]) -> params``. Images give shapes and dtype; uint8 gives float32 parameters.
      adapt: ``(params, support_images, support_labels) -> task``, the inner loop.
      predict: ``(params, task, query_images) -> logits [N, way]``.
      loss: ``(params, episode, iteration=None) -> (loss, metrics)``: the query loss after adaptation, a scalar, and a
        dict of scalars with ``"accuracy"``. ``iteration`` is the outer iteration, for objectives that change over
        training.
    """

    init: Callable[..., Params]
    adapt: Callable[..., Any]
    predict: Callable[..., jax.Array]
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


class Task(NamedTuple):
    """What ``adapt`` returns: the model's parameters after the inner loop, and what happened in it.

    Attributes:
      model: the adapted parameters of the whole model (adapted and merely meta-learned ones), as ``model.apply`` takes.
      trace: arrays with a leading axis of inner steps, such as ``"support_loss" [num_steps]``; among them ``"fast"``, a
        dict of the adapting parameters by path, as each step takes its gradient there, which ``cxgrad_jax.analysis``
        needs. What a caller does not use is not computed in compiled code.
    """

    model: Params
    trace: dict[str, Any]


def gradient_based(
    model: nn.Module,
    adapt: Callable[[Params, jax.Array, jax.Array], Task],
    init_extra: Callable[[jax.Array, Params, jnp.dtype], dict[str, Params]] | None = None,
) -> MetaLearner:
    """Makes a learner of an inner loop: query logits come from the adapted model.

    Args:
      model: a ``flax.linen`` classifier.
      adapt: as ``MetaLearner.adapt``.
      init_extra: ``(key, model_params, dtype) -> dict`` of meta-parameters beside ``"model"``, or in its place.
    """

    def init(key, images):
        images = as_float(images)
        model_key, extra_key = jax.random.split(key)
        model_params = model.init(model_key, images)["params"]
        extra = init_extra(extra_key, model_params, images.dtype) if init_extra else {}
        return {"model": model_params, **extra}

    def predict(params, task, query_images):
        del params
        return apply_model(model, task.model, query_images)

    return MetaLearner(init, adapt, predict, query_loss(adapt, predict))


def query_loss(adapt: Callable, predict: Callable, objective: Callable | None = None) -> Callable:
    """Makes ``MetaLearner.loss`` of the two functions before it, an objective that does not change over training.

    Args:
      adapt: as ``MetaLearner.adapt``.
      predict: as ``MetaLearner.predict``.
      objective: ``(logits [N, way], labels [N]) -> scalar``; ``cross_entropy`` if None.

    Metrics: ``"accuracy"``, and where the trace has norms of gradients, their means over the inner steps, such as
    ``"inner_gradient_norm/head"``.
    """

    def loss(params, episode: Episode, iteration=None):
        del iteration
        task = adapt(params, episode.support_images, episode.support_labels)
        logits = predict(params, task, episode.query_images)
        value = (objective or cross_entropy)(logits, episode.query_labels)
        trace = task.trace if isinstance(task, Task) else {}
        norms = {f"inner_{name}": jnp.mean(of_steps) for name, of_steps in trace.items() if "gradient_norm" in name}
        return value, {"accuracy": accuracy(logits, episode.query_labels), **norms}

    return loss


def as_float(images: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """Images as floats in [0, 1]: uint8 is divided by 255 in ``dtype`` (float32 if None).

    Floats in half precision become float32, which losses, gradients and meta-parameters need; a model computes in half
    precision where its ``dtype`` says so. Other floats pass unchanged.
    """
    if images.dtype == jnp.uint8:
        return images.astype(dtype or jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images have dtype {images.dtype}; give uint8 in 0..255 or floats in [0, 1]")
    images = jnp.asarray(images)
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def apply_model(model: nn.Module, model_params: Params, images: jax.Array, method: str = "__call__") -> jax.Array:
    """Logits of ``images [N, H, W, C]``, ``[N, way]``, or what else ``method`` of the model gives.

    Running statistics that a model keeps are dropped.
    """
    dtype = jax.tree.leaves(model_params)[0].dtype
    output, _ = model.apply({"params": model_params}, as_float(images, dtype), mutable=["batch_stats"], method=method)
    return output


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of ``logits [N, way]`` and ``labels [N]``, a scalar in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of ``logits [N, way]`` whose largest entry is at ``labels [N]``, a scalar in [0, 1]."""
    return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype))


def default_labels(path: str, leaf: jax.Array) -> str:
    """What the inner loop does with the model parameter at ``path``, the rule of the official code.

    Returns ``"meta"`` (learned by the outer loop only) for normalisation scale and shift, ``"scaled"`` (adapted, and
    scaled by CxGrad) for every convolution kernel but a shortcut's, ``"adapted"`` for the rest.
    """
    if "norm" in path.lower():
        return META
    if leaf.ndim == 4 and "shortcut" not in path.lower():
        return SCALED
    return ADAPTED


def split_by_label(model_params: Params, labels: Labels) -> tuple[Fast, Fast, list[str]]:
    """Splits model parameters into (adapted ones, meta-learned ones, paths of the scaled among the adapted).

    Paths are in natural order (``block_2`` before ``block_10``), kernels before biases: the forward order of the models
    here.
    """
    flat = by_path(model_params)
    kinds = {path: labels(path, flat[path]) for path in sorted(flat, key=_natural)}
    unknown = {path: kind for path, kind in kinds.items() if kind not in (SCALED, ADAPTED, META)}
    if unknown:
        path, kind = next(iter(unknown.items()))
        raise UserError(f"label {kind!r} of parameter {path}: expected '{SCALED}', '{ADAPTED}' or '{META}'")
    fast = {path: flat[path] for path, kind in kinds.items() if kind != META}
    if not fast:
        raise UserError("no parameter of the model adapts: labels() gave 'meta' for every path")
    frozen = {path: flat[path] for path, kind in kinds.items() if kind == META}
    return fast, frozen, [path for path, kind in kinds.items() if kind == SCALED]


def by_path(params: Params, until: Container[str] = ()) -> dict[str, Any]:
    """A nested dict of parameters as one dict by path, such as ``"block_0/conv/kernel"``. ``merge`` is its inverse.

    What lies at a path in ``until`` stays as it is, nested or not.
    """
    return dict(flatten_dict(params, is_leaf=lambda path, _: "/".join(path) in until, sep="/"))


def merge(*by_path: Mapping[str, Any]) -> Params:
    """The inverse of ``split_by_label`` and ``by_path``: parameters as one nested dict."""
    return unflatten_dict({path: value for part in by_path for path, value in part.items()}, sep="/")


def _natural(path: str) -> list:
    path = path.removesuffix("kernel")
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]
