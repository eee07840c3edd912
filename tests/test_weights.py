"""The weights to give away: each loads and has a card, and both are made from a finished run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import environment, results

import cxgrad_jax as cx
from cxgrad_jax import weight_files
from cxgrad_jax.command_line import overrides
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.report.seeds import summary
from cxgrad_jax.saving import params_sha256
from cxgrad_jax.training import build
from cxgrad_jax.training.config import ConfigDict, fields
from cxgrad_jax.training.config_files import load_config
from cxgrad_jax.training.workdir import read_config
from weights import make

ROOT = Path(__file__).parents[1]
BUNDLED = weight_files.bundled()
every_weight = pytest.mark.parametrize("name", BUNDLED)
PROMISED = (
    "license: apache-2.0", "- **learner**: ", "- **data**: ", "- **licence of the data**: ", "- **training**: ",
    "- **command**: ", "- **commit**: ", "accuracy %, ± the 95 % interval over tasks", "a prediction sees",
)  # fmt: skip


@every_weight
def test_each_has_a_card_of_this_very_file(name):
    _, params = cx.load(name)
    card = BUNDLED[name].with_suffix(".md").read_text()
    assert [words for words in PROMISED if words not in card] == []
    assert f"# {name}\n" in card and params_sha256(params) in card
    assert not re.search(r"(^|[\s`=])/\w", card), "a path of the machine that made it"


def test_all_together_are_small_and_every_card_has_a_file():
    assert sum(path.stat().st_size for path in BUNDLED.values()) <= 12e6
    assert {path.stem for path in (ROOT / "weights").glob("*.md")} - {"README"} == BUNDLED.keys()


@pytest.mark.slow_except("classifier_baseline_cifar_fs")
@every_weight
def test_a_colleague_adapts_to_ten_images_of_his_own_without_any_data_set(name, tmp_path):
    """As in the README, from an empty folder, with nothing but the package on the path."""
    (shape,) = re.findall(r"\*\*images\*\*: `\[N, (\d+, \d+, \d)\]`", BUNDLED[name].with_suffix(".md").read_text())
    code = f"""
import numpy as np
images, others = np.random.default_rng(0).integers(0, 256, (2, 10, {shape}), dtype=np.uint8)
import cxgrad_jax as cx
learner, params = cx.load("{name}")
adapted = learner.adapt(params, images, np.arange(10) // 2)  # two of each of five classes
print(learner.predict(params, adapted, others).argmax(axis=-1).tolist())
"""
    variables = {"PYTHONPATH": str(ROOT), "CXGRAD_DATA_DIR": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**environment(), **variables}, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[([0-4], ){9}[0-4]\]\n", done.stdout) and not list(tmp_path.iterdir())


@pytest.fixture
def licensed(monkeypatch):
    monkeypatch.setitem(make.LICENCES, "tiny", "drawn at random")
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", catalogue.CATALOGUE["image_folder"])


@pytest.mark.slow
@pytest.mark.usefixtures("licensed")
def test_file_and_card_of_a_run(finished, tmp_path):
    make.make(finished, "tiny_cxgrad", "0123456789", tmp_path)
    run, tested = cx.load_run(finished), results(finished)
    learner, params = cx.load(tmp_path / "tiny_cxgrad.safetensors")
    assert learner.spec == run.learner.spec and params_sha256(params) == params_sha256(run.params)
    card = (tmp_path / "tiny_cxgrad.md").read_text()
    assert [words for words in PROMISED if words not in card] == []
    config = read_config(finished)
    for statistics in ("query", "support"):
        changed = ConfigDict(config.to_dict())
        changed.learner.query_statistics = statistics
        sampler = build.build_sampler(config, build.load_stores(config, ("test",))["test"])
        found = cx.evaluate(build.build_learner(changed), params, sampler, episodes=6)
        (line,) = (line for line in card.splitlines() if line.startswith(f'| `"{statistics}"`'))
        assert f"{100 * found.accuracy:.2f} ± {100 * found.ci95:.2f}" in line
        assert ("transductive" if statistics == "query" else "inductive") in line
        if statistics == "query":
            assert found.accuracy == pytest.approx(tested["single_model_test_accuracy"])
    assert f"after {tested['ensemble_iterations'][0]} iterations" in card and "`0123456789`" in card
    assert "Over" not in card


@pytest.mark.usefixtures("licensed")
def test_of_several_seeds_the_card_has_the_interval_over_them(finished, tmp_path):
    for seed in range(2):
        shutil.copytree(finished, tmp_path / f"seed_{seed}")
    text = (tmp_path / "seed_1" / "results.json").read_text()
    accuracy = results(tmp_path / "seed_0")["single_model_test_accuracy"]
    changed = re.sub(r'"single_model_test_accuracy": [\d.e-]+', f'"single_model_test_accuracy": {accuracy / 2}', text)
    (tmp_path / "seed_1" / "results.json").write_text(changed)
    told = make.over_seeds(tmp_path / "seed_0", "query")
    numbers = {"test_ci95_tasks": 0, "test_ci95_pooled": 0, "num_tasks": 2}
    both = [{"test_accuracy": a, **numbers} for a in (accuracy, accuracy / 2)]
    expected = summary(both)
    assert f"{100 * expected.accuracy:.2f} ± {100 * (expected.ci95_seeds or 0):.2f} %" in told and "Over 2" in told
    assert make.over_seeds(finished, "query") == ""


def test_what_cannot_be_given_away_is_one_line(finished, tmp_path, capsys):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(finished, unfinished)
    (unfinished / "results.json").unlink()
    for words, line in (
        ([str(unfinished), "x", "--commit=HEAD"], "is not finished; run its command again"),
        ([str(finished), "x", "--commit=HEAD"], "LICENCES in make.py says nothing of tiny; write its licence there"),
        ([str(finished), "x", "--commit=nothing"], "--commit: nothing is no commit of this repository"),
        ([str(tmp_path), "x", "--commit=HEAD"], "config.json does not exist"),
    ):
        assert make.main(words) == 2
        told = capsys.readouterr().err
        assert line in told and told.count("\n") == 1
    assert not (ROOT / "weights" / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("maml_cifar_fs_1shot", {}),
        ("baselines/proto_net", {"data.name": "cifar_fs", "data.image_size": 32, "train.iterations": 2000}),
        (
            "baselines/rfs",
            {"learner.query_statistics": "running", "train.start_from": "/far/away/pre", "episode.shot": 5},
        ),
        (  # nearer to the narrow network's pre-training than to any training in episodes
            "baselines/classifier_baseline:authors",
            {"data.name": "cifar_fs", "data.image_size": 32, "learner.query_statistics": "running"}
            | {"model.channels": (32, 64, 128, 256), "model.negative_slope": 0.0, "model.image_statistics": "none"},
        ),
        ("cifar_fs_1shot", {"train.start_from": "classifier_baseline_cifar_fs"}),
        ("pretrain_cifar_fs", {"pretrain.drop_at": (9, 12), "data.rotated_classes": True}),
    ],
)
def test_the_command_of_a_card_makes_the_same_configuration(name, changes):
    config = load_config(name)
    config.update_from_flattened_dict(changes)
    program, word, start, *flags = make.command_of(config).split()
    assert (program, word) == ("cxgrad", "pretrain" if "pretrain" in config else "train")
    assert len(flags) <= len(changes)
    again = load_config(start.removeprefix("--config="))
    overrides(flags, [again], "")(again)
    if changes.get("train.start_from") == "/far/away/pre":
        config.train.start_from = "runs/pre"
    assert fields(again) == fields(config)


def test_of_a_pretraining_the_head_is_dropped():
    config = load_config("pretrain_cifar_fs")
    config.model.features = 4
    images = np.zeros((2, 32, 32, 3), np.uint8)
    learner = build.build_learner(config)
    params = learner.init(jax.random.key(0), images)
    few_shot, fresh = make.few_shot(cx.Run(learner, params, config), images)
    assert few_shot.spec["learner"] == "classifier_baseline"
    assert few_shot.spec["hyper_parameters"]["query_statistics"] == "running"
    assert "head" in params["model"] and "head" not in fresh["model"]
    expected = {"model": {k: v for k, v in params["model"].items() if k != "head"}, "statistics": params["statistics"]}
    assert params_sha256(fresh) == params_sha256(expected)


def test_the_statistics_that_a_learner_refuses_are_left_out():
    model = cx.models.Conv4(5, features=4)
    joint = cx.learners.proto_net(model, joint_normalisation=True)
    assert list(make.by_statistics(joint)) == ["query"]
    assert list(make.by_statistics(cx.learners.proto_net(model, query_statistics="running"))) == [
        "running", "query", "support",
    ]  # fmt: skip
    layer = cx.models.Conv4(5, features=4, norm="layer")
    assert list(make.by_statistics(cx.learners.maml(layer))) == ["query"]
