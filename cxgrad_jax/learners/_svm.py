"""The multi-class support vector machine of Crammer and Singer, in its dual: MetaOptNet's second head.

    minimise  1/2 sum_ij K_ij a_i . a_j  +  1/2 ||a||^2  -  sum_i a_{i, y_i}          K_ij = f(x_i) . f(x_j)
    subject to  a_ic <= C [c = y_i],   sum_c a_ic = 0

The second term, which MetaOptNet's code adds, makes the solution unique.
"""

import jax
import jax.numpy as jnp

from cxgrad_jax.learners._ridge import times
from cxgrad_jax.parallel import varying_like

INTERIOR_STEPS = 25  # each leaves about a fifth of the gap. The official code takes 15 of another kind, or 3 in a test.
CENTRING, FRACTION_TO_BOUNDARY = 0.1, 0.95
TOLERANCE = 0.01  # far above the rounding in float32, far below what steps that do not converge leave


def svm_duals(features: jax.Array, targets: jax.Array, C: float) -> jax.Array:
    """The solution a ``[N, way]`` for ``features [N, D]`` and one-hot ``targets [N, way]``.

    An interior-point method finds which bounds are active. The equations that hold then are solved once more. All
    derivatives are those of that solution. If it violates the conditions of the optimum, because the bounds were not
    found or rounding is too large, all duals are NaN.
    """
    number, way = targets.shape
    products = times(features, features.T)
    quadratic = jnp.kron(products, jnp.eye(way, dtype=products.dtype)) + jnp.eye(number * way, dtype=products.dtype)
    sums = jnp.kron(jnp.eye(number, dtype=products.dtype), jnp.ones((1, way), products.dtype))
    targets, sums = varying_like((targets, sums), features)
    linear, bounds = targets.ravel(), C * targets.ravel()
    active = active_bounds(*jax.lax.stop_gradient((quadratic, sums, linear, bounds)))
    rows = jnp.where(active[:, None], jnp.eye(number * way, dtype=products.dtype), quadratic)
    multipliers = jnp.where(active[:, None], 0, sums.T)
    matrix = jnp.block([[rows, multipliers], [sums, jnp.zeros((number, number), products.dtype)]])
    right = jnp.concatenate([jnp.where(active, bounds, linear), jnp.zeros(number, products.dtype)])
    duals, of_sums = jnp.split(jnp.linalg.solve(matrix, right), [number * way])
    of_bounds = linear - times(quadratic, duals) - times(sums.T, of_sums)  # multipliers, zero where not active
    optimal = jnp.all(duals - bounds <= TOLERANCE * C) & jnp.all(jnp.where(active, of_bounds, 0) >= -TOLERANCE)
    return jnp.where(optimal, duals, jnp.nan).reshape(number, way)


def active_bounds(quadratic: jax.Array, sums: jax.Array, linear: jax.Array, bounds: jax.Array) -> jax.Array:
    """Which entries ``[M]`` of x are at their bounds, where x minimises ``1/2 x.Gx - e.x`` with ``x <= h, Ax = 0``.

    Args:
      quadratic: G, ``[M, M]``, positive definite.
      sums: A, ``[N, M]``.
      linear: e, ``[M]``.
      bounds: h, ``[M]``.
    """
    size = jnp.mean(jnp.diag(quadratic))
    quadratic, bounds = quadratic / size, bounds * size  # the problem for x times size, which is of order one
    zeros = jnp.zeros((len(sums), len(sums)), sums.dtype)
    floor = jnp.finfo(linear.dtype).eps

    def step(state, _):
        x, y, slack, multipliers = state  # the multipliers of the bounds
        gap = jnp.maximum(CENTRING * jnp.mean(slack * multipliers), floor)
        x_residual, slack_residual = times(quadratic, x) - linear + multipliers + times(sums.T, y), x + slack - bounds
        gap_residual = slack * multipliers - gap
        matrix = jnp.block([[quadratic + jnp.diag(multipliers / slack), sums.T], [sums, zeros]])
        right = jnp.concatenate([-x_residual + (gap_residual - multipliers * slack_residual) / slack, -times(sums, x)])
        dx, dy = jnp.split(jnp.linalg.solve(matrix, right), [len(x)])
        dslack = -slack_residual - dx
        dmultipliers = -(gap_residual + multipliers * dslack) / slack
        relative_decrease = jnp.concatenate([-dslack / slack, -dmultipliers / multipliers])
        length = jnp.minimum(1, FRACTION_TO_BOUNDARY / jnp.maximum(jnp.max(relative_decrease), FRACTION_TO_BOUNDARY))
        return (x + length * dx, y + length * dy, slack + length * dslack, multipliers + length * dmultipliers), None

    # At x = 0 the slack is h. A smaller start stays far from the solution if x ends at bounds of several thousands.
    start = jnp.zeros_like(linear), jnp.zeros_like(sums[:, 0]), jnp.maximum(bounds, 1), jnp.ones_like(linear)
    (_, _, slack, multipliers), _ = jax.lax.scan(step, start, length=INTERIOR_STEPS)
    return multipliers > slack
