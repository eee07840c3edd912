"""The comparison as a user runs it: tiny runs, the three tables, reading instead of training, and mistakes."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from runs import environment, flags, results

from cxgrad_jax.evaluation import paired
from cxgrad_jax.report.published import CONV4, published
from cxgrad_jax.training import config as configuration

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ["maml", "maml_plus_plus", "proto_net"]


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cxgrad_jax.compare", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1200)


def arguments(tiny_data, workdir, names=NAMES, **changes):
    files = [str(CONFIGS / "baselines" / f"{name}.py") for name in names]
    tiny = [flag for flag in flags(tiny_data, workdir, train__iterations=4, **changes) if "context_dim" not in flag]
    return ["--configs", *files, *tiny]


@pytest.fixture(scope="module")
def compared(tiny_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compared")
    done = compare(*arguments(tiny_data, workdir))
    assert done.returncode == 0, done.stderr
    table = (workdir / "comparison.md").read_text()
    assert done.stdout.endswith(table)
    return workdir, table


def test_one_table_in_three_forms(compared):
    workdir, told = compared
    with (workdir / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == NAMES
    first = results(workdir / "maml")["episode_accuracies"]
    for row in rows:
        run = results(workdir / row["name"])
        assert float(row["test_accuracy"]) == run["test_accuracy"] == pytest.approx(np.mean(run["episode_accuracies"]))
        assert run["num_tasks"] == len(run["episode_accuracies"]) == 6
        assert (
            int(row["num_parameters"]) > 0 and float(row["seconds_per_iteration"]) > 0 and int(row["memory_bytes"]) > 0
        )
        if row["name"] != "maml":
            test: Any = scipy.stats.ttest_rel(run["episode_accuracies"], first)
            assert float(row["p_value"]) == pytest.approx(test.pvalue)
            difference = np.mean(run["episode_accuracies"]) - np.mean(first)
            assert float(row["difference"]) == pytest.approx(difference, abs=1e-6)
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(NAMES) and len({line.count("|") for line in lines}) == 1
    latex = (workdir / "comparison.tex").read_text()
    assert latex.count(r" \\" + "\n") == 1 + len(NAMES) and r"maml\_plus\_plus" in latex
    body = re.sub(r"\\[_%]", "", latex.split("\n", 1)[1])
    assert "_" not in body and "%" not in body


def test_again_it_reads_what_is_there(compared, tiny_data):
    workdir, told = compared
    before = (workdir / "proto_net" / "metrics.jsonl").stat().st_mtime_ns
    again = compare(*arguments(tiny_data, workdir))
    assert (again.returncode, again.stdout, again.stderr) == (0, told, "")
    assert (workdir / "proto_net" / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--config.train.iterations=8"], "holds a run of another configuration"),
        (["--config.train.iteration=8"], "--config.train.iteration is unknown"),
        (["--config.episode.shot"], "--config.episode.shot is unknown"),
        (["--steps=3"], "--steps is unknown; expected --configs"),
        (["--config.model.features=0"], "maml: model.features has 0 filters"),
    ],
)
def test_mistakes_get_one_line(compared, tiny_data, extra, words):
    workdir, _ = compared
    done = compare(*arguments(tiny_data, workdir), *extra)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_what_cannot_stand_in_one_table(tmp_path):
    file = str(CONFIGS / "baselines" / "maml.py")
    for files, words in (
        ([file, file], "--configs names maml twice"),
        ([file, str(CONFIGS / "mini_5shot.py")], "episode.shot is 5 in mini_5shot, but 1 in maml"),
        ([file, str(tmp_path / "none.py")], "none.py is neither a file nor the name of a configuration"),
        ([], "expected at least one argument"),
    ):
        done = compare("--configs", *files, f"--workdir={tmp_path / 'run'}")
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_paired_differences_are_those_of_the_episodes():
    ours, first = np.array([0.5, 0.75, 0.25, 1.0]), np.array([0.25, 0.5, 0.25, 1.0])
    found = paired(ours, first)
    assert found["difference"] == 0.125
    assert found["difference_ci95"] == pytest.approx(1.96 * np.std(ours - first) / 2, rel=0.2)
    assert found["p_value"] == pytest.approx(0.18169, abs=1e-5)  # t = √3 with 3 degrees of freedom
    assert paired(first, first) == {"difference": 0.0, "difference_ci95": 0.0, "p_value": 1.0}


def test_published_figures_are_found_by_learner_backbone_data_and_shot():
    config = configuration.base_config()
    assert published(config) == (51.80, 0.46)
    assert published(configuration.five_shot(config)) == (69.82, 0.42)
    config.evaluation.data = "cub"
    assert published(config) == (63.92, 0.44)
    config.evaluation.data, config.model = "", configuration.model_config("resnet12")
    assert published(config) == (75.17, 0.40)
    config.learner = configuration.learner_config("cavia")
    assert published(config) is None
    assert CONV4.keys() == {path.stem for path in (CONFIGS / "baselines").glob("*.py")} - {"anil", "meta_sgd"}
    assert json.dumps(CONV4)
