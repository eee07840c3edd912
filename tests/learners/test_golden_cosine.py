"""Trajectories of the official code of Classifier-Baseline and Meta-Baseline, in ``tests/golden`` (float64 figures)."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from golden_files import (
    Comparison,
    averages,
    averages_moved_by,
    backbone,
    episodes_of,
    images_of,
    load,
    outer_optimiser,
    tensors,
)

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, batch_statistics, cross_entropy
from cxgrad_jax.learners._labels import by_path, merge

pytestmark = pytest.mark.usefixtures("double_precision")


def logits_of(learner, params, episodes, statistics):
    """Query logits of each episode, all images normalised by ``statistics``: ``[tasks, N, way]``."""
    params = {**params, "statistics": {"model": statistics}}

    def of_one(episode):
        adapted = learner.adapt(params, episode.support_images, episode.support_labels)
        return learner.predict(params, adapted, episode.query_images)

    return jax.jit(jax.vmap(of_one))(episodes)


def test_classifier_baseline_agrees_with_the_official_code_in_float64():
    golden, settings = load("classifier_baseline")
    comparison, classifier = Comparison(), backbone(settings, settings["n_classes"])
    params, optimiser = merge(tensors(golden, "param", "baseline")), outer_optimiser(settings)
    opt_state, statistics = optimiser.init(params), averages(golden, "buffer", "baseline")

    def loss(params, images, labels):
        logits = apply_model(classifier, params["model"], images)
        return cross_entropy(logits, labels), logits

    evaluate, moved_by = jax.jit(jax.value_and_grad(loss, has_aux=True)), averages_moved_by(classifier)
    for prefix in (f"iter{i}" for i in range(settings["iterations"])):  # the first stage: a classifier
        images, labels = images_of(golden[f"{prefix}/x"]), golden[f"{prefix}/y"]
        (value, logits), gradient = evaluate(params, images, labels)
        comparison.record("loss", value, golden[f"{prefix}/loss"])
        comparison.record("logits", logits, golden[f"{prefix}/logits"])
        statistics = moved_by(params["model"], statistics, images)[1]
        expected = averages(golden, f"{prefix}/buffer_after", "baseline")
        jax.tree.map(lambda ours, theirs: comparison.record("averages", ours, theirs), statistics, expected)
        comparison.gradients(by_path(gradient), tensors(golden, f"{prefix}/grad", "baseline"))
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        expected = tensors(golden, f"{prefix}/param_after", "baseline")
        params = comparison.parameters(by_path(params), expected, settings["outer"]["lr"])

    del params["model"]["head"]
    model = backbone(settings, settings["way"])
    learner = cx.learners.classifier_baseline(model, scale=settings["temperature"], query_statistics="running")
    episodes = episodes_of(golden, "eval", np.float64)
    logits = logits_of(learner, params, episodes, statistics)
    comparison.record("logits", logits, golden["eval/query_logits"])
    comparison.record("loss", jax.vmap(cross_entropy)(logits, episodes.query_labels).mean(), golden["eval/loss"])
    comparison.verdict("classifier_baseline")


def test_meta_baseline_agrees_with_the_official_code_in_float64():
    golden, settings = load("meta_baseline")
    model, comparison = backbone(settings, settings["way"]), Comparison()
    learner = cx.learners.meta_baseline(model, query_statistics="running")
    params, optimiser = merge(tensors(golden, "param", "baseline")), outer_optimiser(settings)
    opt_state, statistics = optimiser.init(params), averages(golden, "buffer", "baseline")

    def loss(params, episodes, images):
        """One batch of all images of all episodes, as the official code normalises."""
        found = batch_statistics(model, params["model"], images, "embed")
        logits = logits_of(learner, params, episodes, found)
        return jax.vmap(cross_entropy)(logits, episodes.query_labels).mean(), logits

    evaluate, moved_by = jax.jit(jax.value_and_grad(loss, has_aux=True)), averages_moved_by(model)
    for prefix in (f"iter{i}" for i in range(settings["iterations"])):
        episodes = episodes_of(golden, prefix, np.float64)
        images: Any = np.concatenate([images_of(golden[f"{prefix}/{kind}_x"]) for kind in ("support", "query")])
        (value, logits), gradient = evaluate(params, episodes, images)
        comparison.record("loss", value, golden[f"{prefix}/loss"])
        comparison.record("logits", logits, golden[f"{prefix}/query_logits"])
        features, statistics = moved_by(params["model"], statistics, images)
        comparison.record("features", features, golden[f"{prefix}/embeddings"])
        expected = averages(golden, f"{prefix}/buffer_after", "baseline")
        jax.tree.map(lambda ours, theirs: comparison.record("averages", ours, theirs), statistics, expected)
        comparison.gradients(by_path(gradient), tensors(golden, f"{prefix}/grad", "baseline"))
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        expected = tensors(golden, f"{prefix}/param_after", "baseline")
        params = comparison.parameters(by_path(params), expected, settings["outer"]["lr"])

    episodes = episodes_of(golden, "eval", np.float64)
    logits = logits_of(learner, params, episodes, statistics)
    comparison.record("logits", logits, golden["eval/query_logits"])
    squared = cx.learners.proto_net(model, query_statistics="running")  # the code's other measure is ProtoNet's
    logits = logits_of(squared, params, episodes, statistics)
    comparison.record("logits", logits, golden["eval/query_logits_sqr"])
    comparison.verdict("meta_baseline")
