"""Names of the runs of a report."""

from pathlib import Path

import pytest

from cxgrad_jax.errors import UserError
from cxgrad_jax.report.measured_runs import names_of


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/maml"], ["maml"]),
        (["runs/maml", "other/cxgrad/"], ["maml", "cxgrad"]),
        (["runs/maml/seed_0", "runs/cxgrad/seed_0"], ["maml/seed_0", "cxgrad/seed_0"]),
        (["a/x/seed_0", "b/x/seed_0", "b/x/seed_1"], ["a/x/seed_0", "b/x/seed_0", "b/x/seed_1"]),
    ],
)
def test_names_are_as_long_as_it_takes_to_differ(folders, names):
    assert names_of([Path(folder) for folder in folders]) == names


def test_a_folder_above_the_other():
    assert names_of([Path("/seed_0"), Path("/runs/seed_0")]) == ["/seed_0", "runs/seed_0"]


@pytest.mark.parametrize("again", ["runs/maml", "./runs/maml", str(Path.cwd() / "runs" / "maml")])
def test_a_folder_that_is_given_twice_is_refused(again):
    with pytest.raises(UserError, match="maml is given twice; give each run once"):
        names_of([Path("runs/maml"), Path("runs/cxgrad"), Path(again)])


def test_a_folder_is_the_same_by_another_way(tmp_path):
    (tmp_path / "maml").mkdir()
    (tmp_path / "link").symlink_to("maml")
    for again in (tmp_path / "link", tmp_path / "maml" / ".." / "maml"):
        with pytest.raises(UserError, match="is given twice; give each run once"):
            names_of([tmp_path / "maml", again])
