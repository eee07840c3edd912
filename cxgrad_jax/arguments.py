"""What public functions refuse in an argument: a value of the wrong type, shape or range.

A Python error would come later, in a program's middle, and would name something that the caller never wrote.
"""

import math
import os
from collections.abc import Sequence
from numbers import Integral, Number, Real
from pathlib import Path
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from cxgrad_jax.errors import UserError


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether ``value`` is a whole number of Python or NumPy. True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a finite real number of Python or NumPy. True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Refuses an argument that is not a whole number, or is less than ``least``."""
    if not is_whole(value) or value < least:
        raise UserError(f"{name} is {value!r}; expected a whole number, at least {least}")


def check_seed(seed: Any) -> None:
    """Refuses a seed that is not a whole number from 0 to 4294967295."""
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed!r}; expected a whole number, 0 to 4294967295")


def check_key(key: Any) -> None:
    """Refuses a number or several keys in the place of a key."""
    expected = "expected a key of JAX, such as jax.random.key(0)"
    if not isinstance(key, jax.Array | np.ndarray):
        raise UserError(f"key is {_shown(key)}; {expected}")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    plain = jax.eval_shape(lambda: jax.random.PRNGKey(0))  # a key of the older kind, of JAX's default generator
    is_one_key = key.ndim == 0 if typed else (key.shape, key.dtype) == (plain.shape, plain.dtype)
    if not is_one_key:
        raise UserError(f"key has shape {list(key.shape)} and dtype {key.dtype}; {expected}")


def as_array(name: str, value: Any) -> Any:
    """An array as JAX can take it, and lists of numbers or of arrays of one shape as an array of NumPy.

    Raises:
      UserError: the value is of several shapes, or of a dtype that JAX does not have.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # NumPy's word for lists of several lengths
        shapes = {np.shape(part) for part in value if isinstance(part, jax.Array | np.ndarray)}
        found = f" {' and '.join(str(list(shape)) for shape in sorted(shapes)[:2])}" if shapes else ""
        raise UserError(f"{name} are of several shapes{found}; expected one array, or arrays of one shape") from None
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise UserError(f"{name} have dtype {array.dtype}, which JAX does not have; convert them to float32")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def check_image_shape(name: str, shape: Sequence[int]) -> None:
    """Refuses a shape other than ``[N, H, W, C]``, one with a zero in it, and one with the channels first.

    Images with a height of 1, 3 or 4 and more than four channels count as ``[N, C, H, W]``.
    """
    channels_first = len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] > 4
    if len(shape) == 4 and 0 not in shape and not channels_first:
        return
    hints = {
        3: "; images[..., None] adds a channel axis, and images[None] makes a batch of one image",
        4: "; images.transpose(0, 2, 3, 1) moves the channels" if channels_first else "; none of them may be 0",
        5: "; a batch of episodes is for cx.mean_loss or jax.vmap",
    }
    hint = hints.get(len(shape), "")
    raise UserError(f"{name} have shape {list(shape)}; expected [N, H, W, C], the channels last{hint}")


def check_function(name: str, value: Any, expected: str) -> None:
    """Refuses a number or anything else in the place of a function."""
    if not callable(value):
        raise UserError(f"{name} is {_shown(value)}; expected {expected}")


def as_path(name: str, value: Any) -> Path:
    """The path that a string or a path names, with the home folder in the place of ``~``."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{name} is {_shown(value)}; expected a path")
    if not os.fspath(value):
        raise UserError(f"{name} is empty; expected a path")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise UserError(
            f"{name} is {os.fspath(value)!r}, whose home folder is not known; give a path without ~"
        ) from None


def check_params(params: Any) -> None:
    """Refuses what cannot be meta-parameters: a pytree without arrays, or with something else than arrays in it."""
    leaves = jax.tree.leaves(params)
    other = next((leaf for leaf in leaves if not (hasattr(leaf, "dtype") or isinstance(leaf, Number))), None)
    if leaves and other is None:
        return
    found = f"has no array and is of type {type(params).__name__}" if not leaves else f"holds a {type(other).__name__}"
    hint = "; cx.load gives two things: learner, params = cx.load(...)" if isinstance(params, tuple) else ""
    raise UserError(f"params {found}; expected meta-parameters, such as learner.init(key, images){hint}")


def check_learner(learner: Any) -> None:
    """Refuses a model, parameters or anything else in the place of a learner."""
    check_kind("learner", learner, ("adapt", "predict", "loss"), "a learner, such as cx.learners.maml(model)")


def check_episode(episode: Any) -> None:
    """Refuses a tuple of arrays or anything else in the place of an episode."""
    check_kind("episode", episode, ("support_images", "query_labels"), "an Episode, such as sampler(0)")


def check_sampler(sampler: Any) -> None:
    """Refuses a store or anything else in the place of a sampler."""
    check_kind("sampler", sampler, ("batch", "shape", "store"), "a sampler, such as cx.sampler(store, way=5, shot=1)")


def check_optimiser(optimiser: Any) -> None:
    """Refuses a learning rate, a schedule or anything else in the place of an optimiser."""
    check_kind("optimiser", optimiser, ("init", "update"), "an Optax optimiser, such as optax.adam(1e-3)")


def check_kind(name: str, value: Any, attributes: tuple[str, ...], expected: str) -> None:
    """Refuses a value without these attributes."""
    if isinstance(value, type) or not all(hasattr(value, attribute) for attribute in attributes):
        raise UserError(f"{name} is {_shown(value)}; expected {expected}")


def _shown(value: Any) -> str:
    """A number as it is, another value by its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return repr(value) if isinstance(value, int | float) or value is None else f"of type {type(value).__name__}"
