import jax
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from small import jitted, make

import cxgrad_jax as cx
from cxgrad_jax import analysis


def neighbours(points, k):
    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)


def test_plane_keeps_neighbourhoods():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 1, 50)) * 3
    before, after = (centres + rng.normal(size=(5, 15, 50)) for _ in range(2))
    before, after = before.reshape(75, 50), after.reshape(75, 50) + 1
    planes = analysis.joint_tsne(before, after, perplexity=20, seed=0)
    assert [plane.shape for plane in planes] == [(75, 2), (75, 2)]
    ours, theirs = neighbours(np.concatenate(planes), 10), neighbours(np.concatenate([before, after]), 10)
    kept = np.mean([len({*a} & {*b}) / 10 for a, b in zip(ours, theirs, strict=True)])
    assert kept > 0.35, kept  # by chance 0.07
    labels = np.tile(np.repeat(np.arange(5), 15), 2)
    assert np.mean(labels[ours] == labels[:, None]) > 0.95
    again = analysis.joint_tsne(before, after, perplexity=20, seed=0)
    np.testing.assert_array_equal(again, planes)


def test_are_what_the_head_receives(episode):
    learner, _, params = make("maml", episode, inner_lr=0.1, num_steps=2)
    before, after = jax.jit(lambda p, e: analysis.embeddings(learner, p, e))(params, episode)
    learner = jitted(learner)
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    head = task.model["head"]
    logits = learner.predict(params, task, episode.query_images)
    np.testing.assert_allclose(after @ head["kernel"] + head["bias"], logits, rtol=1e-9)
    assert before.shape == after.shape and not np.allclose(before, after)


def test_too_large_a_perplexity_is_refused():
    with pytest.raises(cx.UserError, match="perplexity is 30; expected between 0 and the 8 points"):
        analysis.joint_tsne(np.zeros((4, 2)), np.zeros((4, 2)), 30, 0)
