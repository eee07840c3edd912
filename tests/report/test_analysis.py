"""``--mode=analyse`` as a user runs it: pictures, numbers, the report, and mistakes."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from runs import flags, results, run, told

from cxgrad_jax import analysis
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._losses import accuracy
from cxgrad_jax.report.measured_runs import open_run
from cxgrad_jax.training import build
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.metrics_file import read_metrics
from cxgrad_jax.training.starting import trained_params

pytestmark = pytest.mark.slow

BASELINES = Path(__file__).parents[2] / "configs" / "baselines"
PICTURES = ["accuracy", "calibration", "cka", "conditioning", "embeddings", "gradient_norms", "landscape"]
FEW = ["--config.analysis.episodes=6", "--config.analysis.landscape_episodes=2", "--config.analysis.perplexity=3"]


def train(name, tiny_data, folder, **changes):
    """A tiny run of a baseline in ``folder/NAME``."""
    config = f"--config={BASELINES / f'{name}.py'}"
    given = flags(tiny_data, folder / name, train__iterations=4, train__keep_every=2, **changes)
    fields = configuration.fields(configuration.learner_config(name))
    known = [flag for flag in given if "learner." not in flag or flag.split("=")[0].split(".")[-1] in fields]
    done = run(config, *known)
    assert done.returncode == 0, done.stderr
    return folder / name


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: train(name, tiny_data, folder) for name in ("cxgrad", "maml", "proto_net")}


@pytest.fixture(scope="module")
def analysed(trained):
    return analyse([trained["cxgrad"], trained["maml"], trained["proto_net"]], "--config.analysis.cross_data=other")


def analyse(workdirs, *more):
    folder = workdirs[0] / "analysis"
    done = run("--mode=analyse", *(f"--workdir={workdir}" for workdir in workdirs), *FEW, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {folder / 'report.html'}\n"
    assert "CKA, cxgrad: 100%" in done.stderr and re.search(r"analysed in \d+ s, peak memory \d+ MiB", done.stderr)
    return folder


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_one_report_with_everything_in_it(analysed, trained):
    assert {path.name for path in analysed.iterdir()} == {
        "report.html", *(f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg", "pdf")),
        "accuracy.csv", "calibration.csv", "cka.csv", "embeddings.csv", "gradient_norms.csv", "landscape.csv",
        *(f"conditioning_{name}.csv" for name in ("accuracy", "context", "factors")),
    }  # fmt: skip
    for name in PICTURES:
        with Image.open(analysed / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 50
        assert (analysed / f"{name}.svg").read_text().rstrip().endswith("</svg>")
    report = (analysed / "report.html").read_text()
    assert report.count('src="data:image/png;base64,') == report.count("src=") == len(PICTURES)
    assert not re.search(r'href=|url\(|<script|@import|src="(?!data:)', report)
    for name in ("cxgrad", "maml", "proto_net"):
        tested = results(trained[name])
        assert f"<td>{100 * tested['test_accuracy']:.2f} ± {100 * tested['test_ci95_tasks']:.2f}</td>" in report
    assert "training episodes of tiny" in report
    assert report.count("proto_net is not shown: ") == 4 and "cxgrad: cxgrad on conv4, checkpoint " in report


def test_numbers_are_those_of_the_library(analysed, trained):
    config = workdir_of.read_config(trained["cxgrad"])
    store = build.load_stores(config, ("test",))["test"]
    episode: Any = build.build_sampler(config, store).batch(np.arange(1))
    episode = jax.tree.map(lambda x: x[0], episode)
    for name in ("cxgrad", "maml"):
        run = open_run(trained[name], name, config, store)
        params = run.restore(run.best)
        expected = analysis.cka(run.learner, params, episode)
        rows = [row for row in read(analysed / "cka.csv") if row["run"] == name and row["episode"] == "0"]
        assert [row["layer"] for row in rows] == [f"block_{i}" for i in range(4)] + ["head"]
        for row in rows:
            assert float(row["cka"]) == pytest.approx(float(expected[row["layer"]]), rel=1e-4)
        records = [each for each in read_metrics(trained[name] / "metrics.jsonl") if "train_loss" in each]
        rows = [row for row in read(analysed / "gradient_norms.csv") if (row["run"], row["layer"]) == (name, "head")]
        recorded = [each["train_inner_gradient_norm/head"] for each in records]
        assert [float(row["norm"]) for row in rows] == recorded
        task = run.learner.adapt(params, episode.support_images, episode.support_labels)
        right = accuracy(run.learner.predict(params, task, episode.query_images), episode.query_labels)
        if name == "cxgrad":
            rows = [row for row in read(analysed / "conditioning_accuracy.csv") if row["episode"] == "0"]
            assert {row["factors"] for row in rows} == {"own", "zero", "other"}
            (own,) = [float(row["accuracy"]) for row in rows if row["factors"] == "own"]
            assert own == pytest.approx(float(right))
    steps = {int(row["iteration"]) for row in read(analysed / "landscape.csv") if row["run"] == "maml"}
    assert steps == {0, 2, 4}  # before training, and what train.keep_every kept
    recorded = [row for row in read(analysed / "accuracy.csv") if (row["run"], row["split"]) == ("maml", "val")]
    records = [each for each in read_metrics(trained["maml"] / "metrics.jsonl") if "val_accuracy" in each]
    assert [float(row["accuracy"]) for row in recorded] == [each["val_accuracy"] for each in records]
    points = read(analysed / "embeddings.csv")
    names = [row["class"] for row in points if (row["data"], row["when"], row["run"]) == ("tiny", "after", "maml")]
    assert names == [name for name in build.build_sampler(config, store).class_names(0) for _ in range(2)]
    assert len(points) == 2 * 2 * 2 * 6 and {row["data"] for row in points} == {"tiny", "other"}


def test_again_it_is_the_same_byte_for_byte(analysed, trained):
    before = {path.name: path.read_bytes() for path in analysed.iterdir()}
    again = analyse([trained["cxgrad"], trained["maml"], trained["proto_net"]], "--config.analysis.cross_data=other")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before


MISTAKES: dict[str, tuple[Callable[[dict[str, Path], Path], list[str]], str]] = {
    "no run": (lambda runs, folder: [f"--workdir={folder / 'none'}"], "none/config.json does not exist; expected"),
    "no workdir": (lambda runs, folder: [], "runs/glyphs_1shot/config.json does not exist"),
    "a run twice": (
        lambda runs, folder: [f"--workdir={runs['maml']}", f"--workdir={runs['maml']}"],
        "maml is given twice; give each run once",
    ),
    "nothing adapts": (
        lambda runs, folder: [f"--workdir={runs['proto_net']}"],
        "nothing to analyse: proto_net is not shown: this learner adapts no parameters or does not return them",
    ),
    "another configuration": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.episode.shot=2"],
        "holds a run of another configuration (episode.shot: 2, not 1)",
    ),
    "unknown data": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.analysis.cross_data=nothing"],
        "unknown data set 'nothing'; expected one of",
    ),
    "unknown field": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.analysis.episode=3"],
        "argument --config.analysis.episode is unknown; did you mean --config.analysis.episodes?",
    ),
    "no such split": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.analysis.landscape_split=training"],
        "analysis.landscape_split is 'training'; expected one of train, val, test",
    ),
    "too few episodes": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.analysis.episodes=1"],
        "analysis.episodes is 1; expected at least 2",
    ),
    "perplexity": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.analysis.perplexity=12"],
        "analysis.perplexity is 12.0; expected a number above 0 and below 12",
    ),
    "an episode too far": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.analysis.embedding_episode=99999999999"],
        "analysis.embedding_episode is 99999999999; expected at most 2147483647",
    ),
    "data of other channels": (
        lambda runs, folder: [f"--workdir={runs['maml']}", "--config.analysis.cross_data=omniglot"],
        "the data sets have different numbers of channels (tiny 3, omniglot 1), which one network cannot take",
    ),
    "a file in the way": (
        lambda runs, folder: [f"--workdir={runs['maml']}", f"--config.analysis.dir={runs['maml'] / 'config.json'}"],
        "config.json cannot be written: File exists",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_get_one_line(case, trained, tmp_path):
    arguments, words = MISTAKES[case]
    done = run("--mode=analyse", *FEW, *arguments(trained, tmp_path))
    lines = told(done.stderr)
    assert done.returncode == 2 and len(lines) == 1 and words in lines[0], done.stderr
    assert not (trained["maml"] / "analysis").exists()


def test_a_run_with_a_learner_of_ones_own_is_opened(trained, tmp_path, monkeypatch):
    (tmp_path / "own_learner.py").write_text("from cxgrad_jax.learners import maml as mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(trained["maml"], tmp_path / "run")
    saved = json.loads((tmp_path / "run/config.json").read_text())
    saved["learner"]["name"] = "own_learner.mine"
    (tmp_path / "run/config.json").write_text(json.dumps(saved))
    config = workdir_of.read_config(tmp_path / "run", named=["own_learner.mine"])
    store = build.load_stores(config, ("test",))["test"]
    assert open_run(tmp_path / "run", "run", config, store).best > 0
    with pytest.raises(UserError, match="its --workdir first, and name it: --config.learner.name=own_learner.mine"):
        open_run(tmp_path / "run", "run", workdir_of.read_config(trained["maml"]), store)
    config.train.start_from = str(tmp_path / "run")
    config.learner.name = "maml"
    with pytest.raises(UserError, match=r"you trust it, read it by cx.load_run\(…, named=\('own_learner.mine',\)\)$"):
        trained_params(config)


def test_several_runs_in_another_mode(trained):
    done = run("--mode=evaluate", f"--workdir={trained['maml']}", f"--workdir={trained['cxgrad']}")
    assert done.returncode == 2 and "--workdir is given 2 times; only --mode=analyse takes several" in done.stderr


def test_runs_on_other_episodes_are_refused(trained, tiny_data, tmp_path):
    other = train("maml", tiny_data, tmp_path, episode__query=1)
    done = run("--mode=analyse", f"--workdir={trained['cxgrad']}", f"--workdir={other}", *FEW)
    assert done.returncode == 2 and f"episode.query is 1 in {other}, but 2 in {trained['cxgrad']}" in done.stderr


def test_without_scikit_learn(trained):
    hide = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'sklearn' else f(n, *a)"
    )
    done = run("--mode=analyse", f"--workdir={trained['maml']}", *FEW, before=hide)
    assert done.returncode == 2 and "needs scikit-learn: pip install 'cxgrad_jax[analysis]'" in done.stderr
