"""Derivatives of first and second order, and the comparison of two forms of a layer by them."""

import jax
import jax.numpy as jnp
import numpy as np


def random(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def derivatives(function, *arguments):
    """Value, gradient, and gradient of a nonlinear function of the gradient, with respect to all arguments."""

    def value(arguments):
        return jnp.sum(jnp.tanh(function(*arguments)))

    def of_gradient(arguments):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(jax.grad(value)(arguments)))

    return jax.jit(lambda a: (function(*a), jax.grad(value)(a), jax.grad(of_gradient)(a)))(arguments)


def assert_close(ours, theirs, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(np.max(np.abs(b)), 1e-3))
