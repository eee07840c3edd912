"""Heads on features: what they learn, and how sure they are."""

import numpy as np
import pytest
from scipy.optimize import minimize
from small_features import clusters

from cxgrad_jax.photos._heads import (
    candidates,
    fit_head,
    fit_temperature,
    log_softmax,
    softmax,
    span,
)  # fmt: skip


@pytest.mark.parametrize("strength", [1.0, 10.0, 100.0])
def test_logistic_regression_is_the_minimum(strength):
    features, labels = clusters(30)
    head = fit_head("logistic", strength, features, labels, 3)

    def loss(flat):
        weights, bias = flat[:-3].reshape(20, 3), flat[-3:]
        told = log_softmax(features @ weights + bias)
        return -strength * told[np.arange(30), labels].sum() + (weights**2).sum() / 2

    best = minimize(loss, np.zeros(63), options={"gtol": 1e-6}).x
    np.testing.assert_allclose(head.weights, best[:-3].reshape(20, 3), atol=2e-3)
    np.testing.assert_allclose(head.bias - head.bias.mean(), best[-3:] - best[-3:].mean(), atol=2e-3)


def test_classes_count_alike_whatever_their_number_of_photos():
    features, labels = clusters(30)
    twice = np.concatenate([np.arange(30), np.flatnonzero(labels == 0)])
    once, more = (fit_head("logistic", 10.0, features[i], labels[i], 3) for i in (np.arange(30), twice))
    scale = 40 / 30  # the whole loss weighs more, each class the same
    expected = fit_head("logistic", 10.0 * scale, features, labels, 3)
    np.testing.assert_allclose(more.weights, expected.weights, atol=2e-3)
    assert np.abs(more.weights - once.weights).max() > 1e-3


def test_the_centroid_head_gives_cosines():
    features, labels = clusters(12)
    head = fit_head("centroid", 0.0, features, labels, 3)
    centroid = features[labels == 1].mean(axis=0)
    np.testing.assert_allclose(head.logits(features)[:, 1], features @ centroid / np.linalg.norm(centroid), rtol=1e-5)


def test_a_span_has_no_more_axes_than_photos():
    features, _ = clusters(5)
    basis = span(np.concatenate([features, features]))
    assert basis.shape == (20, 5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-6)


def test_the_temperature_makes_probabilities_as_right_as_they_say():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(logits)])
    assert fit_temperature(7 * logits, labels) == pytest.approx(7, rel=0.1)


def test_a_few_right_answers_are_no_certainty():
    logits, labels = 5 * np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])
    assert 0.6 < softmax(logits / fit_temperature(logits, labels)).max() < 0.95


def test_candidates_begin_with_the_simplest():
    assert candidates("auto")[0] == ("centroid", 0.0)
    assert [strength for _, strength in candidates("logistic")] == [1.0, 10.0, 100.0]
