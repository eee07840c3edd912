"""Further questions to a run: accuracy by inner steps, by adapted part, and over the orders of the classes.

It is made from the files of ``--mode=evaluate --question=NAME``. The paper has no such figure. The parts test its
"representation change".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxgrad_jax.report.figures.style import COLOURS, forget, legend, panels, point_style, save, style
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.results import answers_at_hand
from cxgrad_jax.report.study import Study, write_numbers
from cxgrad_jax.report.tables import percent_with

TITLE = "Inner steps, adapted parts, orders of the classes"
PANELS = {
    "inner_steps": "accuracy after so many inner steps, %",
    "parts": "accuracy where this part adapts, %",
    "permutations": "accuracy over the orders of the classes, %",
}
Answers = Mapping[str, Mapping[str, Any]]  # answers by name, from ``answers_at_hand``


def sections(study: Study) -> list[Section]:
    """If no run was asked, there is no section."""
    asked = {}
    for question in PANELS:
        by_run = {run.name: answers_at_hand(run.workdir, question, run.best) for run in study.runs}
        if answered := {name: answers for name, answers in by_run.items() if answers}:
            asked[question] = answered
    if not asked:
        forget(study.folder, "questions")
        return []
    lines = [
        (run, question, name, answer["test_accuracy"], answer["test_ci95_tasks"])
        for question, by_run in asked.items()
        for run, answers in by_run.items()
        for name, answer in answers.items()
    ]
    write_numbers(study, "questions", ("run", "question", "answer", "accuracy", "ci95_tasks"), lines)
    caption = [
        "Test accuracy of the one checkpoint that was best in validation, with the 95 % interval over test episodes. "
        "Inner steps: 0 is the meta-learned start. Parts: head or body adapts alone, the other stays at its start. "
        "Orders: the classes of an episode are numbered in every possible order; best and worst are chosen for each "
        "episode, with its query labels, so that only the mean is an accuracy that one can get."
    ]
    missing = [
        f"{run.name} was not asked --question={question} since this checkpoint."
        for question, by_run in asked.items()
        for run in study.runs
        if run.name not in by_run
    ]
    table = [("run", "answer", "accuracy ± tasks")]
    table += [(run, name, percent_with(accuracy, interval)) for run, _, name, accuracy, interval in lines]
    return [Section(TITLE, save(draw(asked), study.folder, "questions"), caption + missing, table)]


def draw(asked: Mapping[str, Mapping[str, Answers]]) -> Figure:
    """Draws a panel for each question that was asked, with lines over steps, or points with intervals.

    A run looks the same in all panels, so one legend names all that were asked anything.
    """
    numbers = {run: i for i, run in enumerate(dict.fromkeys(run for by_run in asked.values() for run in by_run))}
    figure, (axes,) = panels(1, len(asked), 4.2 * len(asked) + 1.2, 3.6)
    for axis, (question, by_run) in zip(axes, asked.items(), strict=True):
        axis.set_title(PANELS[question], fontsize=10)
        (_lines if question == "inner_steps" else _points)(axis, by_run, numbers)
    legend(figure, [(run, style(i)) for run, i in numbers.items()], fontsize=8, loc="outside right center")
    return figure


def _lines(axis: Axes, by_run: Mapping[str, Answers], numbers: Mapping[str, int]) -> None:
    for run, answers in by_run.items():
        i = numbers[run]
        accuracy, interval = _percentages(answers)
        steps = np.arange(len(accuracy))
        axis.plot(steps, accuracy, **style(i))
        colour = COLOURS[i % len(COLOURS)]
        axis.fill_between(steps, accuracy - interval, accuracy + interval, color=colour, alpha=0.2, linewidth=0)
    axis.set_xlabel("inner steps")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _points(axis: Axes, by_run: Mapping[str, Answers], numbers: Mapping[str, int]) -> None:
    names = list(dict.fromkeys(name for answers in by_run.values() for name in answers))
    for place, (run, answers) in enumerate(by_run.items()):
        i, aside = numbers[run], 0.12 * (place - (len(by_run) - 1) / 2)
        places = np.asarray([names.index(name) for name in answers]) + aside
        axis.errorbar(places, *_percentages(answers), fmt="none", color=COLOURS[i % len(COLOURS)], capsize=2)
        axis.plot(places, _percentages(answers)[0], linestyle="", **point_style(i))
    axis.set_xticks(range(len(names)), [name.split()[0] for name in names])
    axis.set_xlim(-0.5, len(names) - 0.5)


def _percentages(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies and intervals in %."""
    pairs = [(answer["test_accuracy"], answer["test_ci95_tasks"]) for answer in answers.values()]
    accuracy, interval = 100 * np.asarray(pairs).T
    return accuracy, interval
