"""RFS: its logistic regression is at the minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import relative
from small_episode import TARGETS, features

from cxgrad_jax.learners._mlp import linear
from cxgrad_jax.learners._rfs import logistic_regression

pytestmark = pytest.mark.usefixtures("double_precision")


def test_logistic_regression_is_at_its_minimum_and_so_are_its_derivatives():
    x = features()

    def loss(regression, x):
        fit = -jnp.sum(TARGETS * jax.nn.log_softmax(linear(regression, x)))
        return fit + 0.3 / 2 * jnp.sum(regression["kernel"] ** 2)

    found = logistic_regression(x, TARGETS, 0.3)
    assert all(np.max(np.abs(g)) < 1e-12 for g in jax.tree.leaves(jax.grad(loss)(found, x)))
    direction, h = np.random.default_rng(1).normal(size=x.shape), 1e-5
    ahead, behind = (logistic_regression(x + sign * h * direction, TARGETS, 0.3) for sign in (1, -1))
    numeric = jax.tree.map(lambda a, b: (a - b) / (2 * h), ahead, behind)
    derivative = jax.jvp(lambda x: logistic_regression(x, TARGETS, 0.3), (x,), (direction,))[1]
    assert relative(derivative, numeric) < 1e-7
    together = jax.jit(jax.vmap(lambda x: logistic_regression(x, TARGETS, 0.3)))(np.stack([x, 2 * x]))
    assert relative(jax.tree.map(lambda values: values[0], together), found) < 1e-11
