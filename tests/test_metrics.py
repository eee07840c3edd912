"""Intervals by formula, digests that notice every change, files that survive a kill."""

import json

import numpy as np
import pytest

from cxgrad_jax import metrics


def test_intervals_by_formula():
    # The paper prints 69.82 ± 0.42 for 600 tasks of 75 predictions.
    assert metrics.ci95_pooled(0.6982, 600 * 75) == pytest.approx(0.00424, abs=5e-6)
    accuracies = np.array([0.2, 0.4, 0.6, 0.8])
    assert metrics.ci95_tasks(accuracies) == pytest.approx(1.96 * np.sqrt(0.05) / 2)


def test_accuracy_and_cross_entropy():
    logits = np.array([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 1.0]]])
    labels = np.array([0, 1])
    np.testing.assert_array_equal(metrics.episode_accuracies(logits, labels), [1.0, 0.5])
    expected = np.mean([np.log1p(np.exp(x)) for x in (-2, -1, 3, -1)])
    assert metrics.mean_cross_entropy(logits, labels) == pytest.approx(expected)


def test_digest_notices_values_shapes_names_and_dtypes():
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    variants = [
        base,
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].astype(np.float64)},
        {"a": base["a"], "c": base["b"]},
        {**base, "b": np.nextafter(base["b"], np.float32(2))},
    ]
    assert len({metrics.params_sha256(variant) for variant in variants}) == len(variants)
    assert metrics.params_sha256(base) == metrics.params_sha256(dict(reversed(base.items())))


def test_metrics_file_drops_what_a_resumed_run_will_write_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iteration": 3}\n{"iter')
    metrics.MetricsFile(path, 2).write(iteration=3, loss=0.5)
    assert metrics.read_metrics(path) == [{"iteration": 1}, {"iteration": 2}, {"iteration": 3, "loss": 0.5}]


def test_write_json_is_all_or_nothing(tmp_path):
    path = tmp_path / "x.json"
    metrics.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        metrics.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
