"""The cells of the paper's tables: their configurations, published numbers and blanks."""

from pathlib import Path

from cxgrad_jax.report import paper_cells
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
