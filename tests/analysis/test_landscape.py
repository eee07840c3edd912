from importlib import import_module

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import make

import cxgrad_jax as cx
from cxgrad_jax import analysis
from cxgrad_jax.learners import apply_model, cross_entropy

landscape_module = import_module("cxgrad_jax.analysis._landscape")  # the package's name is the function


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, use_bias=False)(x.reshape(len(x), -1)[:, :2])


def test_of_a_quadratic_with_known_smoothness(monkeypatch):
    # logits W with a loss 0.5 sum(curvature * W^2) on the identity as images: gradient and Hessian are known.
    curvature = jnp.asarray([[1.0, 2.0], [3.0, 8.0]])
    images = jnp.eye(2, 16 * 16 * 3).reshape(2, 16, 16, 3)
    episode = cx.Episode(images, jnp.arange(2), images, jnp.arange(2))
    learner = cx.learners.maml(Linear(), num_steps=3)
    monkeypatch.setattr(landscape_module, "cross_entropy", lambda logits, _: 0.5 * jnp.sum(curvature * logits**2))
    params = jax.tree.map(lambda x: x.astype(float), learner.init(jax.random.key(1), images))
    found = analysis.landscape(learner, params, episode, rates=(0.1, 0.2))
    task = learner.adapt(params, images, jnp.arange(2))
    for s, weight in enumerate(task.trace["fast"]["Dense_0/kernel"]):
        gradient = curvature * weight
        for j, rate in enumerate((0.1, 0.2)):
            there = weight - rate * gradient
            np.testing.assert_allclose(found.loss[s, j], 0.5 * jnp.sum(curvature * there**2), rtol=1e-9)
            distance = jnp.linalg.norm(rate * curvature * gradient)
            np.testing.assert_allclose(found.distance[s, j], distance, rtol=1e-9)
        smoothness = jnp.linalg.norm(curvature * gradient) / jnp.linalg.norm(gradient)
        np.testing.assert_allclose(found.smoothness[s], smoothness, rtol=1e-9)
        assert 1 <= found.smoothness[s] <= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maml", "cxgrad"])
def test_starts_at_the_inner_loop_and_reaches_its_next_state(name, episode):
    # At the rate of the inner loop the point of step s is the state that follows: the loss there is that of MAML's
    # next step; CxGrad scales it first, which changes the loss by what the normalisation's epsilon lets through.
    learner, model, params = make(name, episode, num_steps=3, inner_lr=0.01)
    found = jax.jit(lambda: analysis.landscape(learner, params, episode, rates=(1e-9, 0.01)))()
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    losses = task.trace["support_loss"]
    np.testing.assert_allclose(found.loss[:, 0], losses, rtol=1e-6)
    np.testing.assert_allclose(found.loss[:-1, 1], losses[1:], rtol=1e-9 if name == "maml" else 1e-2)
    logits = apply_model(model, task.model, episode.support_images)
    np.testing.assert_allclose(found.loss[-1, 1], cross_entropy(logits, episode.support_labels), rtol=1e-9)
    assert found.loss.shape == found.distance.shape == (3, 2) and found.smoothness.shape == (3,)
