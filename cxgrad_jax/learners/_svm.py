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
CENTRING, TO_THE_WALL = 0.1, 0.95


def svm_duals(features: jax.Array, targets: jax.Array, C: float) -> jax.Array:
    """The solution a ``[N, way]`` for ``features [N, D]`` and one-hot ``targets [N, way]``.

    An interior-point method finds which bounds are active. The equations that hold then are solved once more. All
    derivatives are those of that solution.
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
    return jnp.linalg.solve(matrix, right)[: number * way].reshape(number, way)


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
        x, y, slack, pull = state  # pull: the multipliers of the bounds
        gap = jnp.maximum(CENTRING * jnp.mean(slack * pull), floor)
        of_x, of_slack = times(quadratic, x) - linear + pull + times(sums.T, y), x + slack - bounds
        of_gap = slack * pull - gap
        matrix = jnp.block([[quadratic + jnp.diag(pull / slack), sums.T], [sums, zeros]])
        right = jnp.concatenate([-of_x + (of_gap - pull * of_slack) / slack, -times(sums, x)])
        dx, dy = jnp.split(jnp.linalg.solve(matrix, right), [len(x)])
        dslack = -of_slack - dx
        dpull = -(of_gap + pull * dslack) / slack
        falls = jnp.concatenate([-dslack / slack, -dpull / pull])
        length = jnp.minimum(1, TO_THE_WALL / jnp.maximum(jnp.max(falls), TO_THE_WALL))
        return (x + length * dx, y + length * dy, slack + length * dslack, pull + length * dpull), None

    ones = jnp.ones_like(linear)
    start = jnp.zeros_like(linear), jnp.zeros_like(sums[:, 0]), ones, ones
    (_, _, slack, pull), _ = jax.lax.scan(step, start, length=INTERIOR_STEPS)
    return pull > slack
