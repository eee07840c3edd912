"""What a network refuses: bad fields when it is made, and bad images when it is called or traced."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.arguments import check_image_shape, check_whole, is_finite, is_whole
from cxgrad_jax.errors import UserError
from cxgrad_jax.models._normalisation import GROUPS

CHOICES: dict[str, tuple[Any, ...]] = {
    "norm": ("batch", "layer", "group"),
    "use_bias": (False, True),
    "relu_output": (False, True),
    "precision": ("default", "high", "highest", None),
    "image_statistics": ("none", "imagenet", "efficientnet_lite"),
    "pooling": ("alfa", "every_block"),
    "variant": (0, 1, 2),
}
FILTERS = ("features", "channels")  # fields with numbers of filters, which a normalisation follows
BLOCKS = 4  # the number of blocks of every backbone


def check_fields(module: nn.Module) -> None:
    """Refuses values that the fields of a network cannot have. A field's name says what it is.

    Raises:
      UserError: a value is refused. The line names the field, its value and what is expected.
    """
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    for name, value in fields.items():
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"{name} is {value!r}; expected one of {', '.join(map(str, CHOICES[name]))}")
        if name in ("num_classes", "hidden"):
            check_whole(name, value)
        if name in FILTERS:
            _check_filters(name, value, fields["norm"])
        if name == "negative_slope" and not (is_finite(value) and value >= 0):
            raise UserError(
                f"{name} is {value!r}; expected a number, at least 0: pooling comes before the activation, and the "
                "order makes no difference only if the activation never falls"
            )
        if name == "norm_epsilon" and not (is_finite(value) and value >= 0):
            raise UserError(f"{name} is {value!r}; expected a number, at least 0")
        if name == "dtype" and value is not None and not _is_floating(value):
            raise UserError(f"{name} is {value!r}; expected None or a floating dtype, such as 'bfloat16'")


def check_images(images: jax.Array, smallest: int, statistics: str) -> None:
    """Refuses arrays other than images ``[N, H, W, C]`` for a network.

    Args:
      images: an array. Only its shape and dtype are checked, so it may be traced.
      smallest: the height and width that the network's poolings need.
      statistics: the network's ``image_statistics``.

    Raises:
      UserError: the images are refused. The line names the shape or the dtype and what is expected.
    """
    shape = images.shape
    check_image_shape("images", shape)
    if min(shape[1:3]) < smallest:
        raise UserError(f"images have shape {list(shape)}; expected [N, H, W, C] with H and W at least {smallest}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images have dtype {images.dtype}; expected floats in [0, 1] (divide uint8 by 255)")
    if statistics != "none" and shape[-1] not in (1, 3):
        raise UserError(
            f"images have {shape[-1]} channels; image_statistics={statistics!r} needs 3, or 1 for grey images"
        )


def _check_filters(name: str, value: Any, norm: str) -> None:
    numbers: Any = value if name == "channels" else (value,)
    if name == "channels" and (not isinstance(value, tuple | list) or len(value) != BLOCKS):
        raise UserError(f"{name} is {value!r}; expected {BLOCKS} numbers of filters, one a block")
    multiple = GROUPS if norm == "group" else 1
    if not all(is_whole(filters) and filters > 0 and filters % multiple == 0 for filters in numbers):
        needed = f" that are multiples of {GROUPS}, the groups of norm 'group'" if norm == "group" else ", at least 1"
        raise UserError(f"{name} is {value!r}; expected whole numbers{needed}")


def _is_floating(value: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        return False
