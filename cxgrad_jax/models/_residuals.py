"""How a forward rule of ``jax.custom_vjp`` keeps arrays for its backward rule.

If a kept array is an input of the function, jax (0.10) recognises it and takes it by the input's number. In a scan that
is differentiated twice it may take a wrong input. An array with one more axis is not an input, so it is kept as it is.
"""

import jax
import jax.numpy as jnp


def keep(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The residuals that a forward rule returns in order to keep ``arrays``."""
    return tuple(jnp.expand_dims(array, 0) for array in arrays)


def kept(residuals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The arrays that ``keep`` was given, in the backward rule."""
    return tuple(jnp.squeeze(array, 0) for array in residuals)
