"""``mean_loss`` is the mean of the learner's loss, in value and gradient, on every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import make, make_episode

import cxgrad_jax as cx

EPISODES = jax.tree.map(lambda *x: np.stack(x), *(make_episode(seed) for seed in range(3)))


pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.slow_except("cpu")
@pytest.mark.parametrize("platform", [None, "cpu", "gpu"])
def test_value_and_gradient(platform):
    learner, _, params = make("maml", make_episode(), num_steps=1)

    def plain(params, episodes):
        losses, metrics = jax.vmap(learner.loss, (None, 0))(params, episodes)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    (expected, metrics), gradients = jax.jit(jax.value_and_grad(plain, has_aux=True))(params, EPISODES)
    ours = cx.mean_loss(learner, platform)
    (loss, ours_metrics), ours_gradients = jax.jit(jax.value_and_grad(ours, has_aux=True))(params, EPISODES)
    assert jax.tree.structure(ours_metrics) == jax.tree.structure(metrics)
    for a, b in zip(jax.tree.leaves((loss, ours_metrics)), jax.tree.leaves((expected, metrics)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    for a, b in zip(jax.tree.leaves(ours_gradients), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * max(np.max(np.abs(b)), 1e-12))
    np.testing.assert_allclose(jax.jit(ours)(params, EPISODES)[0], expected, rtol=1e-10)


def test_the_outer_iteration_reaches_the_loss():
    learner, _, params = make("maml", make_episode(), num_steps=1)
    seen = learner._replace(loss=lambda params, episode, iteration=None: (jnp.float64(iteration), {}))
    assert cx.mean_loss(seen)(params, EPISODES, 7)[0] == 7


def test_mistakes_are_told():
    learner, _, params = make("maml", make_episode(), num_steps=1)
    loss = cx.mean_loss(learner)
    with pytest.raises(cx.UserError, match=r"support_labels have shape \[6\]; expected \[tasks, way\*shot\]"):
        loss(params, make_episode())
    with pytest.raises(cx.UserError, match="platform is 'cuda'"):
        cx.mean_loss(learner, "cuda")
    with pytest.raises(cx.UserError, match="with respect to episodes"):
        jax.grad(lambda images: loss(params, EPISODES._replace(query_images=images))[0])(EPISODES.query_images)
    with pytest.raises(cx.UserError, match="a metric of mean_loss is differentiated"):
        jax.grad(lambda params: loss(params, EPISODES)[1]["accuracy"])(params)
