"""The record of a run survives kills, and is JSON."""

import json

import pytest

from cxgrad_jax.errors import UserError
from cxgrad_jax.training import metrics_file


def test_metrics_file_drops_what_a_resumed_run_will_write_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iteration": 3}\n{"iter')
    metrics_file.MetricsFile(path, 2).write(iteration=3, loss=0.5)
    assert metrics_file.read_metrics(path) == [{"iteration": 1}, {"iteration": 2}, {"iteration": 3, "loss": 0.5}]


def test_the_record_of_a_validation_that_will_be_made_again_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"iteration": 1, "val_loss": 1}\n{"iteration": 2, "train_loss": 1}\n{"iteration": 2, "val_loss": 1}'
    )
    metrics_file.MetricsFile(path, 2)
    assert len(metrics_file.read_metrics(path)) == 3
    metrics_file.MetricsFile(path, 2, is_validated=False)
    assert metrics_file.read_metrics(path) == [{"iteration": 1, "val_loss": 1}, {"iteration": 2, "train_loss": 1}]


def test_a_bad_line_in_the_middle_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iter\x00\n[1]\n{"loss": 2}\n{"iteration": 2}\n')
    assert metrics_file.read_metrics(path) == [{"iteration": 1}, {"iteration": 2}]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics_file.MetricsFile(path, 0).write(iteration=1, val_loss=float("nan"), val_accuracy=0.5)
    assert json.loads(path.read_text()) == {"iteration": 1, "val_loss": None, "val_accuracy": 0.5}


def test_a_record_holds_numbers_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    bad = ('"high"', "[0.5]", "{}", "true", "1e999", "1" + "0" * 400)
    lines = [f'{{"iteration": 1, "val_accuracy": {value}}}' for value in bad]
    path.write_text("\n".join(['{"iteration": 1, "val_accuracy": null}', '{"iteration": true}', *lines]))
    assert metrics_file.read_metrics(path) == [{"iteration": 1, "val_accuracy": None}]


def test_records_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="metrics.jsonl cannot be read: Is a directory"):
        metrics_file.read_metrics(tmp_path / "metrics.jsonl")
