import flax.linen as nn
import jax
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from small import WAY, jitted, make

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


POINTS = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"perplexity": 30}, "perplexity is 30; expected a number between 0 and the 8 points"),
        ({"perplexity": "3"}, "perplexity is '3'; expected a number"),
        ({"seed": -1}, "seed is -1; expected a whole number"),
        ({"after": POINTS[:3]}, r"have shapes \[4, 2\] and \[3, 2\]; expected \[N, D\] twice"),
        ({"before": POINTS[0], "after": POINTS[0]}, r"have shapes \[2\] and \[2\]"),
        ({"before": POINTS[:, :1], "after": POINTS[:, :1]}, "D at least 2"),
        ({"before": np.ones((4, 2)), "after": np.ones((4, 2))}, "are the same features for every image"),
        ({"after": POINTS * np.nan}, "hold NaN or Inf; expected finite numbers"),
        ({"after": POINTS.astype(str)}, "expected finite numbers"),
    ],
)
def test_what_no_plane_can_be_drawn_of_is_refused(changed, message):
    with pytest.raises(cx.UserError, match=message):
        analysis.joint_tsne(**({"before": POINTS, "after": POINTS, "perplexity": 3, "seed": 0} | changed))


def test_a_model_of_one_layer_has_no_layer_before_its_head(episode):
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(WAY, name="head")(x.reshape(len(x), -1))

    learner = cx.learners.maml(Linear(), num_steps=1)
    params = learner.init(jax.random.key(0), episode.support_images)
    with pytest.raises(cx.UserError, match="the model has the layer head alone"):
        analysis.embeddings(learner, params, episode)
