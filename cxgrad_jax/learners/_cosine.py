"""Cosines of feature vectors, and vectors of length 1."""

import jax
import jax.numpy as jnp

LENGTH_EPSILON = 1e-5  # which CloserLookFewShot adds to the length of a feature vector


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """The cosines of the angles between ``a [N, D]`` and ``b [M, D]``: ``[N, M]``. A vector of zeros gives 0."""
    return jnp.matmul(unit(a), unit(b).T, precision="highest")


def unit(features: jax.Array) -> jax.Array:
    """Divides ``features [N, D]`` by their lengths. Zeros stay zeros, even in the gradient."""
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    is_zero = squares == 0
    return jnp.where(is_zero, 0, features * jax.lax.rsqrt(jnp.where(is_zero, 1, squares)))


def damped_unit(features: jax.Array) -> jax.Array:
    """Divides ``features [N, D]`` by their lengths + 1e-5, as CloserLookFewShot does.

    The results are a little shorter than 1. Zeros stay zeros, even in the gradient.
    """
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    return features / (jnp.sqrt(squares + jnp.finfo(features.dtype).tiny) + LENGTH_EPSILON)
