"""``python -m cxgrad_jax.tables NUMBER --workdir=DIR [--config.FIELD=VALUE ...]``: a table of the CxGrad paper.

Trains, resumes or merely reads the run of every cell, and writes ``DIR/table_NUMBER.md``, ``.csv`` and ``.tex``: the
test accuracy here with its 95 % interval over tasks, and the published figure below it. Runs lie in
``DIR/DATA_SHOT/NAME`` and serve every table that they belong to: Table 2 tests the runs of Table 1, and the ablations
share CxGrad's. Overrides are for all cells: ``--config.data.name=cifar_fs --config.train.iterations=2000`` makes a
small one on other data.

Exit status as of ``cxgrad_jax.main``.
"""

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxgrad_jax import runtime
from cxgrad_jax.command_line import Parser, add_verbosity, exit_status
from cxgrad_jax.errors import UserError
from cxgrad_jax.report import comparison as compare
from cxgrad_jax.report.published import CIFAR, CUB, MINI, TIERED, published
from cxgrad_jax.training import checks
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.config_files import config_name, load_config
from cxgrad_jax.training.overrides import override
from cxgrad_jax.training.testing import evaluate_run


class Column(NamedTuple):
    """A column: the data trained and tested on, the shot and the backbone."""

    data: str
    shot: int
    test_data: str = ""
    model: str = "conv4"


class Table(NamedTuple):
    """A table of the paper: what it shows, the configuration of each row, and the columns."""

    title: str
    rows: Mapping[str, str]
    columns: Sequence[Column]


def _baselines(**names: str) -> dict[str, str]:
    return {title: f"baselines/{name}.py" for name, title in names.items()}


MINI_BOTH, TIERED_BOTH = ((Column(data, 1), Column(data, 5)) for data in (MINI, TIERED))
GRADIENT = _baselines(maml="MAML", alfa="ALFA", boil="BOIL", l2f="L2F", cxgrad="CxGrad")
PAPER = "baselines/cxgrad.py"  # the ablations' common row
TABLES = {
    1: Table(
        "Conv-4",
        _baselines(
            matching_net="MatchingNet", relation_net="RelationNet", proto_net="ProtoNet", maml="MAML", cavia="CAVIA",
            boil="BOIL", maml_plus_plus="MAML++", alfa="ALFA", modgrad="ModGrad", l2f="L2F", cxgrad="CxGrad",
        ),
        MINI_BOTH + TIERED_BOTH,
    ),
    2: Table("Conv-4, across domains", GRADIENT, (Column(MINI, 5, CUB), Column(MINI, 5, CIFAR))),
    3: Table(
        "update of the context",
        {"step-wise": "ablations/context_update.py:step", "task-wise": PAPER},
        (Column(MINI, 5),),
    ),
    4: Table(
        "number of inner steps",
        {**{str(n): f"ablations/inner_steps.py:{n}" for n in range(1, 5)}, "5": PAPER},
        (Column(MINI, 5),),
    ),
    5: Table(
        "learning rate of the context",
        {"0.01": "ablations/context_lr.py:0.01", "0.1": "ablations/context_lr.py:0.1", "1.0": PAPER},
        MINI_BOTH,
    ),
    6: Table("ResNet-12", GRADIENT, tuple(column._replace(model="resnet12") for column in MINI_BOTH)),
    7: Table("ResNet-12", GRADIENT, tuple(column._replace(model="resnet12") for column in TIERED_BOTH)),
}  # fmt: skip


class Cell(NamedTuple):
    """A run and what it is tested on.

    Attributes:
      entry: the run; its configuration tests on the data trained on.
      test_data: another data set to test on; empty: none.
    """

    entry: compare.Entry
    test_data: str

    @property
    def column(self) -> str:
        """The heading of the cell's column, with the data and the shot of the overrides."""
        config = self.entry.config
        return f"{f'to {self.test_data}' if self.test_data else config.data.name}, {config.episode.shot}-shot"


def cell(spec: str, column: Column, workdir: Path, overrides: list[str]) -> Cell:
    """The cell of a row's configuration file and a column.

    Raises:
      UserError: no such file, or an override that does not fit.
    """
    config = load_config(f"configs/{spec}")
    config.data.name = column.data
    config.episode.shot, config.train.meta_batch = (1, 4) if column.shot == 1 else (5, 2)
    if column.data == TIERED:
        config.train.iterations = 125_000
    if column.model == "resnet12":
        config.model = configuration.model_config("resnet12")
        if config.learner.name == "boil":
            config.learner.inner_lr = 0.3  # the authors' for this backbone
    fields = configuration.fields(config)
    override(config, [flag for flag in overrides if _field(flag) in fields], Parser(add_help=False))
    name = config_name(spec)
    folder = f"{config.data.name}_{config.episode.shot}shot" + ("_resnet12" if column.model == "resnet12" else "")
    return Cell(compare.Entry(name, config, workdir / folder / name), column.test_data)


def result(cell: Cell) -> dict[str, Any]:
    """The results of a cell, whose run is trained, resumed or read.

    Raises:
      UserError: as ``train`` and ``evaluate``.
    """
    entry = cell.entry
    own = compare.results_of(entry)
    if not cell.test_data or cell.test_data == entry.config.data.name:
        return own
    config = workdir_of.read_config(entry.workdir)
    config.data.dir, config.evaluation.data = entry.config.data.dir, cell.test_data
    path = entry.workdir / f"results_{cell.test_data}.json"
    try:
        there = json.loads(path.read_text())
        if there["params_sha256"] == own["params_sha256"] and there["num_tasks"] == own["num_tasks"]:
            return there
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there or of an interrupted copy: made again
    return evaluate_run(config, entry.workdir)


def published_of(cell: Cell) -> tuple[float, float | None] | None:
    """What the paper prints in the cell, in per cent."""
    config = ConfigDict(cell.entry.config.to_dict())
    config.evaluation.data = cell.test_data or config.evaluation.data
    return published(config)


def _field(flag: str) -> str:
    return flag.removeprefix("--config.").split("=")[0]


def make(number: int, workdir: Path, overrides: list[str]) -> str:
    """Makes what is missing of the runs, writes the table in three forms, and returns the one in Markdown.

    Raises:
      UserError: as ``cell`` and ``result``; nothing is trained before all cells are checked.
    """
    table = TABLES[number]
    cells = {
        row: [cell(spec, column, workdir, overrides) for column in table.columns] for row, spec in table.rows.items()
    }
    every = [each for of_row in cells.values() for each in of_row]
    fields = {field for each in every for field in configuration.fields(each.entry.config)}
    for flag in overrides:
        if _field(flag) not in fields:
            raise UserError(f"argument {flag.split('=')[0]} is unknown; no configuration of table {number} has it")
    # Overrides may make one of two columns.
    cells = {
        row: list({each.column: each for each in reversed(of_row)}.values())[::-1] for row, of_row in cells.items()
    }
    for entry in (each.entry for of_row in cells.values() for each in of_row):
        try:
            checks.check(entry.config)
            checks.check_parallel(entry.config)
        except UserError as error:
            raise UserError(f"{entry.name}: {error}") from None
        if (entry.workdir / "config.json").exists():
            workdir_of.check_same_run(entry.config, entry.workdir, given=workdir)
    results = {row: [result(each) for each in of_row] for row, of_row in cells.items()}
    printed = {row: [published_of(each) for each in of_row] for row, of_row in cells.items()}
    first = next(iter(cells.values()))
    titles = [each.column for each in first]
    lines = [["", *(title for name in titles for title in (name, "published"))]]
    for row in cells:
        line = [row]
        for here, there in zip(results[row], printed[row], strict=True):
            line.append(compare.percent_with(100 * here["test_accuracy"], 100 * here["test_ci95_tasks"]))
            line.append(compare.percent_with(*there) if there else "–")
        lines.append(line)
    iterations = " and ".join(dict.fromkeys(f"{each.entry.config.train.iterations:,}" for each in first))
    config, tested = first[0].entry.config, results[next(iter(cells))][0]
    caption = (
        f"Table {number} of the CxGrad paper, {table.title}: {config.episode.way}-way test accuracy in %, "
        f"{iterations} iterations, {tested['num_tasks']} test episodes of seed {config.seed}, ± the "
        "95 % interval over them. published: what the paper prints, obtained under other conditions and not "
        "measured here, ± mostly the binomial interval over all predictions."
    )
    markdown = [lines[0], [":--", *["--:"] * (len(lines[0]) - 1)], *lines[1:]]
    text = caption + "\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in markdown)
    (workdir / f"table_{number}.md").write_text(text)
    (workdir / f"table_{number}.csv").write_text(_as_csv(results, printed, titles))
    (workdir / f"table_{number}.tex").write_text(compare.latex_table(caption, lines))
    return text


def _as_csv(results: Mapping[str, Sequence[dict]], printed: Mapping[str, Sequence], titles: Sequence[str]) -> str:
    """A line a cell, unrounded; accuracies as shares in [0, 1], the published figures in per cent."""
    fields = ("test_accuracy", "test_ci95_tasks", "test_ci95_pooled")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "column", *fields, "published_percent", "published_ci95_percent"])
    for row, of_row in results.items():
        for title, here, there in zip(titles, of_row, printed[row], strict=True):
            figures = ["" if value is None else value for value in there or (None, None)]
            writer.writerow([row, title, *(here[field] for field in fields), *figures])
    return text.getvalue()


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        flags = Parser(
            prog="python -m cxgrad_jax.tables",
            usage="%(prog)s NUMBER --workdir=DIR [--config.FIELD=VALUE ...]",
            description="Train or resume the runs of a table of the CxGrad paper, and write it.",
            epilog="--config.FIELD=VALUE overrides a field in all cells that have it.",
            formatter_class=argparse.HelpFormatter,
            allow_abbrev=False,
        )
        flags.add_argument("number", type=int, choices=list(TABLES), metavar="NUMBER", help="of the table, 1 to 7")
        flags.add_argument(
            "--workdir", type=Path, metavar="DIR", help="receives the runs and table_NUMBER.{md,csv,tex}"
        )
        add_verbosity(flags)
        given, overrides = flags.parse_known_args(arguments)
        for flag in overrides:
            if not flag.startswith("--config.") or "=" not in flag:
                raise UserError(f"argument {flag.split('=')[0]} is unknown; expected --workdir, --config.FIELD=VALUE")
        if not given.workdir or not given.workdir.name:
            raise UserError("--workdir is missing; give the folder of the tables, such as --workdir=runs/tables")
        runtime.use_cores_as_devices()
        print(make(given.number, given.workdir, overrides), end="")

    return exit_status(action)
