"""How far a learner's confidence can be believed.

    ECE = sum over bins of n_b / n * |accuracy_b - confidence_b|

This is the expected calibration error of Guo et al. (ICML 2017, https://arxiv.org/abs/1706.04599). Predictions are
sorted into bins of equal width by their confidence, which is the largest of the class probabilities.
"""

from typing import NamedTuple

import numpy as np

from cxgrad_jax.arguments import check_whole
from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluation import log_softmax, mean_cross_entropy

BINS = 15


class Calibration(NamedTuple):
    """The calibration of some predictions.

    A prediction with a logit that is not a number is in no bin, and makes the likelihood NaN.

    Attributes:
      error: the expected calibration error, in [0, 1].
      negative_log_likelihood: the mean over the predictions, in nats.
      counts: the number of predictions in each bin, ``[bins]``.
      accuracy: the share of right predictions in each bin, ``[bins]``. It is NaN for an empty bin.
      confidence: the mean confidence in each bin, ``[bins]``. It is NaN for an empty bin.
    """

    error: float
    negative_log_likelihood: float
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """The calibration of query logits. The class probabilities are their softmax.

    Args:
      logits: ``[episodes, N, way]``.
      labels: ``[N]``, which all episodes share.
      bins: the number of bins.

    Raises:
      UserError: the shapes or the labels do not fit, or ``bins`` is not a positive whole number.
    """
    check_whole("bins", bins)
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 3 or labels.shape != logits.shape[1:2]:
        raise UserError(
            f"logits have shape {list(logits.shape)} and labels {list(labels.shape)}; expected [episodes, N, way] and "
            "[N]"
        )
    if not logits.size:
        raise UserError(f"logits have shape {list(logits.shape)}; expected at least one prediction")
    way = logits.shape[-1]
    if not np.issubdtype(labels.dtype, np.integer) or not 0 <= labels.min() <= labels.max() < way:
        raise UserError(
            f"labels have dtype {labels.dtype} and run from {labels.min()} to {labels.max()}; expected whole numbers, "
            f"0 to {way - 1}"
        )
    confidence = np.exp(log_softmax(logits).max(axis=-1))
    known = np.isfinite(confidence)
    right = np.argmax(logits, axis=-1) == labels
    measured = reliability(confidence[known], right[known], bins)
    return Calibration(calibration_error(*measured), mean_cross_entropy(logits, labels), *measured)


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fields ``counts``, ``accuracy`` and ``confidence`` of ``Calibration``, each ``[bins]``.

    Args:
      confidence: the confidence in each prediction, in [0, 1], ``[N]``.
      right: whether each prediction is right, ``[N]``.
      bins: the number of bins.
    """
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        accuracy, mean_confidence = (np.bincount(places, weights, bins) / counts for weights in (right, confidence))
    return counts, accuracy, mean_confidence


def calibration_error(counts: np.ndarray, accuracy: np.ndarray, confidence: np.ndarray) -> float:
    """The expected calibration error of the result of ``reliability``. It is 0 if there is no prediction."""
    return float(np.nansum(counts * np.abs(accuracy - confidence)) / max(counts.sum(), 1))
