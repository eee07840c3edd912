"""The cells of the paper's tables: their configurations, published numbers and blanks."""

from pathlib import Path

import pytest

from cxgrad_jax.command_line import overrides
from cxgrad_jax.errors import UserError
from cxgrad_jax.report import paper_cells, paper_tables
from cxgrad_jax.training import checks


def test_every_cell_is_a_configuration_with_the_paper_s_number():
    shown, seen = {}, set()
    for number in paper_cells.TABLES:
        grid = paper_cells.cells(number, Path("runs"), lambda config: None)
        for config in (cell.config for row in grid for cell in row):
            asked = str((config.model, config.learner, config.episode.way, config.data.image_size))
            if asked not in seen:  # whether a learner and a model go together: what takes the time
                checks.check(config)
            seen.add(asked)
        shown[number] = [[cell.published for cell in row] for row in grid]
    assert shown["1"][-1] == [(51.80, 0.46), (69.82, 0.42), (55.55, 0.46), (73.55, 0.41)]
    assert shown["2"][-1] == [(63.92, 0.44), (64.85, 0.44)]
    assert shown["3"] == [[(68.83, 0.43)], [(69.82, 0.42)]]
    assert [row[0][0] for row in shown["4"]] == [69.12, 69.33, 69.16, 69.53, 69.82]  # pyright: ignore
    assert [[number[0] for number in row] for row in shown["5"]] == [[51.56, 69.28], [51.29, 69.34], [51.80, 69.82]]  # pyright: ignore
    assert shown["6"][2] == [None, (71.30, 0.28)] and shown["7"][-1] == [(65.47, 0.44), (82.52, 0.35)]
    assert shown["norm"] == [[None, None], [None, None], [(51.80, 0.46), (69.82, 0.42)]]


def test_rows_say_what_is_run_and_where_the_paper_has_blanks():
    grid = paper_cells.cells("1", Path("runs"), lambda config: None)
    names = [row[0].row for row in grid]
    assert "CAVIA, 48 filters here" in names and [name for name in names if "here" in name] == [
        "CAVIA, 48 filters here"
    ]
    blank = {row[0].row: [cell.blank for cell in row] for row in grid}
    assert blank["CAVIA, 48 filters here"] == blank["ProtoNet"] == [False, False, True, True]
    assert blank["CxGrad"] == [False] * 4 and sum(map(sum, blank.values())) == 12


def cells_of(number, *flags):
    change = overrides(flags, paper_cells.configurations(number), "--workdir")
    return paper_cells.cells(number, Path("runs"), change)


@pytest.mark.parametrize("number", ["2", "3"])
def test_columns_are_headed_by_the_data_that_the_numbers_are_of(number):
    grid = cells_of(number, "--config.data.name=cifar_fs", "--config.evaluation.data=caltech", "--config.data.dir=/x")
    assert [[cell.column for cell in row] for row in grid] == [["to caltech, 5-shot"]] * len(grid)
    assert [cell.test_data for row in grid for cell in row] == ["caltech"] * len(grid)
    caption = paper_tables.caption(number, grid, 600, None, None)
    assert "Overrides: data.name=cifar_fs, evaluation.data=caltech. " in caption
    assert "Overrides" not in paper_tables.caption(number, cells_of(number), 600, None, None)


def test_data_to_test_on_that_are_those_trained_on_are_no_others():
    grid = cells_of("2", "--config.evaluation.data=mini_imagenet")
    assert [[cell.column for cell in row] for row in grid] == [["mini_imagenet, 5-shot"]] * len(grid)


@pytest.mark.parametrize(
    ("number", "field", "value"),
    [
        ("1", "learner.name", "test_paper_cells.own"), ("3", "learner.context_update", "step"),
        ("4", "learner.num_steps", 5), ("5", "learner.context_lr", 0.5), ("norm", "model.norm", "group"),
    ],
)  # fmt: skip
def test_an_override_of_what_tells_rows_apart_is_refused(number, field, value, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    with pytest.raises(UserError, match=f"^{field} tells the rows of table {number} apart; leave --config.{field} out"):
        cells_of(number, f"--config.{field}={value}")


def own(model, *, step_size=0.5):
    """A learner's factory."""


def test_rows_of_several_learners_take_their_common_hyper_parameters():
    grid = cells_of("1", "--config.learner.num_steps=1")
    assert {cell.config.learner.get("num_steps", 1) for row in grid for cell in row} == {1}
