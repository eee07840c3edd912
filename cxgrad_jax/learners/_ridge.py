"""Ridge regression in closed form, the head of R2-D2 and MetaOptNet."""

import jax
import jax.numpy as jnp


def ridge(features: jax.Array, targets: jax.Array, regularisation: float | jax.Array) -> jax.Array:
    """The weights ``W [D, way]`` that minimise ``||X W - Y||^2 + regularisation ||W||^2``.

    The solution has two forms. This takes the one with the smaller linear system.

    Args:
      features: X, ``[N, D]``.
      targets: Y, ``[N, way]``.
      regularisation: a positive scalar.
    """
    solve = dual_ridge if features.shape[0] <= features.shape[1] else primal_ridge
    return solve(features, targets, regularisation)


def dual_ridge(features: jax.Array, targets: jax.Array, regularisation: float | jax.Array) -> jax.Array:
    """``W = X^T (X X^T + regularisation I)^-1 Y``: a system of N equations."""
    return _times(features.T, _solve(_times(features, features.T), targets, regularisation))


def primal_ridge(features: jax.Array, targets: jax.Array, regularisation: float | jax.Array) -> jax.Array:
    """``W = (X^T X + regularisation I)^-1 X^T Y``: a system of D equations."""
    return _solve(_times(features.T, features), _times(features.T, targets), regularisation)


def _solve(gram, right, regularisation):
    matrix = gram + regularisation * jnp.eye(len(gram), dtype=gram.dtype)
    return jax.scipy.linalg.solve(matrix, right, assume_a="pos")


def _times(a, b):
    return jnp.matmul(a, b, precision="highest")
