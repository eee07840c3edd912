"""Expected calibration error, likelihood and the bins of a reliability diagram."""

import numpy as np
import pytest

from cxgrad_jax.analysis import calibration
from cxgrad_jax.errors import UserError


def of(probabilities):
    return np.log(np.asarray(probabilities))[None]


def test_by_hand():
    # Confidences 0.93 (right), 0.97 (wrong), 0.64 (right) in ten bins.
    found = calibration(of([[0.93, 0.07], [0.97, 0.03], [0.36, 0.64]]), np.array([0, 1, 1]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 2]
    assert found.confidence[9] == pytest.approx(0.95) and found.accuracy[9] == 0.5
    assert found.error == pytest.approx(2 / 3 * abs(0.5 - 0.95) + 1 / 3 * abs(1 - 0.64))
    assert found.negative_log_likelihood == pytest.approx(-np.mean(np.log([0.93, 0.03, 0.64])))


def test_predictions_that_are_sure_and_right_are_calibrated():
    found = calibration(np.array([[[50.0, 0.0], [0.0, 50.0]]]), np.array([0, 1]))
    assert found.error < 1e-9 and found.counts[-1] == 2 and np.isnan(found.accuracy[:-1]).all()


def test_labels_drawn_from_the_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 20_000, 3)) * 2
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    labels = (rng.uniform(size=(len(shares), 1)) > shares.cumsum(-1)).sum(-1)
    assert calibration(logits, labels).error < 0.015
    assert calibration(4 * logits, labels).error > 0.1


def test_logits_that_are_no_numbers_are_in_no_bin():
    found = calibration(np.array([[[np.nan, 0.0], [5.0, 0.0]]]), np.array([0, 0]))
    assert found.counts.sum() == 1 and np.isnan(found.negative_log_likelihood) and np.isfinite(found.error)


def test_no_prediction_is_refused():
    with pytest.raises(UserError, match=r"logits have shape \[2, 0, 3\]; expected at least one prediction"):
        calibration(np.zeros((2, 0, 3)), np.zeros(0, int))
