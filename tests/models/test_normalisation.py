"""Normalisation is the textbook form, also behind pooling and in half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import assert_close, derivatives, random

from cxgrad_jax.models._normalisation import GROUPS, Norm, moments
from cxgrad_jax.models._pooling import max_pool


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(("kind", "axes"), [("batch", (0, 1, 2)), ("layer", (1, 2, 3)), ("group", (1, 2, 4))])
def test_norm_is_the_textbook_form(kind, axes, pool):
    x, scale, bias = 1 + random(0, 4, 5, 5, 16), random(1, 16), random(2, 16)

    def textbook(x, scale, bias):
        grouped = x.reshape(4, 5, 5, GROUPS, 2) if kind == "group" else x
        mean, variance = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
        scale, bias = scale.reshape(1, 1, 1, 16), bias.reshape(1, 1, 1, 16)
        normalised = ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
        return max_pool(normalised) if pool else normalised

    def ours(x, scale, bias):
        return Norm(kind).apply({"params": {"scale": scale, "bias": bias}}, x, pool)

    assert_close(derivatives(ours, x, scale, bias), derivatives(textbook, x, scale, bias), rtol=1e-10)


def test_the_variance_of_one_pass_is_as_good_as_it_says():
    deviations = 150 if jax.__version_info__ >= (0, 10) else 40
    x = (deviations + np.random.default_rng(0).normal(size=(75, 21, 21, 48))).astype(np.float32)
    np.testing.assert_allclose(moments(jnp.asarray(x), 0)[1], x.astype(np.float64).var(axis=(0, 1, 2)), rtol=0.01)


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
@pytest.mark.parametrize(("dtype", "mean"), [(jnp.bfloat16, 1), (jnp.float16, 1), (jnp.float16, 100)])
def test_half_precision_has_exact_statistics(kind, dtype, mean):
    x = jnp.asarray(mean + 0.1 * np.random.default_rng(0).normal(size=(10, 16, 16, 16)), dtype)
    params = {"params": {"scale": jnp.ones(16), "bias": jnp.zeros(16)}}
    y = jnp.asarray(Norm(kind).apply(params, x))
    assert y.dtype == dtype
    assert np.std(np.asarray(y, np.float64)) == pytest.approx(1, abs=0.01)
    assert np.mean(np.asarray(y, np.float64)) == pytest.approx(0, abs=0.01)
