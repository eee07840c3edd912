"""The plan of dispatches, and a run that goes on in other dispatches."""

import shutil

import pytest
from runs import flags, results, run

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
    assert list(validated) == [4, 5, 8, 12, 16] and results(tmp_path)["iterations"] == 16
    for iteration in (4, 8, 12, 16):
        assert validated[iteration]["val_loss"] == pytest.approx(theirs[iteration]["val_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_finished_run_can_be_extended_and_not_shortened(finished, tiny_data, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    assert run(*flags(tiny_data, tmp_path, train__iterations=18)).returncode == 0
    assert results(tmp_path)["iterations"] == results(tmp_path)["config"]["train"]["iterations"] == 18
    shortened = run(*flags(tiny_data, tmp_path, train__iterations=16))
    assert shortened.returncode == 2 and "can be extended, not shortened: give at least 18" in shortened.stderr
