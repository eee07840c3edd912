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
ITERATIONS, MEMORY = 500, 10  # of L-BFGS
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
    return centroids / np.linalg.norm(centroids, axis=0), np.zeros(num_classes)


def _logistic(x: np.ndarray, labels: np.ndarray, num_classes: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimises ``strength * sum of cross-entropies + |weights|^2 / 2``, with the same weight for each class."""
    targets, (_, width) = np.eye(num_classes)[labels], x.shape
    counts = targets.sum(axis=0)
    each = (strength * len(x) / num_classes / counts)[labels][:, None]  # C of each photo

    def loss(flat):
        weights, bias = flat[:-num_classes].reshape(width, num_classes), flat[-num_classes:]
        logits = x @ weights + bias
        slope = each * (softmax(logits) - targets)
        value = -np.sum(each * targets * log_softmax(logits)) + np.sum(weights**2) / 2
        return value, np.concatenate([(x.T @ slope + weights).ravel(), slope.sum(axis=0)])

    found = _minimum(loss, np.zeros((width + 1) * num_classes))
    return found[:-num_classes].reshape(width, num_classes), found[-num_classes:]


def _minimum(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """Minimises a convex function that returns value and gradient, by L-BFGS from ``x`` on.

    This is algorithm 7.5 of J. Nocedal and S. J. Wright, Numerical Optimization. For these few numbers SciPy's takes 30
    to 100 times as long if other programs keep the cores busy, because it calls multi-threaded BLAS.
    """
    value, slope = loss(x)
    steps: list[tuple[np.ndarray, np.ndarray]] = []  # the last changes of x and of the gradient
    tolerance = 1e-5 * max(np.abs(slope).max(), 1.0)
    for _ in range(ITERATIONS):
        if np.abs(slope).max() <= tolerance:
            break
        direction, shares = slope.copy(), []
        for s, y in reversed(steps):
            shares.append(s @ direction / (s @ y))
            direction -= shares[-1] * y
        direction *= steps[-1][0] @ steps[-1][1] / (steps[-1][1] @ steps[-1][1]) if steps else 1 / np.abs(slope).sum()
        for s, y in steps:
            direction += (shares.pop() - y @ direction / (s @ y)) * s
        rate, fall = 1.0, slope @ direction
        while True:  # halve the step until the value falls enough
            moved = x - rate * direction
            new_value, new_slope = loss(moved)
            if new_value <= value - 1e-4 * rate * fall or rate < 1e-8:
                break
            rate /= 2
        if new_value >= value:
            break  # rounding ends it
        if (moved - x) @ (new_slope - slope) > 0:
            steps = [*steps[1 - MEMORY :], (moved - x, new_slope - slope)]
        x, value, slope = moved, new_value, new_slope
    return x
