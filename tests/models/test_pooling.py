"""Max-pooling equals the plain one in value and in derivatives of first and second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import assert_close, derivatives, random
from jax import lax

from cxgrad_jax.models._pooling import max_pool

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize(("side", "padding"), [(84, 0), (7, 0), (10, 1), (21, 1)])
def test_max_pool(side, padding):
    # At 84x84 under jit a pooling by .max(axis) has wrong gradients.
    x = random(0, 2, side, side, 3)

    def plain(x):
        margin = (padding, padding)
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0), margin, margin, (0, 0)))

    assert_close(derivatives(lambda x: max_pool(x, padding), x), derivatives(plain, x))


@pytest.mark.parametrize("padding", [0, 1])
def test_max_pool_of_what_is_scaled_later(padding):
    x, factor = random(0, 2, 7, 6, 5), random(1, 1, 1, 1, 5)
    assert (np.asarray(factor) < 0).any() and (np.asarray(factor) > 0).any()
    ours = derivatives(lambda x, f: max_pool(x, padding, f) * f, x, factor)
    assert_close(ours, derivatives(lambda x, f: max_pool(x * f, padding), x, factor))


def test_the_gradient_of_a_tie_goes_to_the_first():
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x)))(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(gradient[0, :, :, 0], np.tile([[1, 0], [0, 0]], (2, 2)))


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("factor", [None, -1.0])
def test_a_nan_stays_visible(place, factor):
    x = np.array(random(0, 1, 4, 4, 1))
    x[0, place[0], place[1], 0] = np.nan
    pooled = max_pool(jnp.asarray(x), factor=None if factor is None else jnp.full(1, factor))
    np.testing.assert_array_equal(np.isnan(pooled[0, :, :, 0]), [[True, False], [False, False]])
