"""What the inner loop tells of itself: norms of its gradients, from the very updates that they made."""

import jax
import numpy as np
import pytest
from small import first_params, make_episode, model

import cxgrad_jax as cx

pytestmark = pytest.mark.usefixtures("double_precision")

LAYERS = [*(f"block_{i}/conv" for i in range(4)), "head"]
RATE = 0.01


def kernel(params, layer):
    for name in layer.split("/"):
        params = params[name]
    return np.asarray(params["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("factory", [cx.learners.maml, cx.learners.cxgrad])
def test_gradient_norms_are_those_of_the_updates(factory):
    # The kernels before the one step: CxGrad's are scaled to the norms that its trace tells.
    learner, episode = factory(model(), inner_lr=RATE, num_steps=1), make_episode()
    params = first_params(learner, episode.support_images)
    task = jax.jit(learner.adapt)(params, episode.support_images, episode.support_labels)
    for i, layer in enumerate(LAYERS):
        before, after = kernel(params["model"], layer), kernel(task.model, layer)
        if factory is cx.learners.cxgrad and layer != "head":
            before = before / np.linalg.norm(before) * task.trace["gamma"][0, i]
        norm = np.linalg.norm(before - after) / RATE
        np.testing.assert_allclose(task.trace[f"gradient_norm/{layer}"], [norm], rtol=1e-9)


def test_metrics_have_their_means_over_the_steps():
    learner, episode = cx.learners.maml(model(), num_steps=3), make_episode()
    params = first_params(learner, episode.support_images)
    task = jax.jit(learner.adapt)(params, episode.support_images, episode.support_labels)
    _, metrics = jax.jit(learner.loss)(params, episode)
    assert metrics.keys() == {"accuracy", *(f"inner_gradient_norm/{layer}" for layer in LAYERS)}
    for layer in LAYERS:
        of_steps = task.trace[f"gradient_norm/{layer}"]
        assert of_steps.shape == (3,)
        np.testing.assert_allclose(metrics[f"inner_gradient_norm/{layer}"], np.mean(of_steps), rtol=1e-9)
