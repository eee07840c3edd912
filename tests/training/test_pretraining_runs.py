"""``--mode=pretrain`` and ``train.start_from``: trained, resumed, started from, refused."""

import re
import shutil

import chex
import numpy as np
import pytest
from runs import flags, outcome, results, run, told

from cxgrad_jax import UserError, load, load_run, save
from cxgrad_jax.report.measured_runs import open_run
from cxgrad_jax.training.build import build_model, load_stores
from cxgrad_jax.training.config import ConfigDict, pretrain_config
from cxgrad_jax.training.factories import learner_factory
from cxgrad_jax.training.starting import trained_params
from cxgrad_jax.training.workdir import read_config

STAGE = (
    "--config=pretrain_cifar_fs", "--mode=pretrain", "--config.train.learning_rate=0.01",
    "--config.pretrain.num_classes=6", "--config.pretrain.batch_size=8", "--config.pretrain.drop_at=3",
    "--config.evaluation.ensemble=1",
)  # fmt: skip


def stage(tiny_data, workdir, *more):
    own = [flag for flag in flags(tiny_data, workdir) if not re.match(r"--config\.(learner|parallel)", flag)]
    return [*own, *STAGE, *more]


@pytest.fixture(scope="module")
def pretrained(tiny_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    done = run(*stage(tiny_data, workdir))
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_pretraining_is_judged_by_running_averages(pretrained):
    tested = results(pretrained)
    assert tested["query_statistics"] == "running" and "running" in tested["batch_norm"]
    opened = load_run(pretrained)
    assert opened.params["model"]["head"]["kernel"].shape[-1] == 6
    assert np.any(opened.params["statistics"]["model"]["block_0"]["norm"]["mean"] != 0)


@pytest.mark.slow
def test_a_resumed_pretraining_is_the_same_bit_for_bit(pretrained, tiny_data, tmp_path):
    workdir = tmp_path / "run"
    assert run(*stage(tiny_data, workdir, "--config.train.iterations=3")).returncode == 0
    done = run(*stage(tiny_data, workdir))
    assert done.returncode == 0, done.stderr
    assert outcome(workdir)[0] == outcome(pretrained)[0]


@pytest.mark.slow
def test_a_run_starts_from_it(pretrained, tiny_data, tmp_path):
    given = [*flags(tiny_data, tmp_path / "run", train__iterations=2), f"--config.train.start_from={pretrained}"]
    done = run(*given)
    assert done.returncode == 0, done.stderr
    opened = (load_run(workdir) for workdir in (tmp_path / "run", pretrained))
    ours, theirs = (each.params["model"]["block_0"]["conv"]["kernel"] for each in opened)
    assert 0 < np.max(np.abs(ours - theirs)) <= 2.1e-3, "two steps of Adam at 0.001 from the start"
    digest = results(tmp_path / "run")["params_sha256"]
    assert run(*given).returncode == 0, "resumed"
    shutil.rmtree(tmp_path / "run/checkpoints")
    (tmp_path / "run/checkpoints/1.orbax-checkpoint-tmp-0").mkdir(parents=True)  # a kill in the first save leaves it
    assert run(*given).returncode == 0, "started again"
    assert results(tmp_path / "run")["params_sha256"] == digest


@pytest.mark.slow
def test_a_report_knows_the_parameters_before_training(pretrained, tiny_data, tmp_path):
    given = [*flags(tiny_data, tmp_path / "run", train__iterations=1), f"--config.train.start_from={pretrained}"]
    assert run(*given).returncode == 0
    config = read_config(tmp_path / "run")
    store = load_stores(config, ("test",))["test"]
    opened = open_run(tmp_path / "run", "run", config, store)
    assert opened.iterations == [0, 1]
    first, theirs = opened.restore(0), load_run(pretrained).params
    chex.assert_trees_all_equal(first["model"]["block_3"], theirs["model"]["block_3"])
    untrained = tmp_path / "untrained"
    given = [*flags(tiny_data, untrained, train__iterations=0), f"--config.train.start_from={pretrained}"]
    assert run(*given).returncode == 0
    opened = open_run(untrained, "untrained", read_config(untrained), store)
    assert opened.iterations == [opened.best] == [0]
    chex.assert_trees_all_equal(opened.restore(0), load_run(untrained).params)
    aside = pretrained.rename(pretrained.with_name("aside"))
    try:
        assert open_run(tmp_path / "run", "run", config, store).iterations == [1]
    finally:
        aside.rename(pretrained)


def test_weights_are_a_start_like_the_run_that_they_are_from(pretrained, tiny_data, tmp_path):
    opened = load_run(pretrained)
    config = ConfigDict(opened.config.to_dict())
    learner = learner_factory("classifier_baseline")(build_model(config), query_statistics="running")
    save(tmp_path / "body.safetensors", learner, opened.params)
    assert load(tmp_path / "body.safetensors")[0].spec["model"]["fields"]["num_classes"] == config.episode.way
    config.train.start_from = str(pretrained)
    expected = trained_params(config)
    config.train.start_from = str(tmp_path / "body.safetensors")
    chex.assert_trees_all_equal(trained_params(config), expected)
    config.episode.way = 3  # the head stays fresh
    chex.assert_trees_all_equal(trained_params(config), expected)
    config.model.negative_slope = 0.2
    with pytest.raises(UserError, match=r"weights of another model \(negative_slope: 0.0\d*, not 0.2\)"):
        trained_params(config)
    config.train.start_from = "classifier_baseline_cifar_f"
    with pytest.raises(UserError, match="not a folder; .*did you mean classifier_baseline_cifar_fs"):
        trained_params(config)


def test_a_learner_that_learns_nothing_in_episodes_is_tested_as_it_starts(pretrained, tiny_data, tmp_path):
    tiny = flags(tiny_data, tmp_path / "run")
    own = [flag for flag in tiny if not re.match(r"--config\.(learner|train\.iter)", flag)]
    done = run(
        "--config=baselines/classifier_baseline", *own, "--config.train.iterations=0", "--config.evaluation.ensemble=1",
        "--config.learner.query_statistics=running", f"--config.train.start_from={pretrained}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tested = results(tmp_path / "run")
    assert tested["iterations"] == 0
    assert tested["episode_accuracies"] == results(pretrained)["episode_accuracies"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--config.pretrain.num_classes=5"],
            "pretrain.num_classes is 5, but tiny has 6 training classes; set it to 6",
        ),
        (["--config.pretrain.batch_size=31"], "pretrain.batch_size is 31, but tiny has 30 training images"),
        (["--config.pretrain.augmentation=x"], "pretrain.augmentation is 'x'; expected one of none, crop, crop_"),
        (["--config.learner.query_statistics=query"], "learner.query_statistics is 'query'; expected 'running'"),
        (["--mode=train"], "--config=pretrain_cifar_fs is a pre-training; run it with --mode=pretrain"),
    ],
)
def test_what_cannot_be_pretrained_is_refused_in_one_line(tiny_data, tmp_path, more, message):
    done = run(*stage(tiny_data, tmp_path / "run", *more))
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    (line,) = told(done.stderr)
    assert message in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config.train.start_from=FOLDER/none"], "none is neither a file nor the name of bundled weights"),
        (
            ["--config.train.start_from=FOLDER"],
            "train.start_from is not a run to start from; FOLDER/config.json does not exist",
        ),
        (["--config.train.start_from=RUN", "--config.model.features=5"], "run of another model (features: 4, not 5)"),
        (["--config.train.iterations=0"], "train.iterations is 0; expected at least 1"),
        (["--mode=pretrain", "--config=glyphs_1shot"], "--config=glyphs_1shot is not a pre-training; run it with"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(
    pretrained, tiny_data, tmp_path, more, message
):
    more = [flag.replace("FOLDER", str(tmp_path)).replace("RUN", str(pretrained)) for flag in more]
    done = run(*flags(tiny_data, tmp_path / "run"), *more)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    (line,) = told(done.stderr)
    assert message.replace("FOLDER", str(tmp_path)) in line


def test_the_default_is_90_passes():
    config = pretrain_config()
    assert config.train.iterations * config.pretrain.batch_size / (64 * 600) == 90
