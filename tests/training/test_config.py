"""Every configuration builds, is accepted, fits its data; what cannot run is refused in one line."""

import ast
import functools
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cxgrad_jax import Episode, learners, main, models
from cxgrad_jax.data.datasets.catalogue import CATALOGUE
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import write_json
from cxgrad_jax.training import build, checks, factories
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.checks import check, check_parallel
from cxgrad_jax.training.config import base_config, glyphs_config, learner_config, pretrain_glyphs_config, to_json
from cxgrad_jax.training.config_files import load_config
from cxgrad_jax.training.workdir import FORMAT, read_config

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


def test_a_learner_of_ones_own_needs_no_entry_anywhere(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("from cxgrad_jax.learners import maml\ndef mine(model, *, inner_lr=0.5):\n"
                                     "    return maml(model, inner_lr=inner_lr)\n")  # fmt: skip
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    config = base_config()
    config.learner = configuration.learner_config("own.mine", inner_lr=0.1)
    check(config)
    assert build.build_learner(config) and config.learner.to_dict() == {"name": "own.mine", "inner_lr": 0.1}
    for name, words in {
        "own.other": "own has no other",
        "nowhere.f": "no module nowhere",
        "broken.f": "ZeroDiv",
    }.items():
        with pytest.raises(UserError, match=f"^learner.name is '{name}'; .*{words}") as error:
            configuration.learner_config(name)
        assert "\n" not in str(error.value)


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


@pytest.mark.parametrize("iterations, epoch, most", [(50_000, 500, 5), (500, 100, 5), (8, 2, 2), (7, 7, 1), (12, 9, 3)])
def test_iterations_per_dispatch_divides_epoch_and_run(iterations, epoch, most):
    config = base_config()
    config.train.iterations, config.train.epoch_iterations = iterations, epoch
    assert jax.default_backend() != "cpu" or build.iterations_per_dispatch(config) == most
    config.train.iterations_per_dispatch = 1
    assert build.iterations_per_dispatch(config) == 1


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("episode.way", 1, "at least 2"),
        ("episode.shot", 0, "at least 1"),
        ("episode.query", -1, "at least 1"),
        ("train.iterations", 0, "at least 1"),
        ("train.meta_batch", 0, "at least 1"),
        ("evaluation.ensemble", 0, "at least 1"),
        ("parallel.tasks_per_chunk", -1, "at least 0"),
        ("seed", -1, "0 to 4294967295"),
        ("seed", 2**32, "0 to 4294967295"),
        ("train.learning_rate", 0.0, "a positive number"),
        ("train.learning_rate", 1e39, "a number that float32 can hold"),
        ("learner.context_lr", 1e-50, "a number that float32 can hold"),
        ("train.learning_rate", float("inf"), "a finite number"),
        ("learner.inner_lr", -0.1, "a positive number"),
        ("learner.context_lr", float("nan"), "a finite number"),
        ("learner.context_dim", 0, "at least 1"),
        ("learner.num_steps", 0, "at least 1"),
        ("learner.context_update", "epoch", "'task' or 'step'"),
        ("model.norm", "instance", "one of batch, layer, group"),
        ("model.norm_epsilon", -1.0, "at least 0"),
        ("model.precision", "low", "one of default, high, highest"),
        ("model.features", 0, "at least 1"),
        ("data.storage", "gpu", "one of auto, device, host"),
        ("data.image_size", 0, "at least 1"),
        ("train.task_reduction", "max", "one of mean, sum"),
    ],
)
def test_bad_values(field, value, words):
    config = base_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"^{field}( is| has) .*; .*{words}") as error:
        check(config)
    assert "\n" not in str(error.value) and str(value) in str(error.value)


def test_bad_combinations():
    config = base_config()
    config.model = configuration.model_config("conv4", norm="group", features=12)
    with pytest.raises(UserError, match="model.features is 12; expected whole numbers that are multiples of 8"):
        check(config)
    config.model = configuration.model_config("resnet12", channels=(8, 8))
    with pytest.raises(UserError, match=r"model.channels is \(8, 8\); expected 4 numbers of filters"):
        check(config)
    config.model = configuration.model_config("resnet12")
    config.data.image_size = 8  # enough for three poolings, not for four
    check(config)
    config.model.pooling = "every_block"
    with pytest.raises(UserError, match=r"data.image_size is 8: .*H and W at least 16"):
        check(config)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda c: c.train.__setattr__("iteration", 5),
            "train.iteration is not a field; did you mean train.iterations?",
        ),
        (lambda c: c.__delattr__("seed"), "seed is missing"),
        (lambda c: c.__delattr__("model"), "model is missing; expected what training.config.model_config"),
        (lambda c: c.__setattr__("learner", configuration.ConfigDict({"name": "sgd"})), "learner.name is 'sgd'"),
        (lambda c: c.learner.__setattr__("name", "maml"), "learner.context_dim is not a field of maml; expected"),
        (lambda c: c.__setattr__("episode", configuration.ConfigDict({"way": "5", "shot": 1, "query": 1})), "'5'"),
        (lambda c: c.__setattr__("episode", configuration.ConfigDict({"way": True, "shot": 1, "query": 1})), "True"),
    ],
)
def test_bad_fields(change, words):
    config = base_config()
    change(config)
    with pytest.raises(UserError, match=re.escape(words)):
        check(config)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"parallel.num_devices": 99}, "parallel.num_devices is 99, but 4 are visible"),
        ({"train.meta_batch": 2, "parallel.num_devices": 4}, "train.meta_batch is 2, not a multiple of the 4 devices"),
        ({"train.meta_batch": 8, "parallel.tasks_per_chunk": 4}, "expected a divisor of the 2 tasks of a device"),
    ],
)
def test_bad_divisions(changes, words):
    config = base_config()
    config.update_from_flattened_dict(changes)
    check(config)
    with pytest.raises(UserError, match=re.escape(words)):
        check_parallel(config)


def test_a_pretraining_has_one_task():
    config = pretrain_glyphs_config()
    config.train.meta_batch = config.parallel.tasks_per_chunk = 2
    with pytest.raises(UserError, match="parallel.tasks_per_chunk is 2; expected a divisor of the 1 tasks of a device"):
        check_parallel(config)


def test_a_dry_run_for_absent_devices_divides_the_tasks_among_those():
    config = base_config()
    config.parallel.num_devices = 99  # of devices that are here, no matter
    check_parallel(config, absent_devices=2)
    words = "train.meta_batch is 4, not a multiple of the 3 devices; name a device with a divisor of it"
    with pytest.raises(UserError, match=re.escape(words)):
        check_parallel(config, absent_devices=3)
    config.parallel.tasks_per_chunk = 4
    with pytest.raises(UserError, match="expected a divisor of the 2 tasks of a device"):
        check_parallel(config, absent_devices=2)


@pytest.mark.parametrize(("tasks", "asked", "devices"), [(4, 0, 4), (2, 0, 2), (3, 0, 3), (5, 0, 1), (4, 1, 1)])
def test_as_many_of_four_cores_as_divide_the_tasks(tasks, asked, devices):
    config = configuration.base_config()
    config.train.meta_batch, config.parallel.num_devices = tasks, asked
    assert build.num_devices(config) == devices
    checks.check_parallel(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("evaluation.episodes", 2**31), ("evaluation.val_episodes", 10**30), ("data.image_size", 2**63),
        ("episode.way", 2**31), ("learner.num_steps", 2**31), ("model.features", 10**30), ("train.decay_every", 10**30),
    ],
)  # fmt: skip
def test_numbers_that_int32_cannot_count_are_refused(field, value):
    config = base_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"{field} is {value}; expected at most 2147483647"):
        checks.check(config)


def test_more_training_episodes_than_int32_counts_are_refused():
    config = base_config()
    config.train.iterations = 2**31 // 4
    with pytest.raises(UserError, match=r"train.iterations is 536870912 of 4 tasks each; expected at most 2147483647"):
        checks.check(config)
    config.train.iterations -= 1
    checks.check(config)


OWN = """
import cxgrad_jax as cx
constant = 3
def listy(model, *, sizes=[1, 2]): return cx.learners.maml(model, num_steps=len(sizes))
def needy(model, *, needed): return cx.learners.maml(model)
def lonely(*, steps=1): return 3
def three(model): return 3
def raising(model): return None + 1
"""


def test_a_list_as_default_of_a_learner_of_the_users_own_is_a_tuple(tmp_path, monkeypatch):
    (tmp_path / "own_lists.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = glyphs_config()
    config.learner = learner_config("own_lists.listy")
    check(config)
    write_json(tmp_path / "config.json", {"format": FORMAT, **to_json(config)})
    found = read_config(tmp_path, named=("own_lists.listy",))
    assert found.learner.sizes == config.learner.sizes == (1, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_learners.needy", "is .*; expected a function .*: missing a required .*argument: 'needed'"),
        ("own_learners.lonely", "is .*; expected a function .*: too many positional arguments"),
        ("own_learners.constant", "is .*; expected a function .*: 3 is not a callable object"),
        ("builtins.dict", "is .*; expected a function .*: no signature found"),
        ("json.decoder", "is .*; expected a function .* is not a callable object"),
        ("math.sqrt", "is .*; it cannot be made of a model and its hyper-parameters: must be real number, not Conv4"),
        ("own_learners.raising", "is .*; it cannot be made of a model and its hyper-parameters: unsupported operand"),
        (".", "is '.'; expected MODULE.NAME that Python finds from here"),
        ("own_learners.three", ""),
    ],
)
def test_what_makes_no_learner_is_told(name, words, tmp_path, monkeypatch):
    (tmp_path / "own_learners.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_learners", raising=False)
    config = glyphs_config()
    message = f"^learner.name {words}" if words else "what own_learners.three returns is 3; expected a cx.MetaLearner$"
    with pytest.raises(UserError, match=message) as error:
        config.learner = learner_config(name)
        check(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import no_such_package", "importing own_learner gave ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "importing own_learner gave ZeroDivisionError: division by zero"),
        ("", "own_learner has no f"),
        (None, "Python finds no module own_learner from here"),
    ],
)
def test_an_error_inside_a_learner_of_the_users_own_is_told(content, words, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_learner", raising=False)
    if content is not None:
        (tmp_path / "own_learner.py").write_text(content)
    with pytest.raises(UserError, match=f"^learner.name is 'own_learner.f'; {words}$"):
        factories.learner_factory("own_learner.f")
