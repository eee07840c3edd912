"""The plan of dispatches, and a run that goes on in other dispatches."""

import contextlib
import json
import shutil
from types import SimpleNamespace
from typing import Any

import optax
import pytest
from runs import flags, outcome, results, run, told

from cxgrad_jax import main
from cxgrad_jax.training import build, loop, workdir
from cxgrad_jax.training.checkpoints import NOT_VALIDATED
from cxgrad_jax.training.loop import dispatches
from cxgrad_jax.training.metrics_file import read_metrics


@pytest.mark.parametrize(
    ("first", "last", "epoch", "most", "plan"),
    [
        (0, 10, 5, 5, [(0, 5), (5, 5)]),
        (5, 200, 100, 50, [(5, 45), (50, 50), (100, 50), (150, 50)]),
        (0, 7, 3, 2, [(0, 2), (2, 1), (3, 2), (5, 1), (6, 1)]),
        (4, 4, 3, 2, []),
    ],
)
def test_dispatches_end_with_every_epoch_wherever_a_run_goes_on(first, last, epoch, most, plan):
    assert list(dispatches(first, last, epoch, most)) == plan


def test_every_iteration_comes_once_and_every_epoch_ends():
    for first in range(12):
        for most in (1, 2, 3, 5, 7, 50):
            plan = list(dispatches(first, 24, 6, most))
            assert [i for start, length in plan for i in range(start, start + length)] == list(range(first, 24))
            ends = {start + length for start, length in plan}
            assert {6 * i for i in range(first // 6 + 1, 5)} <= ends and max(length for _, length in plan) <= most


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["host", "device"])
def test_a_run_that_goes_on_in_longer_dispatches_validates_and_ends_as_before(finished, tiny_data, tmp_path, storage):
    """As when a run of a CPU goes on on an accelerator: the same episodes, validations and end."""
    changes = {"train__epoch_iterations": 4, "train__keep_every": 4, "data__storage": storage}
    first = run(*flags(tiny_data, tmp_path, **changes, train__iterations=5))
    assert first.returncode == 0, first.stderr
    done = run(*flags(tiny_data, tmp_path, **changes, train__iterations_per_dispatch=50))
    assert done.returncode == 0, done.stderr
    ours = read_metrics(tmp_path / "metrics.jsonl")
    theirs = {each["iteration"]: each for each in read_metrics(finished / "metrics.jsonl") if "val_loss" in each}
    validated = {each["iteration"]: each for each in ours if "val_loss" in each}
    assert list(validated) == [4, 8, 12, 16] and results(tmp_path)["iterations"] == 16
    for iteration in (4, 8, 12, 16):
        assert validated[iteration]["val_loss"] == pytest.approx(theirs[iteration]["val_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_finished_run_can_be_extended_and_not_shortened(finished, tiny_data, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    assert run(*flags(tiny_data, tmp_path, train__iterations=18)).returncode == 0
    assert results(tmp_path)["iterations"] == results(tmp_path)["config"]["train"]["iterations"] == 18
    shortened = run(*flags(tiny_data, tmp_path, train__iterations=16))
    assert shortened.returncode == 2 and "can be extended, not shortened: give at least 18" in shortened.stderr


def train_tiny(workdir, tiny_data, **changes):
    """A run of ProtoNet in this process, with epochs of 4 iterations."""
    given = flags(tiny_data, workdir, **{"train__epoch_iterations": 4, "train__keep_every": 0, **changes})
    return main.run(["--config=baselines/proto_net", *(flag for flag in given if "learner." not in flag)])


@pytest.mark.parametrize("start", [0, 6])
def test_an_extended_run_is_one_that_never_stopped(start, tiny_data, tmp_path):
    changes: dict[str, Any] = {"evaluation__ensemble": 5}
    if start == 0:  # the body's start alone is tested
        assert train_tiny(tmp_path / "body", tiny_data, train__iterations=4) == 0
        changes["train__start_from"] = tmp_path / "body"
    assert train_tiny(tmp_path / "extended", tiny_data, train__iterations=start, **changes) == 0
    assert start in results(tmp_path / "extended")["ensemble_iterations"]
    for name in ("extended", "whole"):
        assert train_tiny(tmp_path / name, tiny_data, train__iterations=8, **changes) == 0
    assert outcome(tmp_path / "extended") == outcome(tmp_path / "whole")


def test_an_extension_that_was_refused_or_stopped_is_taken_back(tiny_data, tmp_path, monkeypatch, capsys):
    assert train_tiny(tmp_path, tiny_data, train__iterations=4) == 0
    with monkeypatch.context() as patch:
        patch.setattr(workdir.shutil, "disk_usage", lambda path: SimpleNamespace(total=1, free=0))
        assert train_tiny(tmp_path, tiny_data, train__iterations=400) == 2
    assert workdir.read_config(tmp_path).train.iterations == 4
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: contextlib.nullcontext(lambda: True))
        assert train_tiny(tmp_path, tiny_data, train__iterations=400) == 130
    assert workdir.read_config(tmp_path).train.iterations == 400
    assert train_tiny(tmp_path, tiny_data, train__iterations=8) == 0
    assert results(tmp_path)["iterations"] == results(tmp_path)["config"]["train"]["iterations"] == 8
    capsys.readouterr()
    assert train_tiny(tmp_path, tiny_data, train__iterations=7) == 2
    assert "has a checkpoint after 8; a run can be extended, not shortened: give at least 8" in capsys.readouterr().err


def nan_after_one_step(config):
    return optax.scale(float("nan"))


@pytest.mark.parametrize(
    ("rate", "optimiser", "words"),
    [
        (1e38, build.build_optimiser, "all logits of the validation became infinite or nan"),
        (0.1, nan_after_one_step, "a parameter became infinite or nan"),
    ],
)
def test_parameters_that_are_not_finite_are_not_saved(rate, optimiser, words, tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "build_optimiser", optimiser)
    assert train_tiny(tmp_path, tiny_data, train__epoch_iterations=1, train__learning_rate=rate) == 2
    (line,) = told(capsys.readouterr().err)
    end = "at iteration 1; none was saved yet; lower train.learning_rate, in a run with another --workdir"
    assert words in line and line.endswith(end)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_other_bits_are_told_and_older_checkpoints_are_read(tiny_data, tmp_path, capsys):
    assert train_tiny(tmp_path, tiny_data, train__iterations=4) == 0
    record = tmp_path / "checkpoints" / "4" / "metrics" / "metrics"
    content = json.loads(record.read_text())
    of_an_older_version = {**content, "machine": content["machine"].split(", jax")[0]}
    del of_an_older_version["ends_epoch"]
    record.write_text(json.dumps(of_an_older_version))
    capsys.readouterr()
    assert train_tiny(tmp_path, tiny_data, train__iterations=8) == 0
    assert "goes on with" not in capsys.readouterr().err
    assert train_tiny(tmp_path, tiny_data, train__iterations=12, parallel__tasks_per_chunk=2) == 0
    (line,) = [line for line in told(capsys.readouterr().err) if "goes on with" in line]
    assert "2 task(s) at once after" in line and "1 task(s) at once; the numbers will agree to rounding" in line


def test_a_training_keeps_what_an_evaluation_of_the_same_run_added(tiny_data, tmp_path):
    assert train_tiny(tmp_path, tiny_data, train__iterations=4) == 0
    assert main.run([f"--workdir={tmp_path}", "--mode=evaluate"]) == 0
    evaluated = results(tmp_path)
    assert train_tiny(tmp_path, tiny_data, train__iterations=4) == 0
    assert results(tmp_path) == evaluated and len(evaluated["by_query_statistics"]) == 2
    assert train_tiny(tmp_path, tiny_data, train__iterations=8) == 0
    assert "by_query_statistics" not in results(tmp_path)


def test_a_kill_between_a_validation_and_its_accuracy_leaves_one_record(tiny_data, tmp_path, monkeypatch):
    """The run was stopped in the validation at 4 and killed in the next life, after that validation's record."""
    assert train_tiny(tmp_path / "whole", tiny_data, train__iterations=8) == 0
    assert train_tiny(tmp_path / "killed", tiny_data, train__iterations=4) == 0
    record_of_killed = tmp_path / "killed" / "checkpoints" / "4" / "metrics" / "metrics"
    record = json.loads(record_of_killed.read_text())
    record_of_killed.write_text(json.dumps({**record, "val_accuracy": NOT_VALIDATED}))
    assert train_tiny(tmp_path / "killed", tiny_data, train__iterations=8) == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
