"""Trajectories of the official codes of R2-D2 and MetaOptNet, in ``tests/golden`` (float64 figures, no code)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_files import (
    Comparison,
    averages,
    averages_moved_by,
    episodes_of,
    load,
    one_episode,
    outer_optimiser,
    tensors,
)

import cxgrad_jax as cx
from cxgrad_jax.learners import _metaoptnet as metaoptnet
from cxgrad_jax.learners import apply_model, batch_statistics, cross_entropy
from cxgrad_jax.learners._labels import by_path, merge
from cxgrad_jax.learners._metric import one_hot
from cxgrad_jax.learners._r2d2 import ridge_with_bias
from cxgrad_jax.learners._ridge import ridge

pytestmark = pytest.mark.usefixtures("double_precision")

# Of each tensor's maximum, what the official SVM leaves of the optimum, and what its derivatives are good for.
SOLVED, SOLVER_GRADIENT = 1e-8, 1e-4


def test_r2d2_agrees_with_the_official_code_in_float64():
    golden, settings = load("r2d2")
    way, widths, comparison = settings["way"], settings["widths"], Comparison()
    model = cx.models.R2D2Conv4(way, channels=tuple(widths))
    base = settings["lambda_base"]
    learner, running = (
        cx.learners.r2d2(
            model,
            regularisation=settings["init_lambda"] if base == 1 else base ** settings["init_lambda"],
            learned_regularisation=settings["learn_lambda"],
            logarithmic=settings["adj_base"] != 1,
            joint_normalisation=True,
            query_statistics=query_statistics,
        )
        for query_statistics in ("query", "running")
    )
    params, optimiser = merge(tensors(golden, "param", "r2d2")), outer_optimiser(settings)
    opt_state, statistics = optimiser.init(params), averages(golden, "buffer", "r2d2")

    def channels_first(rows):
        """``rows [N, D]`` of features in the order of the official code, which flattens each level from (C, H, W)."""
        side = round((rows.shape[1] / sum(widths[2:])) ** 0.5)
        maps = jnp.split(rows.reshape(-1, side, side, sum(widths[2:])), [widths[2]], axis=-1)
        return jnp.concatenate([level.transpose(0, 3, 1, 2).reshape(len(rows), -1) for level in maps], axis=1)

    def compare_weights(prefix, weights):
        weights = jnp.concatenate([channels_first(weights[:-1].T).T, weights[-1:]])
        comparison.record("weights", weights, golden[f"{prefix}/ridge_weights"])

    def strength(params):
        if not settings["learn_lambda"]:
            return settings["init_lambda"] if base == 1 else base ** settings["init_lambda"]
        return params["regularisation"] if base == 1 else base ** params["regularisation"]

    def loss(params, episode):
        adapted = learner.adapt(params, episode.support_images, episode.support_labels)
        return learner.loss(params, episode)[0], learner.predict(params, adapted, episode.query_images)

    evaluate, moved_by = jax.jit(jax.value_and_grad(loss, has_aux=True)), averages_moved_by(model)
    for prefix in (f"iter{i}" for i in range(settings["iterations"])):
        episode = one_episode(golden, prefix)
        images: Any = np.concatenate([episode.support_images, episode.query_images])
        (value, logits), gradient = evaluate(params, episode)
        comparison.record("loss", value, golden[f"{prefix}/loss"])
        comparison.record("logits", logits, golden[f"{prefix}/query_logits"])
        features, statistics = moved_by(params["model"], statistics, images)
        comparison.record("features", channels_first(features), golden[f"{prefix}/embeddings"])
        targets = one_hot(episode.support_labels, way, features.dtype)
        compare_weights(prefix, ridge_with_bias(features[: len(targets)], targets, strength(params)))
        expected = averages(golden, f"{prefix}/buffer_after", "r2d2")
        jax.tree.map(lambda ours, theirs: comparison.record("averages", ours, theirs), statistics, expected)
        comparison.gradients(by_path(gradient), tensors(golden, f"{prefix}/grad", "r2d2"))
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        expected = tensors(golden, f"{prefix}/param_after", "r2d2")
        params = comparison.parameters(by_path(params), expected, settings["outer"]["lr"])

    episode, by_averages = one_episode(golden, "eval"), {**params, "statistics": {"model": statistics}}
    adapted = jax.jit(running.adapt)(by_averages, episode.support_images, episode.support_labels)
    compare_weights("eval", adapted.episode)
    logits = jax.jit(running.predict)(by_averages, adapted, episode.query_images)
    comparison.record("logits", logits, golden["eval/query_logits"])
    comparison.verdict("r2d2")


@pytest.mark.parametrize("head", ["ridge", "svm"])
def test_metaoptnet_agrees_with_the_official_code_in_float64(head):
    golden, settings = load({"ridge": "metaoptnet_rr", "svm": "metaoptnet_svm"}[head])
    assert settings["svm_C"] == metaoptnet.SVM_C
    way, comparison = settings["way"], Comparison()
    model = cx.models.Conv4(way, settings["filters"], use_bias=settings["conv_bias"], negative_slope=0.0)
    strength = {"regularisation": settings["ridge_lambda"]} if head == "ridge" else {}
    learner = cx.learners.metaoptnet(model, head=head, query_statistics="running", **strength)
    params, optimiser = merge(tensors(golden, "param", "metaoptnet")), outer_optimiser(settings)
    opt_state, running = optimiser.init(params), averages(golden, "buffer", "metaoptnet")

    def all_of(images):
        return images.reshape(-1, *images.shape[2:])

    def channels_first(rows):
        side = round((rows.shape[-1] / settings["filters"]) ** 0.5)
        maps = rows.reshape(*rows.shape[:-1], side, side, -1)
        return jnp.moveaxis(maps, -1, -3).reshape(rows.shape)

    def logits_of(params, episodes, of_support, of_query):
        """Features of both sets and query logits, each set normalised by statistics of its own."""

        def of_one(episode):
            support = apply_model(model, params["model"], episode.support_images, "embed", statistics=of_support)
            query = apply_model(model, params["model"], episode.query_images, "embed", statistics=of_query)
            targets = one_hot(episode.support_labels, way, support.dtype)
            plain = query @ ridge(support, targets, settings["ridge_lambda"])
            normalised = {**params, "statistics": {"model": of_support}}
            adapted = learner.adapt(normalised, episode.support_images, episode.support_labels)
            adapted = adapted._replace(statistics={"model": of_query})
            logits = learner.predict(normalised, adapted, episode.query_images)
            return logits, {"support": support, "query": query, "r2d2head_scores": plain}

        return jax.vmap(of_one)(episodes)

    def objective(logits, labels):
        smoothed = jax.vmap(metaoptnet.smoothed_cross_entropy, in_axes=(0, 0, None))
        return smoothed(logits, labels, settings["label_smoothing"]).mean()

    def loss(params: Any, episodes: Any):
        """All support images are one batch and all query images another, as the official code normalises."""
        sets = (all_of(images) for images in (episodes.support_images, episodes.query_images))
        found = [batch_statistics(model, params["model"], images, "embed") for images in sets]
        logits, features = logits_of(params, episodes, *found)
        return objective(logits, episodes.query_labels), (logits, features)

    def record(prefix, logits, features):
        solved = "query_logits" if head == "ridge" else "query_logits_converged"
        comparison.record("logits", logits, golden[f"{prefix}/{solved}"])
        comparison.record("scores", features["r2d2head_scores"], golden[f"{prefix}/r2d2head_scores"])
        for kind in ("support", "query"):
            comparison.record("features", channels_first(features[kind]), golden[f"{prefix}/{kind}_embeddings"])

    evaluate, moved_by = jax.jit(jax.value_and_grad(loss, has_aux=True)), averages_moved_by(model)
    for prefix in (f"iter{i}" for i in range(settings["iterations"])):
        episodes = episodes_of(golden, prefix, np.float64)
        outcome, gradient = evaluate(params, episodes)
        value, (logits, features) = outcome
        comparison.record("loss", value, golden[f"{prefix}/loss"])
        record(prefix, logits, features)
        for images in (episodes.support_images, episodes.query_images):
            running = moved_by(params["model"], running, all_of(images))[1]
        expected = averages(golden, f"{prefix}/buffer_after", "metaoptnet")
        jax.tree.map(lambda ours, theirs: comparison.record("averages", ours, theirs), running, expected)
        comparison.gradients(by_path(gradient), tensors(golden, f"{prefix}/grad", "metaoptnet"))
        stored = merge(tensors(golden, f"{prefix}/grad", "metaoptnet")) if head == "svm" else gradient
        updates, opt_state = optimiser.update(stored, opt_state, params)
        params = optax.apply_updates(params, updates)
        expected = tensors(golden, f"{prefix}/param_after", "metaoptnet")
        params = comparison.parameters(by_path(params), expected, settings["outer"]["lr"])

    episodes = episodes_of(golden, "eval", np.float64)
    logits, features = jax.jit(logits_of)(params, episodes, running, running)
    record("eval", logits, features)
    if head == "ridge":
        plain = jax.vmap(cross_entropy)(logits, episodes.query_labels).mean()  # at evaluation labels are not smoothed
        comparison.record("loss", plain, golden["eval/loss"])
        comparison.verdict("metaoptnet_rr")
    else:  # the official solver stops early, and differentiates what it has
        comparison.verdict("metaoptnet_svm", logits=SOLVED, loss=SOLVED, gradient=SOLVER_GRADIENT)
