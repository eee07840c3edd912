"""No learner mixes dtypes or ranks where its program does not say so: JAX's strict modes find nothing."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from small import WAY, make_episode

import cxgrad_jax as cx


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.mark.slow_except("cxgrad-uint8", "proto_net-float64")
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float64])
@pytest.mark.parametrize("name", cx.learners.NAMES)
def test_no_learner_promotes_implicitly(name, dtype):
    check(getattr(cx.learners, name)(cx.models.Conv4(num_classes=WAY, features=4)), dtype)


@pytest.mark.slow_except("proto_net-uint8", "relation_net-float64")
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float64])
@pytest.mark.parametrize("name", ["proto_net", "matching_net", "relation_net"])
def test_nor_with_running_averages(name, dtype):
    check(getattr(cx.learners, name)(cx.models.Conv4(WAY, features=4), query_statistics="running"), dtype)


@contextlib.contextmanager
def x64(enabled):
    """``jax.enable_x64``, which the oldest jax lacks."""
    jax.config.update("jax_enable_x64", enabled)
    yield
    jax.config.update("jax_enable_x64", False)


def check(learner, dtype):
    with x64(dtype == jnp.float64):
        episode = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, dtype if x.ndim == 4 else jnp.int32), make_episode()
        )
        params = jax.eval_shape(learner.init, jax.random.key(0), episode.support_images)

        def loss(params, episode):
            return learner.loss(params, episode, iteration=3)

        def predict(params, episode):
            adapted = learner.adapt(params, episode.support_images, episode.support_labels)
            return learner.predict(params, adapted, episode.query_images)

        gradients, metrics = jax.eval_shape(jax.grad(loss, has_aux=True), params, episode)
        assert jax.tree.map(lambda x: x.dtype, gradients) == jax.tree.map(lambda x: x.dtype, params)
        assert metrics["accuracy"].dtype == jax.eval_shape(predict, params, episode).dtype
