"""Half precision: where it is computed in, and what stays float32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import first_params, make, make_episode

import cxgrad_jax as cx

NETWORKS = {
    cx.models.Conv4: {"features": 4, "use_bias": True},
    cx.models.R2D2Conv4: {"channels": (2, 4, 4, 8)},
    cx.models.RelationConv4: {"features": 4},
    cx.models.ResNet12: {"channels": (2, 4, 4, 8)},
}


@pytest.mark.slow_except("Conv4")
@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_and_results_are_float32_and_products_are_not(network):
    images = make_episode().support_images.astype(np.float32)
    exact, half = (network(3, dtype=dtype, **NETWORKS[network]) for dtype in (None, "bfloat16"))
    params = jax.jit(half.init)(jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    for method in ("__call__", "embed", "feature_maps"):
        ours, theirs = (jax.jit(partial(model.apply, method=method))(params, images) for model in (half, exact))
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=0.1 * np.max(np.abs(theirs)))
    program = jax.make_jaxpr(half.apply)(params, images)
    products = [line for line in str(program).splitlines() if "conv_general_dilated" in line]
    assert products and all("bf16" in line for line in products)
    # None follows the images.
    followed = jax.make_jaxpr(exact.apply)(params, images.astype(jnp.bfloat16))
    assert followed.out_avals[0].dtype == jnp.float32 and "bf16" in str(followed).split("conv_general_dilated")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cxgrad", "proto_net"])
def test_a_learner_computes_half_precision_images_in_float32(name):
    episode = make_episode()
    half = episode._replace(**{
        field: getattr(episode, field).astype(np.float16) for field in ("support_images", "query_images")
    })  # fmt: skip
    single = half._replace(**{
        field: getattr(half, field).astype(np.float32) for field in ("support_images", "query_images")
    })  # fmt: skip
    learner, _, params = make(name, half)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    losses = [jax.jit(learner.loss)(params, e)[0] for e in (half, single)]
    assert losses[0].dtype == jnp.float32 and losses[0] == losses[1]


@pytest.mark.slow
def test_a_learner_with_a_model_in_half_precision_has_finite_float32_gradients():
    episode = make_episode()
    model = cx.models.Conv4(3, features=4, dtype="bfloat16")
    learner = cx.learners.cxgrad(model, context_dim=6, num_steps=2)
    params = first_params(learner, episode.support_images.astype(np.float32))
    (loss, _), gradient = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(params, episode)
    assert loss.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
