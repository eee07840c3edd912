"""Classifiers on features of length 1: the cosine to a class's centroid, and logistic regression.

Both are a matrix and a bias, so that every later step is the same for both. ``HEADS`` has the simplest first. All
classes have the same weight, whatever their number of photos.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cxgrad_jax.evaluation import log_softmax

HEADS = ("centroid", "logistic")
STRENGTHS = (1.0, 10.0, 100.0)  # the weight C of the loss against half the squared weights, in logistic regression
WITHOUT_ESTIMATE = "logistic", 1.0  # the head that is taken if nothing can be held out


class Head(NamedTuple):
    """Logits of features ``[N, D]`` are ``features @ weights + bias``.

    Attributes:
      kind: one of ``HEADS``.
      strength: one of ``STRENGTHS``, or 0 for the centroid.
      weights: float32 ``[D, classes]``.
      bias: float32 ``[classes]``.
      temperature: the number by which logits are divided before they become probabilities.
    """

    kind: str
    strength: float
    weights: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits ``[N, classes]`` of features ``[N, D]``, not divided by the temperature."""
        return features @ self.weights + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities ``[N, classes]`` of features ``[N, D]``."""
        return softmax(self.logits(features) / self.temperature)


def candidates(head: str) -> tuple[tuple[str, float], ...]:
    """The kinds and strengths that ``head`` (``"auto"`` or one of ``HEADS``) stands for, the simplest first."""
    every = (("centroid", 0.0), *(("logistic", strength) for strength in STRENGTHS))
    return tuple(each for each in every if head in ("auto", each[0]))


def fit_head(kind: str, strength: float, features: np.ndarray, labels: np.ndarray, num_classes: int) -> Head:
    """Fits one head.

    Args:
      kind, strength: one of ``candidates``.
      features: float ``[N, D]`` of length 1.
      labels: ``[N]``, each class at least once.
      num_classes: the number of classes.
    """
    fit: Callable[..., Any] = _centroid if kind == "centroid" else _logistic
    # The weights lie in the space that the photos span, whose dimension is at most N.
    basis = span(features)
    weights, bias = fit(features @ basis, labels, num_classes, strength)
    return Head(kind, strength, np.asarray(basis @ weights, np.float32), np.asarray(bias, np.float32))


def span(features: np.ndarray) -> np.ndarray:
    """An orthonormal basis ``[D, at most N]`` of the space that ``features [N, D]`` span."""
    _, sizes, basis = np.linalg.svd(np.asarray(features, np.float64), full_matrices=False)
    return basis[sizes > 1e-6 * sizes[:1]].T


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the labels of held-out logits ``[N, classes]`` have the highest likelihood.

    One part in ``N + 1`` of each label is spread over all classes. Otherwise a classifier that was never wrong on a few
    photos would claim to be never wrong.
    """
    doubt = 1 / (len(logits) + 1)
    targets = (1 - doubt) * np.eye(logits.shape[1])[labels] + doubt / logits.shape[1]
    temperatures = np.geomspace(1e-3, 1e2, 301)

    def loss(temperature):
        return -np.mean(np.sum(targets * log_softmax(logits / temperature), axis=1))

    return float(min(temperatures, key=loss))


def _centroid(x: np.ndarray, labels: np.ndarray, num_classes: int, _: float) -> tuple[np.ndarray, np.ndarray]:
    centroids = np.stack([x[labels == number].mean(axis=0) for number in range(num_classes)], axis=1)
    length = np.maximum(np.linalg.norm(centroids, axis=0), 1e-12)  # features may be all zero
    return centroids / length, np.zeros(num_classes)


def _logistic(x: np.ndarray, labels: np.ndarray, num_classes: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimises ``strength * sum of cross-entropies + |weights|^2 / 2``, with the same weight for each class."""
    from scipy.optimize import minimize  # slow to import

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
    tolerance = 1e-6 * max(np.abs(loss(start)[1]).max(), 1.0)  # of the largest slope
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": tolerance, "ftol": 0}).x
    return found[:-num_classes].reshape(width, num_classes), found[-num_classes:]
