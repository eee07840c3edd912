"""Half precision: which dtype stays beside it, and the conversions."""

from typing import Any

import jax
import jax.numpy as jnp


def wide_dtype(dtype: Any) -> jnp.dtype:
    """float32 for half precision, otherwise ``dtype``: of parameters, statistics and results."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def widen(x: jax.Array) -> jax.Array:
    """``x`` in float32 where it is in half precision, otherwise as it is."""
    return x.astype(wide_dtype(x.dtype))


def in_dtype(x: jax.Array, dtype: Any) -> jax.Array:
    """``x`` in ``dtype``, as it is where ``dtype`` is None."""
    return x if dtype is None else x.astype(dtype)
