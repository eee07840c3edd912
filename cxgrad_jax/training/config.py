"""The configuration of a run: its defaults, its parts, and what is refused before anything is computed."""

import dataclasses
import difflib
import importlib
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import ml_collections
import optax

from cxgrad_jax import data, learners, models
from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.episodes import Shape
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.training.state import outer_optimiser

if TYPE_CHECKING:  # what a type checker should know of the fields: nothing

    class ConfigDict(ml_collections.ConfigDict):
        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, name: str) -> Any: ...
        def get(self, name: str, default: Any = None) -> Any: ...
else:
    ConfigDict = ml_collections.ConfigDict

MODELS = {"conv4": models.Conv4, "relation_conv4": models.RelationConv4, "resnet12": models.ResNet12}


def base_config() -> ConfigDict:
    """The paper's protocol: CxGrad, Conv-4 with 48 filters, 5-way 1-shot miniImageNet, 50,000 iterations."""
    config = ConfigDict()
    config.seed = 0

    config.learner = learner_config("cxgrad")
    config.model = model_config("conv4")

    config.data = ConfigDict()
    config.data.name = "mini_imagenet"
    config.data.image_size = 84
    config.data.dir = ""  # where data sets are prepared; empty: $CXGRAD_DATA_DIR, else ~/.cache/cxgrad_jax
    config.data.rotated_classes = False  # turned classes as classes of their own in training (Omniglot)
    config.data.storage = "auto"  # training images on the "device" or the "host"; "auto": an accelerator where they fit

    config.episode = ConfigDict()
    config.episode.way = 5
    config.episode.shot = 1
    config.episode.query = 15  # images a class

    config.train = ConfigDict()
    config.train.iterations = 50_000
    config.train.epoch_iterations = 500  # between two validations, each with a checkpoint
    config.train.meta_batch = 4  # tasks an iteration
    config.train.learning_rate = 1e-3  # of Adam
    config.train.decay_every = 0  # iterations after each of which the rate is multiplied by decay_factor; 0: never
    config.train.decay_factor = 0.5
    config.train.gradient_clamp = 0.0  # every entry of the outer gradient is cut to ± this; 0: not
    config.train.task_reduction = "mean"  # "sum" in the paper's text
    config.train.iterations_per_dispatch = 0  # 0: 5 on a CPU, 50 on an accelerator, or the next divisor below
    config.train.keep_every = 0  # iterations between checkpoints kept for analyses over training; 0: only the best
    config.train.tensorboard = False

    config.evaluation = ConfigDict()
    config.evaluation.data = ""  # the data set to test on; empty: the one trained on
    config.evaluation.episodes = 600  # of the test
    config.evaluation.val_episodes = 600
    config.evaluation.ensemble = 5  # best checkpoints whose logits are averaged

    config.parallel = ConfigDict()
    config.parallel.num_devices = 0  # 0: all; on a CPU as many cores as divide the tasks
    config.parallel.tasks_per_chunk = 0  # tasks of a device vectorised at once; 0: 1 on a CPU, all on an accelerator
    return config


def analysis_config() -> ConfigDict:
    """The fields ``analysis.…`` of ``--mode=analyse``, no part of a run's configuration."""
    config = ConfigDict()
    config.dir = ""  # receives the report; empty: "analysis" in the folder of the first run
    config.episodes = 600  # test episodes for feature similarity and conditioning
    config.landscape_episodes = 20  # test episodes for the landscape, at every checkpoint
    config.embedding_episode = 0  # the test episode that t-SNE shows
    config.perplexity = 30.0  # of t-SNE
    config.cross_data = ""  # a second data set for t-SNE, such as "cub"; empty: none
    return config


def glyphs_config() -> ConfigDict:
    """The embedded default: a small CxGrad run on the glyphs that every machine can draw, minutes on a CPU."""
    config = base_config()
    config.model.features = 32
    config.data.name = "glyphs"
    config.data.image_size = 28
    config.train.iterations = 500
    config.train.epoch_iterations = 100
    config.evaluation.val_episodes = 100
    config.evaluation.ensemble = 2  # the earlier checkpoints of so short a run are much worse
    return config


def learner_factory(name: str) -> Callable[..., MetaLearner]:
    """The factory called ``name``: of the module ``cxgrad_jax.learners.NAME``, or ``MODULE.NAME`` of your own.

    Raises:
      UserError: there is none, or its module cannot be imported.
    """
    module, _, function = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module or learners.__name__), function)
    except (ModuleNotFoundError, AttributeError):
        known = ", ".join(learners.NAMES)
        raise UserError(
            f"learner.name is {name!r}; expected one of {known}, or MODULE.FUNCTION that Python finds from here"
        ) from None
    except Exception as error:  # the module is the user's code and may raise anything
        raise UserError(f"learner.name is {name!r}; importing it gave {type(error).__name__}: {error}") from None


def learner_config(name: str, **changes: Any) -> ConfigDict:
    """The hyper-parameters of a learner: the defaults of its factory with ``changes``."""
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(learner_factory(name)).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and not callable(parameter.default)
    }
    return ConfigDict({"name": name, **defaults, **changes})


def model_config(name: str, **changes: Any) -> ConfigDict:
    """The fields of a model: its defaults with ``changes``; ``num_classes`` comes from the episodes' way."""
    if name not in MODELS:
        raise UserError(f"model.name is {name!r}; expected one of {', '.join(MODELS)}")
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(MODELS[name])
        if field.name not in ("num_classes", "parent", "name")
    }
    return ConfigDict({"name": name, **defaults, **changes})


def five_shot(config: ConfigDict) -> ConfigDict:
    """The 5-shot setting of the paper: 5 support images a class and 2 tasks an iteration."""
    config.episode.shot = 5
    config.train.meta_batch = 2
    return config


def apply_preset(config: ConfigDict, preset: str | None) -> ConfigDict:
    """Settles where the paper's text and the official code disagree.

    ``"official"`` (or None) leaves the code's choices, which are the defaults. ``"paper"``: ReLU, the sum over tasks,
    the first context step inside the outer gradient, and pooling in every block of ResNet-12.

    Raises:
      UserError: another preset.
    """
    if one_of(preset or "official", ("official", "paper")) == "paper":
        config.model.negative_slope = 0.0
        config.train.task_reduction = "sum"
        if config.model.name == "resnet12":
            config.model.pooling = "every_block"
        if config.learner.name == "cxgrad":
            config.learner.differentiate_first_context = True
    return config


def is_official(preset: str | None) -> bool:
    """Whether the preset of a baseline is ``"official"``, its method's published settings, and not ``"harness"`` (or
    None), the setting that all learners share.

    Raises:
      UserError: another preset.
    """
    return one_of(preset or "harness", ("harness", "official")) == "official"


def one_of(preset: str, choices: tuple[str, ...]) -> str:
    """``preset``, which must be one of ``choices``.

    Raises:
      UserError: another one.
    """
    if preset not in choices:
        raise UserError(f"preset {preset!r} is unknown; write --config=FILE:PRESET with one of {', '.join(choices)}")
    return preset


def build_model(config: ConfigDict) -> nn.Module:
    """The backbone with a head of ``episode.way`` outputs."""
    fields = config.model.to_dict()
    return MODELS[fields.pop("name")](num_classes=config.episode.way, **fields)


def build_learner(config: ConfigDict) -> MetaLearner:
    """The learner of a configuration."""
    hyper_parameters = config.learner.to_dict()
    return learner_factory(hyper_parameters.pop("name"))(build_model(config), **hyper_parameters)


def build_optimiser(config: ConfigDict) -> optax.GradientTransformation:
    """The outer optimiser of a configuration."""
    train = config.train
    return outer_optimiser(train.learning_rate, train.decay_every, train.decay_factor, train.gradient_clamp)


def episode_shape(config: ConfigDict) -> Shape:
    """Way, shot and query of the episodes."""
    return Shape(config.episode.way, config.episode.shot, config.episode.query)


def load_stores(config: ConfigDict, splits: tuple[str, ...], dataset: str | None = None) -> dict[str, ImageStore]:
    """The image stores of ``splits``, checked against the episodes that they must give.

    Args:
      config: of the run.
      splits: of "train", "val", "test".
      dataset: the data set, ``config.data.name`` if None.

    Raises:
      UserError: a data set that is unknown or not prepared, or too few classes or images.
    """
    stores = {}
    for split in splits:
        store = data.load(
            dataset or config.data.name, split, data_dir=config.data.dir or None, image_size=config.data.image_size
        )
        if split == "train" and config.data.rotated_classes:
            store = data.with_rotations(store)
        check_store(config, store, f"{dataset or config.data.name}, split {split}")
        stores[split] = store
    return stores


def check_store(config: ConfigDict, store: ImageStore, name: str) -> None:
    """Refuses episodes that a store cannot give.

    Raises:
      UserError: way above the number of classes, or shot + query above the images of the smallest class.
    """
    way, shot, query = episode_shape(config)
    if way > store.num_classes:
        raise UserError(f"episode.way is {way}, but {name} has {store.num_classes} classes")
    if shot + query > store.smallest_class:
        raise UserError(
            f"episode.shot + episode.query is {shot} + {query} = {shot + query}, but the smallest class of {name} has "
            f"{store.smallest_class} images"
        )


def check(config: ConfigDict) -> None:
    """Refuses fields, values and combinations that cannot run; needs no data.

    Raises:
      UserError: names the field, its value and what is expected.
    """
    check_fields(config)
    _choice(config, "data.storage", ("auto", "device", "host"))
    _choice(config, "train.task_reduction", ("mean", "sum"))
    _choice(config, "model.norm", ("batch", "layer", "group"))
    _choice(config, "model.precision", ("default", "high", "highest"))
    _choice(config, "model.image_statistics", ("none", "imagenet"))
    if config.model.name == "resnet12":
        _choice(config, "model.pooling", ("alfa", "every_block"))
        if len(config.model.channels) != 4:
            raise UserError(f"model.channels is {tuple(config.model.channels)}; expected 4 numbers, one a block")
    _at_least(config, "episode.way", 2)
    for field in (
        "episode.shot", "episode.query", "train.iterations", "train.epoch_iterations", "train.meta_batch",
        "evaluation.episodes", "evaluation.val_episodes", "evaluation.ensemble",
    ):  # fmt: skip
        _at_least(config, field, 1)
    for field in ("learner.num_steps", "learner.context_dim"):
        if field.removeprefix("learner.") in config.learner:
            _at_least(config, field, 1)
    for field in (
        "train.decay_every", "train.gradient_clamp", "train.keep_every", "train.iterations_per_dispatch",
        "parallel.num_devices", "parallel.tasks_per_chunk",
    ):  # fmt: skip
        _at_least(config, field, 0)
    if config.train.keep_every % config.train.epoch_iterations:
        raise UserError(
            f"train.keep_every is {config.train.keep_every}; expected a multiple of train.epoch_iterations "
            f"({config.train.epoch_iterations}), after which checkpoints are made"
        )
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed is {config.seed}; expected 0 to 4294967295")
    rates = [f"learner.{name}" for name in ("inner_lr", "initial_lr") if name in config.learner]
    for field in ("train.learning_rate", "train.decay_factor", "model.norm_epsilon", *rates):
        if not config_value(config, field) > 0:
            raise UserError(f"{field} is {config_value(config, field)}; expected a positive number")
    for channels in config.model.get("channels") or (config.model.features,):
        groups = 8 if config.model.norm == "group" else 1
        if channels < 1 or channels % groups:
            field = "channels" if "channels" in config.model else "features"
            raise UserError(f"model.{field} has {channels} filters; expected a positive multiple of {groups}")
    poolings = 3 if config.model.name == "resnet12" and config.model.pooling == "alfa" else 4
    if config.data.image_size < 2**poolings:
        raise UserError(
            f"data.image_size is {config.data.image_size}; {poolings} poolings of {config.model.name} need at least "
            f"{2**poolings}"
        )
    try:
        build_learner(config)
    except UserError as error:  # a factory names its hyper-parameter without the section
        section = "learner." if str(error).split()[0] in config.learner else ""
        raise UserError(f"{section}{error}") from None


def num_devices(config: ConfigDict) -> int:
    """Devices that share the tasks of an iteration: as configured, else all.

    The devices of a CPU are its cores (``runtime.use_cores_as_devices``), of which as many as divide
    ``train.meta_batch``.
    """
    if config.parallel.num_devices or jax.process_count() > 1 or jax.default_backend() != "cpu":
        return config.parallel.num_devices or jax.device_count()
    return max(n for n in range(1, jax.device_count() + 1) if config.train.meta_batch % n == 0)


def check_parallel(config: ConfigDict) -> None:
    """Refuses a division of the training over devices, chunks and dispatches that leaves a rest.

    Raises:
      UserError: names the field, its value and what is expected.
    """
    devices = num_devices(config)
    if devices > jax.device_count():
        raise UserError(f"parallel.num_devices is {devices}, but {jax.device_count()} are visible; 0 takes all")
    if jax.process_count() > 1 and devices != jax.device_count():
        raise UserError(f"parallel.num_devices is {devices}; several processes use all of their devices, with 0")
    if config.train.meta_batch % devices:
        raise UserError(
            f"train.meta_batch is {config.train.meta_batch}, not a multiple of the {devices} devices; "
            "set parallel.num_devices to a divisor of it"
        )
    tasks = config.train.meta_batch // devices
    if config.parallel.tasks_per_chunk and tasks % config.parallel.tasks_per_chunk:
        raise UserError(
            f"parallel.tasks_per_chunk is {config.parallel.tasks_per_chunk}; expected a divisor of the {tasks} tasks "
            "of a device"
        )
    per_dispatch = config.train.iterations_per_dispatch
    if per_dispatch and (config.train.epoch_iterations % per_dispatch or config.train.iterations % per_dispatch):
        raise UserError(
            f"train.iterations_per_dispatch is {per_dispatch}; expected a divisor of train.epoch_iterations "
            f"({config.train.epoch_iterations}) and train.iterations ({config.train.iterations})"
        )


def check_fields(config: ConfigDict) -> None:
    """Refuses a configuration whose fields are not those of ``base_config``, with its learner's and model's own.

    Raises:
      UserError: names a field that is missing, unknown or of another type.
    """
    expected = _expected(config)
    given, known = fields(config), fields(expected)
    for field in known:
        if field not in given:
            raise UserError(f"{field} is missing in the configuration; expected {expected_type(known[field])}")
    for field, value in given.items():
        if field not in known:
            section = field.split(".")[0]
            of = f" of {config[section].name}" if section in ("learner", "model") else ""
            close = difflib.get_close_matches(field, known, n=1, cutoff=0.8)
            hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(expected.get(section, expected))}"
            raise UserError(f"{field} is no field{of}; {hint}")
        if not _is_like(value, known[field]):
            raise UserError(f"{field} is {value!r}; expected {expected_type(known[field])}")


def _expected(config: ConfigDict) -> ConfigDict:
    """The defaults of all fields that a configuration with these learner and model has."""
    expected = base_config()
    for section, make in (("learner", learner_config), ("model", model_config)):
        if not isinstance(config.get(section), ConfigDict) or not isinstance(config[section].get("name"), str):
            raise UserError(f"{section} is missing; expected what configuration.{section}_config(NAME) gives")
        expected[section] = make(config[section].name)
    return expected


def fields(config: ConfigDict, section: str = "") -> dict[str, Any]:
    """All values by dotted path, such as ``"episode.way"``."""
    found = {}
    for name, value in config.items():
        found |= fields(value, f"{section}{name}.") if isinstance(value, ConfigDict) else {f"{section}{name}": value}
    return found


def expected_type(value: Any) -> str:
    """In words, the type that a field must have whose default is ``value``."""
    kinds = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
    return kinds.get(type(value), "whole numbers with commas between")


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(type(number) is int for number in value)
    return type(value) is type(default)


def iterations_per_dispatch(config: ConfigDict) -> int:
    """Iterations in one compiled call: as configured, else the largest divisor of an epoch up to the backend's best."""
    if config.train.iterations_per_dispatch:
        return config.train.iterations_per_dispatch
    most = 5 if jax.default_backend() == "cpu" else 50
    common = math.gcd(config.train.epoch_iterations, config.train.iterations)
    return max(n for n in range(1, most + 1) if common % n == 0)


def config_value(config: ConfigDict, path: str) -> Any:
    """The value at a dotted path, such as ``"episode.way"``."""
    for part in path.split("."):
        config = config[part]
    return config


def to_json(config: ConfigDict) -> dict[str, Any]:
    """A configuration as JSON stores it (tuples become lists)."""
    return json.loads(config.to_json())


def of_run(workdir: Path) -> ConfigDict:
    """The configuration of the run in ``workdir``, from its ``config.json``.

    Options younger than the run get their defaults, which are what it did.

    Raises:
      UserError: no run is there, or the file is damaged.
    """
    path = workdir / "config.json"
    try:
        saved = json.loads(path.read_text())
        if "channels" in saved["model"]:
            saved["model"]["channels"] = tuple(saved["model"]["channels"])
        config = ConfigDict(saved)
        for section, defaults in _expected(config).items():
            if isinstance(defaults, ConfigDict):
                config[section] = ConfigDict({**defaults, **config[section]})
        check_fields(config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; --workdir must be the folder of a run") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:  # among them what check_fields raises
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged ({reason}); restore it or train the run again") from None
    return config


def check_same_run(config: ConfigDict, workdir: Path, *may_differ: str) -> None:
    """Refuses a configuration that is not that of the run in ``workdir``.

    Args:
      config: the configuration asked for.
      workdir: of the run.
      may_differ: fields and sections that do not matter. Where the data lie and TensorBoard never do.

    Raises:
      UserError: names the fields that differ.
    """
    ours, theirs = (fields(other) for other in (config, of_run(workdir)))
    may_differ = ("data.dir", "data.storage", "train.tensorboard", *may_differ)
    different = [
        f"{field}: {ours.get(field, 'absent')!r}, not {theirs.get(field, 'absent')!r}"
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field, "absent") != theirs.get(field, "absent") and not field.startswith(may_differ)
    ]
    if different:
        shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if different[5:] else "")
        raise UserError(f"{workdir} holds a run of another configuration ({shown}); choose another --workdir")


def _choice(config: ConfigDict, field: str, choices: tuple[str, ...]) -> None:
    value = config_value(config, field)
    if value not in choices:
        raise UserError(f"{field} is {value!r}; expected one of {', '.join(choices)}")


def _at_least(config: ConfigDict, field: str, minimum: int) -> None:
    value = config_value(config, field)
    if value < minimum:
        raise UserError(f"{field} is {value}; expected at least {minimum}")
