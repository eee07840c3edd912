"""How a learner applies a model: images as floats, its parameters, its output, its modules."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError

Params = Any  # a pytree of meta-parameters
ModuleClass = type[nn.Module]


def as_float(images: jax.Array, dtype: Any = None) -> jax.Array:
    """Images as floats in [0, 1]: uint8 is divided by 255 in ``dtype`` (float32 if None).

    Floats in half precision become float32, which losses, gradients and meta-parameters need; a model computes in half
    precision where its ``dtype`` says so. Other floats pass unchanged.
    """
    if images.dtype == jnp.uint8:
        return images.astype(dtype or jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images have dtype {images.dtype}; expected uint8 in 0..255 or floats in [0, 1]")
    images = jnp.asarray(images)
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def init_model(model: nn.Module, key: jax.Array, images: Any, method: str = "__call__") -> tuple[jax.Array, Params]:
    """The output of ``method`` of the model on ``images [N, H, W, C]``, and the parameters that it draws for that.

    Raises:
      UserError: the images are too small for the model.
    """
    with nn.intercept_methods(_refuse_empty_maps(images.shape)):
        output, variables = model.init_with_output(key, as_float(images), method=method)
    return jnp.asarray(output), variables["params"]


def apply_model(
    model: nn.Module, model_params: Params, images: jax.Array, method: str = "__call__", **keywords: Any
) -> jax.Array:
    """Logits ``[N, way]`` of ``images [N, H, W, C]``, or what else ``method`` of the model gives.

    Running statistics that a model keeps are dropped.

    Raises:
      UserError: the images are too small for the model.
    """
    images = as_float(images, jax.tree.leaves(model_params)[0].dtype)
    with nn.intercept_methods(_refuse_empty_maps(images.shape)):
        output, _ = model.apply({"params": model_params}, images, mutable=["batch_stats"], method=method, **keywords)
    return output


def module_classes(model: nn.Module, images: Any) -> dict[str, ModuleClass]:
    """The class of every module of ``model`` by path, ``""`` being the model itself.

    Args:
      model: a ``flax.linen`` module.
      images: ``[N, H, W, C]``, what a call takes. Only shape and dtype matter; nothing is computed.
    """
    return _called(model, images)[0]


def num_outputs(model: nn.Module, images: Any) -> int:
    """The size of the last axis of the model's output for ``images [N, H, W, C]``: the way of a classifier."""
    return _called(model, images)[1]


def _called(model: nn.Module, images: Any) -> tuple[dict[str, ModuleClass], int]:
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.dtype(jnp.float32)
    arguments = model, (1, *images.shape[1:]), dtype
    try:
        hash(model)
    except TypeError:  # a field that has no hash, such as a list
        return _call.__wrapped__(*arguments)
    return _call(*arguments)


@functools.lru_cache(maxsize=64)
def _call(model: nn.Module, shape: tuple[int, ...], dtype: Any) -> tuple[dict[str, ModuleClass], int]:
    found: dict[str, ModuleClass] = {}

    def record(call, arguments, keywords, context):
        found["/".join(context.module.path)] = type(context.module)
        return call(*arguments, **keywords)

    def output_of(key, images):
        with nn.intercept_methods(record):
            return init_model(model, key, images)[0]

    output = jax.eval_shape(output_of, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))
    return found, output.shape[-1]


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
