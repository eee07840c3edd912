"""Ridge regression in closed form, the head of R2-D2 and MetaOptNet."""

from functools import partial

import jax
import jax.numpy as jnp

times = partial(jnp.matmul, precision="highest")


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
    return times(features.T, _solve(times(features, features.T), targets, regularisation))


def primal_ridge(features: jax.Array, targets: jax.Array, regularisation: float | jax.Array) -> jax.Array:
    """``W = (X^T X + regularisation I)^-1 X^T Y``: a system of D equations."""
    return _solve(times(features.T, features), times(features.T, targets), regularisation)


def _solve(gram, right, regularisation):
    matrix = gram + regularisation * jnp.eye(len(gram), dtype=gram.dtype)
    return jax.scipy.linalg.solve(matrix, right, assume_a="pos")
