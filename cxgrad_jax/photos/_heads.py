"""Classifiers on features of length 1: the cosine to a class's centroid, and logistic regression.

Both are a matrix and a bias, so that every later step is the same for both. ``HEADS`` is sorted from the simplest on.
Classes count alike, whatever their number of photos.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

HEADS = ("centroid", "logistic")
STRENGTHS = (1.0, 10.0, 100.0)  # of logistic regression: the weight C of the loss against half the squared weights
WITHOUT_ESTIMATE = "logistic", 1.0  # what is taken where nothing can be held out


class Head(NamedTuple):
    """Logits of features ``[N, D]`` are ``features @ weights + bias``.

    Attributes:
      kind: one of ``HEADS``.
      strength: one of ``STRENGTHS``; 0 for the centroid.
      weights: float32 ``[D, classes]``.
      bias: float32 ``[classes]``.
      temperature: logits are divided by it before they become probabilities.
    """

    kind: str
    strength: float
    weights: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0

    def logits(self, features: np.ndarray) -> np.ndarray:
        """``[N, D] -> [N, classes]``, not divided by the temperature."""
        return features @ self.weights + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """``[N, D] -> [N, classes]``."""
        return softmax(self.logits(features) / self.temperature)


def candidates(head: str) -> tuple[tuple[str, float], ...]:
    """Kinds and strengths that ``head`` stands for, ``"auto"`` or one of ``HEADS``; the simplest first."""
    every = (("centroid", 0.0), *(("logistic", strength) for strength in STRENGTHS))
    return tuple(each for each in every if head in ("auto", each[0]))


def fit_head(kind: str, strength: float, features: np.ndarray, labels: np.ndarray, num_classes: int) -> Head:
    """Fits one head.

    Args:
      kind, strength: of ``candidates``.
      features: float ``[N, D]`` of length 1.
      labels: ``[N]``, each class at least once.
      num_classes: number of classes.
    """
    fit: Callable = _centroid if kind == "centroid" else _logistic
    # All that is learned lies in the space that the photos span, whose dimension is at most N.
    basis = span(features)
    weights, bias = fit(features @ basis, labels, num_classes, strength)
    return Head(kind, strength, np.float32(basis @ weights), np.float32(bias))


def span(features: np.ndarray) -> np.ndarray:
    """An orthonormal basis ``[D, at most N]`` of the space that ``features [N, D]`` span."""
    _, sizes, basis = np.linalg.svd(np.float64(features), full_matrices=False)
    return basis[sizes > 1e-6 * sizes[:1]].T


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature under which held-out logits ``[N, classes]`` have the highest likelihood of their labels.

    One part in ``N + 1`` of each label belongs to all classes alike. Without it a classifier that was never wrong on a
    few photos would claim to be never wrong.
    """
    doubt = 1 / (len(logits) + 1)
    targets = (1 - doubt) * np.eye(logits.shape[1])[labels] + doubt / logits.shape[1]
    temperatures = np.geomspace(1e-3, 1e2, 301)

    def loss(temperature):
        return -np.mean(np.sum(targets * log_softmax(logits / temperature), axis=1))

    return float(min(temperatures, key=loss))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _centroid(x: np.ndarray, labels: np.ndarray, num_classes: int, _: float) -> tuple[np.ndarray, np.ndarray]:
    centroids = np.stack([x[labels == number].mean(axis=0) for number in range(num_classes)], axis=1)
    return centroids / np.linalg.norm(centroids, axis=0), np.zeros(num_classes)


def _logistic(x: np.ndarray, labels: np.ndarray, num_classes: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimises ``strength * sum of cross-entropies + |weights|^2 / 2``, the classes counted alike."""
    from scipy.optimize import minimize

    targets, (_, width) = np.eye(num_classes)[labels], x.shape
    counts = targets.sum(axis=0)
    each = (strength * len(x) / num_classes / counts)[labels][:, None]  # C of each photo

    def loss(flat):
        weights, bias = flat[:-num_classes].reshape(width, num_classes), flat[-num_classes:]
        logits = x @ weights + bias
        slope = each * (softmax(logits) - targets)
        value = -np.sum(each * targets * log_softmax(logits)) + np.sum(weights**2) / 2
        return value, np.concatenate([(x.T @ slope + weights).ravel(), slope.sum(axis=0)])

    start = np.zeros((width + 1) * num_classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return found[:-num_classes].reshape(width, num_classes), found[-num_classes:]
