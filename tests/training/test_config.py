"""Every configuration builds, is accepted, and fits its data; flags and files change its fields."""

import ast
import functools
import inspect
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cxgrad_jax import Episode, learners, main, models
from cxgrad_jax.data.datasets.catalogue import CATALOGUE
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import build, factories
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.checks import check, check_parallel
from cxgrad_jax.training.config import base_config
from cxgrad_jax.training.config_files import load_config

CONFIGS = sorted(Path(__file__).parents[2].glob("configs/*.py"))
PRETRAINING = [path for path in CONFIGS if path.name.startswith("pretrain_")]
BASELINES = sorted(Path(__file__).parents[2].glob("configs/baselines/*.py"))
LEARNERS = sorted(learners.NAMES)


@functools.cache
def shapes(sections: str, image_shape: tuple[int, int, int]):
    """Shapes of the meta-parameters and of (loss, metrics), traced but not computed."""
    config = configuration.ConfigDict(ast.literal_eval(sections))
    built, shape = build.build_learner(config), build.episode_shape(config)
    support, query = (jnp.zeros(labels.shape, jnp.int32) for labels in shape.labels())
    images: list[Any] = [jax.ShapeDtypeStruct((len(labels), *image_shape), jnp.uint8) for labels in (support, query)]
    params = jax.eval_shape(built.init, jax.random.key(0), images[0])
    return params, jax.eval_shape(built.loss, params, Episode(images[0], support, images[1], query))


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda path: path.stem)
def test_pretraining_file(path):
    config = load_config(str(path))
    check(config)
    facts = CATALOGUE[config.data.name]
    assert facts.classes and config.pretrain.num_classes == facts.classes[0]
    assert config.data.image_size == facts.image_size
    images = jax.ShapeDtypeStruct((2, config.data.image_size, config.data.image_size, facts.channels), jnp.uint8)
    params = jax.eval_shape(build.build_learner(config).init, jax.random.key(0), images)
    assert params["model"]["head"]["bias"].shape == (config.pretrain.num_classes,) and params["statistics"]
    assert f"--mode=pretrain --config=configs/{path.name}" in path.read_text()


@pytest.mark.slow_except("tiered_1shot")
@pytest.mark.parametrize("path", [path for path in CONFIGS if path not in PRETRAINING], ids=lambda path: path.stem)
def test_file(path):
    for preset in ("", ":paper"):
        config = load_config(f"{path}{preset}")
        check(config)
        config.parallel.num_devices = 1
        check_parallel(config)
        facts = CATALOGUE[config.data.name]
        assert config.data.image_size == facts.image_size or config.evaluation.data
        sections = {name: config[name].to_dict() for name in ("learner", "model", "episode")}
        params, (loss, metrics) = shapes(repr(sections), (config.data.image_size,) * 2 + (facts.channels,))
        assert loss.shape == metrics["accuracy"].shape == ()
        assert params["model"]["head"]["bias"].shape == (config.episode.way,)
    text = path.read_text()
    assert text.startswith('"""') and f"--config=configs/{path.name} --workdir=" in text
    assert ("MAML" in text.splitlines()[0]) == path.stem.startswith("maml_")
    assert config.learner.name == ("maml" if path.stem.startswith("maml_") else "cxgrad")
    for name in re.findall(r"(\w+\.py)", text):
        assert (path.parent / name).is_file()


ABLATIONS = {
    "conditioning": ("implicit", "explicit", "none"),
    "context_lr": ("1.0", "0.1", "0.01"),
    "context_update": ("task", "step"),
    "inner_steps": ("5", "4", "3", "2", "1"),
    "normalisation": ("batch", "layer", "group"),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation(name):
    path = CONFIGS[0].parent / "ablations" / f"{name}.py"
    configs = [load_config(f"{path}:{preset}") for preset in ABLATIONS[name]]
    assert load_config(str(path)) == configs[0], "the first is the default, the paper's own"
    settings = [configuration.fields(config) for config in configs]
    differ = {field for field in set().union(*settings) if len({each.get(field) for each in settings}) > 1}
    assert differ and all(field.startswith("model." if name == "normalisation" else "learner.") for field in differ)
    assert len({repr((config.learner, config.model)) for config in configs}) == len(configs)
    base = base_config() if configs[0].episode.shot == 1 else configuration.five_shot(base_config())
    assert configs[0] == base
    for config in configs:
        check(config)
    with pytest.raises(UserError, match="preset 'foo' is unknown; write --config=FILE:PRESET with one of"):
        load_config(f"{path}:foo")
    assert f"--config=configs/ablations/{name}.py:" in path.read_text()


def test_every_ablation_is_tested():
    assert {path.stem for path in (CONFIGS[0].parent / "ablations").glob("*.py")} == set(ABLATIONS)


def test_presets_settle_where_text_and_code_disagree():
    def settled(config):
        learner, model = config.learner, config.model
        return (
            model.negative_slope,
            config.train.task_reduction,
            learner.differentiate_first_context,
            model.get("pooling"),
        )

    path = CONFIGS[0].with_name("mini_1shot_resnet12.py")
    assert settled(load_config(str(path))) == (0.0, "mean", False, "alfa")
    assert settled(load_config(f"{path}:paper")) == (0.0, "sum", True, "every_block")
    conv4 = CONFIGS[0].with_name("mini_1shot.py")
    assert settled(load_config(str(conv4))) == (0.01, "mean", False, None)
    assert settled(load_config(f"{conv4}:paper")) == (0.0, "sum", True, None)


@pytest.mark.parametrize("name", LEARNERS)
def test_learner_config_follows_the_factory(name):
    factory = inspect.signature(getattr(learners, name)).parameters
    fields = configuration.learner_config(name).to_dict()
    assert fields.pop("name") == name
    assert fields == {field: factory[field].default for field in set(factory) - {"model", "param_labels"}}
    assert configuration.learner_config("maml", num_steps=3).num_steps == 3


def test_the_presets_of_the_authors_test_by_running_averages_where_their_codes_do():
    by = {path.stem: load_config(f"{path}:authors").learner.get("query_statistics") for path in BASELINES}
    assert {name for name, statistics in by.items() if statistics == "running"} == {
        "proto_net", "matching_net", "r2d2", "meta_baseline", "metaoptnet", "rfs", "baseline_plus_plus",
        "classifier_baseline",
    }  # fmt: skip


def test_a_flag_that_names_ones_own_brings_its_fields(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(
        "import flax.linen as nn\nfrom cxgrad_jax.learners import maml\n"
        "def mine(model, *, inner_lr=0.5):\n    return maml(model, inner_lr=inner_lr)\n"
        "class Small(nn.Module):\n    num_classes: int = 5\n    width: int = 16\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = ["--config.learner.name=own_parts.mine", "--config.model.name=own_parts.Small"]
    config, _ = main.parse([*names, "--config.model.width=8", "--config.learner.inner_lr=0.1"])
    assert config.model.to_dict() == {"name": "own_parts.Small", "width": 8}
    assert config.learner.to_dict() == {"name": "own_parts.mine", "inner_lr": 0.1}
    with pytest.raises(UserError, match=r"--config.model.features is unknown"):
        main.parse([*names, "--config.model.features=8"])


def test_every_learner_has_a_configuration():
    assert [path.stem for path in BASELINES] == LEARNERS


@pytest.mark.slow_except("cxgrad", "maml", "proto_net")
@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_baseline(path):
    text = " ".join(path.read_text().split())
    assert f"--config=configs/baselines/{path.name} --workdir=runs/{path.stem}" in text
    assert load_config(str(path)) == load_config(f"{path}:shared")
    with pytest.raises(
        UserError, match="preset 'paper' is unknown; write --config=FILE:PRESET with one of shared, authors"
    ):
        load_config(f"{path}:paper")
    for preset in ("shared", "authors"):
        config = load_config(f"{path}:{preset}")
        assert config.learner.name == path.stem
        check(config)
        config.parallel.num_devices = 1
        check_parallel(config)
        sections = {name: config[name].to_dict() for name in ("learner", "model", "episode")}
        _, (loss, metrics) = shapes(repr(sections), (84, 84, 3))
        assert loss.shape == metrics["accuracy"].shape == ()
    shared, base = load_config(str(path)), base_config()
    for section in ("model", "data", "episode", "train", "evaluation", "parallel"):
        assert shared[section] == base[section], "it is one setting for all"


@pytest.mark.parametrize("name", factories.MODELS)
def test_model_config_builds_the_module(name):
    config = base_config()
    config.model = configuration.model_config(name, norm="layer")
    assert build.build_model(config) == factories.MODELS[name](num_classes=5, norm="layer")
    assert isinstance(build.build_model(config), (models.Conv4, models.R2D2Conv4, models.ResNet12))


def test_json_and_back(tmp_path):
    for path in CONFIGS:
        config = load_config(str(path))
        (tmp_path / "config.json").write_text(
            json.dumps({"format": workdir_of.FORMAT, **configuration.to_json(config)})
        )
        assert workdir_of.read_config(tmp_path) == config
        workdir_of.check_same_run(config, tmp_path, advice="")


def test_base_is_the_published_protocol():
    config = base_config()
    assert (config.train.iterations, config.train.epoch_iterations, config.train.meta_batch) == (50_000, 500, 4)
    assert (config.evaluation.episodes, config.evaluation.val_episodes, config.evaluation.ensemble) == (600, 600, 5)
    assert configuration.five_shot(config).episode.shot == 5 and config.train.meta_batch == 2
