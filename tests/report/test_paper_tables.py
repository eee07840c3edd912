"""The paper's tables as a user makes them, from tiny runs."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from runs import environment, flags, results

from cxgrad_jax import main
from cxgrad_jax.report import paper_tables as tables
from cxgrad_jax.report.published import published
from cxgrad_jax.training import checks
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training import workdir as workdir_of

ROOT = Path(__file__).parents[2]


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cxgrad_jax.tables", *arguments]
    return subprocess.run(command, env=environment(), cwd=cwd, capture_output=True, text=True, timeout=1200)


def arguments(number, tiny_data, workdir, **changes):
    return [str(number), *flags(tiny_data, workdir, episode__shot=1, train__iterations=2, **changes)]


def test_table_3_trains_reads_and_shows_both(tiny_data, tmp_path):
    done = make(*arguments(3, tiny_data, tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert lines[0] == "|  | tiny, 1-shot | published |" and [line.split(" | ")[0] for line in lines[2:]] == [
        "| step-wise", "| task-wise",
    ]  # fmt: skip
    with (tmp_path / "table_3.csv").open() as file:
        step, task = csv.DictReader(file)
    folder = tmp_path / "tiny_1shot"
    assert float(step["test_accuracy"]) == results(folder / "context_update-step")["test_accuracy"]
    assert float(task["test_accuracy"]) == results(folder / "cxgrad")["test_accuracy"]
    assert workdir_of.read_config(folder / "context_update-step").learner.context_update == "step"
    assert step["published_percent"] == ""  # other data
    assert (tmp_path / "table_3.tex").read_text().count(r" \\" + "\n") == 3
    again = make(*arguments(3, tiny_data, tmp_path))
    assert (again.returncode, again.stderr) == (0, "") and done.stdout.endswith(again.stdout)


def test_table_2_tests_the_runs_elsewhere(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    columns = (tables.Column("tiny", 1, "other"), tables.Column("tiny", 1, "tiny"))
    monkeypatch.setitem(tables.TABLES, 2, tables.Table("across", {"MAML": "baselines/maml.py"}, columns))
    overrides = [flag for flag in arguments(2, tiny_data, tmp_path)[2:] if "context_dim" not in flag]
    with pytest.raises(main.UserError, match="argument --config.learner.context_dim is unknown; no configuration of"):
        tables.make(2, tmp_path, [*overrides, "--config.learner.context_dim=4"])
    assert not list(tmp_path.iterdir())
    told = tables.make(2, tmp_path, overrides)
    assert "to other, 1-shot" in told and (tmp_path / "tiny_1shot" / "maml" / "results_other.json").exists()
    stamp = (tmp_path / "tiny_1shot" / "maml" / "results_other.json").stat().st_mtime_ns
    assert tables.make(2, tmp_path, overrides) == told
    assert (tmp_path / "tiny_1shot" / "maml" / "results_other.json").stat().st_mtime_ns == stamp


def test_every_cell_is_a_configuration_with_the_paper_s_figure(monkeypatch):
    monkeypatch.chdir(ROOT)
    for table in tables.TABLES.values():
        for spec in table.rows.values():
            for column in table.columns:
                cell = tables.cell(spec, column, Path("runs"), [])
                checks.check(cell.entry.config)
    shown = {
        number: [
            [tables.published_of(tables.cell(spec, column, Path("runs"), [])) for column in table.columns]
            for spec in table.rows.values()
        ]
        for number, table in tables.TABLES.items()
    }
    assert shown[1][-1] == [(51.80, 0.46), (69.82, 0.42), (55.55, 0.46), (73.55, 0.41)]
    assert shown[2][-1] == [(63.92, 0.44), (64.85, 0.44)]
    assert shown[3] == [[(68.83, 0.43)], [(69.82, 0.42)]]
    assert [row[0][0] for row in shown[4]] == [69.12, 69.33, 69.16, 69.53, 69.82]  # pyright: ignore
    assert [[figure[0] for figure in row] for row in shown[5]] == [[51.56, 69.28], [51.29, 69.34], [51.80, 69.82]]  # pyright: ignore
    assert shown[6][2] == [None, (71.30, 0.28)] and shown[7][-1] == [(65.47, 0.44), (82.52, 0.35)]
    config = configuration.base_config()
    config.learner.inner_lr = 0.02
    assert published(config) is None


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["8"], "NUMBER: invalid choice: 8 (choose from"),
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
