"""Max-pooling, whose derivatives of first and second order are as fast as its value.

On a CPU the gradient of ``reduce_window`` is several times slower than its forward pass.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cxgrad_jax.models._residuals import keep, kept


def max_pool(x: jax.Array, padding: int = 0, factor: jax.Array | None = None) -> jax.Array:
    """2x2 max-pooling with stride 2 of ``x [N, H, W, C]``. Odd last rows and columns are dropped.

    Args:
      x: feature maps of any floating dtype.
      padding: 0, or 1 for a margin of one row and one column on every side, which is never picked.
      factor: ``[C]`` or ``[N, 1, 1, C]``, by which the caller will multiply the pooled values. If it is negative, the
        least value of a window is picked, so that ``max_pool(x, factor=f) * f == max_pool(x * f)``.

    Returns:
      ``[N, H // 2, W // 2, C]``, or with ``padding`` ``[N, H // 2 + 1, W // 2 + 1, C]``. Among equal values the first
      in reading order is picked and gets the gradient. A window that holds a NaN gives a NaN.
    """
    order = lax.stop_gradient(x if factor is None else jnp.where(factor < 0, -x, x))
    best, *others = _windows(_with_margin(order, padding))
    position = jnp.zeros(best.shape, jnp.uint8)
    for i, candidate in enumerate(others, start=1):
        position = jnp.where((candidate > best) | jnp.isnan(candidate), jnp.uint8(i), position)
        best = jnp.maximum(candidate, best)
    x = _with_margin(x, padding)
    return _pick(x, position, x.shape[1:3])


def max_pool_stride_1(x: jax.Array) -> jax.Array:
    """2x2 max-pooling with stride 1: ``[N, H, W, C] -> [N, H - 1, W - 1, C]``. Equal values share the gradient."""
    x = jnp.maximum(x[:, :-1], x[:, 1:])
    return jnp.maximum(x[:, :, :-1], x[:, :, 1:])


def _with_margin(x: jax.Array, padding: int) -> jax.Array:
    margin = (padding, padding)
    return jnp.pad(x, ((0, 0), margin, margin, (0, 0)), constant_values=-jnp.inf) if padding else x


def _windows(x: jax.Array) -> list[jax.Array]:
    """The four positions of every 2x2 window, each ``[N, H // 2, W // 2, C]``, in reading order."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    return [x[:, :, i, :, j] for i in range(2) for j in range(2)]


# Picking one value of every window is linear, and its transpose puts a value into every window. Without these rules the
# derivatives of both would pad and add four arrays of the size of x.


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pick(x: jax.Array, position: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Takes the value at ``position`` (0 to 3) of every window of ``x [N, *size, C]``: ``[N, H // 2, W // 2, C]``."""
    first, second, third, fourth = _windows(x)
    upper, lower = jnp.where(position == 0, first, second), jnp.where(position == 2, third, fourth)
    return jnp.where(position < 2, upper, lower)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _place(values: jax.Array, position: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Makes feature maps ``[N, *size, C]`` with ``values`` at ``position`` of every window, and zeros elsewhere."""
    n, height, width, channels = values.shape
    chosen = position[:, :, None, :, None] == jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(chosen, values[:, :, None, :, None], 0).reshape(n, 2 * height, 2 * width, channels)
    odd = ((0, 0), (0, size[0] - 2 * height), (0, size[1] - 2 * width), (0, 0))
    return jnp.pad(spread, odd) if any(extra for _, extra in odd) else spread


_pick.defvjp(
    lambda x, position, size: (_pick(x, position, size), keep(position)),
    lambda size, residuals, g: (_place(g, *kept(residuals), size), None),
)
_place.defvjp(
    lambda values, position, size: (_place(values, position, size), keep(position)),
    lambda size, residuals, g: (_pick(g, *kept(residuals), size), None),
)
