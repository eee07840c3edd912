"""How a learner applies a model: images as floats, the model's parameters, output and statistics."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._flax_batch_norm import flax_batch_norm
from cxgrad_jax.models._dtypes import widen
from cxgrad_jax.parallel import varying_like

Params = Any  # a pytree of meta-parameters
Statistics = Any  # means and variances of batch normalisations: flax's collection "batch_stats"

# Of flax: those that a learner passes to a model, and those that a model only writes to.
COLLECTIONS = {"params", "batch_stats", "intermediates", "perturbations"}


def as_float(images: jax.Array, dtype: Any = None) -> jax.Array:
    """Returns images as floats in [0, 1]. uint8 is divided by 255 in ``dtype`` (float32 if None).

    Floats in half precision become float32, which losses, gradients and meta-parameters need. (A model computes in half
    precision if its ``dtype`` says so.) Other floats stay as they are.
    """
    if images.dtype == jnp.uint8:
        return images.astype(dtype or jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images have dtype {images.dtype}; expected uint8 in 0..255 or floats in [0, 1]")
    return widen(jnp.asarray(images))


def dtype_of(params: Params) -> jnp.dtype:
    """The dtype of parameters. flax makes a model's float32 whatever the images are; a learner's own follow them."""
    return jax.tree.leaves(params)[0].dtype


def init_model(model: nn.Module, key: jax.Array, images: Any, method: str = "__call__") -> tuple[Any, Params]:
    """Draws a model's parameters; returns the output of ``method`` on ``images [N, H, W, C]``, and the parameters.

    Raises:
      UserError: the images are too small for the model, it has no parameters or one whose name has a slash, keeps other
        variables than parameters and statistics, or it or one of its layers needs a further argument.
    """
    name = type(model).__name__
    further = list(inspect.signature(getattr(model, method)).parameters.values())[1:]
    if needed := [x.name for x in further if x.default is x.empty and x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)]:
        raise UserError(f"{method} of {name} needs {needed[0]}; give it a default, for a learner passes images alone")
    try:
        with nn.intercept_methods(_refuse_empty_maps(images.shape)):  # whose key also serves a layer that draws numbers
            output, variables = model.init_with_output(key, as_float(images), method=method)
    except ValueError as error:
        if not (missing := re.match(r'Parameter "(\w+)" must be passed', str(error))):  # flax's, of its merge_param
            raise
        raise UserError(
            f"a layer of {name} needs {missing[1]}; give it where the layer is made, for a learner passes images alone"
        ) from None
    if "params" not in variables:
        raise UserError(f"{method} of {name} has no parameters, and a learner needs some to train")
    if others := sorted(set(variables) - COLLECTIONS):
        raise UserError(
            f"{name} keeps variables in the collection {others[0]!r}; a learner passes parameters (params) and "
            "statistics of batch normalisations (batch_stats) alone"
        )
    for path in flatten_dict(variables["params"]):
        if slashed := [part for part in path if "/" in part]:
            raise UserError(f"{name} has a parameter called {slashed[0]!r}; a learner takes names without a slash")
    return output, variables["params"]


@contextmanager
def _without_random_numbers(model: nn.Module) -> Iterator[None]:
    """A context that says in one line that a layer asks for random numbers, which a learner does not give."""
    try:
        yield
    except flax.errors.InvalidRngError as error:
        raise UserError(
            f"{type(model).__name__} asks for random numbers ({str(error).split(' (https')[0]}), and a learner gives "
            "none; a dropout layer takes deterministic=True"
        ) from None


def apply_model(
    model: nn.Module,
    model_params: Params,
    images: jax.Array,
    method: str = "__call__",
    *,
    statistics: Statistics | None = None,
    **keywords: Any,
) -> jax.Array:
    """Applies a model to ``images [N, H, W, C]``; returns logits ``[N, way]``, or the output of another ``method``.

    Args:
      model: a ``flax.linen`` module.
      model_params: its parameters.
      images: uint8 or floats in [0, 1].
      method: the name of the model's method.
      statistics: the statistics by which batch normalisations normalise, such as ``batch_statistics`` returns. If None
        or empty, they normalise by the statistics of ``images``.
      keywords: further arguments of ``method``.

    Raises:
      UserError: the images are too small for the model, or it asks for random numbers.
    """
    return _apply(model, model_params, images, method, statistics, keywords)[0]


def batch_statistics(
    model: nn.Module, model_params: Params, images: jax.Array, method: str = "__call__", **keywords: Any
) -> Statistics:
    """The means and variances that the batch normalisations of the model find in ``images``, by module.

    They are flax's collection ``"batch_stats"``, which is empty for a model without batch normalisation. Both this
    package's ``Norm`` and flax's ``BatchNorm`` are covered, the latter whatever its momentum. The arguments are those
    of ``apply_model``.
    """
    return _apply(model, model_params, images, method, None, keywords)[1]


def apply_in_training(
    model: nn.Module,
    model_params: Params,
    images: jax.Array,
    method: str = "__call__",
    *,
    statistics: Statistics,
    **keywords: Any,
) -> tuple[jax.Array, Statistics]:
    """Applies a model in a training pass, in which batch normalisations normalise by the batch.

    This package's ``Norm`` moves running averages by a tenth towards the batch's mean and unbiased variance, as PyTorch
    does. flax's ``BatchNorm`` moves them by its momentum towards the mean and the biased variance.

    Args:
      statistics: the running averages before this batch. The other arguments are those of ``apply_model``.

    Returns:
      The output of ``apply_model`` without statistics, and the running averages after this batch.
    """
    return _apply(model, model_params, images, method, statistics, keywords, moving=True)


# ``with taken_for_constants(constant):`` is a context in which the parameters of a model for whose path
# ``constant(path)`` holds get no gradients. A learner's ``adapt`` that is called inside, jitted or not, adapts only the
# other parameters, because what jit keeps counts for one value of the context.
taken_for_constants = jax.make_user_context(None)


def _apply(model, model_params, images, method, statistics, keywords, moving=False) -> tuple[jax.Array, Statistics]:
    """Returns the output and statistics: the given ones, moved by the images if ``moving``, or those of the images."""
    images = varying_like(as_float(images, dtype_of(model_params)), jax.tree.leaves(model_params)[0])
    if constant := taken_for_constants.value:
        flat = flatten_dict(model_params, sep="/")
        model_params = unflatten_dict(
            {path: jax.lax.stop_gradient(x) if constant(path) else x for path, x in flat.items()}, sep="/"
        )
    variables = {"params": model_params, **({"batch_stats": statistics} if statistics else {})}
    refuse = nn.intercept_methods(_refuse_empty_maps(images.shape))
    with refuse, nn.intercept_methods(flax_batch_norm), _without_random_numbers(model):
        if statistics and not moving:
            return model.apply(variables, images, method=method, **keywords), statistics  # pyright: ignore
        output, found = model.apply(variables, images, mutable=["batch_stats"], method=method, **keywords)
        return output, found.get("batch_stats", {})


def _refuse_empty_maps(shape: tuple[int, ...]):
    """For ``nn.intercept_methods``: refuses a layer whose input or output has no positions left."""

    def refuse(values, module):
        if any(isinstance(x, jax.Array) and x.size == 0 for x in jax.tree.leaves(values)):
            where = "/".join(module.path) or type(module).__name__
            height, width, channels = shape[1:]
            raise UserError(
                f"images of shape [N, {height}, {width}, {channels}] are too small for the model; "
                f"nothing is left of them at {where}"
            )

    def interceptor(call, arguments, keywords, context):
        refuse(arguments, context.module)
        outputs = call(*arguments, **keywords)
        refuse(outputs, context.module)
        return outputs

    return interceptor
