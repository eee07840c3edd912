"""The tables of the CxGrad paper, made from runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxgrad_jax.files import csv_text
from cxgrad_jax.report.comparison import episode_accuracies
from cxgrad_jax.report.published import (
    CIFAR,
    CUB,
    METHODS,
    MINI,
    TIERED,
    WHAT_THEY_SEE,
    as_printed,
    cell_of_paper,
    comparable_number,
    has_published_width,
)
from cxgrad_jax.report.results import Planned, check_all, planned, results_elsewhere
from cxgrad_jax.report.seeds import Summary, paired_over_seeds, summary
from cxgrad_jax.report.tables import (
    MISSING,
    TRANSDUCTIVE,
    by_kind,
    latex_table,
    markdown_table,
    p_value,
    paper_table,
    percent,
    percent_with,
    write_tables,
)
from cxgrad_jax.training.config import ConfigDict, model_config
from cxgrad_jax.training.config_files import config_name, load_config
from cxgrad_jax.training.presets import apply_preset


class Column(NamedTuple):
    """A column: the data to train and test on, the shot and the backbone."""

    data: str
    shot: int
    test_data: str = ""
    model: str = "conv4"


class Table(NamedTuple):
    """A table of the paper, or one that goes with it.

    Attributes:
      title: what it shows.
      rows: the title and the configuration file of each row.
      columns: the columns from left to right.
      footnotes: remarks on what the paper says of it.
    """

    title: str
    rows: Mapping[str, str]
    columns: Sequence[Column]
    footnotes: Sequence[str] = ()


def _baselines(*names: str) -> dict[str, str]:
    return {METHODS[name]: f"baselines/{name}.py" for name in names}


MINI_BOTH, TIERED_BOTH = ((Column(data, 1), Column(data, 5)) for data in (MINI, TIERED))
GRADIENT = _baselines("maml", "alfa", "boil", "l2f", "cxgrad")
PAPER = "baselines/cxgrad.py"  # the row that the others are compared with
TABLES = {
    "1": Table(
        "Conv-4",
        _baselines(
            "matching_net", "relation_net", "proto_net", "maml", "cavia", "boil", "maml_plus_plus", "alfa", "modgrad",
            "l2f", "cxgrad",
        ),
        MINI_BOTH + TIERED_BOTH,
        (
            "The paper's text has CxGrad 3.1 to 6.49 % above MAML in all configurations. Its table gives +3.10, +6.71, "
            "+6.49 and +6.07 percentage points.",
            "The paper's text has CxGrad 0.53 % above the best other method on miniImageNet, 5-shot. Its table gives "
            "69.82 - 69.38 (L2F) = 0.44 percentage points.",
        ),
    ),
    "2": Table("Conv-4, across domains", GRADIENT, (Column(MINI, 5, CUB), Column(MINI, 5, CIFAR))),
    "3": Table(
        "update of the context",
        {"step-wise": "ablations/context_update.py:step", "task-wise": PAPER},
        (Column(MINI, 5),),
    ),
    "4": Table(
        "number of inner steps",
        {**{str(n): f"ablations/inner_steps.py:{n}" for n in range(1, 5)}, "5": PAPER},
        (Column(MINI, 5),),
    ),
    "5": Table(
        "learning rate of the context",
        {"0.01": "ablations/context_lr.py:0.01", "0.1": "ablations/context_lr.py:0.1", "1.0": PAPER},
        MINI_BOTH,
    ),
    "6": Table("ResNet-12", GRADIENT, tuple(column._replace(model="resnet12") for column in MINI_BOTH)),
    "7": Table("ResNet-12", GRADIENT, tuple(column._replace(model="resnet12") for column in TIERED_BOTH)),
    "norm": Table(
        "normalisation",
        {"layer": "ablations/normalisation.py:layer", "group": "ablations/normalisation.py:group", "batch": PAPER},
        MINI_BOTH,
        (
            "No table of the paper's. The paper remarks at Eq. 5 that the scaling also works with layer and group "
            "normalisation, and shows no number.",
        ),
    ),
}  # fmt: skip


class Cell(NamedTuple):
    """The runs of a cell, one for each seed, and the data that they are tested on.

    Attributes:
      row: the title of its row.
      config: the configuration with the overrides. It tests on the data trained on.
      test_data: another data set to test on, or an empty string.
      runs: the runs in the order of their seeds.
      blank: whether the paper prints nothing there.
    """

    row: str
    config: ConfigDict
    test_data: str
    runs: Sequence[Planned]
    blank: bool

    @property
    def column(self) -> str:
        """The heading of the cell's column, with the data and the shot of the overrides."""
        name = f"to {self.test_data}" if self.test_data else self.config.data.name
        return f"{name}, {self.config.episode.shot}-shot"

    @property
    def published(self) -> tuple[float, float | None] | None:
        """The number in per cent that the paper prints in the cell for such a run."""
        return comparable_number(_tested_on(self.config, self.test_data))


class Line(NamedTuple):
    """A cell with its summary over seeds, and ``paired`` with the paper's row.

    ``paired`` is None for that row itself, and if only one of the two is transductive.
    """

    cell: Cell
    summary: Summary
    paired: dict[str, float] | None


def configuration(spec: str, column: Column, preset: str | None = None) -> ConfigDict:
    """The configuration of a row's file and a column.

    Raises:
      UserError: there is no such file or preset.
    """
    config = load_config(f"configs/{spec}")
    config.data.name = column.data
    config.episode.shot, config.train.meta_batch = (1, 4) if column.shot == 1 else (5, 2)
    if column.data == TIERED:
        config.train.iterations = 125_000
    if column.model == "resnet12":
        config.model = model_config("resnet12")
        if config.learner.name == "boil":
            config.learner.inner_lr = 0.3  # the authors' rate for this backbone
    return apply_preset(config, preset)


def configurations(number: str) -> list[ConfigDict]:
    """The configurations of all cells of a table, which show the fields that they have."""
    table = TABLES[number]
    return [configuration(spec, column) for spec in table.rows.values() for column in table.columns]


def cells(
    number: str,
    workdir: Path,
    change: Callable[[ConfigDict], None],
    *,
    preset: str | None = None,
    seeds: int | None = None,
) -> list[list[Cell]]:
    """The cells of a table, row by row. Columns that the overrides make equal become one.

    Args:
      number: the number of the table, a key of ``TABLES``.
      workdir: the folder of all tables. The folder of a run in it is ``DATA_SHOT/NAME``.
      change: the function that sets the overridden fields of a configuration.
      preset: None or "paper".
      seeds: the number of runs of a cell, in ``seed_0``, ``seed_1``, …. None means one.
    """
    rows = []
    for row, spec in TABLES[number].rows.items():
        found: dict[str, Cell] = {}
        for column in TABLES[number].columns:
            config = configuration(spec, column, preset)
            blank = cell_of_paper(_tested_on(config, column.test_data)) is None
            change(config)
            name = config_name(spec) + (f"-{preset}" if preset else "")
            folder = f"{config.data.name}_{config.episode.shot}shot" + ("_resnet12" * (column.model == "resnet12"))
            runs = planned(f"{folder}/{name}", config, workdir / folder / name, seeds)
            test_data = column.test_data if column.test_data != config.data.name else ""
            cell = Cell(_title(row, config), config, test_data, runs, blank)
            found.setdefault(cell.column, cell)
        rows.append(list(found.values()))
    return rows


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
    wanted = [[cell for cell in row if not (published_only and cell.blank)] for row in grid]
    check_all(((run, cell.test_data) for row in wanted for cell in row for run in cell.runs), workdir)
    results = {
        (cell.row, cell.column): [results_elsewhere(run, cell.test_data) for run in cell.runs]
        for row in wanted
        for cell in row
    }
    specs = TABLES[number].rows.values()
    paper = next((row[0].row for row, spec in zip(grid, specs, strict=True) if spec == PAPER), "")
    kinds = by_kind({row[0].row: row[0].config for row in grid})
    kind_of = {name: kind for kind, names in kinds.items() for name in names}
    lines = []
    for row in wanted:
        for cell in row:
            ours, first = results[cell.row, cell.column], results.get((paper, cell.column))
            compared = None
            if first and cell.row != paper and kind_of[cell.row] == kind_of[paper]:
                compared = paired_over_seeds(episode_accuracies(ours), episode_accuracies(first))
            lines.append(Line(cell, summary(ours), compared))
    tested = next(iter(results.values()))[0]
    titles = [cell.column for cell in grid[0]]
    text = caption(number, grid, tested["num_tasks"], seeds, preset)
    parts, latex = [text + "\n"], []
    for kind, names in kinds.items():
        of_kind, texts = [line for line in lines if line.cell.row in names], [text, kind, *TABLES[number].footnotes]
        both = with_published(names, titles, of_kind)
        parts += [kind + "\n", markdown_table(both), markdown_table(details(of_kind))]
        latex.append(latex_table(both, texts) if wide else narrow(names, titles, of_kind, texts))
    parts += ["".join(f"{i}. {note}\n" for i, note in enumerate(TABLES[number].footnotes, 1))]
    markdown = "\n".join(part for part in parts if part)
    write_tables(workdir, f"table_{number}", md=markdown, csv=as_csv(lines, kind_of), tex="\n".join(latex))
    return markdown


def caption(number: str, grid: Sequence[Sequence[Cell]], num_tasks: int, seeds: int | None, preset: str | None) -> str:
    """What a reader must know of the numbers."""
    config = grid[0][0].config
    iterations = " and ".join(dict.fromkeys(f"{cell.config.train.iterations:,}" for cell in grid[0]))
    which = f"Table {number} of the CxGrad paper" if number.isdigit() else "An ablation beside Tables 3 to 5"
    several = f", mean over {seeds} training seeds, ± the 95 % t-interval over the seeds" if (seeds or 1) > 1 else ""
    return (
        f"{which}, {TABLES[number].title}: {config.episode.way}-way test accuracy in %, {iterations} iterations, "
        f"{num_tasks} test episodes of seed {config.evaluation.seed}{several or ', ± the 95 % interval over them'}. "
        + ("The settings are those of the paper's text where it disagrees with its code. " if preset else "")
        + "published: what the paper prints for this model, data and iterations, obtained under other conditions and "
        f"not measured here, ± mostly the binomial interval over all predictions. {WHAT_THEY_SEE}"
    )


def with_published(names: Sequence[str], titles: Sequence[str], lines: Sequence[Line]) -> list[list[str]]:
    """The rows and columns of the paper's table, with each number beside the published one."""
    at = {(line.cell.row, line.cell.column): line for line in lines}
    shown = [["", *(title for name in titles for title in (name, "published"))]]
    for name in names:
        row = [name]
        for title in titles:
            line = at.get((name, title))
            there = line.cell.published if line else None
            row.append(percent_with(line.summary.accuracy, line.summary.interval) if line else MISSING)
            row.append(as_printed(there) if there else MISSING)
        shown.append(row)
    return shown


DETAILS = ("", "column", "accuracy %", "sd seeds", "± seeds", "± tasks", "± pooled", "difference", "p")


def details(lines: Sequence[Line]) -> list[list[str]]:
    """A line for each cell with all intervals, and the difference from the paper's row on the same episodes."""
    shown = [[*DETAILS]]
    for cell, found, compared in lines:
        difference = percent_with(compared["difference"], compared["difference_ci95"], "+.2f") if compared else MISSING
        numbers = map(percent, found)
        shown.append([cell.row, cell.column, *numbers, difference, p_value(compared["p_value"] if compared else None)])
    return shown


def narrow(names: Sequence[str], titles: Sequence[str], lines: Sequence[Line], notes: Sequence[str]) -> str:
    """The table of a paper in LaTeX."""
    at = {(line.cell.row, line.cell.column): (line.summary.accuracy, line.summary.interval) for line in lines}
    rows = [(name, [at.get((name, title)) for title in titles]) for name in names]
    return paper_table(["method", *titles], rows, notes)


def as_csv(lines: Sequence[Line], kind_of: Mapping[str, str]) -> str:
    """A line for each cell, not rounded. Accuracies are shares in [0, 1]; the published numbers are in per cent."""
    head = (
        "row", "column", "transductive", "num_seeds", "test_accuracy", "std_seeds", "ci95_seeds", "test_ci95_tasks",
        "test_ci95_pooled", "difference", "difference_ci95", "p_value", "published_percent", "published_ci95_percent",
    )  # fmt: skip
    rows: list[list[Any]] = []
    for cell, found, compared in lines:
        paired = [compared[name] if compared else None for name in ("difference", "difference_ci95", "p_value")]
        transductive = kind_of[cell.row] == TRANSDUCTIVE
        rows.append(
            [cell.row, cell.column, transductive, len(cell.runs), *found, *paired, *(cell.published or (None, None))]
        )
    return csv_text(head, rows)


def _tested_on(config: ConfigDict, data: str) -> ConfigDict:
    copy = ConfigDict(config.to_dict())
    copy.evaluation.data = data or config.evaluation.data
    return copy


def _title(row: str, config: ConfigDict) -> str:
    """The title of a row. If the backbone is not that of the published number, the title says so."""
    if has_published_width(config):
        return row
    return f"{row}, {config.model.get('features') or config.model.channels} filters here"
