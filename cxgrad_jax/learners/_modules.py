"""What a model consists of: the classes of its modules, its number of classes, its head."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.arguments import is_whole
from cxgrad_jax.errors import UserError
from cxgrad_jax.keys import fixed_draws
from cxgrad_jax.learners._mlp import linear
from cxgrad_jax.learners._model import Params, apply_model, init_model
from cxgrad_jax.platforms import host_device

TOLERANCE = 0.05  # of the largest logit, when the head is checked: more than the rounding of half precision

ModuleClass = type[nn.Module]


class Traced(NamedTuple):
    """What a trace of a model on one image finds.

    Attributes:
      classes: the class of every module, by path, in the order of their calls.
      output_shapes: the shape of each array that the model returns.
    """

    classes: dict[str, ModuleClass]
    output_shapes: tuple[tuple[int, ...], ...]


def module_classes(model: nn.Module, images: Any) -> dict[str, ModuleClass]:
    """The class of every module of ``model`` by path. The path of the model itself is ``""``.

    Args:
      model: a ``flax.linen`` module.
      images: ``[N, H, W, C]`` that the model takes. Only shape and dtype matter; nothing is computed.
    """
    return _traced(model, images).classes


def head_name(model: nn.Module, model_params: Mapping[str, Any], images: Any) -> str:
    """The name of the head: the layer with parameters that ``model`` calls last.

    Args:
      model: a ``flax.linen`` module.
      model_params: its parameters, or anything by the names of its layers.
      images: ``[N, H, W, C]`` that the model takes. Only shape and dtype matter; nothing is computed.
    """
    return [path for path in module_classes(model, jnp.asarray(images)) if path in model_params][-1]


def num_outputs(model: nn.Module, images: Any) -> int:
    """The number of classes of a model whose output for ``images [N, H, W, C]`` is ``[N, way]``.

    Raises:
      UserError: the output has another shape, or there are several.
    """
    return _width_of_logits(model, _traced(model, images).output_shapes, 1)


def num_classes(model: nn.Module, images: Any) -> int:
    """The number of classes that a model tells apart in ``images [N, H, W, C]``."""
    classes = getattr(model, "num_classes", None)
    return int(classes) if is_whole(classes) else num_outputs(model, images)


def check_logits(model: nn.Module, output: Any) -> None:
    """Refuses a model whose ``output`` for some images is not logits, or not as many as its ``num_classes``."""
    shapes = tuple(x.shape for x in jax.tree.leaves(output))
    width = _width_of_logits(model, shapes, shapes[0][0] if shapes and shapes[0] else 1)
    if is_whole(classes := getattr(model, "num_classes", None)) and classes != width:
        raise UserError(f"{type(model).__name__} has num_classes={classes} and gives {width} logits an image")


def check_head(model: nn.Module, model_params: Params, images: Any) -> None:
    """Refuses a model whose logits are not those of its head on the features of ``embed``.

    An inner loop of the head alone would adapt another network than the one that predicts. Random numbers take the
    places of the parameters and of four images of the shape of ``images [N, H, W, C]``, because at the start zeros may
    hide the difference. The host computes both, even while ``init`` is traced. This package's own networks are not
    computed: they are right, and slow to compile.
    """
    if type(model).__module__.startswith("cxgrad_jax."):
        return

    @jax.jit
    def differ(key):
        drawn = jax.tree.map(lambda x: jax.random.normal(key, x.shape, x.dtype), model_params)
        inputs = jax.random.normal(key, (4, *images.shape[1:]))
        logits = apply_model(model, drawn, inputs)
        head, features = drawn["head"], apply_model(model, drawn, inputs, "embed")
        if head.keys() != {"kernel", "bias"} or features.shape[-1] != len(head["kernel"]):
            return True
        of_head = linear(head, features)
        return ~(jnp.max(jnp.abs(logits - of_head)) <= TOLERANCE * jnp.max(jnp.abs(logits)))

    with jax.ensure_compile_time_eval(), jax.default_device(host_device()), fixed_draws():
        if differ(jax.random.key(0)):
            raise UserError(
                f"the logits of {type(model).__name__} are not those of its head on the features of embed; let "
                "__call__ return head(embed(images)), where head has a kernel and a bias"
            )


def _width_of_logits(model: nn.Module, shapes: tuple[tuple[int, ...], ...], number: int) -> int:
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != number:
        found = " and ".join(str(list(shape)) for shape in shapes) or "nothing"
        images = "one image" if number == 1 else f"{number} images"
        raise UserError(
            f"the model {type(model).__name__} gives {found} for {images}; expected logits [{number}, way], one row an "
            "image"
        )
    return shapes[0][1]


def _traced(model: nn.Module, images: Any) -> Traced:
    """Traces a model on one of ``images [N, H, W, C]``. A model with a hash is only traced once for a shape."""
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    dtype = jax.dtypes.canonicalize_dtype(images.dtype if floating else jnp.float32)  # float64 only if it is enabled
    arguments = model, (1, *images.shape[1:]), dtype
    try:
        hash(model)
    except TypeError:  # a field that has no hash, such as a list
        return _trace_model.__wrapped__(*arguments)
    return _trace_model(*arguments)


@functools.lru_cache(maxsize=64)
def _trace_model(model: nn.Module, shape: tuple[int, ...], dtype: Any) -> Traced:
    """Traces ``init`` of a model on images of ``shape [N, H, W, C]`` and ``dtype``."""
    classes: dict[str, ModuleClass] = {}

    def record(call, arguments, keywords, context):
        classes["/".join(context.module.path)] = type(context.module)
        return call(*arguments, **keywords)

    def output_of(key, images):
        with nn.intercept_methods(record):
            return init_model(model, key, images)[0]

    outputs = jax.eval_shape(output_of, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))
    return Traced(classes, tuple(output.shape for output in jax.tree.leaves(outputs)))
