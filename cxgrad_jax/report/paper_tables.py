"""Makes the tables of the CxGrad paper from runs, and writes them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxgrad_jax.files import csv_text
from cxgrad_jax.report.comparison import episode_accuracies
from cxgrad_jax.report.paper_cells import TABLES, Cell, cells
from cxgrad_jax.report.published import WHAT_THEY_SEE, as_printed
from cxgrad_jax.report.results import check_all, results_elsewhere
from cxgrad_jax.report.seeds import Summary, paired_over_seeds, summary
from cxgrad_jax.report.tables import (
    MISSING,
    by_kind,
    latex_table,
    markdown_table,
    p_value,
    paper_table,
    percent,
    percent_with,
    write_tables,
)
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.workdir import NEVER_MATTER

NOT_TOLD = (*NEVER_MATTER, "parallel.")  # overrides that a caption leaves out


class Line(NamedTuple):
    """A cell with its results.

    Attributes:
      cell: the cell.
      num_tasks: the number of test episodes of a run.
      summary: the summary over the seeds.
      paired: the result of ``paired_over_seeds`` against the reference row of the same column. It is None for that row
        itself, if there is no such row, and if only one of the two is transductive.
    """

    cell: Cell
    num_tasks: int
    summary: Summary
    paired: dict[str, Any] | None


def make(
    number: str,
    workdir: Path,
    change: Callable[[ConfigDict], None],
    *,
    preset: str | None = None,
    seeds: int | None = None,
    published_only: bool = False,
    wide: bool = False,
) -> str:
    """Makes what is missing of the runs, writes the table in three forms, and returns the one in Markdown.

    Args:
      number, workdir, change, preset, seeds: those of ``cells``.
      published_only: whether to skip the cells that the paper leaves blank.
      wide: whether the LaTeX table has the published numbers too.

    Raises:
      UserError: a cell cannot run, which is found before anything is trained; or ``train`` or ``evaluate_run`` raises
        it.
      Interrupted: a run was asked to stop, and its state was saved.
    """
    grid = cells(number, workdir, change, preset=preset, seeds=seeds)
    wanted = [cell for row in grid for cell in row if not (published_only and cell.blank)]
    check_all(((run, cell.test_data) for cell in wanted for run in cell.runs), workdir)
    lines = measured_lines(wanted)
    text = caption(number, grid, lines[0].num_tasks, seeds, preset)
    columns, footnotes = [cell.column for cell in grid[0]], TABLES[number].footnotes
    markdown, latex = [text + "\n"], []
    for kind, rows in by_kind({row[0].row: row[0].config for row in grid}).items():
        own_lines, notes = [line for line in lines if line.cell.row in rows], [text, kind, *footnotes]
        both = with_published(rows, columns, own_lines)
        markdown += [kind + "\n", markdown_table(both), markdown_table(details(own_lines))]
        latex.append(latex_table(both, notes) if wide else narrow(rows, columns, own_lines, notes))
    if footnotes:
        markdown.append("".join(f"{i}. {note}\n" for i, note in enumerate(footnotes, 1)))
    table = "\n".join(markdown)
    write_tables(workdir, f"table_{number}", md=table, csv=as_csv(lines), tex="\n".join(latex))
    return table


def measured_lines(wanted: Sequence[Cell]) -> list[Line]:
    """Makes what is missing of the runs of the cells, and compares each cell with the reference row of its column.

    Raises:
      UserError: ``train`` or ``evaluate_run`` raises it.
      Interrupted: a run was asked to stop, and its state was saved.
    """
    results = [[results_elsewhere(run, cell.test_data) for run in cell.runs] for cell in wanted]
    measured = list(zip(wanted, results, strict=True))
    references = {cell.column: (cell, found) for cell, found in measured if cell.is_reference}
    lines = []
    for cell, found in measured:
        reference, first = references.get(cell.column, (None, None))
        compared = None
        if reference and first and not cell.is_reference and cell.transductive == reference.transductive:
            compared = paired_over_seeds(episode_accuracies(found), episode_accuracies(first))
        lines.append(Line(cell, found[0]["num_tasks"], summary(found), compared))
    return lines


def caption(number: str, grid: Sequence[Sequence[Cell]], num_tasks: int, seeds: int | None, preset: str | None) -> str:
    """What a reader must know of the numbers."""
    config = grid[0][0].config
    iterations = " and ".join(dict.fromkeys(f"{cell.config.train.iterations:,}" for cell in grid[0]))
    which = f"Table {number} of the CxGrad paper" if number.isdigit() else "An ablation beside Tables 3 to 5"
    overrides = {field: value for row in grid for cell in row for field, value in cell.overrides.items()}
    told = ", ".join(f"{field}={value}" for field, value in overrides.items() if not field.startswith(NOT_TOLD))
    several = f", mean over {seeds} training seeds, ± the 95 % t-interval over the seeds" if (seeds or 1) > 1 else ""
    return (
        f"{which}, {TABLES[number].title}: {config.episode.way}-way test accuracy in %, {iterations} iterations, "
        f"{num_tasks} test episodes of seed {config.evaluation.seed}{several or ', ± the 95 % interval over them'}. "
        + ("The settings are those of the paper's text where it disagrees with its code. " if preset else "")
        + (f"Overrides: {told}. " if told else "")
        + "published: what the paper prints for this model, data and iterations, obtained under other conditions and "
        f"not measured here, ± mostly the binomial interval over all predictions. {WHAT_THEY_SEE}"
    )


def with_published(rows: Sequence[str], columns: Sequence[str], lines: Sequence[Line]) -> list[list[str]]:
    """The rows and columns of the paper's table, with each number beside the published one."""
    line_at = {(line.cell.row, line.cell.column): line for line in lines}
    table = [["", *(heading for column in columns for heading in (column, "published"))]]
    for row in rows:
        texts = [row]
        for column in columns:
            line = line_at.get((row, column))
            published = line.cell.published if line else None
            texts.append(percent_with(line.summary.accuracy, line.summary.interval) if line else MISSING)
            texts.append(as_printed(published) if published else MISSING)
        table.append(texts)
    return table


DETAILS = ("", "column", "accuracy %", "sd seeds", "± seeds", "± tasks", "± pooled", "difference", "p")


def details(lines: Sequence[Line]) -> list[list[str]]:
    """A line for each cell with all intervals, and the difference from the reference row on the same episodes."""
    table = [[*DETAILS]]
    for cell, _, found, paired in lines:
        difference = percent_with(paired["difference"], paired["difference_ci95"], "+.2f") if paired else MISSING
        p = p_value(paired["p_value"] if paired else None)
        table.append([cell.row, cell.column, *map(percent, found), difference, p])
    return table


def narrow(rows: Sequence[str], columns: Sequence[str], lines: Sequence[Line], notes: Sequence[str]) -> str:
    """The table of a paper in LaTeX."""
    numbers = {(line.cell.row, line.cell.column): (line.summary.accuracy, line.summary.interval) for line in lines}
    return paper_table(
        ["method", *columns], [(row, [numbers.get((row, column)) for column in columns]) for row in rows], notes
    )


def as_csv(lines: Sequence[Line]) -> str:
    """A line for each cell, not rounded. Accuracies are shares in [0, 1]; the published numbers are in per cent."""
    head = (
        "row", "column", "transductive", "num_seeds", "test_accuracy", "std_seeds", "ci95_seeds", "test_ci95_tasks",
        "test_ci95_pooled", "difference", "difference_ci95", "p_value", "published_percent", "published_ci95_percent",
    )  # fmt: skip
    compared = ("difference", "difference_ci95", "p_value")
    rows = [
        [
            cell.row, cell.column, cell.transductive, len(cell.runs), *found,
            *(paired[name] if paired else None for name in compared), *(cell.published or (None, None)),
        ]
        for cell, _, found, paired in lines
    ]  # fmt: skip
    return csv_text(head, rows)
