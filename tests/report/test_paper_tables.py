"""The paper's tables as a user makes them, from tiny runs."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from runs import environment, flags, results

from cxgrad_jax.command_line import overrides
from cxgrad_jax.errors import UserError
from cxgrad_jax.report import paper_cells, paper_tables
from cxgrad_jax.report.tables import INDUCTIVE, TRANSDUCTIVE
from cxgrad_jax.training import workdir as workdir_of

ROOT = Path(__file__).parents[2]


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cxgrad_jax.tables", *arguments]
    return subprocess.run(command, env=environment(), cwd=cwd, capture_output=True, text=True, timeout=1200)


def arguments(number, tiny_data, workdir, **changes):
    return [str(number), *flags(tiny_data, workdir, episode__shot=1, train__iterations=2, **changes)]


@pytest.mark.slow
def test_table_3_trains_reads_and_shows_both(tiny_data, tmp_path):
    done = make(*arguments(3, tiny_data, tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = ["| step-wise, 4 filters here", "| task-wise, 4 filters here"]
    assert lines[0] == "|  | tiny, 1-shot | published |" and [line.split(" | ")[0] for line in lines[2:4]] == rows
    # The details: every interval, and the difference from the paper's row.
    assert (
        lines[4].startswith("|  | column | accuracy % | sd seeds |") and [x.split(" | ")[0] for x in lines[6:]] == rows
    )
    with (tmp_path / "table_3.csv").open() as file:
        step, task = csv.DictReader(file)
    folder = tmp_path / "tiny_1shot"
    assert float(step["test_accuracy"]) == results(folder / "context_update-step")["test_accuracy"]
    assert float(task["test_accuracy"]) == results(folder / "cxgrad")["test_accuracy"]
    assert workdir_of.read_config(folder / "context_update-step").learner.context_update == "step"
    assert step["published_percent"] == ""  # other data
    difference = float(step["test_accuracy"]) - float(task["test_accuracy"])
    assert float(step["difference"]) == pytest.approx(difference, abs=1e-6) and task["difference"] == ""
    assert (tmp_path / "table_3.tex").read_text().count(r" \\" + "\n") == 3
    again = make(*arguments(3, tiny_data, tmp_path))
    assert (again.returncode, again.stderr) == (0, "") and done.stdout.endswith(again.stdout)


def change_of(number, flags):
    return overrides(flags, paper_cells.configurations(number), "--workdir")


@pytest.mark.slow
def test_table_2_tests_the_runs_elsewhere(tiny_data, tmp_path, monkeypatch):
    columns = (paper_cells.Column("tiny", 1, "other"), paper_cells.Column("tiny", 1, "tiny"))
    monkeypatch.setitem(paper_cells.TABLES, "2", paper_cells.Table("across", {"MAML": "baselines/maml.py"}, columns))
    given = [flag for flag in arguments(2, tiny_data, tmp_path)[2:] if "context_dim" not in flag]
    with pytest.raises(UserError, match="argument --config.learner.context_dim is unknown; no configuration of"):
        change_of("2", [*given, "--config.learner.context_dim=4"])
    told = paper_tables.make("2", tmp_path, change_of("2", given))
    assert "to other, 1-shot" in told and (tmp_path / "tiny_1shot" / "maml" / "results_other.json").exists()
    stamp = (tmp_path / "tiny_1shot" / "maml" / "results_other.json").stat().st_mtime_ns
    assert paper_tables.make("2", tmp_path, change_of("2", given)) == told
    assert (tmp_path / "tiny_1shot" / "maml" / "results_other.json").stat().st_mtime_ns == stamp


def test_blank_cells_can_be_left_out_and_the_text_followed(tiny_data, tmp_path, monkeypatch):
    rows = {"ANIL": "baselines/anil.py", "ProtoNet": "baselines/proto_net.py"}
    monkeypatch.setitem(
        paper_cells.TABLES, "3", paper_cells.Table("few", rows, (paper_cells.Column("mini_imagenet", 1),), ("A slip.",))
    )
    given = [flag for flag in arguments(3, tiny_data, tmp_path)[2:] if "learner." not in flag]
    told = paper_tables.make("3", tmp_path, change_of("3", given), preset="paper", published_only=True)
    assert [path.name for path in (tmp_path / "tiny_1shot").iterdir()] == ["proto_net-paper"]
    config = workdir_of.read_config(tmp_path / "tiny_1shot" / "proto_net-paper")
    assert (config.model.negative_slope, config.train.task_reduction) == (0.0, "sum")
    assert "| ANIL, 4 filters here | – | – |" in told and "\n1. A slip.\n" in told
    assert "the published numbers of ProtoNet and MatchingNet are inductive, and all others transductive" in told
    assert "% A slip." in (tmp_path / "table_3.tex").read_text()


def test_every_data_set_is_looked_for_before_the_first_training(tiny_data, tmp_path, monkeypatch):
    columns = (paper_cells.Column("tiny", 1), paper_cells.Column("tiny", 1, "cub"))
    monkeypatch.setitem(
        paper_cells.TABLES, "2", paper_cells.Table("across", {"ProtoNet": "baselines/proto_net.py"}, columns)
    )
    given = [flag for flag in arguments(2, tiny_data, tmp_path)[2:] if "learner." not in flag and "name=" not in flag]
    with pytest.raises(UserError, match="tiny_1shot/proto_net: cub is not prepared"):
        paper_tables.make("2", tmp_path, change_of("2", given))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["8"], "NUMBER: invalid choice: '8' (choose from"),
        (["3"], "--workdir is missing"),
        (["3", "--workdir=runs/x", "--steps=3"], "--steps is unknown"),
        (["3", "--workdir=runs/x", "--config.train.iteration=3"], "--config.train.iteration is unknown"),
        (["3", "--workdir=runs/x", "--config.train.iterations=a"], "'a' is not a whole number"),
        (["3", "--workdir=runs/x", "--config.train.iterations=0"], "train.iterations is 0; expected at least 1"),
    ],
)
def test_mistakes_get_one_line(extra, words):
    done = make(*extra)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (ROOT / "runs" / "x").exists()


def test_started_elsewhere_the_configurations_are_this_project_s(tmp_path):
    done = make("3", "--workdir=runs/x", f"--config.data.dir={tmp_path / 'data'}", cwd=tmp_path)
    assert done.returncode == 2 and "mini_imagenet is not prepared in" in done.stderr, done.stderr


def test_an_inductive_row_stands_apart(tmp_path, monkeypatch):
    """The ablation over the normalisation: layer and group normalisation see one image alone."""
    found = {
        "test_accuracy": 0.5, "test_ci95_tasks": 0.01, "test_ci95_pooled": 0.005, "episode_accuracies": [0.25, 0.75],
        "num_tasks": 2,
    }  # fmt: skip
    monkeypatch.setattr(paper_tables, "results_elsewhere", lambda run, data: found)
    monkeypatch.setattr(paper_tables, "check_all", lambda *_: None)
    told = paper_tables.make("norm", tmp_path, lambda config: None)
    inductive, transductive = told.split(INDUCTIVE)[1].split(TRANSDUCTIVE)
    rows = [[line.split(" | ")[0] for line in text.splitlines() if " | " in line] for text in (inductive, transductive)]
    head, details, rule = "| ", "| ", "| :--"
    assert rows[0] == [head, rule, "| layer", "| group", details, rule] + ["| layer"] * 2 + ["| group"] * 2
    assert rows[1] == [head, rule, "| batch", details, rule] + ["| batch"] * 2
    with (tmp_path / "table_norm.csv").open() as file:
        read = list(csv.DictReader(file))
    assert {(row["row"], row["transductive"]) for row in read} == {
        ("layer", "False"), ("group", "False"), ("batch", "True"),
    }  # fmt: skip
    assert all(row["difference"] == "" for row in read)  # the paper's row is of the other kind
    assert (tmp_path / "table_norm.tex").read_text().count(r"\toprule") == 2
