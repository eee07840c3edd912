"""The tables of the CxGrad paper: their rows and columns, and the runs of each cell."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxgrad_jax.errors import UserError
from cxgrad_jax.report.published import (
    CIFAR,
    CUB,
    METHODS,
    MINI,
    TIERED,
    cell_of_paper,
    comparable_number,
    has_published_width,
)
from cxgrad_jax.report.results import Planned, planned
from cxgrad_jax.training.config import ConfigDict, fields, model_config
from cxgrad_jax.training.config_files import config_name, load_config
from cxgrad_jax.training.presets import apply_preset
from cxgrad_jax.training.transductive import is_transductive


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
REFERENCE = "baselines/cxgrad.py"  # the row that the others are compared with
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
        {"step-wise": "ablations/context_update.py:step", "task-wise": REFERENCE},
        (Column(MINI, 5),),
    ),
    "4": Table(
        "number of inner steps",
        {**{str(n): f"ablations/inner_steps.py:{n}" for n in range(1, 5)}, "5": REFERENCE},
        (Column(MINI, 5),),
    ),
    "5": Table(
        "learning rate of the context",
        {"0.01": "ablations/context_lr.py:0.01", "0.1": "ablations/context_lr.py:0.1", "1.0": REFERENCE},
        MINI_BOTH,
    ),
    "6": Table("ResNet-12", GRADIENT, tuple(column._replace(model="resnet12") for column in MINI_BOTH)),
    "7": Table("ResNet-12", GRADIENT, tuple(column._replace(model="resnet12") for column in TIERED_BOTH)),
    "norm": Table(
        "normalisation",
        {"layer": "ablations/normalisation.py:layer", "group": "ablations/normalisation.py:group", "batch": REFERENCE},
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
      config: the configuration with the overrides.
      overrides: the fields that the overrides changed, with their new values.
      test_data: another data set to test on than the one trained on, or an empty string.
      runs: the runs in the order of their seeds.
      blank: whether the paper prints nothing there.
      is_reference: whether the other rows are compared with its row.
    """

    row: str
    config: ConfigDict
    overrides: Mapping[str, Any]
    test_data: str
    runs: Sequence[Planned]
    blank: bool
    is_reference: bool

    @property
    def column(self) -> str:
        """The heading of the cell's column, with the data and the shot of the overrides."""
        name = f"to {self.test_data}" if self.test_data else self.config.data.name
        return f"{name}, {self.config.episode.shot}-shot"

    @property
    def transductive(self) -> bool:
        """Whether a prediction depends on the other query images of its episode."""
        return is_transductive(self.config)

    @property
    def published(self) -> tuple[float, float | None] | None:
        """The number in per cent that the paper prints in the cell for such a run."""
        return comparable_number(_tested_on(self.config, self.test_data))


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

    Raises:
      UserError: an override changes a field that tells the rows apart.
    """
    rows, distinguishing = [], _distinguishing_fields(number, preset)
    for row, spec in TABLES[number].rows.items():
        found: dict[str, Cell] = {}
        for column in TABLES[number].columns:
            config = configuration(spec, column, preset)
            blank, before = cell_of_paper(_tested_on(config, column.test_data)) is None, fields(config)
            change(config)
            overrides = {field: value for field, value in fields(config).items() if value != before.get(field)}
            for field in overrides.keys() & distinguishing:
                raise UserError(f"{field} tells the rows of table {number} apart; leave --config.{field} out")
            name = config_name(spec) + (f"-{preset}" if preset else "")
            backbone = "_resnet12" if column.model == "resnet12" else ""
            folder = f"{config.data.name}_{config.episode.shot}shot{backbone}"
            runs = planned(f"{folder}/{name}", config, workdir / folder / name, seeds)
            tested = config.evaluation.data or column.test_data
            test_data = tested if tested != config.data.name else ""
            cell = Cell(_title(row, config), config, overrides, test_data, runs, blank, spec == REFERENCE)
            found.setdefault(cell.column, cell)
        rows.append(list(found.values()))
    return rows


def _distinguishing_fields(number: str, preset: str | None) -> set[str]:
    """The fields that the titles of the rows name: the learner, or those in which rows of the same learner differ."""
    table = TABLES[number]
    rows = [fields(configuration(spec, table.columns[0], preset)) for spec in table.rows.values()]
    differing = {field for row in rows for field, value in row.items() if value != rows[0].get(field)}
    return {"learner.name"} if "learner.name" in differing else differing


def _tested_on(config: ConfigDict, data: str) -> ConfigDict:
    copy = ConfigDict(config.to_dict())
    copy.evaluation.data = data or config.evaluation.data
    return copy


def _title(row: str, config: ConfigDict) -> str:
    """The title of a row. If the backbone is not that of the published number, the title says so."""
    if has_published_width(config):
        return row
    return f"{row}, {config.model.get('features') or config.model.channels} filters here"
