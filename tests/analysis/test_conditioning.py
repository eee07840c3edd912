from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import make, make_episode

import cxgrad_jax as cx
from cxgrad_jax import analysis


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cxgrad", "cxgrad_explicit"])
def test_own_factors_give_the_learner_s_result(kind, episode):
    learner, model, params = make(kind, episode, num_steps=3)
    adapt = jax.jit(learner.adapt)
    task = adapt(params, episode.support_images, episode.support_labels)
    other = make_episode(1)
    other = adapt(params, other.support_images, other.support_labels)

    @jax.jit
    def replay(gamma):
        images, labels = episode.support_images, episode.support_labels
        return analysis.adapt_with_factors(
            model, params, images, labels, gamma, explicit=kind == "cxgrad_explicit"
        ).model

    def difference(gamma):
        ours, theirs = replay(gamma), task.model
        worst = jax.tree.map(lambda a, b: np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-9), ours, theirs)
        return max(jax.tree.leaves(worst))

    assert difference(task.trace["gamma"]) < 1e-9
    assert difference(other.trace["gamma"]) > 1e-7
    assert difference(np.asarray(task.trace["gamma"]) * 1.5) > 1e-2


@pytest.mark.slow
def test_tells_the_factors_and_the_context(episode):
    learner, _, params = make("cxgrad", episode, num_steps=2)
    found = jax.jit(lambda: analysis.conditioning(learner, params, episode))()
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    np.testing.assert_allclose(found.gamma, task.trace["gamma"], rtol=1e-9)
    np.testing.assert_allclose(found.context_norm, np.linalg.norm(task.trace["context"], axis=1), rtol=1e-6)
    still, _, _ = make("cxgrad", episode, num_steps=2, context_lr=0.0)
    still = still.adapt(params, episode.support_images, episode.support_labels)
    np.testing.assert_allclose(np.broadcast_to(found.gamma_at_zero, (2, 4)), still.trace["gamma"], rtol=1e-12)


def test_a_learner_without_context_is_refused(episode):
    learner, _, params = make("maml", episode, num_steps=2)
    with pytest.raises(cx.UserError, match="this learner has no conditioning"):
        analysis.conditioning(learner, params, episode)


def test_too_few_factors_are_refused(episode):
    _, model, params = make("cxgrad", episode)
    with pytest.raises(cx.UserError, match=r"^gamma has shape \[5, 3\]; expected \[steps, 4\], one a kernel$"):
        analysis.adapt_with_factors(model, params, episode.support_images, episode.support_labels, jnp.ones((5, 3)))


def test_factors_may_be_a_list_and_labels_are_checked(episode):
    _, model, params = make("cxgrad", episode)
    images, labels = episode.support_images, episode.support_labels
    factors: Any = [[1.0, 1, 1, 1]]
    given = analysis.adapt_with_factors(model, params, images, labels, factors)
    same = analysis.adapt_with_factors(model, params, images, labels, jnp.ones((1, 4)))
    jax.tree.map(np.testing.assert_array_equal, given, same)
    with pytest.raises(cx.UserError, match="support_labels run from 7 to 9; expected 0 to 2"):
        analysis.adapt_with_factors(model, params, images, labels + 7, jnp.ones((1, 4)))
