"""The comparison as a user runs it: tiny runs, the three tables, reading instead of training, and mistakes."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from runs import environment, flags, results

from cxgrad_jax.errors import UserError
from cxgrad_jax.report import comparison
from cxgrad_jax.report.tables import INDUCTIVE, TRANSDUCTIVE
from cxgrad_jax.training.config import base_config, glyphs_config, learner_config, pretrain_glyphs_config

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


@pytest.mark.slow
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
            alike = run["episode_accuracies"] == first  # the t-test is not defined there
            assert float(row["p_value"]) == pytest.approx(1.0 if alike else test.pvalue)
            difference = np.mean(run["episode_accuracies"]) - np.mean(first)
            assert float(row["difference"]) == pytest.approx(difference, abs=1e-6)
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(NAMES) and len({line.count("|") for line in lines}) == 1
    latex = (workdir / "comparison.tex").read_text()
    # A paper's table: method, accuracy with one decimal, the best in bold.
    rows = [line.split(" & ") for line in latex.splitlines() if line.endswith(r" \\")]
    assert [row[0] for row in rows] == ["method", "MAML", "MAML++", "ProtoNet"] and {len(row) for row in rows} == {2}
    means = [round(100 * results(workdir / name)["test_accuracy"], 1) for name in NAMES]
    for (_, shown), mean in zip(rows[1:], means, strict=True):
        assert shown.startswith(r"\textbf{" + f"{mean:.1f} $\\pm$ " if mean == max(means) else f"{mean:.1f} $\\pm$ ")


@pytest.mark.slow
def test_a_wide_table_in_latex(compared, tiny_data):
    workdir, _ = compared
    assert compare(*arguments(tiny_data, workdir), "--wide").returncode == 0
    latex = (workdir / "comparison.tex").read_text()
    assert latex.count(r" \\" + "\n") == 1 + len(NAMES) and r"maml\_plus\_plus" in latex and "s/iteration" in latex
    shown = "".join(line for line in latex.splitlines(keepends=True) if not line.startswith("% "))
    body = re.sub(r"\\[_%]", "", shown)
    assert "_" not in body and "%" not in body


@pytest.mark.slow
def test_several_seeds_in_folders_of_their_own(tiny_data, tmp_path):
    given = [flag for flag in arguments(tiny_data, tmp_path, ["proto_net", "matching_net"]) if "learner." not in flag]
    done = compare(*given, "--seeds=2")
    assert done.returncode == 0, done.stderr
    found = {name: [results(tmp_path / name / f"seed_{i}") for i in range(2)] for name in ("proto_net", "matching_net")}
    assert [each["config"]["seed"] for each in found["proto_net"]] == [0, 1]
    assert {each["config"]["evaluation"]["seed"] for each in found["proto_net"]} == {0}
    assert found["proto_net"][0]["params_sha256"] != found["proto_net"][1]["params_sha256"]
    with (tmp_path / "comparison.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for name, runs in found.items():
        accuracies = [each["test_accuracy"] for each in runs]
        assert float(rows[name]["test_accuracy"]) == pytest.approx(np.mean(accuracies))
        assert float(rows[name]["std_seeds"]) == pytest.approx(np.std(accuracies, ddof=1))
        assert float(rows[name]["test_ci95_tasks"]) == pytest.approx(np.mean([e["test_ci95_tasks"] for e in runs]))
    difference = np.mean([np.mean(e["episode_accuracies"]) for e in found["matching_net"]]) - np.mean(
        [np.mean(e["episode_accuracies"]) for e in found["proto_net"]]
    )
    assert float(rows["matching_net"]["difference"]) == pytest.approx(difference, abs=1e-6)
    for words in ("mean over 2 training seeds (0 to 1)", "t-interval of the mean over seeds", "| sd seeds | ± seeds |"):
        assert words in done.stdout


@pytest.mark.parametrize("wide", [False, True])
def test_transductive_methods_stand_in_a_table_of_their_own(wide, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    accuracies = {name: rng.uniform(0.2, 0.8, 6).tolist() for name in ("maml", "support", "anil", "running")}
    configs = {name: base_config() for name in accuracies}
    configs["maml"].learner = learner_config("maml")
    configs["support"].learner = learner_config("maml", query_statistics="support")
    configs["anil"].learner = learner_config("anil")
    configs["running"].learner = learner_config("proto_net", query_statistics="running")

    def results_of(run):
        mean = float(np.mean(accuracies[run.name]))
        numbers = {
            "test_ci95_tasks": 0.01,
            "test_ci95_pooled": 0.005,
            "num_tasks": 6,
            "iterations": 1,
            "ensemble_size": 1,
        }
        return {"test_accuracy": mean, "episode_accuracies": accuracies[run.name], **numbers}

    costs = {"num_parameters": 1, "seconds_per_iteration": 1.0, "memory_bytes": 1, "device": "cpu"}
    monkeypatch.setattr(comparison, "results_of", results_of)
    monkeypatch.setattr(comparison, "costs_of", lambda run: costs)
    monkeypatch.setattr(comparison, "check_all", lambda *_: None)
    told = comparison.compare(configs, tmp_path, wide=wide)

    assert "the published numbers of ProtoNet and MatchingNet are inductive, and all others transductive" in told
    first, second = told.split(TRANSDUCTIVE)[1].split(INDUCTIVE)
    names = [re.findall(r"^\| (\w+) \| \d", table, re.M) for table in (first, second)]
    assert names == [["maml", "anil"], ["support", "running"]]
    with (tmp_path / "comparison.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["transductive"] for name, row in rows.items()} == {
        "maml": "True", "anil": "True", "support": "False", "running": "False",
    }  # fmt: skip
    assert rows["maml"]["difference"] == rows["support"]["difference"] == ""
    expected = np.mean(accuracies["running"]) - np.mean(accuracies["support"])  # the first of its own table
    assert float(rows["running"]["difference"]) == pytest.approx(expected)
    latex = (tmp_path / "comparison.tex").read_text()
    first, second = latex.split(r"\end{tabular}")[:2]
    assert f"% {TRANSDUCTIVE}" in first and f"% {INDUCTIVE}" in second and latex.count(r"\toprule") == 2


@pytest.mark.slow
def test_again_it_reads_what_is_there(compared, tiny_data):
    workdir, told = compared
    before = (workdir / "proto_net" / "metrics.jsonl").stat().st_mtime_ns
    again = compare(*arguments(tiny_data, workdir))
    assert (again.returncode, again.stdout, again.stderr) == (0, told, "")
    assert (workdir / "proto_net" / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--config.episode.shot=2"], "holds a run of another configuration"),
        (["--config.train.iterations=2"], "has a checkpoint after 4; a run can be extended, not shortened"),
        (["--seeds=0"], "--seeds: '0' is not a whole number, at least 1"),
        (["--seeds=2", "--config.seed=1"], "--seeds chooses the seeds 0 to N - 1; leave --config.seed out"),
        (["--config.data.name=cub"], "maml: cub is not prepared"),
        (["--config.train.iteration=8"], "--config.train.iteration is unknown"),
        (["--config.episode.shot"], "--config.episode.shot is unknown"),
        (["--steps=3"], "--steps is unknown; expected --configs"),
        (["--config.model.features=0"], "maml: model.features is 0"),
    ],
)
def test_mistakes_get_one_line(compared, tiny_data, extra, words):
    workdir, _ = compared
    done = compare(*arguments(tiny_data, workdir), *extra)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
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


def test_a_pretraining_is_no_learner_to_compare():
    with pytest.raises(UserError, match="pretrain_glyphs is a pre-training and not a learner to compare"):
        comparison.check_comparable({"glyphs_1shot": glyphs_config(), "pretrain_glyphs": pretrain_glyphs_config()})
