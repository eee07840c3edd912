"""Accuracy over training, as it was recorded, and in the test."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cxgrad_jax.report.figures.style import COLOURS, binned, forget, legend, panels, save, style
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.measured_runs import MeasuredRun
from cxgrad_jax.report.results import results_at_hand
from cxgrad_jax.report.study import Study, write_numbers
from cxgrad_jax.report.tables import MISSING, percent, percent_with
from cxgrad_jax.training.metrics_file import read_metrics

TITLE = "Accuracy over training, and the test"


class Recorded(NamedTuple):
    """The accuracies that training recorded, as shares in [0, 1].

    Attributes:
      train: iterations ``[records]`` and the accuracy on the training tasks ``[records]``.
      val: iterations ``[validations]``, accuracy and its 95 % interval over tasks ``[validations]``.
    """

    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray, np.ndarray]


def sections(study: Study) -> list[Section]:
    found = {run.name: recorded(run) for run in study.runs}
    remarks = [
        f"The training of {name} is not shown: its metrics.jsonl has no accuracies."
        for name, record in found.items()
        if not len(record.val[0])
    ]
    found = {name: record for name, record in found.items() if len(record.val[0])}
    lines = [
        (name, split, *each)
        for name, record in found.items()
        for split, columns in record._asdict().items()
        for each in zip(*columns, *([[None] * len(columns[0])] if split == "train" else []), strict=True)
    ]
    if not found:
        forget(study.folder, "accuracy")
    write_numbers(study, "accuracy", ("run", "split", "iteration", "accuracy", "ci95_tasks"), lines)
    caption = [
        "Left: accuracy on the query images of the training tasks, means over a fiftieth of the training. Right: "
        "validation accuracy with its 95 % interval over tasks.",
        "The table: accuracy, %, of the ensemble of the checkpoints that were best in validation. ± tasks: 95 % "
        "interval over the test episodes. ± pooled: binomial interval over all predictions, as in the CxGrad paper.",
    ]
    image = save(draw(found), study.folder, "accuracy") if found else None
    return [Section(TITLE, image, caption + remarks, [HEADINGS, *map(test_line, study.runs)])]


HEADINGS = ("test", "data", "accuracy ± tasks", "± pooled", "best checkpoint alone", "ensemble", "episodes", "trained")


def test_line(run: MeasuredRun) -> tuple[str, ...]:
    """The test of a run, as a line of the table."""
    results = results_at_hand(run.workdir)
    if results is None:
        return (run.name, "no results.json", *[MISSING] * (len(HEADINGS) - 2))
    done, planned = results["iterations"], run.config.train.iterations
    return (
        run.name,
        results["test_data"],
        percent_with(results["test_accuracy"], results["test_ci95_tasks"]),
        percent(results["test_ci95_pooled"]),
        percent(results["single_model_test_accuracy"]),
        str(results["ensemble_size"]),
        str(results["num_tasks"]),
        f"{done:,}" if done == planned else f"{done:,} of {planned:,}",
    )


def recorded(run: MeasuredRun) -> Recorded:
    """Reads the accuracies from the run's ``metrics.jsonl``."""
    records = read_metrics(run.workdir / "metrics.jsonl")

    def columns(*names) -> Any:
        complete = [each for each in records if all(each.get(name) is not None for name in names)]
        return tuple(np.asarray([each[name] for each in complete]) for name in ("iteration", *names))

    return Recorded(columns("train_accuracy"), columns("val_accuracy", "val_ci95_tasks"))


def draw(found: Mapping[str, Recorded]) -> Figure:
    """Draws two panels, training and validation, with a line for each run."""
    figure, (axes,) = panels(1, 2, 8.4, 3.4)
    for i, (train, val) in enumerate(found.values()):
        window = max(1, len(train[0]) // 50)
        axes[0].plot(binned(train[0], window), 100 * binned(train[1], window), **style(i), markevery=5)
        iterations, accuracy, interval = val[0], 100 * val[1], 100 * val[2]
        axes[1].plot(iterations, accuracy, **style(i))
        low, high, colour = accuracy - interval, accuracy + interval, COLOURS[i % len(COLOURS)]
        axes[1].fill_between(iterations, low, high, color=colour, alpha=0.2, linewidth=0)
    for axis, title in zip(axes, ("training accuracy, %", "validation accuracy, %"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("outer iteration")
    legend(axes[0], [(run, style(i)) for i, run in enumerate(found)], fontsize=8)
    return figure
