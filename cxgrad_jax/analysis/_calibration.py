"""How far a learner's confidence can be believed.

    ECE = sum over bins of n_b / n * |accuracy_b - confidence_b|

This is the expected calibration error of Guo et al. (ICML 2017, https://arxiv.org/abs/1706.04599). Predictions are
sorted into bins of equal width by their confidence, which is the largest of the class probabilities.
"""

from typing import NamedTuple

import numpy as np

from cxgrad_jax.arguments import check_whole
from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluation import log_softmax

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
      UserError: the shapes or the labels do not fit, or ``bins`` is no positive whole number.
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
    log_probabilities = log_softmax(logits)
    of_labels = np.take_along_axis(log_probabilities, labels[None, :, None], axis=-1)
    confidence = np.exp(log_probabilities.max(axis=-1))
    known = np.isfinite(confidence)
    right = (np.argmax(logits, axis=-1) == labels)[known]
    confidence = confidence[known]
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        accuracy, mean = (np.bincount(places, weights, bins) / count for weights in (right, confidence))
    error = np.nansum(count * np.abs(accuracy - mean)) / max(count.sum(), 1)
    return Calibration(float(error), float(-np.mean(of_labels)), count, accuracy, mean)
