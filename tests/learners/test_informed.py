"""``cxgrad_informed``: the step of explicit scaling, with factors that follow from the task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import make, make_episode, relative

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, cross_entropy
from cxgrad_jax.learners._cxgrad import scaling_factors
from cxgrad_jax.learners._cxgrad_informed import norm_and_cosine

pytestmark = pytest.mark.usefixtures("double_precision")

STEPS = 2


def adapted(name, params, episode, **hyper_parameters):
    learner, _, _ = make(name, episode, num_steps=STEPS, **hyper_parameters)
    return jax.jit(learner.adapt)(params, episode.support_images, episode.support_labels)


def kernels_of(model_params):
    return [model_params[f"block_{i}"]["conv"]["kernel"] for i in range(4)]


@pytest.mark.slow
def test_with_factors_that_see_nothing_it_is_explicit_scaling_without_a_context():
    episode = make_episode()
    _, _, explicit = make("cxgrad_explicit", episode)
    _, _, informed = make("cxgrad_informed", episode)
    for params in (explicit, informed):  # gamma is then softplus(bias)
        params["generator"]["output"] = {
            "kernel": jnp.zeros_like(params["generator"]["output"]["kernel"]),
            "bias": explicit["generator"]["output"]["bias"],
        }
    assert relative(explicit["model"], informed["model"]) == 0
    theirs = adapted("cxgrad_explicit", explicit, episode, context_lr=0.0)
    ours = adapted("cxgrad_informed", informed, episode)
    assert relative(ours.model, theirs.model) < 1e-12
    np.testing.assert_allclose(ours.trace["gamma"], theirs.trace["gamma"], rtol=1e-12)


@pytest.mark.slow
def test_factors_follow_from_norms_and_means_of_kernels_and_their_gradients():
    episode = make_episode()
    _, model, params = make("cxgrad_informed", episode)
    trace = adapted("cxgrad_informed", params, episode).trace
    unit = jax.tree.map(lambda x: x / jnp.linalg.norm(x) if x.ndim == 4 else x, params["model"])

    def loss(model_params):
        return cross_entropy(apply_model(model, model_params, episode.support_images), episode.support_labels)

    expected = []
    for w, h in zip(kernels_of(params["model"]), kernels_of(jax.grad(loss)(unit)), strict=True):
        for x in (w, h):
            expected += [np.log(1 + np.sqrt(np.sum(x**2))), np.sum(x) / np.sqrt(x.size * np.sum(x**2))]
    np.testing.assert_allclose(trace["tau"][0], expected, rtol=1e-9, atol=1e-12)
    for tau, gamma in zip(trace["tau"], trace["gamma"], strict=True):
        np.testing.assert_allclose(scaling_factors(params["generator"], tau), gamma, rtol=1e-12)


def spread(name):
    """Standard deviation of gamma over tasks, relative to its mean, in the first step; the largest of the layers."""
    episodes = [make_episode(seed) for seed in range(4)]
    _, _, params = make(name, episodes[0])
    gamma = np.stack([adapted(name, params, episode).trace["gamma"][0] for episode in episodes])
    return np.max(gamma.std(axis=0) / gamma.mean(axis=0))


@pytest.mark.slow
def test_factors_differ_between_tasks_where_those_of_cxgrad_do_not():
    assert spread("cxgrad_informed") > 1e-2 > 1e-4 > spread("cxgrad")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_kernel_without_a_gradient_gives_finite_numbers(value):
    found, slope = jax.value_and_grad(lambda x: jnp.sum(norm_and_cosine(jax.lax.stop_gradient(x) * value) + 0 * x[0]))(
        jnp.ones(9)
    )
    assert np.isfinite(found) and np.all(np.isfinite(slope))
    np.testing.assert_allclose(norm_and_cosine(value * jnp.ones((3, 3))), [np.log1p(3 * value), value], rtol=1e-6)


def test_a_model_without_a_kernel_to_scale_is_refused():
    learner = cx.learners.cxgrad_informed(cx.models.Conv4(3, features=4), param_labels=lambda path, leaf: "adapted")
    with pytest.raises(cx.UserError, match="the model has no kernel to scale"):
        learner.init(jax.random.key(0), make_episode().support_images)
