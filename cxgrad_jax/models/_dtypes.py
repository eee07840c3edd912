"""Half precision: the wider dtype of parameters, statistics and results, and the conversions."""

from typing import Any

import jax
import jax.numpy as jnp


def wide_dtype(dtype: Any) -> jnp.dtype:
    """The dtype of parameters, statistics and results: float32 for half precision, otherwise ``dtype``."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def widen(x: jax.Array) -> jax.Array:
    """Returns ``x`` in float32 if it is in half precision, otherwise as it is."""
    return x.astype(wide_dtype(x.dtype))


def in_dtype(x: jax.Array, dtype: Any) -> jax.Array:
    """Returns ``x`` in ``dtype``, or as it is if ``dtype`` is None."""
    return x if dtype is None else x.astype(dtype)
