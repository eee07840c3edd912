"""Pre-training: the loss, and what of one set of parameters goes into another."""

from typing import Any

import jax
import numpy as np
import pytest
from small import SIZE, WAY, make_episode

import cxgrad_jax as cx
from cxgrad_jax.learners import by_path
from cxgrad_jax.pretraining import Batch, pretraining, with_body_of

IMAGES: Any = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)
MODEL = cx.models.Conv4(num_classes=WAY, features=4)


def pretrained(num_classes=7) -> Any:
    learner = cx.learners.classifier_baseline(MODEL, query_statistics="running")
    learner = pretraining(learner, MODEL, num_classes)
    return learner, learner.init(jax.random.key(1), IMAGES[:2])


def test_the_loss_is_that_of_a_classifier_of_all_classes():
    learner, params = pretrained()
    labels: Any = np.arange(12) % 7
    value, metrics = learner.loss(params, Batch(IMAGES, labels))
    logits = cx.learners.apply_model(MODEL.clone(num_classes=7), params["model"], IMAGES)
    np.testing.assert_allclose(value, cx.learners.cross_entropy(logits, labels), rtol=1e-6)
    assert metrics["accuracy"] == cx.learners.accuracy(logits, labels)


@pytest.mark.slow
def test_the_body_is_judged_in_episodes_by_running_averages():
    learner, params = pretrained()
    episode = make_episode()
    adapted = learner.adapt(params, episode.support_images, episode.support_labels)
    logits = learner.predict(params, adapted, episode.query_images)
    alone = learner.predict(params, adapted, episode.query_images[:1])
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-5)


@pytest.mark.slow_except("cxgrad")
@pytest.mark.parametrize("name", ["maml", "cxgrad", "proto_net", "rfs"])
def test_a_learner_starts_from_the_body_and_keeps_its_own(name):
    _, trained = pretrained()
    learner = getattr(cx.learners, name)(MODEL)
    params = learner.init(jax.random.key(0), IMAGES[:2])
    started = with_body_of(params, trained, MODEL, IMAGES[:2], "x")
    assert jax.tree.structure(started) == jax.tree.structure(params)
    theirs, before = by_path(trained["model"]), by_path(params["model"])
    for path, values in by_path(started["model"]).items():
        np.testing.assert_array_equal(values, before[path] if path.startswith("head/") else theirs[path])
    assert all(started[part] is params[part] for part in params if part != "model")


def test_what_does_not_fit_is_refused():
    _, trained = pretrained()
    wide = cx.models.Conv4(num_classes=WAY, features=5)
    params = cx.learners.maml(wide).init(jax.random.key(0), IMAGES[:2])
    message = r"x: block_0/conv/kernel has shape \[3, 3, 3, 4\], and shape \[3, 3, 3, 5\]"
    with pytest.raises(cx.UserError, match=message):
        with_body_of(params, trained, wide, IMAGES[:2], "x")
    running = cx.learners.proto_net(MODEL, query_statistics="running").init(jax.random.key(0), IMAGES[:2])
    with pytest.raises(cx.UserError, match="no running averages"):
        with_body_of(running, {"model": trained["model"]}, MODEL, IMAGES[:2], "x")
