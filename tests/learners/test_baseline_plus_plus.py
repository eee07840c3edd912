"""Baseline++: the batches of its fine-tuning, and one head for one episode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import WAY, relative
from small_episode import EPISODE, features, logits_of, made

import cxgrad_jax as cx
from cxgrad_jax.learners import cross_entropy
from cxgrad_jax.learners._baseline_plus_plus import fine_tune
from cxgrad_jax.learners._mlp import linear

pytestmark = pytest.mark.usefixtures("double_precision")


def test_fine_tuning_takes_the_smaller_last_batch_as_it_is():
    x, labels = features(), EPISODE.support_labels
    head: Any = {"kernel": np.ones((10, WAY)), "bias": np.arange(float(WAY))}
    order: Any = np.array([[3, 1, 0, 5, 4, 2]])
    _, losses = fine_tune(linear, head, x, labels, order, batch_size=4, lr=1e-300)
    assert len(losses) == 2
    assert float(losses[1]) == pytest.approx(float(cross_entropy(linear(head, x[[4, 2]]), labels[[4, 2]])), rel=1e-13)


def test_the_same_episode_gets_the_same_head():
    (learner, params), (other, _) = (made(cx.learners.baseline_plus_plus, num_epochs=2) for _ in range(2))
    assert learner is not other
    np.testing.assert_array_equal(logits_of(learner, params), logits_of(other, params))
    images = jnp.stack([EPISODE.support_images, EPISODE.support_images[::-1]])
    heads = jax.vmap(lambda x: learner.adapt(params, x, EPISODE.support_labels).episode)(images)
    alone = learner.adapt(params, EPISODE.support_images, EPISODE.support_labels).episode
    assert relative(jax.tree.map(lambda x: x[0], heads), alone) < 1e-12
