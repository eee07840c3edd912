"""Results are read where they are those of the whole run, else made."""

import contextlib
import json

import pytest
from runs import flags, results

from cxgrad_jax.command_line import Parser, override
from cxgrad_jax.errors import Interrupted
from cxgrad_jax.report import results as report_results
from cxgrad_jax.report.results import (
    Planned,
    answers_at_hand,
    costs_of,
    planned,
    read_or_make,
    results_at_hand,
    results_of,
)
from cxgrad_jax.training import loop
from cxgrad_jax.training.config_files import load_config
from cxgrad_jax.training.evaluate import evaluate_run
from cxgrad_jax.training.train import train


@pytest.fixture
def run(tiny_data, tmp_path):
    config = load_config("configs/baselines/proto_net.py")
    given = flags(tiny_data, tmp_path, train__iterations=6)[1:]
    override(config, [flag for flag in given if "learner." not in flag], Parser(add_help=False))
    return Planned("proto_net", config, tmp_path / "run")


@pytest.mark.slow
def test_a_half_trained_run_that_was_tested_is_resumed(run, monkeypatch, capsys):
    @contextlib.contextmanager
    def stop_after_two():
        yield (run.workdir / "checkpoints" / "2").exists  # which a validation writes

    monkeypatch.setattr(loop, "stop_signals", stop_after_two)
    with pytest.raises(Interrupted):
        train(run.config, run.workdir)
    monkeypatch.undo()
    evaluate_run(run.config, run.workdir)
    assert results(run.workdir)["iterations"] == 2
    assert results_of(run)["iterations"] == results(run.workdir)["iterations"] == 6
    assert "proto_net: training in" in capsys.readouterr().err
    assert results_of(run) == results(run.workdir)
    assert "training" not in capsys.readouterr().err


def test_costs_are_measured_again_for_another_division(run, monkeypatch):
    measured = []

    def measure(config):
        measured.append(config.parallel.tasks_per_chunk)
        return {"num_parameters": 1, "seconds_per_iteration": 1.0, "memory_bytes": None, "num_devices": 1}

    monkeypatch.setattr(report_results, "measure", measure)
    run.workdir.mkdir()
    assert costs_of(run) == costs_of(run) and measured == [run.config.parallel.tasks_per_chunk]
    run.config.parallel.tasks_per_chunk = 2
    assert costs_of(run)["tasks_per_chunk"] == 2 and measured[1:] == [2]


def test_costs_are_measured_again_where_there_are_more_devices(run, monkeypatch):
    """``parallel.num_devices`` is 0 for all that there are, and the number is not."""
    seen, here = [], [1]
    costs = {"num_parameters": 1, "seconds_per_iteration": 1.0, "memory_bytes": None}
    monkeypatch.setattr(report_results, "measure", lambda config: seen.append(here[0]) or costs)
    monkeypatch.setattr(report_results.build, "num_devices", lambda config: here[0])
    run.workdir.mkdir()
    run.config.parallel.num_devices = 0
    assert costs_of(run)["num_devices"] == 1
    here[0] = 2
    assert costs_of(run)["num_devices"] == costs_of(run)["num_devices"] == 2 and seen == [1, 2]


def test_another_file_is_made_again(tmp_path):
    path = tmp_path / "it.json"
    for content in (None, "", "{", "[]", "null", '{"other": 1}', '{"wanted": false}'):
        if content is not None:
            path.write_text(content)
        assert read_or_make(path, lambda found: found["wanted"], lambda: {"made": 1}) == {"made": 1}
    path.write_text('{"wanted": true}')
    assert read_or_make(path, lambda found: found["wanted"], lambda: {"made": 1}) == {"wanted": True}
    assert results_at_hand(tmp_path) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("test_accuracy", "high"), ("test_ci95_pooled", None), ("ensemble_size", 2.5), ("test_data", 1), ("config", []),
        ("reliability", {"count": None}), ("reliability", {}), ("test_expected_calibration_error", "0.1"),
        ("episode_accuracies", "0.5"), ("episode_accuracies", [0.5]), ("episode_accuracies", {}), ("num_tasks", True),
    ],
)  # fmt: skip
def test_results_of_other_types_do_not_count(field, value, finished, tmp_path):
    content = results(finished)
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert results_at_hand(tmp_path) == content
    (tmp_path / "results.json").write_text(json.dumps({**content, field: value}))
    assert results_at_hand(tmp_path) is None


def test_seeds_differ_in_the_seed_and_the_folder_alone(run):
    assert planned("a", run.config, run.workdir, None) == [Planned("a", run.config, run.workdir)]
    first, second = planned("a", run.config, run.workdir, 2)
    assert (first.config.seed, second.config.seed) == (0, 1)
    assert [each.workdir.name for each in (first, second)] == ["seed_0", "seed_1"]
    second.config.seed = 0
    assert first.config == second.config == run.config


def test_the_answers_over_the_most_episodes_count(tmp_path):
    def write(name, episodes, steps, changed):
        answers = {str(i): {"test_accuracy": i / 10, "test_ci95_tasks": 0.1} for i in range(steps)}
        content = {"answers": answers, "num_tasks": episodes, "checkpoint": 10, "changed": changed}
        (tmp_path / f"results_question=inner_steps{name}.json").write_text(json.dumps(content))

    write("", 40, 6, {})
    write(",trial", 2, 9, {"evaluation.episodes": 2, "learner.num_steps": 8})
    assert len(answers_at_hand(tmp_path, "inner_steps", 10)) == 6
    write(",more", 40, 8, {"learner.num_steps": 7})
    assert len(answers_at_hand(tmp_path, "inner_steps", 10)) == 8
    assert answers_at_hand(tmp_path, "inner_steps", 20) == {}
    write(",ensemble", 60, 5, {"evaluation.ensemble": 7, "evaluation.episodes": 60})  # which changes no answer
    assert len(answers_at_hand(tmp_path, "inner_steps", 10)) == 5
