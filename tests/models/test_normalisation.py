"""Normalisation is the textbook form, also behind pooling and in half precision."""

import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import assert_close, derivatives, random

from cxgrad_jax.models._normalisation import Norm
from cxgrad_jax.models._pooling import max_pool


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(
    ("kind", "axes", "groups"), [("batch", (0, 1, 2), 1), ("layer", (1, 2, 3), 1), ("group", (1, 2, 4), 2)]
)
def test_norm_is_the_textbook_form(kind, axes, groups, pool):
    x, scale, bias = 1 + random(0, 4, 5, 5, 6), random(1, 6), random(2, 6)

    def textbook(x, scale, bias):
        grouped = x.reshape(4, 5, 5, groups, 3) if kind == "group" else x
        mean, variance = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
        scale, bias = scale.reshape(1, 1, 1, 6), bias.reshape(1, 1, 1, 6)
        normalised = ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
        return max_pool(normalised) if pool else normalised

    def ours(x, scale, bias):
        return Norm(kind, num_groups=groups).apply({"params": {"scale": scale, "bias": bias}}, x, pool)

    assert_close(derivatives(ours, x, scale, bias), derivatives(textbook, x, scale, bias), rtol=1e-10)


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
@pytest.mark.parametrize(("dtype", "mean"), [(jnp.bfloat16, 1), (jnp.float16, 1), (jnp.float16, 100)])
def test_half_precision_has_exact_statistics(kind, dtype, mean):
    x = jnp.asarray(mean + 0.1 * np.random.default_rng(0).normal(size=(10, 16, 16, 8)), dtype)
    params = {"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}
    y = jnp.asarray(Norm(kind, num_groups=2).apply(params, x))
    assert y.dtype == dtype
    assert np.std(np.asarray(y, np.float64)) == pytest.approx(1, abs=0.01)
    assert np.mean(np.asarray(y, np.float64)) == pytest.approx(0, abs=0.01)
