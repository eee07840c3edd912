"""What a learner refuses: bad hyper-parameters, images and labels, and parameters made for other images.

Shapes and dtypes are also checked while tracing. Values are checked only if they are known.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cxgrad_jax.arguments import as_array, check_image_shape, check_params, is_finite, is_whole
from cxgrad_jax.errors import UserError

# The least value of each hyper-parameter that is a whole number, and the sign or range of each other one.
AT_LEAST = {
    "num_steps": 1, "num_passes": 1, "num_mix": 1, "context_dim": 1, "hidden": 1, "epoch_iterations": 1,
    "num_epochs": 1, "batch_size": 1, "multi_step_epochs": 0, "first_order_epochs": 0,
}  # fmt: skip
POSITIVE = ("inner_lr", "initial_lr", "scale", "initial_scale", "regularisation", "temperature")
NOT_NEGATIVE = ("context_lr", "initial_decay")
SHARES = ("label_smoothing",)
CHOICES = {
    "context_update": ("task", "step"),
    "shot_reduction": ("sum", "mean"),
    "query_statistics": ("query", "support", "running"),
    "classifier": ("cosine", "linear"),
    "head": ("ridge", "svm"),
}

BOOLEANS = (
    "alfa", "differentiate_first_context", "first_order", "full_context", "joint_normalisation",
    "learned_regularisation", "logarithmic", "remat",
)  # fmt: skip

LOWEST, HIGHEST = -0.5, 1.5  # resampling lets float images leave [0, 1] a little


def check_model(model: Any) -> None:
    """Refuses a model that is not a ``flax.linen`` module."""
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise UserError(f"model is {kind}; expected a flax.linen module such as cx.models.Conv4(num_classes=5)")


def check_hyper_parameters(values: Mapping[str, Any]) -> None:
    """Refuses values of hyper-parameters that no learner can run with. A name means the same in all learners."""
    for name, value in values.items():
        if name in AT_LEAST and not (is_whole(value) and value >= AT_LEAST[name]):
            whole = "" if is_whole(value) else "a whole number, "
            raise UserError(f"{name} is {value!r}; expected {whole}at least {AT_LEAST[name]}")
        if name in POSITIVE and not (is_finite(value) and value > 0):
            raise UserError(f"{name} is {value!r}; expected a positive number")
        if name in NOT_NEGATIVE and not (is_finite(value) and value >= 0):
            raise UserError(f"{name} is {value!r}; expected a number that is not negative")
        if name in SHARES and not (is_finite(value) and 0 <= value < 1):
            raise UserError(f"{name} is {value!r}; expected a number from 0 to below 1")
        if name == "param_labels" and not callable(value):
            raise UserError(f"{name} is {value!r}; expected a function of path and value, such as default_labels")
        if name in BOOLEANS and not isinstance(value, bool):
            raise UserError(f"{name} is {value!r}; expected True or False")
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"{name} is {value!r}; expected {' or '.join(map(repr, CHOICES[name]))}")


def refuse_running(query_statistics: str) -> None:
    """Refuses running averages, for a learner whose method has none."""
    if query_statistics == "running":
        raise UserError(
            "query_statistics is 'running'; expected 'query' or 'support', for this method has no running averages"
        )


def check_images(name: str, images: Any) -> Any:
    """Returns ``images`` as an array, if they can be a model's input.

    Args:
      name: what the message calls them.
      images: ``[N, H, W, C]``, uint8 in 0..255 or floats in [0, 1].

    Raises:
      UserError: they have another shape or dtype, there is no image, or their values are known and are floats far
        outside of [0, 1].
    """
    images = as_array(name, images)
    check_image_shape(name, images.shape)
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"{name} have dtype {images.dtype}; expected uint8 in 0..255 or floats in [0, 1]")
    if images.dtype != np.uint8 and _is_known(images):
        values = np.asarray(images)  # NumPy's minimum is NaN if any value is. XLA's on a CPU may skip it.
        low, high = float(values.min()), float(values.max())
        if not (low >= LOWEST and high <= HIGHEST):
            raise UserError(
                f"{name} are floats from {low:.4g} to {high:.4g}; expected 0 to 1 (divide by 255?) or uint8"
            )
    return images


def check_labels(name: str, labels: Any, num_images: int, way: int) -> Any:
    """Returns ``labels`` as an array, if they can be the class labels of ``num_images`` images.

    Args:
      name: what the message calls them.
      labels: integers ``[num_images]``, 0 to way - 1.
      num_images: the number of images that they belong to.
      way: the number of the model's classes.

    Raises:
      UserError: they have another shape or dtype, or their values are known and one is outside of 0 to way - 1.
    """
    labels = as_array(name, labels)
    if list(labels.shape) != [num_images]:
        raise UserError(f"{name} have shape {list(labels.shape)}; expected [{num_images}], one label an image")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"{name} have dtype {labels.dtype}; expected integers, 0 to way - 1")
    if _is_known(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= way:
            raise UserError(
                f"{name} run from {low} to {high}; expected 0 to {way - 1}, for the model has {way} classes; "
                "number the classes of the episode anew"
            )
    return wide_labels(labels)


def wide_labels(labels: Any) -> Any:
    """Casts labels of fewer than 32 bits to int32. Their own dtype may be too small for ``way``: uint8 has no 256."""
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def nan_where_wrong(values: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """Replaces ``values [N, ...]`` and their gradients by NaN where ``labels [N]`` are not in 0 .. way - 1.

    A label that is only known when a compiled program runs cannot raise. It gives NaN, never a plausible number.
    """
    labels = wide_labels(labels)
    right = ((labels >= 0) & (labels < way)).reshape(-1, *(1 for _ in values.shape[1:]))
    # The factor makes the gradient NaN. It does not suffice alone: where values are 0 or 1, XLA takes 0 * NaN for 0.
    return jnp.where(right, values * jnp.where(right, 1, jnp.nan).astype(values.dtype), jnp.nan)


@contextmanager
def fitting(params: Any, images: Any) -> Iterator[None]:
    """A context that says in one line that parameters do not fit a learner or the images.

    Raises:
      UserError: ``params`` is not a dict or has no array; or in the context, flax or a learner misses a parameter or
        finds one of another shape.
    """
    check_params(params)
    if not isinstance(params, Mapping):
        raise UserError(f"params is of type {type(params).__name__}; expected a dict, as this learner's init gives it")
    shape = f"images of shape {list(images.shape)}"
    try:
        yield
    except flax.errors.ScopeParamShapeError as error:
        needed, given = re.findall(r"shape (\([\d, ]*\))", str(error))
        leaf, module = re.findall(r"\"/?(.*?)\"", str(error))[:2]
        raise UserError(
            f"parameter {f'{module}/{leaf}'.strip('/')} has shape {given}, but {shape} need {needed}; "
            "give images of the size and channels, and the model, that init made the parameters for"
        ) from None
    except (flax.errors.ScopeParamNotFoundError, flax.errors.ScopeCollectionNotFound) as error:
        reason = str(error).split(". ")[0].split(" (https")[0]
        raise UserError(f"the parameters are of another model ({reason}); give those of this learner's init") from None
    except KeyError as error:
        name = error.args[0] if error.args else None
        if not (isinstance(name, str) and name not in params):
            raise
        raise UserError(f"the parameters have no {name!r}; give those of this learner's init") from None


def _is_known(array: Any) -> bool:
    """Whether the values can be read. While tracing, or if other processes hold a part of them, they cannot."""
    return not isinstance(array, Tracer) and getattr(array, "is_fully_addressable", True)
